"""What a webhook is told (`a2a_server.push.bodies`)."""

from typing import Any

import pytest

from a2a_server.views import snapshots
from core.executors.base import Parts, TaskContext
from core.model.submission import Submission
from core.model.task import TaskStatus
from core.session import Session, has_ended
from tests.a2a_server.push.receivers import Post, Receiver, SteadyClock, until
from tests.core.cores import Bench, begin, item, virtual_time


def bench() -> Bench:
    desk = Bench(clock=SteadyClock())

    async def chunks(inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.progress(0.5, "half")
        await context.artifact("one ")
        await context.artifact("two", last_chunk=True)

    async def ask(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await context.ask("who?")

    async def fail(inputs: dict[str, Any], context: TaskContext) -> Any:
        raise RuntimeError("boom")

    async def files(inputs: dict[str, Any], context: TaskContext) -> Any:
        return Parts([{"raw": "aGk=", "filename": "hi.txt"}])

    async def thinks(inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.message("thinking")
        return "answer"

    async def says(inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.message("said")

    for work in (chunks, ask, fail, files, thinks, says):
        desk.add(work.__name__, work)
    return desk


async def bodies(session: Session, tree_id: str, last: str, task_id: str = "", **fields: Any) -> list[dict[str, Any]]:
    """Everything that a webhook gets, up to the body that holds `last`."""
    receiver = Receiver()
    post = Post(session, receiver)
    await post.hook(tree_id, task_id, **fields)
    await until(lambda: receiver.taken and last in str(receiver.taken[-1][1]))
    await post.outbox.close()
    return [body for _, body in receiver.taken]


async def one(session: Session, executor: str) -> str:
    return (
        await session.create(session.plan([{"name": executor}]), Submission(context_id="ctx"), execute=True)
    ).head.id


@virtual_time
async def test_pieces_are_put_together_unless_they_are_asked_for() -> None:
    async with bench().session() as session:
        tree_id = await one(session, "chunks")

        whole = await bodies(session, tree_id, "COMPLETED", config_id="whole")
        pieces = await bodies(session, tree_id, "COMPLETED", config_id="pieces", events=("chunks",))

        artifacts = [body["artifactUpdate"] for body in whole if "artifactUpdate" in body]
        assert [[part["text"] for part in each["artifact"]["parts"]] for each in artifacts] == [["one ", "two"]]
        assert (artifacts[0]["lastChunk"], artifacts[0]["contextId"], artifacts[0]["taskId"]) == (True, "ctx", tree_id)
        assert [sorted(body) for body in whole] == [["statusUpdate"], ["artifactUpdate"], ["statusUpdate"]]
        told = [body["artifactUpdate"] for body in pieces if "artifactUpdate" in body]
        assert [each["artifact"]["parts"][0]["text"] for each in told] == ["one ", "two"]
        assert told[1]["append"] is True
        assert any(body.get("statusUpdate", {}).get("metadata", {}).get("progress") == 0.5 for body in pieces)


@virtual_time
async def test_a_root_tells_its_own_story_and_on_request_that_of_every_node() -> None:
    async with bench().session() as session:
        head = await begin(session, item("a", "work", result="A"), item("b", "files", "a"))

        root = await bodies(session, head.id, "COMPLETED", config_id="root")
        every = await bodies(session, head.id, "STATE_COMPLETED", config_id="nodes", events=("nodes",))

        assert [body["statusUpdate"]["status"]["state"] for body in root] == [
            "TASK_STATE_WORKING", "TASK_STATE_COMPLETED",
        ]  # fmt: skip
        artifacts = [body["artifactUpdate"]["artifact"] for body in every if "artifactUpdate" in body]
        assert [(each["name"], each["parts"][0].get("filename", "")) for each in artifacts] == [
            ("work", ""), ("files", "hi.txt"),
        ]  # fmt: skip
        nodes = [body["statusUpdate"].get("metadata", {}).get("nodeName") for body in every if "statusUpdate" in body]
        assert {"work", "files"} <= set(nodes)


@virtual_time
async def test_a_question_and_a_failure_come_with_their_words() -> None:
    async with bench().session() as session:
        asked = await bodies(session, await one(session, "ask"), "INPUT_REQUIRED")
        failed = await bodies(session, await one(session, "fail"), "FAILED", config_id="f")

        assert asked[-1]["statusUpdate"]["status"]["message"]["parts"] == [{"text": "who?"}]
        assert failed[-1]["statusUpdate"]["status"]["message"]["parts"][0]["text"].startswith("RuntimeError: boom")


@virtual_time
async def test_a_message_is_told_once_and_by_the_end_only_where_nothing_came_after_it() -> None:
    async with bench().session() as session:
        for executor, final in (("thinks", []), ("says", ["said"])):
            tree_id = await one(session, executor)
            whole = await bodies(session, tree_id, "STATE_COMPLETED", config_id=f"{executor}-whole")
            pieces = await bodies(session, tree_id, "STATE_COMPLETED", config_id=f"{executor}-all", events=("chunks",))

            assert _said(whole) == final
            assert _said(pieces) == (["thinking"] if executor == "thinks" else ["said"])
            assert {"seq"} <= set.intersection(*(set(next(iter(body.values()))["metadata"]) for body in whole + pieces))


@virtual_time
async def test_a_node_tells_its_last_word_at_its_own_end() -> None:
    async with bench().session() as session:
        head = await begin(session, item("a", "says"), item("b", "work", "a", result="B"))
        await session.wait(head.id, has_ended)
        stored = await session.storage.load(head.id)
        assert stored is not None
        (node,) = [task for task in stored[1] if task.ref == "a"]

        assert _said(await bodies(session, head.id, "STATE_COMPLETED", node.id)) == ["said"]


def _said(told: list[dict[str, Any]]) -> list[str]:
    statuses = [body["statusUpdate"]["status"] for body in told if "statusUpdate" in body]
    return [status["message"]["parts"][0]["text"] for status in statuses if "message" in status]


@virtual_time
async def test_a_node_has_webhooks_of_its_own() -> None:
    async with bench().session() as session:
        head = await begin(session, item("a", "work", result="A"), item("b", "work", "a", result="B"))
        await session.wait(head.id, has_ended)
        stored = await session.storage.load(head.id)
        assert stored is not None
        node = next(task for task in stored[1] if task.ref == "b")

        told = await bodies(session, head.id, "COMPLETED", node.id)

        assert {next(iter(body.values()))["taskId"] for body in told} == {node.id}
        assert told[-1]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"
        assert told[-2]["artifactUpdate"]["artifact"]["parts"] == [{"text": "B"}]


@pytest.mark.parametrize("is_long", [False, True], ids=["short log", "long log"])
@virtual_time
async def test_each_task_that_a_node_s_v0_3_webhook_gets_says_where_it_is(
    is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SHORT", 0 if is_long else snapshots.SHORT)
    async with bench().session() as session:
        head = await begin(session, item("g", "group"), {"id": "a", "name": "chunks", "parent_id": "g"})
        await session.wait(head.id, has_ended)
        stored = await session.storage.load(head.id)
        assert stored is not None
        by_ref = {task.ref: task for task in stored[1]}

        for ref in ("g", "a"):
            told = await bodies(session, head.id, "completed", by_ref[ref].id, wire_version="0.3", config_id=ref)
            place = [(body["metadata"]["parentTaskId"], body["metadata"]["rootTaskId"]) for body in told]
            assert place == [(by_ref[ref].parent_id, head.id)] * len(told)


@virtual_time
async def test_a_v0_3_webhook_gets_the_task_as_it_was_at_each_change() -> None:
    async with bench().session() as session:
        tree_id = await one(session, "files")

        told = await bodies(session, tree_id, "completed", wire_version="0.3")

        assert [(body["kind"], body["id"], body["status"]["state"]) for body in told] == [
            ("task", tree_id, "working"), ("task", tree_id, "completed"),
        ]  # fmt: skip
        assert "artifacts" not in told[0]
        assert told[1]["artifacts"][0]["parts"][0]["file"]["bytes"] == "aGk="


@virtual_time
async def test_a_webhook_of_the_task_methods_gets_their_events() -> None:
    async with bench().session() as session:
        head = await begin(session, item("a", "work", result="A"))

        told = await bodies(session, head.id, "final", wire_version="tasks", events=("nodes",))

        assert [body["type"] for body in told] == [
            "task_start", "task_start", "task_completed", "task_completed", "final",
        ]  # fmt: skip
        assert told[-1]["status"] == TaskStatus.COMPLETED


@virtual_time
async def test_a_v0_3_body_is_the_same_whenever_it_is_sent() -> None:
    """Found by the simulation: it told the progress of now, so that a repetition differed from what it repeats."""
    async with bench().session() as session:
        steps = [item("a", "nap"), item("b", "nap", "a")]
        tree_id = (await begin(session, *steps)).id
        early = Receiver()
        post = Post(session, early)
        await post.hook(tree_id, wire_version="0.3")
        await until(lambda: early.taken)
        await session.wait(tree_id, has_ended)
        await post.outbox.close()

        late = await bodies(session, tree_id, "completed", config_id="late", wire_version="0.3")

        assert early.taken[0][1] == late[0]
