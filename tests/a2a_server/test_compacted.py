"""What callers see of a task whose log is compacted: the same task, and never a silent gap."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2a_server.edge.limits import Permit
from a2a_server.views import snapshots, streams
from a2a_server.views.frames import View
from a2a_server.views.translate import CONVERSATION, OUTPUT, snapshot
from core.model import events as e
from core.model.compaction import KEPT, compact
from core.model.events import KINDS, Event, Recorded
from core.model.task import Cause, TaskStatus, TreeHead
from core.run.feed import Feed
from core.run.retention import Retention, RetentionTimes
from core.session import has_ended
from tests.a2a_server.conftest import (
    Caller,
    Frame,
    RunningServer,
    calling,
    message,
    running,
    somebody,
    tree_message,
)
from tests.a2a_server.views.test_streams import TREE, frames_of, rpc
from tests.core.contents import artifact as artifact_of
from tests.core.contents import said as said_of
from tests.core.contents import texts as texts_of

NODES = ("r", "b", "c")


def keeper(call: Caller | RunningServer, *, compact_after: float | None = 0.0, drop_after: float | None = None) -> Any:
    session = call.application.session
    times = RetentionTimes(compact_after=compact_after, drop_after=drop_after)
    return Retention(session.storage, session.feed, session.clock, times)


# The same task

texts = st.sampled_from(["", "x", "y"])
artifacts = st.builds(
    lambda node, artifact_id, text, append, name: e.ArtifactAdded(
        node,
        1,
        artifact_of(artifact_id, *[text] * bool(text), name=name, metadata={name: text}),
        append=append,
    ),
    st.sampled_from(NODES),
    st.sampled_from(["a", "b", "r", "b.a", "c.a"]),
    texts,
    st.booleans(),
    texts,
)
others = st.one_of(
    st.builds(e.MessageSent, st.sampled_from(NODES), st.just(1), st.just(said_of("hello"))),
    st.builds(e.TaskProgressed, st.sampled_from(NODES), st.just(1), st.just(0.5)),
    st.builds(e.TaskCompleted, st.sampled_from(NODES), st.just(1), st.sampled_from([None, "result"])),
    st.builds(e.AttemptFailed, st.just("b"), st.just(1), st.just("no"), st.just(Cause.TIMEOUT), st.just(9.0)),
    st.builds(e.TaskFailed, st.sampled_from(NODES), st.just(1), st.just("failed"), st.just(Cause.TIMEOUT)),
    st.builds(e.GroupEnded, st.just("r"), st.just(TaskStatus.FAILED), st.just("a child failed")),
    st.just(e.InputRequested("c", 1, texts_of("?"))),
    st.just(e.InputProvided("c", "yes")),
    st.just(e.RunStarted("r", 2)),
)


@given(
    said=st.lists(st.one_of(artifacts, others), max_size=30),
    status=st.sampled_from([TaskStatus.COMPLETED, TaskStatus.FAILED]),
    cuts=st.sets(st.integers(1, 30)),
)
def test_a_task_is_the_same_before_and_after(said: list[Event], status: TaskStatus, cuts: set[int]) -> None:
    """Of the root and of every node, whatever was said, and however the log was cut for compacting."""
    ends = [e.TaskCompleted(node, 1, "end") for node in NODES]
    log = [
        Recorded(tree_id="r", seq=n, at=float(n), name="x", tree_status=status, event=event)
        for n, event in enumerate([*said, *ends, e.TreeFinished("r", status)], 1)
    ]
    head = TreeHead(id="r", version=len(log), status=status, run=1, created_at=0.0, updated_at=float(len(log)))
    places = [0, *sorted(cut for cut in cuts if cut < len(log) - 1), len(log) - 1]
    compacted = [each for a, b in pairwise(places) for each in compact(log[a:b])] + log[-1:]

    for node in NODES:
        before, after = (
            snapshot(head, node, [each for each in events if node == "r" or each.task_id == node])
            for events in (log, compacted)
        )
        assert after == before


def test_whatever_a_snapshot_is_made_of_is_kept() -> None:
    """That a question was answered is not: of a task that has ended none is open."""
    needed = {*CONVERSATION, *OUTPUT, "task_skipped"} - {"input_provided"}  # a node's own status is that of its end
    assert {KINDS[kind] for kind in KEPT.__args__} == needed


@pytest.mark.asyncio
async def test_get_and_list_show_the_same_task_before_and_after() -> None:
    async with calling() as call:
        for skill in ("chunks", "say", "boom", "echo", "reply", "steps"):
            await call("SendMessage", message(skill))
        listing = {"includeArtifacts": True}
        before = await call("ListTasks", listing)
        tasks = [await call("GetTask", {"id": task["id"]}) for task in before["tasks"]]

        assert await keeper(call).round() == (6, 0)

        assert await call("ListTasks", listing) == before
        assert [await call("GetTask", {"id": task["id"]}) for task in before["tasks"]] == tasks
        assert 2 in {len(artifact["parts"]) for task in tasks for artifact in task.get("artifacts", ())}, "two pieces"


# Followers


@pytest.mark.asyncio
async def test_a_reader_who_resumes_in_what_is_compacted_gets_the_task_and_the_end() -> None:
    async with calling() as call:
        task_id = (await call.send("chunks"))["id"]
        version = (await call.session.storage.head(task_id)).version
        task = await call("GetTask", {"id": task_id})
        whole = await call.frames("SubscribeToTask", {"id": task_id}, last_event_id=0)
        assert len(whole) > 3
        await keeper(call).round()

        for last_seen in (0, 3, version - 3):
            frames = await call.frames("SubscribeToTask", {"id": task_id}, last_event_id=last_seen)
            assert [(frame.seq, frame.result) for frame in frames] == [(version, {"task": task})]
        (end,) = await call.frames("SubscribeToTask", {"id": task_id}, last_event_id=version - 1)
        assert end == whole[-1]
        assert await call.frames("SubscribeToTask", {"id": task_id}, last_event_id=version) == []


@pytest.mark.asyncio
async def test_a_v0_3_reader_gets_the_task_too() -> None:
    async with calling() as call:
        task_id = (await call.send("chunks"))["id"]
        await keeper(call).round()
        frames = await call.frames("tasks/resubscribe", {"id": task_id}, last_event_id=2)
        assert [frame.result["kind"] for frame in frames] == ["task"]
        assert frames[0].result["status"]["state"] == "completed"


# How a task is asked for and followed again, in each version and binding, and where the task is in a frame.
FOLLOWED: dict[str, tuple[str, str, dict[str, str]]] = {
    "1.0": ("SubscribeToTask", "/", {"A2A-Version": "1.0"}),
    "0.3": ("tasks/resubscribe", "/", {"A2A-Version": "0.3"}),
    "1.0 over HTTP": ("", "/tasks/{id}:subscribe", {"A2A-Version": "1.0"}),
    "0.3 over HTTP": ("", "/v1/tasks/{id}:subscribe", {"A2A-Version": "0.3"}),
}


@pytest.mark.parametrize("is_long", [False, True], ids=["short log", "long log"])
@pytest.mark.parametrize("how", FOLLOWED)
@pytest.mark.asyncio
async def test_a_node_says_where_it_is_also_in_place_of_what_is_compacted(
    how: str, is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One below the root, and one below another node."""
    method, path, version = FOLLOWED[how]
    async with running() as server, server.client() as client:
        below = {"id": "a", "name": "group", "parent_id": "r"}, {"id": "b", "name": "chunks", "parent_id": "a"}
        tree = tree_message({"id": "r", "name": "root"}, *below, {"name": "echo", "parent_id": "r"})
        sent = await client.post("/", json=rpc("SendMessage", tree), headers={"A2A-Version": "1.0"})
        root = sent.json()["result"]["task"]["id"]
        parents = {task.id: task.parent_id for task in (await server.application.session.storage.load(root))[1]}
        await keeper(server).round()
        monkeypatch.setattr(snapshots, "SHORT", 0 if is_long else snapshots.SHORT)
        for node, parent in parents.items():
            headers = version | {"Last-Event-ID": "1"}
            if method:
                answer = await client.post("/", json=rpc(method, {"id": node}), headers=headers)
            else:
                answer = await client.get(path.format(id=node), headers=headers)
            (frame,) = frames_of(answer.text)
            told = frame.data.get("result", frame.data)
            about = told.get("task", told)["metadata"]
            if parent is None:
                assert not about.keys() & {"parentTaskId", "rootTaskId"}
            else:
                assert (about["parentTaskId"], about["rootTaskId"]) == (parent, root)


@pytest.mark.asyncio
async def test_a_reader_of_a_tree_that_runs_again_gets_the_task_and_what_follows() -> None:
    async with calling() as call:
        tree_id = await call.tree({"id": "a", "name": "hold", "inputs": {"key": "x"}})
        call.lab.released["x"].set()
        await call("tasks.execute", {"task_id": tree_id, "wait": True})
        await keeper(call).round()
        compacted = await call.session.storage.compacted(tree_id)
        call.lab.released["x"].clear()
        call.lab.started["x"].clear()

        await call("tasks.execute", {"task_id": tree_id, "force": True})
        await call.lab.started["x"].wait()
        following = call.stream("tasks.execute", {"task_id": tree_id, "use_streaming": True}, last_event_id=1)
        frames: list[Frame] = []
        async for frame in following:
            frames.append(frame)
            call.lab.released["x"].set()

    shown = [(frame.data["type"], frame.seq) for frame in frames if "type" in frame.data]
    assert shown[0] == ("compacted", compacted)
    assert [kind for kind, _ in shown[1:]] == ["final", "task_start", "task_completed", "final", "stream_end"]
    assert all(seq > compacted for _, seq in shown[1:-1])


@pytest.mark.asyncio
async def test_an_event_source_is_told_where_the_log_begins_now() -> None:
    async with running() as server, server.client() as client:
        server.lab.released["hold"].set()
        tree = (await client.post("/", json=rpc("tasks.execute", {"tasks": TREE, "wait": True}))).json()["result"]
        path = f"/tasks/{tree['id']}/events"
        before = frames_of((await client.get(path)).text)
        await keeper(server).round()

        compacted, *rest = frames_of((await client.get(path)).text)

        assert (compacted.data["type"], compacted.data["status"], compacted.seq) == (
            "compacted",
            "completed",
            compacted.data["seq"],
        )
        assert rest == before[-2:], "the end of the tree, and of the stream"
        child = tree["children"][0]["id"]
        told = [frame.data["type"] for frame in frames_of((await client.get(f"/tasks/{child}/events")).text)]
        assert told == ["compacted", "final", "stream_end"]


@pytest.mark.asyncio
async def test_a_listing_of_events_begins_with_what_is_compacted() -> None:
    async with calling() as call:
        tree_id = await call.tree({"name": "steps"})
        await call("tasks.execute", {"task_id": tree_id, "wait": True})
        before = await call("tasks.events", {"task_id": tree_id})
        await keeper(call).round()

        compacted, final = await call("tasks.events", {"task_id": tree_id})

        assert (compacted["type"], final) == ("compacted", before[-1])
        assert await call("tasks.events", {"task_id": tree_id, "after": compacted["seq"]}) == [final]
        assert await call("tasks.events", {"task_id": tree_id, "limit": 1}) == [compacted]


async def slow_pages(call: Caller, monkeypatch: pytest.MonkeyPatch) -> str:
    """A task that has ended, of whose log a reader gets two events at a time."""
    monkeypatch.setattr(streams, "PAGE", 2)
    return str((await call.send("chunks"))["id"])


@pytest.mark.asyncio
async def test_a_log_that_is_compacted_while_somebody_reads_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with calling() as call:
        task_id = await slow_pages(call, monkeypatch)
        task = await call("GetTask", {"id": task_id})
        frames: list[Frame] = []
        async for frame in call.stream("SubscribeToTask", {"id": task_id}, last_event_id=3):
            if not frames:
                await keeper(call).round()
            frames.append(frame)
        assert "task" in frames[-1].result and frames[-1].result["task"] == task
        assert len(frames) == 3


@pytest.mark.asyncio
async def test_a_task_that_is_removed_while_somebody_reads_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an end, which would say that there was no more."""
    async with calling() as call:
        task_id = await slow_pages(call, monkeypatch)
        frames: list[Frame] = []
        async for frame in call.stream("SubscribeToTask", {"id": task_id}, last_event_id=3):
            if not frames:
                await keeper(call, drop_after=0.0).round()
            frames.append(frame)
        assert frames[-1].data["error"]["code"] == -32001


@pytest.mark.asyncio
async def test_a_task_that_is_removed_after_its_log_was_compacted_under_a_reader_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with calling() as call:
        task_id = await slow_pages(call, monkeypatch)
        await keeper(call).round()

        async def gone(tree_id: str, *, owner: str | None = None) -> TreeHead | None:
            return None

        stream = call.application.streams.a2a(
            await call.session.storage.head(task_id),
            View(task_id, task_id, "c"),
            1,
            first=None,
            until_input=False,
            permit=Permit(),
        )
        monkeypatch.setattr(call.session.storage, "head", gone)
        with pytest.raises(Exception, match="not found"):
            await anext(stream)


@pytest.mark.asyncio
async def test_a_snapshot_of_a_long_log_is_of_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compacting between the look at a log and its reading would show the pieces twice, or not at all."""
    async with calling() as call:
        task_id = (await call.send("chunks"))["id"]
        task = await call("GetTask", {"id": task_id})
        storage, keep = call.session.storage, keeper(call)
        monkeypatch.setattr(snapshots, "SHORT", 0)
        real, reads = storage.event_places, 0

        async def event_places(*args: Any, **named: Any) -> Any:
            nonlocal reads
            places = await real(*args, **named)
            reads += 1
            if reads == 1:
                assert await keep.round() == (1, 0)
            return places

        monkeypatch.setattr(storage, "event_places", event_places)
        assert await call("GetTask", {"id": task_id}) == task
        assert reads == 2


@pytest.mark.asyncio
async def test_who_waits_for_a_node_that_has_ended_and_is_compacted_waits_no_more() -> None:
    async with calling() as call:
        task_id = (await call.send("chunks"))["id"]
        await keeper(call).round()
        head = await call.session.storage.head(task_id)
        early = TreeHead(id=task_id, version=2, run=1, is_live=True, created_at=0.0, updated_at=0.0)
        assert has_ended(head)
        async with asyncio.timeout(5):
            await call.application.streams.until_settled(early, task_id)
            assert await call.application.streams.peek_reply(task_id, 0) is None


# The server


@pytest.mark.asyncio
async def test_a_server_removes_what_is_too_old_and_keeps_what_is_not_delivered() -> None:
    async with calling(compact_after=0.5, delete_after=1.0, idempotency_keep=1.0) as call:
        removed, kept = asyncio.Event(), []

        class Told(Feed):
            def forget(self, tree_id: str) -> None:
                kept.append(tree_id)
                removed.set()

        call.application.retention._feed = Told(call.session.storage)
        task_id = (await call.send("echo"))["id"]
        async with asyncio.timeout(10):
            await removed.wait()
        assert kept == [task_id]
        assert await call.session.storage.head(task_id) is None


@pytest.mark.asyncio
async def test_a_server_that_keeps_everything_has_no_such_work() -> None:
    async with calling(compact_after=0.0, delete_after=0.0) as call:
        assert call.application.retention._run is None


@pytest.mark.asyncio
async def test_what_waits_for_its_delivery_is_neither_compacted_nor_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Until it is delivered or given up; a dead letter of a compacted event says so."""
    async with calling(push_retry_initial=60.0, egress_allow=("127.0.0.1",)) as call:
        hook = {"url": "http://127.0.0.1:9/", "id": "h"}
        given = message("echo") | {"configuration": {"taskPushNotificationConfig": hook}}
        task_id = (await call("SendMessage", given, principal=somebody("ann")))["task"]["id"]
        retention = call.application.retention
        times = RetentionTimes(compact_after=0.0, drop_after=0.0)
        retention._times = times

        assert await retention.round() == (0, 0)

        config = {"taskId": task_id, "id": "h"}
        await call("DeleteTaskPushNotificationConfig", config, principal=somebody("ann"))
        retention._times = RetentionTimes(compact_after=0.0, drop_after=None)
        assert await retention.round() == (1, 0)
