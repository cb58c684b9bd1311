"""How fast trees of no-op tasks run, durably, beside the floor that SQLite itself sets on this machine.

Everything is pinned to one core. Each size is run on a fresh database in a temporary folder with synchronous=FULL; the
floor writes rows of the same number and size with sqlite3 alone, 100 tasks a commit. Ratios count, not the seconds.
"""

import argparse
import asyncio
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from typing import Any

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.session import Session, has_ended
from core.storage.sql import SqlStorage
from core.task import TaskStatus

BATCH = 100  # tasks in one commit of the floor


class NoOp:
    """Returns at once."""

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return None


def items(shape: str, n: int) -> list[dict[str, Any]]:
    """A group of n no-op tasks: a fan, or a chain."""
    tasks = [{"id": f"t{i}", "name": "noop", "parent_id": "root"} for i in range(n)]
    if shape == "chain":
        for i in range(1, n):
            tasks[i] |= {"dependencies": [f"t{i - 1}"]}
    return [{"id": "root", "name": "root"}, *tasks]


async def run_tree(shape: str, n: int, folder: str) -> float:
    """Seconds from the submission to the durable end of the run."""
    registry = ExecutorRegistry()
    registry.register(ExecutorSpec(id="noop", make=NoOp))
    async with Session(SqlStorage(f"sqlite:///{folder}/{shape}{n}.db"), registry=registry) as session:
        given = items(shape, n)
        begin = time.perf_counter()
        head = await session.create(session.plan(given), execute=True)
        head = await session.wait(head.id, has_ended)
        seconds = time.perf_counter() - begin
        if head.status is not TaskStatus.COMPLETED:
            raise SystemExit(f"the {shape} of {n} ended {head.status}")
        return seconds


def run_floor(n: int, folder: str) -> float:
    """Seconds for the same rows with sqlite3 alone: each task inserted, updated twice, with two events."""
    path = f"{folder}/floor{n}.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE task (id TEXT PRIMARY KEY, tree TEXT, status TEXT, spec BLOB, state BLOB)")
    connection.execute(
        "CREATE TABLE event (tree TEXT, seq INTEGER, kind TEXT, task TEXT, at REAL, body BLOB, PRIMARY KEY (tree, seq))"
        " WITHOUT ROWID"
    )
    tree, body = "01a2058d-b10a-790d-a2f5-44fc767dd8d2", b"x" * 180
    ids = [f"01a2058d-b10a-790d-a2f5-{i:012x}" for i in range(n)]
    begin = time.perf_counter()
    for start in range(0, n, BATCH):
        part = ids[start : start + BATCH]
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO task VALUES (?,?,?,?,?)", [(i, tree, "pending", body, b"") for i in part])
        connection.execute("COMMIT")
    for start in range(0, n, BATCH):
        part = ids[start : start + BATCH]
        for step, status in enumerate(("in_progress", "completed")):
            rows = [(tree, 2 * (start + k) + step, status, i, 1.0, body) for k, i in enumerate(part)]
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO event VALUES (?,?,?,?,?,?)", rows)
            connection.executemany("UPDATE task SET status=?, state=? WHERE id=?", [(status, body, i) for i in part])
            connection.execute("COMMIT")
    seconds = time.perf_counter() - begin
    connection.close()
    return seconds


def measure(shape: str, n: int, rounds: int) -> tuple[float, float]:
    """Median seconds of the tree and of the floor, run in turn."""
    trees, floors = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            floors.append(run_floor(n, folder))
            trees.append(asyncio.run(run_tree(shape, n, folder)))
    return statistics.median(trees), statistics.median(floors)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the trees of 100,000")
    parser.add_argument("--rounds", type=int, default=3, help="of each size; the median counts")
    arguments = parser.parse_args()
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, one core, FULL")
    print(f"{'shape':<6} {'n':>7} {'tasks/s':>9} {'us/task':>8} {'floor tasks/s':>14} {'of floor':>9}")
    sizes = [100, 1_000, 10_000] + ([] if arguments.quick else [100_000])
    cost: dict[tuple[str, int], float] = {}
    for shape in ("fan", "chain"):
        for n in sizes:
            seconds, floor = measure(shape, n, 1 if n > 10_000 else arguments.rounds)
            cost[shape, n] = seconds / n
            rate, ratio = n / seconds, floor / seconds
            print(f"{shape:<6} {n:>7} {rate:>9.0f} {1e6 / rate:>8.0f} {n / floor:>14.0f} {ratio:>9.1%}", flush=True)
    for shape in ("fan", "chain"):
        largest = sizes[-1]
        growth = cost[shape, largest] / cost[shape, 1_000]
        print(f"{shape}: the cost of a task at {largest:,} is {growth:.2f} times that at 1,000")


if __name__ == "__main__":
    main()
