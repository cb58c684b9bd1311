"""What callers notice while many ended trees are compacted and removed beside them, as a ratio.

One caller makes a task and waits for its end, again and again, first alone and then beside retention; also beside the
removal of one large tree. Ratios count, not the milliseconds.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from typing import Any

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.model.plan import Limits
from core.run.retention import Retention, RetentionTimes
from core.session import Session, has_ended
from core.storage.base import TreeQuery
from core.storage.sqlite.sql import SqlStorage

CREATED_TOGETHER = 64


class NoOp:
    """Returns at once."""

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return None


async def run(session: Session, size: int = 1) -> None:
    """A tree of so many tasks, to its end."""
    root = {"id": "r", "name": "noop"}
    given = [root, *({"name": "noop", "parent_id": "r"} for _ in range(size - 1))]
    plan = session.plan(given, limits=Limits(max_tasks=size))
    head = (await session.create(plan, execute=True)).head
    await session.wait(head.id, has_ended)


async def calls(session: Session, until: asyncio.Future[Any]) -> list[float]:
    """Milliseconds of each blocking call, one after the other."""
    taken: list[float] = []
    while not until.done():
        begin = time.perf_counter()
        await run(session)
        taken.append(1000 * (time.perf_counter() - begin))
    return taken


def told(name: str, taken: list[float], alone: list[float] | None = None) -> None:
    """A line: the median, the 99th percentile, the longest; and what they are of those without."""
    figures = [statistics.median(taken), statistics.quantiles(taken, n=100)[98], max(taken)]
    line = f"{name:<34} {len(taken):>6} calls  " + "  ".join(f"{each:7.2f}" for each in figures)
    if alone is not None:
        before = [statistics.median(alone), statistics.quantiles(alone, n=100)[98], max(alone)]
        line += "   ratio " + " ".join(f"{a / b:5.2f}" for a, b in zip(figures, before, strict=True))
    print(line, flush=True)


async def beside(session: Session, name: str, times: RetentionTimes, alone: list[float]) -> None:
    """Calls while one round of retention does its work."""
    retention = Retention(session.storage, session.feed, session.clock, times)
    begin = time.perf_counter()
    rounds = asyncio.ensure_future(retention.round())
    taken = await calls(session, rounds)
    compacted, removed = rounds.result()
    seconds = time.perf_counter() - begin
    told(f"{name}: {compacted + removed} in {seconds:.1f} s", taken, alone)


async def main(trees: int, large: int, seconds: float) -> None:
    registry = ExecutorRegistry()
    registry.register(ExecutorSpec(id="noop", make=NoOp))
    with tempfile.TemporaryDirectory() as folder:
        async with Session(SqlStorage(f"sqlite:///{folder}/tasks.db"), registry=registry) as session:
            for _ in range(trees // CREATED_TOGETHER):
                await asyncio.gather(*(run(session) for _ in range(CREATED_TOGETHER)))
            print("milliseconds of a blocking call: median, 99th percentile, longest")
            alone = await calls(session, asyncio.ensure_future(asyncio.sleep(seconds)))
            told("alone", alone)
            for name, times in (
                ("beside compacting", RetentionTimes(compact_after=0.0, drop_after=None)),
                ("beside removing", RetentionTimes(compact_after=None, drop_after=0.0)),
            ):
                await beside(session, name, times, alone)
            await run(session, large)
            await beside(session, f"a tree of {large} tasks", RetentionTimes(compact_after=None, drop_after=0.0), alone)
            print(f"{(await session.storage.trees(TreeQuery(owner=None))).total} trees are left")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=20_000, help="ended trees of one task")
    parser.add_argument("--large", type=int, default=10_000, help="tasks of the large one")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long calls are measured alone")
    options = parser.parse_args()
    asyncio.run(main(options.trees, options.large, options.seconds))
