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
