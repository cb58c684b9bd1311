"""Two sessions on one database of PostgreSQL: who runs a tree, and who goes on with it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.model.commands import FailAttempt
from core.model.errors import DatabaseLost, RunElsewhere, TreeIsRunning
from core.model.events import AttemptLost, TaskStarted
from core.model.task import TaskStatus
from core.run import adoption
from core.session import Session, has_ended
from core.storage.base import EventQuery
from core.storage.postgres.storage import PostgresStorage
from tests.core.cores import begin, item, tasks_of
from tests.core.storage.postgres.leased import polled

LASTS = 0.5  # seconds


class Work:
    """An executor that waits, and knows in which session it began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.interrupted: list[str] = []
        self.may_end = asyncio.Event()
        self.changed = asyncio.Event()

    def registry(self, name: str) -> ExecutorRegistry:
        bench = self

        class Waiting:
            async def execute(self, inputs: dict[str, Any], context: TaskContext) -> str:
                bench.began.append(name)
                bench.changed.set()
                try:
                    await bench.may_end.wait()
                except asyncio.CancelledError:
                    bench.interrupted.append(name)
                    raise
                return name

        registry = ExecutorRegistry()
        registry.register(ExecutorSpec(id="work", make=Waiting))
        return registry

    async def until_began(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.began) < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture(autouse=True)
def looks_often() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adoption, "LOOK", 0.01)
        yield


@asynccontextmanager
async def member(url: str, work: Work, name: str, lasts: float = LASTS) -> AsyncIterator[Session]:
    storage = PostgresStorage(url, lease_lasts=lasts, is_shared=True)
    session = Session(storage, registry=work.registry(name))
    async with session:
        await session.resume()
        yield session


def freeze(session: Session) -> None:
    """From now on it gives no sign of life, as a process that is stopped."""
    lease = session.storage._lease  # type: ignore[attr-defined]
    lease._renewing.cancel()


async def ended(session: Session, tree_id: str) -> None:
    async def end() -> bool | None:
        head = await session.storage.head(tree_id)
        return (head is not None and has_ended(head)) or None

    await polled(end)


@pytest.mark.asyncio
async def test_a_tree_is_run_by_whoever_began_it_and_by_nobody_else(postgres_url: str) -> None:
    work = Work()
    async with member(postgres_url, work, "one", 600) as one, member(postgres_url, work, "other", 600) as other:
        head = await begin(one, item("a"))
        await work.until_began(1)
        task_id = (await tasks_of(other, head.id))["a"].id
        for change in (
            lambda: other.cancel(head.id),
            lambda: other.cancel(task_id),
            lambda: other.orchestrator.submit(head.id, FailAttempt(task_id, 1, "x")),
        ):
            with pytest.raises(RunElsewhere, match="is run by another server on this database"):
                await change()
        with pytest.raises(TreeIsRunning):
            await other.execute(head.id)
        assert (await tasks_of(other, head.id))["a"].status is TaskStatus.IN_PROGRESS
        assert head.id not in other.orchestrator.trees.by_id, "it is not adopted"

        work.may_end.set()
        await ended(other, head.id)
        assert work.began == ["one"]
        await other.execute(head.id, force=True)  # at rest it is nobody's
        await ended(one, head.id)
        assert work.began == ["one", "other"]


@pytest.mark.asyncio
async def test_another_member_goes_on_with_the_trees_of_one_that_is_gone(postgres_url: str) -> None:
    """The one that was taken for dead stops its attempts without a word, and writes nothing more."""
    work = Work()
    async with member(postgres_url, work, "one") as one, member(postgres_url, work, "other") as other:
        head = await begin(one, item("a"), item("b", "work", "a"))
        await work.until_began(1)
        freeze(one)
        await work.until_began(2)
        assert work.began == ["one", "other"]
        assert await other.storage.owner_of(head.id) == other.storage.lease

        async def interrupted() -> bool | None:
            return bool(work.interrupted) or None

        renewing = one.storage._lease  # type: ignore[attr-defined]
        renewing._renewing = asyncio.create_task(renewing._keep_renewing())
        await polled(interrupted)
        assert work.interrupted == ["one"] and one.storage.is_fenced
        with pytest.raises(DatabaseLost):
            await one.cancel(head.id)

        work.may_end.set()
        await ended(other, head.id)
        assert {each.status for each in (await tasks_of(other, head.id)).values()} == {TaskStatus.COMPLETED}
        events = [each.event for each in await other.storage.events(EventQuery(tree_id=head.id))]
        assert sum(isinstance(event, AttemptLost) for event in events) == 1
        assert [event.attempt for event in events if isinstance(event, TaskStarted)] == [1, 2, 1]


@pytest.mark.asyncio
async def test_an_attempt_whose_tree_was_adopted_reports_in_vain(postgres_url: str) -> None:
    work = Work()
    async with member(postgres_url, work, "one") as one, member(postgres_url, work, "other") as other:
        head = await begin(one, item("a"))
        await work.until_began(1)
        freeze(one)
        await work.until_began(2)
        work.may_end.set()  # both end now
        await ended(other, head.id)

        async def reported() -> bool | None:
            return not one.runner.books.attempts or None

        await polled(reported)
        assert head.id not in one.orchestrator.trees.by_id
        assert (await tasks_of(one, head.id))["a"].result == "other"
        one.runner.check()
        other.runner.check()


@pytest.mark.asyncio
async def test_the_trees_of_a_member_that_closes_go_on_at_once_elsewhere(postgres_url: str) -> None:
    work = Work()
    async with member(postgres_url, work, "other", 600) as other:
        async with member(postgres_url, work, "one", 600) as one:
            head = await begin(one, item("a"))
            await work.until_began(1)
            await one.close(grace=0.0)
        await work.until_began(2)
        work.may_end.set()
        await ended(other, head.id)
        task = (await tasks_of(other, head.id))["a"]
        assert (task.result, task.crashes) == ("other", 0), "an interruption is no crash"
