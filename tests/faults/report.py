"""What a fault test measured, as a line for `docs/reliability.md` when RELIABILITY_REPORT names a file.

`scripts/reliability` runs the tests with it and writes the page.
"""

import os
import re
import sys
from pathlib import Path

import msgspec

VARIABLE = "RELIABILITY_REPORT"


def report(test: str, claim: str, figures: str, *, seed: int | None = None) -> None:
    """Print the line, and add it to the report. `test` is its number in the fault plan, such as R11."""
    told = figures if seed is None else f"{figures} (seed {seed})"
    print(f"{test}: {claim}: {told}")
    if name := os.environ.get(VARIABLE):
        line = msgspec.json.encode({"test": test, "claim": claim, "figures": told})
        with Path(name).open("ab") as file:
            file.write(line + b"\n")


PAGE = Path("docs/reliability.md")
HEAD = "| test | what | figures | when |\n|---|---|---|---|\n"  # of the table of figures; what is above it stays
_ROW = re.compile(r"\| (R\d+) \| (.+?) \| (.+) \| (.+?) \|")


def page(before: str, lines: bytes, when: str) -> str:
    """The document as it was, with the lines of one run in it."""
    above, _, measured = before.partition(HEAD)
    rows = {(test, claim): (figures, at) for test, claim, figures, at in _ROW.findall(measured)}
    for line in lines.splitlines():
        row = msgspec.json.decode(line, type=dict[str, str])
        rows[row["test"], row["claim"]] = (row["figures"], when)
    ordered = sorted(rows.items(), key=lambda row: int(row[0][0].removeprefix("R")))
    return above + HEAD + "".join(f"| {' | '.join(what)} | {' | '.join(told)} |\n" for what, told in ordered)


if __name__ == "__main__":
    lines_of_run = Path(os.environ[VARIABLE]).read_bytes()
    PAGE.write_text(page(PAGE.read_text("utf-8"), lines_of_run, " ".join(sys.argv[1:])), "utf-8")
