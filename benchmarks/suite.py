"""Every bar in one run, or with --quick those that take no minutes. Ends with 1 if one is missed."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import footprint, messages, report, streams, trees
from benchmarks.processes import LOAD_CORE, ROOT, SERVER_CORE
from benchmarks.rows import FULL, QUICK, Effort, Row

PARTS: dict[str, Callable[[Effort], list[Row]]] = {
    "messages": messages.measure,
    "streams": streams.measure,
    "footprint": footprint.measure,
    "trees": trees.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each, no trees of 100,000, no crowds")
    parser.add_argument("--part", choices=PARTS, action="append", help="only that; no page is written. Repeatable.")
    parser.add_argument("--output", type=Path, default=ROOT / "docs/performance.md", help="the page")
    given = parser.parse_args()
    effort = QUICK if given.quick else FULL
    usable = sorted(os.sched_getaffinity(0))
    begin = time.monotonic()
    rows: list[Row] = []
    for name in given.part or PARTS:
        # Servers are pinned as they start. A tree runs in processes of its own, which stay where they are put.
        os.sched_setaffinity(0, {SERVER_CORE if name == "trees" else LOAD_CORE})
        for row in PARTS[name](effort):
            print(f"{row.bar}\n    {row.measured}; {row.beside}: {row.verdict}", flush=True)
            rows.append(row)
    if not given.part:
        report.write(given.output, rows, effort, len(usable), time.monotonic() - begin)
    sys.exit(any(row.holds is False for row in rows))


if __name__ == "__main__":
    main()
