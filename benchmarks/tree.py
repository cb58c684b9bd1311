"""How fast trees of no-op tasks run, durably, beside the floor that SQLite itself sets on this machine.

Everything is pinned to one core; each run has a process and a fresh database of its own, with synchronous=FULL. A tree
runs through the guide's `TaskManager`, whose tasks are stored beforehand, or is created and run through `Session`. The
tasks of a `chain` may have effects, so each waits until its start is stored; those of a `pure chain` declare that they
have none. The floor writes the very rows that the tree left behind, into the same tables with the same indexes, with
sqlite3 alone: each task inserted and then changed twice, with its event and the tree's head; 100 tasks a commit, but in
a `chain` one. Ratios count, not the seconds.
"""

import argparse
import asyncio
import multiprocessing
import os
import platform
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import default_registry
from core.manager import TaskManager, TaskTreeNode, create_session
from core.model.task import TaskStatus
from core.session import Session, has_ended
from core.storage import codec
from core.storage.queries import TASK_COLUMNS
from core.storage.sqlite.migrate import migrate

BATCH = 100  # tasks in one commit of the floor
SHAPES = ("fan", "pure chain", "chain")


class NoOp:
    """Returns at once."""

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return None


def needed(shape: str, i: int) -> list[str]:
    """What the i-th task waits for."""
    return [f"t{i - 1}"] if shape != "fan" and i else []


def executor_of(shape: str) -> str:
    return "pure" if shape == "pure chain" else "noop"


async def run_session(session: Session, shape: str, n: int) -> float:
    """Seconds from an array of tasks to the durable end of its run."""
    name = executor_of(shape)
    tasks: list[dict[str, Any]] = [
        {"id": f"t{i}", "name": name, "parent_id": "root", "dependencies": needed(shape, i)} for i in range(n)
    ]
    begin = time.perf_counter()
    head = (await session.create(session.plan([{"id": "root", "name": "root"}, *tasks]), execute=True)).head
    head = await session.wait(head.id, has_ended)
    seconds = time.perf_counter() - begin
    if head.status is not TaskStatus.COMPLETED:
        raise SystemExit(f"the {shape} of {n} ended {head.status}")
    return seconds


async def run_manager(session: Session, shape: str, n: int) -> float:
    """Seconds that `distribute_task_tree` takes, from the tasks in storage to the tree that it returns."""
    manager = TaskManager(session)
    make = manager.task_repository.create_task
    root = TaskTreeNode(await make("root"))
    for start in range(0, n, 1_000):
        part = range(start, min(start + 1_000, n))
        made = [make(executor_of(shape), id=f"t{i}", dependencies=needed(shape, i)) for i in part]
        for task in await asyncio.gather(*made):
            root.add_child(TaskTreeNode(task))
    begin = time.perf_counter()
    await manager.distribute_task_tree(root)
    seconds = time.perf_counter() - begin
    if (status := root.calculate_status()) is not TaskStatus.COMPLETED:
        raise SystemExit(f"the {shape} of {n} ended {status}")
    return seconds


APIS = {"manager": run_manager, "session": run_session}


def run_tree(api: str, shape: str, n: int, path: Path) -> tuple[float, float]:
    """Seconds of a tree's run, and the MB of memory that the process had at most."""

    async def run() -> float:
        default_registry.register(ExecutorSpec(id="noop", make=NoOp))
        default_registry.register(ExecutorSpec(id="pure", make=NoOp, has_effects=False))
        session = create_session(f"sqlite:///{path}")
        await session.ensure_started()
        try:
            return await APIS[api](session, shape, n)
        finally:
            await session.close()

    seconds = asyncio.run(run())
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_floor(path: Path, batch: int) -> float:
    """Seconds for the rows of that database with sqlite3 alone, so many tasks started or ended in a commit."""
    source = sqlite3.connect(path)
    (head,) = source.execute("SELECT * FROM trees")
    new, started, ended = [], [], []
    for row in source.execute(f"SELECT {', '.join(c.name for c in TASK_COLUMNS)} FROM tasks ORDER BY position"):
        task = codec.read_task(row)
        if task.is_group:
            continue
        ended.append(codec.task_state_row(task))
        running = {"status": TaskStatus.IN_PROGRESS, "is_running": True, "progress": 0.0, "finished_at": None}
        started.append(codec.task_state_row(replace(task, **running)))
        new.append(codec.task_row(replace(task, status=TaskStatus.PENDING, attempt=0, progress=0.0, started_at=None)))
    log = {kind: source.execute("SELECT * FROM events WHERE kind = ?", (kind,)).fetchall() for kind in
           ("task_started", "task_completed")}  # fmt: skip
    source.close()

    copy = path.with_name("floor.db")
    migrate(copy)
    connection = sqlite3.connect(copy, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    insert_task = f"INSERT INTO tasks VALUES ({', '.join('?' * len(new[0]))})"
    insert_event = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)"
    change_task = "UPDATE tasks SET status = ?2, state = ?3, state_crc = ?4 WHERE id = ?1"
    change_head = "UPDATE trees SET version = version + 1, body = ?2, body_crc = ?3 WHERE id = ?1"

    def insert(part: slice) -> None:
        connection.executemany(insert_task, new[part])

    def start(part: slice) -> None:
        connection.executemany(change_task, started[part])
        connection.executemany(insert_event, log["task_started"][part])

    def end(part: slice) -> None:
        connection.executemany(change_task, ended[part])
        connection.executemany(insert_event, log["task_completed"][part])

    def end_and_start_next(part: slice) -> None:
        end(part)
        start(slice(part.stop, part.stop + 1))

    steps: list[tuple[Callable[[slice], None], int]] = [(insert, BATCH)]
    steps += [(start, batch), (end, batch)] if batch > 1 else [(end_and_start_next, 1)]
    connection.execute(f"INSERT INTO trees VALUES ({', '.join('?' * len(head))})", head)
    begin = time.perf_counter()
    for step, size in steps:
        for at in range(0, len(new), size):
            connection.execute("BEGIN IMMEDIATE")
            step(slice(at, at + size))
            connection.execute(change_head, (head[0], head[10], head[11]))
            connection.execute("COMMIT")
    seconds = time.perf_counter() - begin
    connection.close()
    return seconds


def apart(work: Callable[..., Any], *arguments: Any) -> Any:
    """What the function returns in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def measure(api: str, shape: str, n: int, rounds: int) -> tuple[float, float, float]:
    """Median seconds of the tree and of the floor, run in turn, and the tree's MB of memory."""
    trees, floors, memory = [], [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tree.db"
            seconds, peak = apart(run_tree, api, shape, n, path)
            trees.append(seconds)
            memory.append(peak)
            floors.append(apart(run_floor, path, 1 if shape == "chain" else BATCH))
    return statistics.median(trees), statistics.median(floors), max(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the trees of 100,000")
    parser.add_argument("--rounds", type=int, default=3, help="of each size; the median counts")
    parser.add_argument("--api", choices=APIS, help="that one only")
    parser.add_argument("--shape", choices=SHAPES, help="that one only")
    parser.add_argument("--size", type=int, help="trees of that many tasks only")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(f"Python {sys.version.split()[0]}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, one core, FULL")
    columns = f"{'n':>7} {'tasks/s':>9} {'us/task':>8} {'floor tasks/s':>14} {'of floor':>9} {'MB':>5}"
    print(f"{'api':<8} {'shape':<10} {columns}")
    sizes = [arguments.size] if arguments.size else [100, 1_000, 10_000] + ([] if arguments.quick else [100_000])
    for api in [arguments.api] if arguments.api else APIS:
        for shape in [arguments.shape] if arguments.shape else SHAPES:
            cost = {}
            for n in sizes:
                seconds, floor, memory = measure(api, shape, n, 1 if n > 10_000 else arguments.rounds)
                cost[n] = seconds / n
                print(f"{api:<8} {shape:<10} {n:>7} {n / seconds:>9.0f} {1e6 * seconds / n:>8.0f} {n / floor:>14.0f}"
                      f" {floor / seconds:>9.1%} {memory:>5.0f}", flush=True)  # fmt: skip
            if {1_000, sizes[-1]} <= cost.keys() and sizes[-1] > 1_000:
                growth = cost[sizes[-1]] / cost[1_000]
                print(f"{api} {shape}: the cost of a task at {sizes[-1]:,} is {growth:.2f} times that at 1,000")


if __name__ == "__main__":
    main()
