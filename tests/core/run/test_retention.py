"""Tests of core.run.retention, in virtual time: trees that have ended are compacted and removed, no others."""

import asyncio
import logging
from collections.abc import Collection, Sequence

import pytest
from msgspec.structs import replace

from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from core.model.task import TaskStatus, TreeHead
from core.run.retention import BATCH_ROWS, DOUBLED_AFTER, LONGEST_PAUSE, MOST_ROWS, PAGE, Retention, RetentionTimes
from core.session import Session, has_ended
from core.storage.base import EndedQuery, EndedTree, EventQuery, LogPart, TreeQuery
from core.storage.memory import MemoryStorage
from tests.core.cores import Bench, LoopClock, virtual_time

HOUR = 3600.0


class WatchedStorage(MemoryStorage):
    """Counts what a batch is about, and can be out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.compactions: list[int] = []  # events of each
        self.drops: list[int] = []  # trees of each
        self.sweeps = [False]
        self.error: StorageError | None = None

    async def compact(self, parts: Sequence[LogPart]) -> None:
        if self.error is not None:
            raise self.error
        self.compactions.append(sum(part.until - part.after for part in parts))
        await super().compact(parts)

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        self.drops.append(len(heads))
        return await super().drop(heads)

    async def sweep(self, limit: int) -> bool:
        assert limit == BATCH_ROWS
        return self.sweeps.pop(0) if len(self.sweeps) > 1 else self.sweeps[0]


def retention(
    session: Session,
    *,
    compact_after: float | None = HOUR,
    drop_after: float | None = 2 * HOUR,
    unread: set[str] | None = None,
) -> Retention:
    times = RetentionTimes(compact_after=compact_after, drop_after=drop_after)
    if unread is None:
        return Retention(session.storage, session.feed, session.clock, times)

    async def names(heads: Sequence[TreeHead]) -> Collection[str]:
        return unread.intersection(head.id for head in heads)

    return Retention(session.storage, session.feed, session.clock, times, names)


async def finish(session: Session, executor: str = "work") -> str:
    head = (await session.create(session.plan([{"name": executor}]), execute=True)).head
    await session.wait(head.id, has_ended)
    return head.id


async def numbers(session: Session, tree_id: str) -> list[int]:
    return [recorded.seq for recorded in await session.storage.events(EventQuery(tree_id=tree_id))]


async def stored(session: Session) -> int:
    return (await session.storage.trees(TreeQuery(owner=None))).total


@virtual_time
async def test_a_tree_is_compacted_and_then_removed_each_after_its_time() -> None:
    async with Bench().session() as session:
        keeper = retention(session)
        tree_id = await finish(session)
        assert await numbers(session, tree_id) == [1, 2, 3, 4, 5]

        await asyncio.sleep(HOUR - 1)
        assert await keeper.round() == (0, 0)
        await asyncio.sleep(1)
        assert await keeper.round() == (1, 0)
        assert await numbers(session, tree_id) == [4, 5], "its end and the tree's"
        assert await keeper.round() == (0, 0)
        await asyncio.sleep(HOUR - 1)
        assert await keeper.round() == (0, 0)
        await asyncio.sleep(1)
        assert await keeper.round() == (0, 1)

        with pytest.raises(TaskNotFound):
            await session.execute(tree_id)
        assert await stored(session) == 0


@pytest.mark.parametrize("seconds", [10 * 365 * 86_400.0, -86_400.0])
@virtual_time
async def test_a_clock_that_is_set_wrong_for_a_while_removes_nothing_before_its_time(seconds: float) -> None:
    """Found from outside: a clock ten years ahead for 45 s deleted every ended task."""
    clock = LoopClock()
    async with Bench(clock=clock).session() as session:
        keeper = retention(session)
        await finish(session)
        clock.ahead = seconds
        await asyncio.sleep(HOUR - 2)
        assert await keeper.round() == (0, 0)
        clock.ahead = 0.0
        await asyncio.sleep(2)
        assert await keeper.round() == (1, 0)
        await asyncio.sleep(HOUR)
        assert await keeper.round() == (0, 1)


@virtual_time
async def test_what_has_not_ended_is_never_touched() -> None:
    """Neither a draft, nor a tree that was never run, nor one that waits for its caller, nor one that runs."""
    bench = Bench()

    async def ask(inputs: object, context: object) -> object:
        return await context.ask("?")  # type: ignore[attr-defined]

    bench.add("ask", ask)
    async with bench.session() as session:
        drafted = session.plan([{"name": "work"}])
        never_run = (await session.create(drafted)).head
        asking = (await session.create(session.plan([{"name": "ask"}]), execute=True)).head
        await session.wait(asking.id, lambda head: head.status is TaskStatus.INPUT_REQUIRED)
        running = (await session.create(session.plan([{"name": "slow"}]), execute=True)).head
        in_part = (
            await session.create(session.plan([{"id": "r", "name": "work"}, {"name": "work", "parent_id": "r"}]))
        ).head
        child = next(task for task in await session.storage.children(in_part.id))
        await session.execute(child.id)
        await session.wait(in_part.id, lambda head: head.run > 0 and not head.is_live)
        before = {
            head.id: await numbers(session, head.id)
            for head in (await session.storage.trees(TreeQuery(owner=None))).heads
        }
        assert set(before) == {never_run.id, asking.id, running.id, in_part.id}
        assert (await session.storage.head(in_part.id)).status is TaskStatus.PENDING  # type: ignore[union-attr]

        await asyncio.sleep(1000 * HOUR)

        assert await retention(session).round() == (0, 0)
        assert {tree_id: await numbers(session, tree_id) for tree_id in before} == before


@virtual_time
async def test_each_can_be_switched_off() -> None:
    async with Bench().session() as session:
        tree_id = await finish(session)
        await asyncio.sleep(1000 * HOUR)

        off = retention(session, compact_after=None, drop_after=None)
        off.start()
        assert off._run is None
        await off.close()
        assert await off.round() == (0, 0)
        assert await retention(session, drop_after=None).round() == (1, 0)
        assert await session.storage.compacted(tree_id) == 4
        assert await retention(session, compact_after=None).round() == (0, 1)


@virtual_time
async def test_a_tree_with_a_reader_of_its_log_waits_for_the_reader() -> None:
    async with Bench().session() as session:
        unread: set[str] = set()
        keeper = retention(session, unread=unread)
        tree_id, again, gone = await finish(session), await finish(session), await finish(session)
        unread.update([tree_id, again, gone])
        await asyncio.sleep(HOUR)
        assert await keeper.round() == (0, 0)
        await session.delete(gone)
        await session.execute(again, force=True)
        unread.clear()

        assert await keeper.round() == (1, 0), "its turn had come already"
        assert await session.storage.compacted(tree_id) == 4
        unread.add(tree_id)
        await asyncio.sleep(HOUR)
        assert await keeper.round() == (1, 0), "of the other one, which has ended again"
        unread.clear()
        assert await keeper.round() == (0, 1)


@virtual_time
async def test_what_was_put_off_and_ended_again_waits_for_its_time_again() -> None:
    """Found by the simulation: a tree that ran again was compacted by the time of its first end."""
    async with Bench().session() as session:
        unread: set[str] = set()
        keeper = retention(session, unread=unread)
        tree_id = await finish(session)
        unread.add(tree_id)
        await asyncio.sleep(HOUR)
        await keeper.round()
        await session.execute(tree_id, force=True)
        await session.wait(tree_id, has_ended)
        unread.clear()

        assert await keeper.round() == (0, 0)
        await asyncio.sleep(HOUR)
        assert await keeper.round() == (1, 0)


@virtual_time
async def test_what_ends_in_a_long_round_waits_for_the_next_one() -> None:
    """Whether somebody has yet to read it was not asked: it was not there."""
    storage = WatchedStorage()
    async with Bench(storage=storage).session() as session:
        keeper = retention(session)
        tree_id = await finish(session)
        await asyncio.sleep(2 * HOUR)
        ended_meanwhile = []

        async def slow(limit: int) -> bool:
            ended_meanwhile.append(await finish(session))
            await asyncio.sleep(2 * HOUR)
            return False

        storage.sweep = slow  # type: ignore[method-assign]
        assert await keeper.round() == (0, 1)
        assert await session.storage.head(tree_id) is None
        assert await session.storage.compacted(ended_meanwhile[0]) == 0


@virtual_time
async def test_what_was_put_off_is_not_forgotten_when_the_database_is_full() -> None:
    """Found later: on a full database retention forgot the trees that it had put off."""
    storage = WatchedStorage()
    async with Bench(storage=storage).session() as session:
        unread: set[str] = set()
        keeper = retention(session, unread=unread)
        unread.add(await finish(session))
        await asyncio.sleep(HOUR)
        await keeper.round()
        unread.clear()
        storage.error = StorageUnavailable("full")
        with pytest.raises(StorageUnavailable):
            await keeper.round()
        storage.error = None
        assert await keeper.round() == (1, 0)


@virtual_time
async def test_batches_are_bounded_however_many_trees_and_however_long_their_logs() -> None:
    storage = WatchedStorage()
    bench = Bench(storage=storage)

    async def talk(inputs: object, context: object) -> None:
        for n in range(5 * BATCH_ROWS // 2):
            await context.progress(n / 10_000)  # type: ignore[attr-defined]

    bench.add("talk", talk)
    async with bench.session() as session:
        talker = await finish(session, "talk")
        for _ in range(2 * PAGE):
            await finish(session)
        keeper = retention(session)
        await asyncio.sleep(HOUR + 60)

        assert await keeper.round() == (2 * PAGE + 1, 0)

        assert max(storage.compactions) == BATCH_ROWS
        assert sum(storage.compactions) == 5 * BATCH_ROWS // 2 + 4 + 2 * PAGE * 4
        assert await session.storage.compacted(talker) == 5 * BATCH_ROWS // 2 + 4
        assert len(await numbers(session, talker)) == 2
        await asyncio.sleep(HOUR)
        storage.sweeps = [True, True, False]
        assert await keeper.round() == (0, 2 * PAGE + 1)
        assert storage.sweeps == [False]
        assert len(storage.drops) >= 3 and max(storage.drops) <= PAGE
        assert await stored(session) == 0


@virtual_time
async def test_a_round_that_does_not_keep_up_takes_more_at_a_time() -> None:
    storage = WatchedStorage()
    async with Bench(storage=storage).session() as session:
        for _ in range(6 * PAGE):
            await finish(session)
        real = storage.compact

        async def slow(parts: Sequence[LogPart]) -> None:
            await real(parts)
            await asyncio.sleep(DOUBLED_AFTER)

        storage.compact = slow  # type: ignore[method-assign]
        await asyncio.sleep(HOUR)
        assert await retention(session).round() == (6 * PAGE, 0)
        assert storage.compactions[0] == BATCH_ROWS < max(storage.compactions) <= 4 * PAGE < MOST_ROWS


@virtual_time
async def test_a_tree_that_ends_with_nothing_to_compact_is_passed_over() -> None:
    storage = WatchedStorage()
    async with Bench(storage=storage).session() as session:
        tree_id = await finish(session)
        await asyncio.sleep(HOUR)
        await retention(session).round()
        storage.compactions.clear()

        assert await retention(session).round() == (0, 0), "as after a restart"
        assert storage.compactions == []
        await session.execute(tree_id, force=True)
        await session.wait(tree_id, lambda head: head.run == 2 and has_ended(head))
        await asyncio.sleep(HOUR)
        assert await retention(session).round() == (1, 0)
        assert await numbers(session, tree_id) == [4, 8, 9]


@virtual_time
async def test_followers_of_a_removed_tree_end() -> None:
    async with Bench().session() as session:
        tree_id = await finish(session)
        seen: list[int] = []

        async def follow() -> None:
            async for recorded in session.follow(tree_id):
                seen.append(recorded.seq)

        follower = asyncio.create_task(follow())
        await asyncio.sleep(2 * HOUR)
        await retention(session).round()
        await follower
        assert seen == [1, 2, 3, 4, 5]


@virtual_time
async def test_it_works_by_itself_until_it_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    storage = WatchedStorage()
    async with Bench(storage=storage).session() as session:
        keeper = retention(session)
        keeper.start()
        await finish(session)
        storage.error = StorageUnavailable("full")
        await asyncio.sleep(HOUR + LONGEST_PAUSE)
        assert "retention paused: full" in caplog.text
        storage.error = StorageError("broken")
        await asyncio.sleep(LONGEST_PAUSE)
        assert "retention failed" in caplog.text
        storage.error = None
        await asyncio.sleep(LONGEST_PAUSE)
        assert "1 logs compacted, 0 trees deleted" in caplog.text
        await asyncio.sleep(HOUR)
        assert await stored(session) == 0
        await keeper.close()
        await keeper.close()
        await finish(session)
        await asyncio.sleep(10 * HOUR)
        assert await stored(session) == 1
        assert "retention has ended" not in caplog.text


@virtual_time
async def test_its_end_by_a_bug_is_told(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Bench().session() as session:
        keeper = retention(session)

        async def broken(query: object) -> None:
            raise KeyError("bug")

        monkeypatch.setattr(session.storage, "ended", broken)
        keeper.start()
        await asyncio.sleep(1)
        assert "retention has ended" in caplog.text
        await keeper.close()


@pytest.mark.parametrize(
    ("compact_after", "drop_after", "pause"), [(None, None, 30), (86_400, None, 30), (None, 8, 2), (1, 5, 0.5)]
)
def test_rounds_come_often_where_times_are_short(
    compact_after: float | None, drop_after: float | None, pause: float
) -> None:
    assert RetentionTimes(compact_after=compact_after, drop_after=drop_after).pause == pause


@virtual_time
async def test_a_head_that_is_not_what_its_columns_say_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flipped bit in the column by which it was found."""
    async with Bench().session() as session:
        await finish(session)
        real = session.storage.ended

        async def ended(query: EndedQuery) -> list[EndedTree]:
            return await real(replace(query, until=1e12))

        monkeypatch.setattr(session.storage, "ended", ended)
        assert await retention(session).round() == (0, 0)
        assert await stored(session) == 1
