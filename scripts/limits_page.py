"""Writes docs/limits.md from the table of limits in a2a_server/limit_table.py."""

import sys
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from a2a_server.config import Config  # noqa: E402
from a2a_server.limit_table import LIMITS, Limit  # noqa: E402

DOCUMENT = ROOT / "docs" / "limits.md"

HEAD = """# Limits

Every place where a caller, a fetched answer or a remote server decides how much work, memory, time or descriptors
the server spends has a limit. `scripts/limits_page.py` makes this page from the table in
`a2a_server/limit_table.py`. `system.limits` returns the values in force, by the names in the second column. A name in
**bold** is a setting, the others are fixed. Unidentified callers count as one caller. A code is the JSON-RPC error
code, followed by the HTTP status; of these, JSON-RPC uses only 408, 413, 429 and 503, and 200 in place of the others.
Each row names the test that goes beyond the limit.
"""
COLUMNS = ("| what | name | limit | beyond it | test |", "|---|---|---|---|---|")
BIG = 1024


def document() -> str:
    """The page."""
    lines = [HEAD]
    for group, limits in groupby(LIMITS, key=attrgetter("group")):
        lines += [
            f"## {group[0].upper()}{group[1:]}",
            "",
            "| what | name | limit | beyond it | test |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {each.what} | {_name(each)} | {_bound(each)} | {each.beyond} | {_test(each)} |" for each in limits
        ]
        lines.append("")
    return "\n".join(lines)


def _name(limit: Limit) -> str:
    return f"**`{limit.name}`**" if limit.is_setting else f"`{limit.name}`"


def _bound(limit: Limit) -> str:
    config = Config()
    amount = limit.value(config, config.caller_limits(is_identified=True))
    return limit.usual or ("none" if amount is None else _amount(amount, limit.unit))


def _amount(amount: Any, unit: str) -> str:
    if unit == "bytes":
        for power, prefix in ((2, "MiB"), (1, "KiB")):
            if amount >= BIG**power and amount % BIG**power == 0:
                return f"{amount // BIG**power} {prefix}"
    for size, name in ((86_400, "days"), (3_600, "hours")):
        if unit == "seconds" and amount >= size and amount % size == 0:
            return _counted(amount / size, name)
    return _counted(amount, unit)


def _counted(amount: float, unit: str) -> str:
    return f"{amount:,.10g} {unit.removesuffix('s') if amount == 1 else unit}".rstrip()


def _test(limit: Limit) -> str:
    file, _, name = limit.test.partition("::")
    return f"[{name.removeprefix('test_').replace('_', ' ')}](../tests/{file})"


def main() -> int:
    """Write the page; with `--check` say whether it is current."""
    if "--check" in sys.argv[1:]:
        if DOCUMENT.exists() and DOCUMENT.read_text("utf-8") == document():
            return 0
        print(f"{DOCUMENT} is not what a2a_server/limit_table.py says: run scripts/limits_page.py", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
