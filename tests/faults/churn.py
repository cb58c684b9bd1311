"""A server in whose life many small tasks come and go; prints what it held at each tenth of them, as JSON.

Its clock goes a second for each task, so that times of retention are numbers of tasks, on any machine. One task in ten
comes as an A2A message under an idempotency key, the others through the core.
"""

import asyncio
import gc
import json
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

from a2a_server.app import Application, build
from a2a_server.bindings.context import RequestContext
from a2a_server.config import Config
from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.outside.clock import SystemClock
from core.run import retention
from core.session import has_ended
from core.storage.base import TreeQuery

CALLERS = 32
ROUNDS = 0.5  # seconds between two rounds of retention
DOUBLED = 2.0  # seconds after which a round takes more at a time
TENTHS = 10
FIRST = 10_000  # tasks after which memory is looked at first


class TaskClock(SystemClock):
    """A second for each task."""

    def __init__(self) -> None:
        super().__init__()
        self.tasks = 0

    def now(self) -> float:
        return 1_800_000_000.0 + self.tasks

    def wall(self) -> float:
        return self.now()


class Small:
    """A task that says something and gives something, in pieces."""

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.artifact("one ")
        await context.artifact("two", last_chunk=True)


async def main(folder: Path, count: int, compact_after: float, delete_after: float) -> None:
    registry = ExecutorRegistry()
    registry.register(ExecutorSpec(id="small", make=Small))
    config = Config(
        database=f"sqlite:///{folder}/tasks.db",
        compact_after=compact_after,
        delete_after=delete_after,
        idempotency_keep=min(delete_after or 1.0, 1_000.0),
    )
    retention.LONGEST_PAUSE, retention.DOUBLED_AFTER = ROUNDS, DOUBLED  # of real time, while the clock races
    application = build(config, registry=registry)
    clock = TaskClock()
    for part in (application.session, application.session.orchestrator, application.session.runner):
        part.clock = part._clock = clock  # type: ignore[attr-defined]
    application.retention._clock = clock
    await application.start()
    await application.resume()
    marks = iter(sorted({min(FIRST, count), *(count * n // TENTHS for n in range(1, TENTHS + 1))}))
    samples: list[dict[str, int]] = []
    mark = next(marks)

    async def call() -> None:
        nonlocal mark
        while clock.tasks < count:
            clock.tasks += 1
            n = clock.tasks
            await (send(application, n) if n % 10 == 0 else run(application, n))
            if n == mark:
                mark = next(marks, 0)
                samples.append(await sample(application, n, held(folder)))

    await asyncio.gather(*(call() for _ in range(CALLERS)))
    samples.append(await sample(application, count, held(folder)))
    print(json.dumps(samples), flush=True)
    await application.stop(5.0)


async def run(application: Application, n: int) -> None:
    """A tree of one task, to its end."""
    session = application.session
    head = (await session.create(session.plan([{"name": "small", "inputs": {"n": n}}]), execute=True)).head
    await session.wait(head.id, has_ended)


async def send(application: Application, n: int) -> None:
    """One message, whose task has ended when the answer comes."""
    said = {"messageId": f"m{n}", "role": "ROLE_USER", "parts": [{"text": f"hello {n}"}]}
    params = {"message": said, "metadata": {"skillId": "small"}}
    request = {"jsonrpc": "2.0", "id": n, "method": "SendMessage", "params": params}
    reply = await application.json_rpc.handle(json.dumps(request).encode(), RequestContext(idempotency_key=f"k{n}"))
    assert b"TASK_STATE_COMPLETED" in reply.body, reply.body


def held(folder: Path) -> tuple[int, int]:
    """Bytes of the database with what its log brings, and of the log."""
    with closing(sqlite3.connect(folder / "tasks.db")) as connection:
        pages, size = (connection.execute(f"PRAGMA {what}").fetchone()[0] for what in ("page_count", "page_size"))
    return pages * size, (folder / "tasks.db-wal").stat().st_size


async def sample(application: Application, n: int, size: tuple[int, int]) -> dict[str, int]:
    """What the process and the file hold."""
    gc.collect()
    process = psutil.Process()
    page = await application.session.storage.trees(TreeQuery(owner=None, limit=1))
    return {
        "tasks": n,
        "rss": process.memory_info().rss,
        "objects": len(gc.get_objects()),
        "coroutines": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "files": process.num_fds(),
        "bytes": size[0],
        "log": size[1],
        "trees": page.total,
    }


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
