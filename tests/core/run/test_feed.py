"""Tests of core.run.feed: followers read the log from their own cursors."""

import asyncio
from typing import Any

import pytest

from core.loop.large_values import CHARACTERS, VALUES
from core.model import events as e
from core.model.content import Artifact, Part, Said
from core.model.errors import LogCompacted, StorageError, TaskNotFound
from core.model.events import Recorded
from core.model.task import Task, TaskStatus, TreeHead
from core.run import topic as module
from core.run.feed import Feed
from core.run.topic import PAGE, TAIL, TAIL_BYTES
from core.storage.base import Append, LogPart
from core.storage.memory import MemoryStorage
from tests.core.cores import settle, virtual_time


class Log:
    """One tree's log, written as the orchestrator does: stored, then published."""

    def __init__(self) -> None:
        self.storage = MemoryStorage()
        self.feed = Feed(self.storage)
        self.version = 0
        self.reads = 0

    async def write(
        self, count: int = 1, *, publish: bool = True, message: str | None = None, event: e.Event | None = None
    ) -> None:
        events = tuple(
            Recorded(
                tree_id="t", seq=self.version + n, at=0.0, name="t", tree_status=TaskStatus.IN_PROGRESS,
                event=event or e.TaskProgressed("t", 1, 0.5, message),
            )
            for n in range(1, count + 1)
        )  # fmt: skip
        is_new, self.version = not self.version, self.version + count
        head = TreeHead(id="t", version=self.version, created_at=0.0, updated_at=0.0)
        tasks = (Task(id="t", tree_id="t", name="t", created_at=0.0),) if is_new else ()
        await self.storage.append(Append(head=head, events=events, tasks=tasks, is_new=is_new))
        if publish:
            self.feed.publish(head, events)

    async def collect(self, after: int, upto: int) -> list[int]:
        found = []
        async for recorded in self.feed.follow("t", after):
            found.append(recorded.seq)
            if recorded.seq == upto:
                break
        return found


async def new_log(count: int = 0) -> Log:
    log = Log()
    await log.storage.open()
    if count:
        await log.write(count)
    return log


@virtual_time
async def test_a_follower_gets_every_event_in_order_from_its_cursor() -> None:
    log = await new_log(5)
    follower = asyncio.create_task(log.collect(2, 9))
    await settle()
    await log.write(1)
    await log.write(3)
    assert await follower == [3, 4, 5, 6, 7, 8, 9]


@virtual_time
async def test_followers_far_behind_and_far_ahead_see_the_same() -> None:
    """More than a page, and more than the tail in memory."""
    log = await new_log(1)
    total = 3 * max(PAGE, TAIL) + 1
    followers = [asyncio.create_task(log.collect(after, total)) for after in (0, 10, total - 1)]
    for _ in range(3):
        await settle(1)
        await log.write(max(PAGE, TAIL))
    assert [await follower for follower in followers] == [
        list(range(after + 1, total + 1)) for after in (0, 10, total - 1)
    ]


@virtual_time
async def test_a_slow_follower_delays_nobody() -> None:
    log = await new_log(1)
    slow = log.feed.follow("t").__aiter__()
    assert (await anext(slow)).seq == 1
    quick = asyncio.create_task(log.collect(0, 1_001))
    await settle(3)
    for _ in range(10):
        await log.write(100)
    assert await quick == list(range(1, 1_002))
    rest = [(await anext(slow)).seq for _ in range(1_000)]
    assert rest == list(range(2, 1_002))
    await slow.aclose()  # type: ignore[attr-defined]


@virtual_time
async def test_nothing_is_told_before_it_is_published() -> None:
    """What is stored but not published yet waits for its publication, and then nothing is told twice."""
    log = await new_log(1)
    follower = asyncio.create_task(log.collect(0, 3))
    await settle()
    await log.write(1, publish=False)
    await settle()
    assert not follower.done()
    await log.write(1)
    assert await follower == [1, 2, 3]


@virtual_time
async def test_close_ends_followers_and_waits() -> None:
    log = await new_log(2)
    follower = asyncio.create_task(log.collect(0, 99))
    waiter = asyncio.create_task(log.feed.wait("t", lambda head: False))
    await settle()
    log.feed.close()
    assert await follower == [1, 2]
    assert (await waiter).version == 2
    assert await log.collect(0, 99) == []


@virtual_time
async def test_a_wait_ends_with_the_head_that_satisfies_it() -> None:
    log = await new_log(1)
    waiter = asyncio.create_task(log.feed.wait("t", lambda head: head.version >= 3))
    await settle()
    await log.write(1)
    await settle()
    assert not waiter.done()
    await log.write(1)
    assert (await waiter).version == 3


@virtual_time
async def test_a_wait_gives_the_head_that_satisfied_it_though_the_tree_is_further_already() -> None:
    log = await new_log(1)
    waiter = asyncio.create_task(log.feed.wait("t", lambda head: head.version == 2))
    await settle()
    await log.write(1)
    await log.write(1)
    assert (await waiter).version == 2


@virtual_time
async def test_who_waits_for_another_head_is_not_woken_and_one_whose_condition_fails_is_told_alone() -> None:
    log = await new_log(1)
    asked: list[int] = []
    patient = asyncio.create_task(log.feed.wait("t", lambda head: bool(asked.append(head.version)) or head.version > 3))
    broken = asyncio.create_task(log.feed.wait("t", lambda head: 1 // (head.version - 2) > 5))
    await settle()
    for _ in range(3):
        await log.write(1)
    assert (await patient).version == 4 and asked == [1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        await broken
    assert log.feed.followers == 0


@virtual_time
async def test_a_wait_for_no_tree_is_refused() -> None:
    log = await new_log()
    with pytest.raises(TaskNotFound):
        await log.feed.wait("nowhere", lambda head: True)
    assert log.feed.followers == 0


@virtual_time
async def test_a_follower_that_leaves_is_forgotten() -> None:
    """Memory is bounded by who follows now."""
    log = await new_log(1)
    tasks = [asyncio.create_task(log.collect(0, 99)) for _ in range(3)]
    await settle()
    assert log.feed.followers == 3
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert log.feed.followers == 0


@virtual_time
async def test_watchers_hear_of_what_is_durable_and_of_trees_that_are_deleted() -> None:
    log = await new_log(1)
    heard: list[object] = []
    log.feed.watch(lambda head, events: heard.extend(each.seq for each in events), heard.append)
    log.feed.watch(lambda head, events: heard.append(head.version))
    await log.write(1)
    log.feed.forget("t")
    assert heard == [2, 2, "t"]


async def compact(log: Log, until: int) -> None:
    """As retention does with a tree at rest."""
    await log.storage.compact([LogPart("t", log.version, 0, until)])


@virtual_time
async def test_a_follower_of_what_is_compacted_is_told_so_and_where_the_log_goes_on() -> None:
    """Also where events remain after its cursor: one left out is one too many."""
    log = await new_log(6)
    await compact(log, 4)

    for cursor in (0, 1, 3):
        with pytest.raises(LogCompacted, match="up to number 4") as told:
            await log.collect(after=cursor, upto=6)
        assert (told.value.tree_id, told.value.until) == ("t", 4)
    assert await log.collect(after=4, upto=6) == [5, 6]


@virtual_time
async def test_a_slow_follower_does_not_miss_what_is_compacted_before_it_reads() -> None:
    log = await new_log(PAGE + 5)
    seen: list[int] = []
    with pytest.raises(LogCompacted):
        async for recorded in log.feed.follow("t"):
            seen.append(recorded.seq)
            if recorded.seq == PAGE:
                await compact(log, PAGE + 3)
    assert seen == list(range(1, PAGE + 1))


@virtual_time
async def test_a_gap_that_is_nobodys_compaction_is_damage() -> None:
    log = await new_log(6)
    del log.storage._events["t"][2]

    with pytest.raises(StorageError, match="gaps after event 0"):
        await log.collect(after=0, upto=6)
    await compact(log, 1)
    with pytest.raises(StorageError, match="gaps after event 1"):
        await log.collect(after=1, upto=6)


@virtual_time
async def test_a_compacted_log_that_is_deleted_while_it_is_read_has_just_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    log = await new_log(6)
    await compact(log, 4)
    compacted = log.storage.compacted

    async def too_late(tree_id: str) -> int:
        await log.storage.delete(tree_id)
        log.feed.forget(tree_id)
        return await compacted(tree_id)

    monkeypatch.setattr(log.storage, "compacted", too_late)
    assert await log.collect(after=0, upto=6) == []


@virtual_time
async def test_a_log_that_is_held_from_its_beginning_is_told_from_memory() -> None:
    log = await new_log()
    with log.feed.held("t"):
        assert log.feed.told("t", 1) is None
        await log.write(3)
        assert (await log.feed.wait("t", lambda head: head.version == 3)).version == 3
        assert [recorded.seq for recorded in log.feed.told("t", 2) or ()] == [1, 2]
        assert log.feed.told("t", 4) is None  # it is not all there
    assert log.feed.told("t", 3) is None
    assert log.feed.followers == 0


@pytest.mark.parametrize(("before", "after"), [(1, 1), (0, TAIL + 1)])
@virtual_time
async def test_a_log_of_which_memory_has_a_part_only_is_not_told_from_there(before: int, after: int) -> None:
    """Whoever holds it late has missed the beginning; a long one has outgrown its tail."""
    log = await new_log(before)
    with log.feed.held("t"):
        await log.write(after)
        assert log.feed.told("t", before + after) is None


@virtual_time
async def test_large_events_outgrow_the_tail_and_are_read_from_the_storage() -> None:
    """What is kept for the followers of one tree is bounded in bytes, too; and nobody misses anything for that."""
    log = await new_log()
    with log.feed.held("t"):
        await log.write(4, message="x" * (TAIL_BYTES // 5))
        assert [recorded.seq for recorded in log.feed.told("t", 4) or ()] == [1, 2, 3, 4]
        await log.write(1, message="x" * (TAIL_BYTES // 5))
        assert log.feed.told("t", 5) is None
        assert await log.collect(after=0, upto=5) == [1, 2, 3, 4, 5]
        await log.write(1, message="x" * TAIL_BYTES)
        await log.write(1)
        assert await log.collect(after=0, upto=7) == [1, 2, 3, 4, 5, 6, 7]
        assert await log.collect(after=6, upto=7) == [7]


@virtual_time
async def test_the_tails_of_all_trees_together_are_bounded_and_nobody_misses_anything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = await new_log()
    await log.write(1, publish=False)
    monkeypatch.setattr("core.run.topic.TAILS_BYTES", 10_000)
    with log.feed.held("other"):
        other = Recorded(
            tree_id="other", seq=1, at=0.0, name="o", tree_status=TaskStatus.IN_PROGRESS,
            event=e.TaskProgressed("other", 1, 0.5, "x" * 9_000),
        )  # fmt: skip
        log.feed.publish(TreeHead(id="other", version=1, created_at=0.0, updated_at=0.0), [other])
        with log.feed.held("t"):
            await log.write(1, message="small")
            assert log.feed._topics["t"].size > 0
            await log.write(1, message="x" * 1_000)
            assert log.feed._topics["t"].size == 0
            assert log.feed.told("other", 1) == [other], "the others keep what they have"
            assert await log.collect(after=0, upto=3) == [1, 2, 3]
            await log.write(1, message="small")
            assert await log.collect(after=2, upto=4) == [3, 4]
            assert log.feed._topics.tails.size == sum(topic.size for topic in log.feed._topics.values())
    await settle()  # followers that were left are closed a turn later
    assert log.feed._topics.tails.size == 0


TEXT, MANY = "x" * (CHARACTERS + 1), [0] * (VALUES + 1)
LARGE: dict[str, e.Event] = {
    "message received": e.MessageReceived("t", Said(parts=(Part(text=TEXT),))),
    "run of a part": e.RunStarted("t", 1, tuple(map(str, MANY)), False, None),
    "progress": e.TaskProgressed("t", 1, 0.5, TEXT),
    "message": e.MessageSent("t", 1, Said(parts=(Part(data=MANY),)), False),
    "artifact": e.ArtifactAdded("t", 1, Artifact(artifact_id="a", parts=(Part(data=MANY),))),
    "text": e.ArtifactAdded("t", 1, Artifact(artifact_id="a", parts=(Part(text=TEXT),))),
    "metadata of a text": e.ArtifactAdded(
        "t", 1, Artifact(artifact_id="a", parts=(Part(text=""),), metadata={"a": MANY})
    ),
    "question": e.InputRequested("t", 1, (Part(text=TEXT),), False, {}, (), (), None),
    "answer": e.InputProvided("t", MANY, None),
    "result": e.TaskCompleted("t", 1, {"a": TEXT}),
    "result of long integers": e.TaskCompleted("t", 1, [10**398] * (VALUES - 1)),
    "update": e.TaskUpdated("t", {"inputs": {"a": TEXT}}, None),
}


@virtual_time
@pytest.mark.parametrize("name", LARGE)
async def test_what_is_large_is_not_encoded_to_be_weighed_and_nobody_misses_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event of 10 MiB held the loop while it was encoded, for each tree that somebody followed."""
    encoded: list[Any] = []
    encode = module._encode

    def watched(value: Any) -> bytes:
        encoded.append(value)
        return bytes(encode(value))

    monkeypatch.setattr(module, "_encode", watched)
    log = await new_log(1)
    with log.feed.held("t"):
        await log.write(1)
        await log.write(1, event=LARGE[name])
        await log.write(1)
        assert len(encoded) == 2 and LARGE[name] not in encoded
        assert log.feed._topics["t"].size < 2_000, "it is not kept in memory"
        assert await log.collect(0, 4) == [1, 2, 3, 4]
