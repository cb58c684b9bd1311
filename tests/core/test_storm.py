"""Random orders from several callers at once, on a storage that sometimes refuses: afterwards nothing is left over."""

import asyncio
import random
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

from core.executors.base import TaskContext
from core.model.commands import ProvideInput
from core.model.errors import CallerError, StorageUnavailable
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from core.storage.base import Append
from tests.core.cores import Bench, FaultyStorage, item, rooted, settle, virtual_time

OPERATIONS = 600
CALLERS = 4


class Moody(FaultyStorage):
    """Refuses a share of the appends, at once."""

    def __init__(self, chance: random.Random, share: float) -> None:
        super().__init__()
        self._chance = chance
        self.share = share

    def append(self, append: Append) -> asyncio.Future[None]:
        if self._chance.random() < self.share:
            self.faults.append(StorageUnavailable("not now"))
        return super().append(append)


def plan_items(chance: random.Random) -> list[dict[str, Any]]:
    """A few tasks of every kind, some depending on others."""
    items = []
    for n in range(chance.randrange(1, 8)):
        needs = (
            [{"id": f"t{chance.randrange(n)}", "required": chance.random() < 0.7}]
            if n and chance.random() < 0.6
            else []
        )
        kind = chance.choice(["work", "nap", "nap", "flaky", "ask", "stubborn"])
        retry = {"initial": 0.1, "jitter": 0}
        items.append(item(f"t{n}", kind, timeout=chance.choice([None, 0.5, 3]), max_attempts=2, retry=retry))
        items[-1]["dependencies"] = needs
    return rooted(*items)


def storm_bench(chance: random.Random, share: float) -> Bench:
    bench = Bench(storage=Moody(chance, share), limits=RunnerLimits(tasks=5, tree=3))
    running: Counter[str] = Counter()

    def exclusively(work: Any) -> Any:
        async def run(inputs: dict[str, Any], context: TaskContext) -> Any:
            running[context.task_id] += 1
            assert running[context.task_id] == 1, "two attempts of one task at a time"
            try:
                return await work(inputs, context)
            finally:
                running[context.task_id] -= 1

        return run

    async def flaky(inputs: dict[str, Any], context: TaskContext) -> Any:
        await asyncio.sleep(0.2)
        if chance.random() < 0.5:
            raise RuntimeError("flaky")

    async def ask(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await context.ask("who?")

    async def stubborn(inputs: dict[str, Any], context: TaskContext) -> Any:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(2)
        await asyncio.sleep(0.3)

    for name, work in (("nap", bench.nap), ("flaky", flaky), ("ask", ask), ("stubborn", stubborn)):
        bench.add(name, exclusively(work), concurrency=2 if name == "nap" else None)
    return bench


async def one_caller(session: Session, chance: random.Random, trees: list[str]) -> None:
    for _ in range(OPERATIONS // CALLERS):
        with suppress(CallerError, StorageUnavailable):
            order = chance.choice(["create", "execute", "execute one", "cancel", "cancel one", "answer", "wait"])
            if order == "create" or not trees:
                trees.append(
                    (await session.create(session.plan(plan_items(chance)), execute=chance.random() < 0.8)).head.id
                )
                continue
            tree_id = chance.choice(trees)
            tree = await session.orchestrator.trees.load(tree_id)
            task_id = chance.choice(list(tree.tasks)) if order.endswith("one") else tree_id
            match order.split()[0]:
                case "execute":
                    await session.execute(task_id, force=chance.random() < 0.3)
                case "cancel":
                    await session.cancel(task_id, force=chance.random() < 0.3)
                case "answer":
                    await session.provide_input(ProvideInput(tree_id, "Ada"))
                case "wait":
                    await asyncio.sleep(chance.random())


async def come_to_an_end(session: Session, tree_id: str) -> None:
    """Answer whatever is asked until the tree's run is over."""
    while True:
        head = await session.wait(tree_id, lambda head: not head.is_live or head.status.is_interrupted)
        if not head.is_live:
            return
        with suppress(CallerError):
            await session.provide_input(ProvideInput(tree_id, "Ada"))


@virtual_time
@pytest.mark.parametrize("share", [0.0, 0.05])
@pytest.mark.parametrize("seed", range(3))
async def test_after_a_storm_every_tree_has_ended_and_every_slot_is_free(seed: int, share: float) -> None:
    chance = random.Random(seed)
    bench = storm_bench(chance, share)
    trees: list[str] = []
    async with bench.session() as session:
        await asyncio.gather(*(one_caller(session, chance, trees) for _ in range(CALLERS)))
        bench.storage.share = 0.0  # type: ignore[attr-defined]
        for tree_id in trees:
            await come_to_an_end(session, tree_id)
        await asyncio.sleep(10)  # virtual: what was interrupted comes to its end
        await settle()
        runner = session.runner
        left = (
            runner.books.room.slots.used,
            runner.books.starting,
            runner.books.attempts,
            runner.books.room.in_lane,
            runner.books.room.in_tree,
            runner.books.queue.waiting,
        )
        assert left == (0, {}, {}, {}, {}, 0)
        assert runner.books.never_begun == {}
        assert session.orchestrator.trees.by_id == {}
        heads = [await session.storage.head(tree_id) for tree_id in trees]
        assert all(head is not None and (has_ended(head) or head.run == 0) for head in heads)
