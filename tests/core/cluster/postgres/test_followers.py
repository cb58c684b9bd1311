"""A follower on one member of a tree that another one writes: nothing is lost, whatever becomes of hints."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from core.cluster.bus import VERSION
from core.cluster.postgres.bus import PostgresBus
from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.run.feed import Feed
from core.run.foreign_trees import Intervals
from core.session import Session
from core.storage.postgres.reader import Reader
from core.storage.postgres.storage import PostgresStorage
from tests.core.cluster.postgres.conftest import end_buses, until
from tests.core.run.members import append_of, collect
from tests.postgres_cluster import Cluster

EVENTS = 2_000
NEVER = 1e9  # seconds


class Reading(PostgresStorage):
    """It only reads, beside the server that has the database."""

    async def open(self) -> None:
        self._reader = Reader(self.place, lambda: NEVER)


class Other:
    """The member that follows."""

    def __init__(self, url: str, poll: float) -> None:
        self.storage = Reading(url)
        self.bus = PostgresBus(url)
        self.feed = Feed(self.storage, self.bus, is_local=lambda tree_id: False, intervals=Intervals(poll=poll))


@asynccontextmanager
async def other(url: str, *, poll: float = NEVER) -> AsyncIterator[Other]:
    made = Other(url, poll)
    await made.storage.open()
    await made.bus.open()
    try:
        yield made
    finally:
        made.feed.close()
        await made.feed.end_reads()
        await made.bus.close()
        await made.storage.close()


class Writing:
    """The member that has the database, and writes the tree "t"."""

    def __init__(self, storage: PostgresStorage, url: str) -> None:
        self._storage = storage
        self.bus = PostgresBus(url, kept=NEVER)
        self._feed = Feed(storage, self.bus)
        self.version = 0

    async def write(self, count: int) -> None:
        """One durable append after the other, with a few events each, as a busy tree has them."""
        while count > 0:
            some = min(count, 1 + self.version % 3)
            append = append_of(self.version, some)
            await self._storage.append(append)
            self._feed.publish(append.head, append.events)
            self.version += some
            count -= some


@asynccontextmanager
async def writing(storage: PostgresStorage, url: str) -> AsyncIterator[Writing]:
    made = Writing(storage, url)
    await made.bus.open()
    await made.write(1)
    yield made
    await made.bus.close()


@pytest.mark.asyncio
async def test_hints_alone_bring_every_event_to_followers_of_another_member(
    storage: PostgresStorage, postgres_url: str
) -> None:
    async with writing(storage, postgres_url) as writer, other(postgres_url) as reader:
        followers = [asyncio.create_task(collect(reader.feed, 0, EVENTS)) for _ in range(3)]
        ended = asyncio.create_task(reader.feed.wait("t", lambda head: head.version >= EVENTS))
        await writer.write(EVENTS // 2)
        late = asyncio.create_task(collect(reader.feed, 700, EVENTS))
        await writer.write(EVENTS - writer.version)
        assert [await follower for follower in followers] == [list(range(1, EVENTS + 1))] * 3
        assert await late == list(range(701, EVENTS + 1))
        assert (await ended).version == EVENTS


@pytest.mark.asyncio
async def test_nothing_is_lost_when_the_sessions_of_all_buses_are_ended_in_between(
    storage: PostgresStorage, postgres: Cluster, postgres_url: str, postgres_database: str
) -> None:
    async with writing(storage, postgres_url) as writer, other(postgres_url, poll=0.2) as reader:
        follower = asyncio.create_task(collect(reader.feed, 0, EVENTS))
        for upto in range(400, EVENTS + 1, 400):
            await writer.write(upto - 100 - writer.version)
            ending = asyncio.create_task(end_buses(postgres, postgres_database))
            await writer.write(upto - writer.version)
            await ending
        assert await follower == list(range(1, EVENTS + 1))
        await until(lambda: reader.bus._line.is_up and writer.bus._line.is_up)


@pytest.mark.asyncio
async def test_with_all_hints_dropped_the_poll_brings_every_event(storage: PostgresStorage, postgres_url: str) -> None:
    async with writing(storage, postgres_url) as writer, other(postgres_url, poll=0.05) as reader:
        reader.bus.on(VERSION, lambda tree_id, version: None)
        follower = asyncio.create_task(collect(reader.feed, 0, 200))
        await writer.write(199)
        assert await follower == list(range(1, 201))


@pytest.mark.asyncio
async def test_with_hints_dropped_and_no_poll_a_follower_hangs(storage: PostgresStorage, postgres_url: str) -> None:
    """The control of the tests before. A bus that says that it returned has it look again."""
    async with writing(storage, postgres_url) as writer, other(postgres_url) as reader:
        reader.bus.on(VERSION, lambda tree_id, version: None)
        found: list[int] = []
        follower = asyncio.create_task(collect(reader.feed, 0, 11, found))
        foreign = reader.feed._foreign
        assert foreign is not None
        await until(lambda: "t" in foreign._renew_at)  # it has all there is, and waits
        await writer.write(10)
        for _ in range(100):
            assert await reader.storage.versions(["t", "unknown"]) == {"t": 11}
        assert found == [1] and not follower.done()
        reader.bus._come_back()
        assert await follower == list(range(1, 12))


@pytest.mark.asyncio
async def test_a_run_is_followed_on_another_member_until_it_ends_and_until_it_is_deleted(postgres_url: str) -> None:
    go_on = asyncio.Event()

    class Work:
        async def execute(self, inputs: dict[str, object], context: TaskContext) -> dict[str, object]:
            for number in range(50):
                await context.progress(number / 50)
            await go_on.wait()
            return {"done": True}

    registry = ExecutorRegistry()
    registry.register(ExecutorSpec(id="work", make=Work))
    first, second = (Session(PostgresStorage(postgres_url, is_shared=True), registry=registry) for _ in range(2))
    async with first, second:
        plan = first.plan([{"id": "one", "name": "work", "schemas": {"method": "work"}}])
        await first.create(plan, execute=True)
        seen: list[list[int]] = [[], []]

        async def follow(session: Session, found: list[int]) -> None:
            async for recorded in session.follow(plan.root_id):
                found.append(recorded.seq)

        followers = [asyncio.create_task(follow(*each)) for each in zip((first, second), seen, strict=True)]
        ended = asyncio.create_task(second.wait(plan.root_id, lambda head: head.status.is_terminal))
        await until(lambda: bool(seen[1]))
        go_on.set()
        version = (await ended).version
        await until(lambda: seen[0] == seen[1] == list(range(1, version + 1)))
        assert plan.root_id not in second.orchestrator.trees.by_id
        await first.delete(plan.root_id)
        await asyncio.gather(*followers)


@pytest.mark.asyncio
async def test_a_tree_that_is_started_again_elsewhere_is_followed_on(postgres_url: str) -> None:
    """It ran here, then nowhere, then on the other member: whoever follows it here sees all of it."""

    class Work:
        async def execute(self, inputs: dict[str, object], context: TaskContext) -> dict[str, object]:
            return {"done": True}

    registry = ExecutorRegistry()
    registry.register(ExecutorSpec(id="work", make=Work))
    first, second = (Session(PostgresStorage(postgres_url, is_shared=True), registry=registry) for _ in range(2))
    async with first, second:
        plan = first.plan([{"id": "one", "name": "work", "schemas": {"method": "work"}}])
        await first.create(plan)
        found: list[int] = []

        async def follow() -> None:
            async for recorded in first.follow(plan.root_id):
                found.append(recorded.seq)

        follower = asyncio.create_task(follow())
        for session in (first, second, first, second):
            await session.execute(plan.root_id, force=True)
            head = await session.wait(plan.root_id, lambda head: not head.is_live)
            await until(lambda version=head.version: found == list(range(1, version + 1)))  # type: ignore[misc]
        first.feed.close()
        await follower
