"""Tests of core.run.orchestrator: decide, append, apply, tell; and what happens when an append fails."""

import asyncio
from collections.abc import Sequence

import pytest

from core.loop.beside import Beside
from core.model import commands as c
from core.model import events as e
from core.model.errors import (
    IllegalCommand,
    StaleAttempt,
    StorageError,
    StorageUnavailable,
    TaskNotFound,
    VersionConflict,
)
from core.model.events import Recorded
from core.model.in_flight import ByteBudget, Holdings
from core.model.plan import Plan
from core.model.task import Task, TaskStatus, TreeHead
from core.model.tree import TaskTree
from core.run.feed import Feed
from core.run.orchestrator import MAX_CONFLICTS, Orchestrator
from core.run.started import Started
from core.storage.base import Document, EventQuery
from tests.core.contents import said
from tests.core.cores import FaultyStorage, LoopClock, settle, virtual_time


class Watcher:
    """Notes what the runner would be told."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def applied(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        self.notes.append("applied " + _kinds(events))

    def committed(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        self.notes.append("committed " + _kinds(events))

    def voided(self, tree_id: str, events: Sequence[Recorded]) -> None:
        self.notes.append("voided " + _kinds(events))

    def loaded(self, tree: TaskTree) -> None:
        self.notes.append(f"loaded {tree.id}")


def _kinds(events: Sequence[Recorded]) -> str:
    return " ".join(type(recorded.event).__name__ for recorded in events)


class Rig:
    """An orchestrator without a runner, on a storage that can fail."""

    def __init__(self) -> None:
        self.storage = FaultyStorage()
        self.feed = Feed(self.storage)
        self.orchestrator = Orchestrator(self.storage, self.feed, LoopClock(), Holdings(ByteBudget()), Beside())
        self.watcher = Watcher()
        self.orchestrator.observer = self.watcher

    async def create(self, *, execute: bool = True) -> Started:
        head = TreeHead(id="t", size=1, created_at=0.0, updated_at=0.0)
        task = Task(id="t", tree_id="t", name="work", executor="work", created_at=0.0)
        return await self.orchestrator.create(head, Plan("t", (task,)), execute=execute)

    async def log(self) -> list[str]:
        return [type(recorded.event).__name__ for recorded in await self.storage.events(EventQuery(tree_id="t"))]


async def new_rig(*, execute: bool = True) -> Rig:
    rig = Rig()
    await rig.storage.open()
    await rig.create(execute=execute)
    rig.watcher.notes.clear()
    return rig


@virtual_time
async def test_create_and_start_are_one_append() -> None:
    rig = await new_rig()
    assert len(rig.storage.appends) == 1
    assert await rig.log() == ["TreeCreated", "RunStarted"]


@virtual_time
async def test_a_command_is_durable_when_handle_returns() -> None:
    rig = await new_rig()
    decision = await rig.orchestrator.handle("t", c.StartTask("t"))
    assert [type(r.event) for r in decision.events] == [e.TaskStarted]
    assert (await rig.log())[-1] == "TaskStarted"
    stored = await rig.storage.task("t")
    assert stored is not None
    assert (stored.status, stored.is_running) == (TaskStatus.IN_PROGRESS, True)


@virtual_time
async def test_a_command_with_a_document_that_is_there_already_is_refused_and_changes_nothing() -> None:
    """Deciding again would not help, unlike after the conflict of two writers of the tree."""
    rig = await new_rig()
    document = Document(kind="key", id="k", tree_id="t", body=b"{}")
    await rig.orchestrator.handle("t", c.StartTask("t"), (document,))
    with pytest.raises(VersionConflict):
        await rig.orchestrator.handle("t", c.ReportProgress("t", 1, 0.5), (document,))
    assert (await rig.log())[-1] == "TaskStarted"


@virtual_time
async def test_a_conflict_of_writers_is_decided_again_with_its_documents() -> None:
    rig = await new_rig()
    rig.storage.faults = [VersionConflict("t")]
    await rig.orchestrator.handle("t", c.StartTask("t"), (Document(kind="key", id="k", tree_id="t", body=b"{}"),))
    assert await rig.storage.document("key", "k") is not None


@virtual_time
async def test_nothing_is_published_before_the_commit() -> None:
    rig = await new_rig()
    followed: list[str] = []

    async def follow() -> None:
        async for recorded in rig.feed.follow("t", 2):
            followed.append(type(recorded.event).__name__)

    follower = asyncio.create_task(follow())
    rig.storage.held = []
    handling = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    await settle()
    assert rig.watcher.notes == ["applied TaskStarted"]
    assert (followed, handling.done()) == ([], False)
    rig.storage.release()
    await handling
    await settle()
    assert rig.watcher.notes == ["applied TaskStarted", "committed TaskStarted"]
    assert followed == ["TaskStarted"]
    follower.cancel()


@virtual_time
async def test_commands_are_decided_ahead_of_the_commit_and_stored_in_order() -> None:
    rig = await new_rig()
    rig.storage.held = []
    handling = []
    for command in (c.StartTask("t"), c.ReportProgress("t", 1, 0.5), c.CompleteTask("t", 1, "done")):
        handling.append(asyncio.create_task(rig.orchestrator.handle("t", command)))
        await settle()
    assert len(rig.storage.held) == 3
    rig.storage.release()
    await asyncio.gather(*handling)
    assert await rig.log() == [
        "TreeCreated", "RunStarted", "TaskStarted", "TaskProgressed", "TaskCompleted", "TreeFinished",
    ]  # fmt: skip


@virtual_time
async def test_what_one_turn_decides_is_one_append() -> None:
    """So a task's end and the starts that follow from it are stored together or not at all."""
    rig = await new_rig()
    commands: list[c.Command] = [c.StartTask("t"), c.ReportProgress("t", 1, 0.5), c.CompleteTask("t", 1, "done")]
    decisions = await asyncio.gather(*(rig.orchestrator.handle("t", command) for command in commands))
    assert [len(append.events) for append in rig.storage.appends] == [2, 4]
    assert [_kinds(decision.events) for decision in decisions] == [
        "TaskStarted", "TaskProgressed", "TaskCompleted TreeFinished",
    ]  # fmt: skip
    assert rig.watcher.notes[-1] == "committed TaskStarted TaskProgressed TaskCompleted TreeFinished"


@virtual_time
async def test_a_refused_document_costs_nobody_else_of_its_turn() -> None:
    rig = await new_rig()
    document = Document(kind="key", id="k", tree_id="t", body=b"{}")
    await rig.orchestrator.handle("t", c.StartTask("t"), (document,))
    plain, refused = await asyncio.gather(
        rig.orchestrator.handle("t", c.ReportProgress("t", 1, 0.25)),
        rig.orchestrator.handle("t", c.ReportProgress("t", 1, 0.5), (document,)),
        return_exceptions=True,
    )
    assert isinstance(refused, VersionConflict)
    assert not isinstance(plain, BaseException)
    stored = await rig.storage.task("t")
    assert stored is not None
    assert stored.progress == 0.25


@virtual_time
async def test_of_a_turn_that_cannot_be_stored_only_the_guilty_is_told() -> None:
    """One value that is no JSON: the others are decided again, each by itself."""
    rig = await new_rig()
    await rig.orchestrator.handle("t", c.StartTask("t"))
    rig.storage.faults = [StorageError("not JSON"), StorageError("not JSON")]  # the turn; then the first one alone
    guilty, innocent = await asyncio.gather(
        rig.orchestrator.handle("t", c.ReportProgress("t", 1, 0.25)),
        rig.orchestrator.handle("t", c.ReportProgress("t", 1, 0.5)),
        return_exceptions=True,
    )
    assert type(guilty) is StorageError
    assert not isinstance(innocent, BaseException)
    assert (await rig.log())[2:] == ["TaskStarted", "TaskProgressed"]


@virtual_time
async def test_a_turn_that_is_still_open_falls_with_what_it_rests_on() -> None:
    rig = await new_rig()
    rig.storage.held = []
    first = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    await settle()
    tree = await rig.orchestrator.trees.load("t")
    rig.storage.fail_held(StorageUnavailable("disk full"))
    decision = rig.orchestrator.decide_now(tree, c.ReportProgress("t", 1, 0.5))
    await settle()
    assert isinstance(first.exception(), StorageUnavailable)
    assert isinstance(decision.turn.stored.exception(), VersionConflict)
    assert rig.watcher.notes[2:] == ["voided TaskStarted", "voided TaskProgressed"]
    assert len(rig.storage.appends) == 2
    assert (await rig.orchestrator.trees.load("t")).version == 2


@virtual_time
async def test_after_a_conflict_the_tree_is_reloaded_and_decided_again() -> None:
    """Another writer came first: what it wrote is seen by the second decision."""
    rig = await new_rig()
    rig.storage.faults = [VersionConflict("t")]
    before = rig.orchestrator.trees.by_id.get("t")
    decision = await rig.orchestrator.handle("t", c.StartTask("t"))
    assert decision.tree is not before
    assert (await rig.log()).count("TaskStarted") == 1
    told = rig.watcher.notes
    assert told == [
        "applied TaskStarted",
        "voided TaskStarted",
        "loaded t",
        "applied TaskStarted",
        "committed TaskStarted",
    ]


@virtual_time
async def test_another_process_that_wrote_first_is_respected() -> None:
    rig = await new_rig()
    other = Orchestrator(rig.storage, Feed(rig.storage), LoopClock(), Holdings(ByteBudget()), Beside())
    await other.handle("t", c.StartTask("t"))
    with pytest.raises(IllegalCommand):
        await rig.orchestrator.handle("t", c.StartTask("t"))
    await rig.orchestrator.handle("t", c.ReportProgress("t", 1, 0.5))
    assert (await rig.log()).count("TaskStarted") == 1


@virtual_time
async def test_endless_conflicts_end_as_storage_unavailable() -> None:
    rig = await new_rig()
    rig.storage.faults = [VersionConflict("t")] * MAX_CONFLICTS
    with pytest.raises(StorageUnavailable, match="too many writers"):
        await rig.orchestrator.handle("t", c.StartTask("t"))
    assert await rig.log() == ["TreeCreated", "RunStarted"]


@virtual_time
async def test_a_storage_failure_voids_all_that_was_decided_on_top() -> None:
    """The tree goes back to what is stored; no follower sees what did not happen."""
    rig = await new_rig()
    rig.storage.held = []
    first = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    await settle()
    second = asyncio.create_task(rig.orchestrator.handle("t", c.CompleteTask("t", 1)))
    await settle()
    rig.storage.fail_held(StorageUnavailable("disk full"), VersionConflict("t"))
    with pytest.raises(StorageUnavailable, match="disk full"):
        await first
    with pytest.raises(StaleAttempt):  # decided again on the stored tree, where the attempt never began
        await second
    assert rig.watcher.notes[2:] == ["voided TaskStarted", "voided TaskCompleted TreeFinished", "loaded t"]
    assert "committed TaskStarted" not in rig.watcher.notes
    assert await rig.log() == ["TreeCreated", "RunStarted"]
    tree = await rig.orchestrator.trees.load("t")
    assert (tree.version, tree.tasks["t"].status) == (2, TaskStatus.PENDING)
    tree.check()


@virtual_time
async def test_a_refusal_waits_for_what_it_rests_on() -> None:
    """'Already started' may not be answered while the start may still fail."""
    rig = await new_rig()
    rig.storage.held = []
    first = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    second = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    await settle()
    assert not second.done()
    rig.storage.release()
    await first
    with pytest.raises(IllegalCommand):
        await second


@virtual_time
async def test_a_refusal_on_something_that_failed_is_decided_again() -> None:
    rig = await new_rig()
    rig.storage.held = []
    first = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    second = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    await settle()
    rig.storage.fail_held(StorageUnavailable("disk full"))
    with pytest.raises(StorageUnavailable):
        await first
    await second
    assert (await rig.log()).count("TaskStarted") == 1


@virtual_time
async def test_an_answer_without_events_waits_too() -> None:
    """A second cancel is answered when the first one is durable."""
    rig = await new_rig()
    rig.storage.held = []
    first = asyncio.create_task(rig.orchestrator.handle("t", c.Cancel("t")))
    second = asyncio.create_task(rig.orchestrator.handle("t", c.Cancel("t")))
    await settle()
    assert not second.done()
    rig.storage.release()
    assert (await first).events
    assert not (await second).events


@virtual_time
async def test_a_caller_that_gives_up_takes_nothing_back() -> None:
    rig = await new_rig()
    rig.storage.held = []
    handling = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    await settle()
    handling.cancel()
    await asyncio.wait([handling])
    rig.storage.release()
    await settle()
    assert (await rig.log())[-1] == "TaskStarted"
    assert rig.watcher.notes == ["applied TaskStarted", "committed TaskStarted"]


@virtual_time
async def test_a_caller_that_gives_up_leaves_the_others_of_its_turn_alone() -> None:
    rig = await new_rig()
    rig.storage.held = []
    one = asyncio.create_task(rig.orchestrator.handle("t", c.StartTask("t")))
    other = asyncio.create_task(rig.orchestrator.handle("t", c.ReceiveMessage("t", said("m"))))
    await settle()
    one.cancel()
    await asyncio.wait([one])
    assert not other.done()
    rig.storage.release()
    assert [recorded.event.task_id for recorded in (await other).events] == ["t"]


@virtual_time
async def test_only_trees_at_work_stay_in_memory() -> None:
    rig = await new_rig()
    assert rig.orchestrator.trees.by_id.get("t") is not None
    await rig.orchestrator.handle("t", c.Cancel("t"))
    await settle()
    assert rig.orchestrator.trees.by_id.get("t") is None
    with pytest.raises(IllegalCommand):
        await rig.orchestrator.handle("t", c.StartTask("t"))
    assert rig.orchestrator.trees.by_id.get("t") is None


@virtual_time
async def test_a_create_that_cannot_be_stored_leaves_nothing() -> None:
    rig = Rig()
    await rig.storage.open()
    rig.storage.faults = [StorageUnavailable("disk full")]
    with pytest.raises(StorageUnavailable):
        await rig.create()
    await settle()
    assert rig.orchestrator.trees.by_id.get("t") is None
    with pytest.raises(TaskNotFound):
        await rig.orchestrator.handle("t", c.StartTask("t"))
