"""How long a server takes to start over a database with many open tasks, as an earlier process left it (promise G10).

The tasks are in trees that run and whose tasks have to be resumed. The figures are from the start of the storage
to the moment at which the server would say that it listens, the check of the file included.
"""

import argparse
import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.session import Session
from core.storage.sqlite.sql import SqlStorage


class Waits:
    """Runs until the process ends."""

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await asyncio.Event().wait()


def registry() -> ExecutorRegistry:
    made = ExecutorRegistry()
    made.register(ExecutorSpec(id="waits", make=Waits))
    return made


async def fill(path: Path, tasks: int, size: int) -> None:
    """Trees that run, and a process that is gone."""
    items = [{"id": f"t{n}", "name": "waits"} | ({"parent_id": "t0"} if n else {}) for n in range(size)]
    session = Session(SqlStorage(str(path)), registry=registry())
    await session.start()
    for _ in range(tasks // size):
        await session.create(session.plan(items), execute=True)
    await session.close(0.0)


async def start(path: Path) -> tuple[float, float]:
    """Seconds until the storage is open, and until everything is resumed."""
    session = Session(SqlStorage(str(path)), registry=registry())
    begin = time.perf_counter()
    await session.start()
    opened = time.perf_counter() - begin
    await session.resume()
    ready = time.perf_counter() - begin
    await session.close(0.0)
    return opened, ready


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--tree", type=int, default=100, help="tasks of one tree")
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tasks.db"
        asyncio.run(fill(path, arguments.tasks, arguments.tree))
        print(f"{arguments.tasks:,} open tasks in trees of {arguments.tree}, {path.stat().st_size / 1e6:.0f} MB")
        for _ in range(arguments.times):
            opened, ready = asyncio.run(start(path))
            print(f"storage open after {opened:.2f} s, everything resumed after {ready:.2f} s")


if __name__ == "__main__":
    main()
