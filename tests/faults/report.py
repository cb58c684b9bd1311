"""What a fault test measured, as a line for `docs/reliability.md` when RELIABILITY_REPORT names a file.

`scripts/reliability` runs the tests with it and writes the page.
"""

import os
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


INTRODUCTION = """# Reliability: what was measured

Written by `scripts/reliability`, which runs `tests/faults` and `tests/storage/test_backup.py`; do not edit.
A number in the first column is that of the test in the fault plan. A *control* is the same test over something that is
broken on purpose, and has to find it.

| test | what | figures |
|---|---|---|
"""


def page(lines: bytes) -> str:
    """The document, of the lines of one run."""
    rows = [msgspec.json.decode(line, type=dict[str, str]) for line in lines.splitlines()]
    rows.sort(key=lambda row: int(row["test"].removeprefix("R")))
    return INTRODUCTION + "".join(f"| {row['test']} | {row['claim']} | {row['figures']} |\n" for row in rows)


if __name__ == "__main__":
    Path("docs/reliability.md").write_text(page(Path(os.environ[VARIABLE]).read_bytes()), "utf-8")
