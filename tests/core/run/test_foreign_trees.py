"""Tests of core.run.foreign_trees: followers of a tree that another member runs see each event once, in order."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.cluster.bus import INTEREST, NEWLY, VERSION
from core.model.errors import LogCompacted, StorageError, StorageUnavailable, TaskNotFound
from core.run.foreign_trees import Intervals
from core.run.topic import PAGE, TAIL, TAIL_BYTES
from tests.core.cores import VirtualLoop, settle, virtual_time
from tests.core.run.members import Members, collect

NEVER = 1e9  # seconds


@asynccontextmanager
async def members(count: int = 0, *, poll: float = 2.0) -> AsyncIterator[Members]:
    """Two of them, and a log of so many events."""
    made = Members(Intervals(poll=poll))
    await made.storage.open()
    if count:
        await made.write(count)
    try:
        yield made
    finally:
        await made.end()
        await made.storage.close()


@virtual_time
async def test_hints_bring_every_event_in_order_to_another_member() -> None:
    async with members(3, poll=NEVER) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 1, 103))
        await settle()
        for _ in range(100):
            await two.write()
            await settle(3)
        assert await follower == list(range(2, 104))


@virtual_time
async def test_one_reader_serves_all_followers_of_a_tree() -> None:
    """A hundred followers cost no more reads than one does."""
    reads = []
    for count in (1, 100):
        async with members(1, poll=NEVER) as two:
            followers = [asyncio.create_task(collect(two.feeds[1], 0, 31)) for _ in range(count)]
            await settle()
            before = two.storage.pages
            for _ in range(30):
                await two.write()
                await settle(10)
            assert {tuple(await follower) for follower in followers} == {tuple(range(1, 32))}
            reads.append(two.storage.pages - before)
    assert reads == [30, 30]


@virtual_time
async def test_only_trees_that_are_followed_elsewhere_are_told() -> None:
    async with members(1) as two:
        own = asyncio.create_task(collect(two.feeds[0], 0, 3))
        await settle()
        await two.write()
        assert two.wire.sent == []
        other = asyncio.create_task(collect(two.feeds[1], 0, 3))
        await settle()
        await two.write()
        assert await own == await other == [1, 2, 3]
        assert two.wire.sent == [(INTEREST, "t", NEWLY), (VERSION, "t", 2), (VERSION, "t", 3)]


@virtual_time
async def test_interest_is_renewed_while_somebody_follows_and_no_longer() -> None:
    async with members(1) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 9))
        await asyncio.sleep(35)
        said = [hint for hint in two.wire.sent if hint[0] == INTEREST]
        assert said == [(INTEREST, "t", NEWLY), *[(INTEREST, "t", None)] * 3]
        follower.cancel()
        await asyncio.sleep(60)
        polls = two.storage.polls
        await asyncio.sleep(60)
        assert len([hint for hint in two.wire.sent if hint[0] == INTEREST]) == 4 and two.storage.polls == polls


@virtual_time
async def test_lost_hints_are_made_up_for_by_the_poll() -> None:
    async with members(1) as two:
        two.wire.delays = lambda: ()
        follower = asyncio.create_task(collect(two.feeds[1], 0, 6))
        for _ in range(5):
            await asyncio.sleep(2.5)
            await two.write()
        assert await follower == [1, 2, 3, 4, 5, 6]


@virtual_time
async def test_without_hints_and_without_a_poll_a_follower_hangs() -> None:
    """The control of the test before: what it shows is the poll's doing."""
    async with members(1, poll=NEVER) as two:
        two.wire.delays = lambda: ()
        found: list[int] = []
        follower = asyncio.create_task(collect(two.feeds[1], 0, 2, found))
        await settle()
        await two.write()
        await asyncio.sleep(3_600)
        assert found == [1] and not follower.done()


@virtual_time
async def test_all_followed_trees_are_polled_in_one_read() -> None:
    async with members(1) as two:
        asked: list[list[str]] = []
        versions = two.storage.versions

        async def watched(tree_ids: list[str]) -> dict[str, int]:
            asked.append(tree_ids)
            return await versions(tree_ids)

        two.storage.versions = watched  # type: ignore[method-assign, assignment]
        waits = [asyncio.create_task(two.feeds[1].wait("t", lambda head: False))]
        waits += [asyncio.create_task(two.feeds[1].wait("t", lambda head: False))]
        follower = asyncio.create_task(anext(two.feeds[1].follow("unknown")))
        with two.feeds[1].held("only held"):
            await asyncio.sleep(3)
        assert asked == [["t", "unknown"]]
        for each in (*waits, follower):
            each.cancel()


@virtual_time
async def test_a_return_of_the_bus_polls_at_once_and_says_interest_again() -> None:
    async with members(1, poll=NEVER) as two:
        two.wire.delays = lambda: ()
        follower = asyncio.create_task(collect(two.feeds[1], 0, 3))
        await settle()
        await two.write()
        two.storage.delay = lambda: 1.0
        two.wire.buses[1].returned()
        await asyncio.sleep(0.5)
        two.wire.delays = lambda: (0.0,)
        two.wire.buses[1].returned()  # again, while the poll before it is under way
        await asyncio.sleep(20)
        await two.write()
        assert await follower == [1, 2, 3]
        assert [hint for hint in two.wire.sent if hint[0] == INTEREST] == [(INTEREST, "t", NEWLY)] * 3


@virtual_time
async def test_a_wait_ends_with_the_head_that_is_stored() -> None:
    async with members(1, poll=NEVER) as two:
        waiter = asyncio.create_task(two.feeds[1].wait("t", lambda head: head.version >= 3))
        await settle()
        await two.write()
        await settle()
        assert not waiter.done()
        await two.write()
        assert (await waiter).version == 3


@virtual_time
async def test_a_wait_does_not_trust_what_was_published_here_before() -> None:
    """The tree ran here, and runs elsewhere now: who waits from then on reads how it is."""
    async with members(1, poll=NEVER) as two:
        with two.feeds[0].held("t"):
            await two.write()
            two.owner = 1
            two.wire.delays = lambda: ()
            await two.write(5)
            assert (await two.feeds[0].wait("t", lambda head: head.version == 7)).version == 7


@virtual_time
async def test_a_wait_of_a_closing_feed_has_the_head_that_was_read_last() -> None:
    async with members(1, poll=NEVER) as two:
        waiter = asyncio.create_task(two.feeds[1].wait("t", lambda head: False))
        await settle()
        await two.write(2)
        await settle()
        two.feeds[1].close()
        assert (await waiter).version == 3


@virtual_time
async def test_a_tree_that_another_member_deletes_ends_its_followers() -> None:
    async with members(2, poll=NEVER) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 9))
        waiter = asyncio.create_task(two.feeds[1].wait("t", lambda head: False))
        await settle()
        await two.storage.delete("t")
        two.feeds[0].forget("t")
        assert await follower == [1, 2]
        with pytest.raises(TaskNotFound):
            await waiter
        assert two.wire.sent[-1][0] == "d"


@virtual_time
async def test_a_deletion_of_which_the_hint_was_lost_is_seen_by_the_poll() -> None:
    async with members(2) as two:
        two.wire.delays = lambda: ()
        follower = asyncio.create_task(collect(two.feeds[1], 2, 9))
        await asyncio.sleep(3)
        await two.storage.delete("t")
        assert await follower == []


@virtual_time
async def test_a_tree_that_is_not_there_yet_is_waited_for() -> None:
    async with members() as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 2))
        await asyncio.sleep(9)
        await two.write(2)
        assert await follower == [1, 2]


@virtual_time
async def test_a_tree_that_is_adopted_while_it_is_followed_loses_and_repeats_nothing() -> None:
    """With the last hints of its former owner lost, and without any word of the change but `is_local`."""
    async with members(1) as two:
        followers = [asyncio.create_task(collect(feed, 0, 41)) for feed in two.feeds]
        deliveries = cycle([(0.0,), (), (0.0, 0.0), (3.0,)])
        two.wire.delays = lambda: next(deliveries)
        for turn in range(8):
            two.owner = turn % 2
            for _ in range(5):
                await two.write()
                await settle(turn)
            await asyncio.sleep(2.5 * (turn % 3))
        assert [await follower for follower in followers] == [list(range(1, 42))] * 2


@virtual_time
async def test_the_last_words_of_a_former_owner_are_read_though_the_tree_is_ours_and_silent() -> None:
    """A tree that waits for an answer says nothing when it is adopted."""
    async with members(1) as two:
        two.wire.delays = lambda: ()
        follower = asyncio.create_task(collect(two.feeds[1], 0, 3))
        await settle()
        await two.write(2)
        two.owner = 1
        assert await follower == [1, 2, 3]
        polls = two.storage.polls
        follower = asyncio.create_task(collect(two.feeds[1], 0, 9))
        await asyncio.sleep(60)
        assert two.storage.polls == polls, "what is ours is not polled"
        follower.cancel()


@virtual_time
async def test_who_is_far_behind_reads_the_log_and_only_the_last_part_is_kept() -> None:
    async with members(1) as two:
        two.wire.delays = lambda: ()
        follower = asyncio.create_task(collect(two.feeds[1], 0, 5_001))
        await settle()
        await two.write(5_000)
        await asyncio.sleep(3)
        assert await follower == list(range(1, 5_002))
        assert two.storage.pages < 5_000 / PAGE + 10
        again = asyncio.create_task(collect(two.feeds[1], 5_001 - TAIL, 5_001))
        assert await again == list(range(5_002 - TAIL, 5_002))


@virtual_time
async def test_large_events_are_not_kept_and_nobody_misses_them() -> None:
    async with members(1, poll=NEVER) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 5))
        await settle()
        for size in (1, TAIL_BYTES, 1, TAIL_BYTES):
            await two.write(message="x" * size)
            await settle()
        assert await follower == [1, 2, 3, 4, 5]
        assert two.feeds[1]._topics.tails.size == 0


@virtual_time
async def test_a_reader_that_nobody_needs_any_more_keeps_nothing() -> None:
    async with members(1, poll=NEVER) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 9))
        await settle()
        two.storage.delay = lambda: 1.0
        await two.write()
        await settle()
        follower.cancel()
        await asyncio.sleep(60)
        assert two.feeds[1]._topics.tails.size == 0 and two.feeds[1]._topics == {}


@virtual_time
async def test_a_storage_that_is_away_for_a_while_keeps_followers_waiting() -> None:
    async with members(1) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 2))
        await settle()
        two.storage.fault = StorageUnavailable("away")
        await two.write()
        await asyncio.sleep(20)
        assert not follower.done()
        two.storage.fault = None
        assert await follower == [1, 2]


@virtual_time
async def test_what_cannot_be_read_is_told_to_each_follower() -> None:
    async with members(1, poll=NEVER) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 2))
        await settle()
        two.storage.fault = StorageError("corrupt")
        await two.write()
        with pytest.raises(StorageError, match="corrupt"):
            await follower


@virtual_time
async def test_a_tree_that_was_compacted_elsewhere_is_told_as_compacted() -> None:
    """The reader meets it, and lets who follow look: they have their own cursors."""
    async with members(1, poll=NEVER) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 99))
        await settle()
        await two.write(10)
        log = two.storage._events["t"]
        del log[2:5]
        two.storage._compacted["t"] = 6
        with pytest.raises(LogCompacted):
            await follower


@virtual_time
async def test_hints_that_are_no_versions_are_ignored() -> None:
    async with members(1, poll=NEVER) as two:
        follower = asyncio.create_task(collect(two.feeds[1], 0, 2))
        await settle()
        for value in (None, "2", 1, 0, -1):
            two.wire.buses[1].hear(VERSION, "t", value)
            two.wire.buses[1].hear(VERSION, "nobody follows it", value)
        await settle()
        assert not follower.done()
        two.wire.buses[1].hear(VERSION, "t", 2)  # before it is so
        await settle()
        two.wire.buses[1].hear(VERSION, "t", 2)
        await two.write()
        assert await follower == [1, 2]


STEP = st.one_of(
    st.tuples(st.just("write"), st.integers(1, 3)),
    st.tuples(st.just("write"), st.integers(1, 2 * TAIL)),
    st.tuples(st.just("write slowly"), st.integers(1, 3)),
    st.tuples(st.just("hint"), st.integers(0, 5)),  # how many versions ago
    st.tuples(st.just("follow"), st.integers(0, 70)),  # how far behind
    st.tuples(st.just("leave"), st.integers(0, 3)),
    st.tuples(st.just("wait"), st.integers(1, 3)),  # for how many versions ahead
    st.tuples(st.just("pass"), st.integers(0, 30)),  # tenths of a second
    st.tuples(st.just("move"), st.just(0)),
    st.tuples(st.just("return"), st.just(0)),
)
DELAYS = st.sampled_from([(), (0.0,), (0.0,), (0.0, 0.0), (0.3,), (0.1, 3.0)])


class Play:
    """One order of hints, polls, writes, moves and followers, on the member with number 1."""

    def __init__(self, two: Members) -> None:
        self.two = two
        self.followers: list[tuple[int, list[int], asyncio.Task[list[int]]]] = []
        self.waits: list[tuple[int, asyncio.Task[object]]] = []
        self.left_at = 0.0

    async def step(self, what: str, number: int) -> None:
        two, feed = self.two, self.two.feeds[1]
        match what:
            case "write":
                await two.write(number)
            case "write slowly":
                await two.write_slowly(number)
            case "hint":
                two.wire.buses[1].hear(VERSION, "t", two.version - number)
            case "follow":
                after, found = max(0, two.version - number), []
                self.followers.append((after, found, asyncio.create_task(collect(feed, after, 10**9, found))))
            case "leave" if len(self.followers) > number:
                self.followers.pop(number)[2].cancel()
            case "wait":
                wanted = two.version + number

                def until(head: object, wanted: int = wanted) -> bool:
                    return bool(head.version >= wanted)  # type: ignore[attr-defined]

                self.waits.append((wanted, asyncio.create_task(feed.wait("t", until))))
            case "pass":
                await asyncio.sleep(number / 10)
            case "move":
                two.owner, now = 1 - two.owner, asyncio.get_running_loop().time()
                if two.owner == 0:
                    self.left_at = now
                elif now - self.left_at < 2.5:  # so soon it comes back only because it is started again here
                    await two.write()
            case "return":
                two.wire.buses[1].returned()


async def play(steps: list[tuple[str, int]], delays: list[tuple[float, ...]], reads: list[float]) -> None:
    async with members(1) as two:
        hints, pauses = cycle(delays), cycle(reads)
        two.wire.delays, two.storage.delay = lambda: next(hints), lambda: next(pauses)
        played = Play(two)
        for what, number in steps:
            await played.step(what, number)
        for _ in range(2):  # once without anything more that would wake them
            await asyncio.sleep(60)
            for after, found, _ in played.followers:
                assert found == list(range(after + 1, two.version + 1))
            await two.write(3)
        await asyncio.sleep(60)
        assert [wanted for wanted, wait in played.waits if not wait.done()] == []
        assert two.feeds[1]._topics.tails.size == sum(topic.size for topic in two.feeds[1]._topics.values())


@settings(max_examples=300)
@given(
    st.lists(STEP, min_size=1, max_size=30),
    st.lists(DELAYS, min_size=1, max_size=5),
    st.lists(st.sampled_from([0.0, 0.0, 0.1, 1.0]), min_size=1, max_size=5),
)
def test_whatever_the_order_a_follower_sees_each_event_once(
    steps: list[tuple[str, int]], delays: list[tuple[float, ...]], reads: list[float]
) -> None:
    """Of hints that are lost, doubled, late or of the past, of polls, slow reads, moves and returns."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(play(steps, delays, reads))
