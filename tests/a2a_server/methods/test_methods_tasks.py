"""The `tasks.*` and `system.*` methods, through the endpoint."""

import asyncio
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from a2a_server.bindings.context import RequestContext
from a2a_server.protocol.errors import UnsupportedOperation
from a2a_server.views.task_view import MAX_NESTED, tree_object
from core.executors.base import ExecutorSpec, TaskContext
from core.model.commands import ProvideInput
from core.model.task import Task, TreeHead
from core.session import has_ended, needs_caller
from core.storage.base import TaskQuery
from tests.a2a_server.conftest import Caller, Frame, RpcError, _Executor, calling, message, somebody, tree_message

PAIR = (
    {"id": "root", "name": "folder"},
    {"id": "a", "name": "steps", "parent_id": "root"},
    {"id": "b", "name": "echo", "parent_id": "root", "dependencies": [{"id": "a", "required": True}]},
)


async def refused(call: Caller, method: str, params: Any = None, **context: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        await call(method, params, **context)
    return error.value


def types(frames: list[Frame]) -> list[str]:
    return [frame.data["type"] for frame in frames if "type" in frame.data]


async def run(call: Caller, *tasks: dict[str, Any]) -> dict[str, Any]:
    """The finished tree."""
    return dict(await call("tasks.execute", {"tasks": list(tasks), "wait": True}))


# Create


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: {"tasks": t}, lambda t: t[0]], ids=["array", "object", "one"])
@pytest.mark.asyncio
async def test_create_takes_an_array_an_object_or_one_task(call: Caller, wrap: Any) -> None:
    tree = await call("tasks.create", wrap([{"name": "echo", "inputs": {"x": 1}}]))
    assert (tree["status"], tree["inputs"], tree["children"]) == ("pending", {"x": 1}, [])
    assert tree["root_task_id"] == tree["id"] == tree["root_task_id"]


@pytest.mark.asyncio
async def test_create_nests_children_and_keeps_references(call: Caller) -> None:
    tree = await call("tasks.create", list(PAIR))
    assert [(child["ref"], child["parent_id"]) for child in tree["children"]] == [("a", tree["id"]), ("b", tree["id"])]
    assert tree["children"][1]["dependencies"] == [{"id": tree["children"][0]["id"], "on": "success", "required": True}]


@pytest.mark.parametrize(
    ("params", "fields"),
    [
        (None, {"tasks"}),
        ([], {"tasks"}),
        ({"tasks": [{"name": "echo"}], "extra": 1, "more": 2}, {"extra", "more"}),
        ([{"name": "unheard"}], {"tasks[0].name"}),
        (
            [{"name": "echo", "priority": 1.5}, {"name": "echo", "colour": "red"}],
            {"tasks", "tasks[0].priority", "tasks[1].colour"},  # two roots as well
        ),
        ([{"name": "echo", "dependencies": ["echo"]}], {"tasks[0].dependencies[0]"}),
        ([{"name": "echo"}, {"name": "say"}], {"tasks"}),
    ],
)
@pytest.mark.asyncio
async def test_wrong_tree_is_refused_whole_and_names_the_fields(call: Caller, params: Any, fields: set[str]) -> None:
    error = await refused(call, "tasks.create", params)
    assert (error.code, error.fields) == (-32602, fields)
    assert await call("tasks.list", {}) == []


@pytest.mark.parametrize(
    ("method", "params", "fields"),
    [
        ("tasks.execute", {}, {"task_id"}),
        ("tasks.execute", {"task_id": "a", "tasks": []}, {"task_id"}),
        ("tasks.execute", {"task_id": 5}, {"task_id"}),
        ("tasks.execute", {"task_id": "a", "use_streaming": 1}, {"use_streaming"}),
        ("tasks.execute", {"task_id": "a", "use_streaming": True, "wait": True}, {"wait"}),
        ("tasks.execute", {"tasks": [{"name": "unheard"}]}, {"tasks[0].name"}),
        ("tasks.execute", {"task_id": "a", "wait": "no", "force": 0}, {"wait", "force"}),
        ("tasks.execute", {"task_id": "a", "webhook_config": "x"}, {"webhook_config"}),
        ("tasks.execute", {"task_id": "a", "a2a": True}, {"a2a"}),
        ("tasks.execute", {"tasks": [], "a2a": 1}, {"a2a"}),
        ("tasks.cancel", {}, {"task_ids"}),
        ("tasks.cancel", {"task_ids": []}, {"task_ids"}),
        ("tasks.cancel", {"task_ids": "a,,b"}, {"task_ids"}),
        ("tasks.cancel", {"task_ids": ["a"], "error_message": 1}, {"error_message"}),
        ("tasks.get", {}, {"task_id"}),
        ("tasks.get", {"task_id": "a", "id": "b"}, {"id"}),
        ("tasks.get", ["x"], {"params"}),
        ("tasks.detail", {"task_id": ""}, {"task_id"}),
        ("tasks.tree", {}, {"task_id"}),
        ("tasks.tree", {"task_id": "a", "root_id": "a"}, {"task_id"}),
        ("tasks.children", {"parent_id": None}, {"parent_id"}),
        ("tasks.list", {"limit": 0, "offset": -1}, {"limit", "offset"}),
        ("tasks.list", {"page_token": "bm9uZQ"}, {"page_token"}),
        ("tasks.list", {"page_token": "é"}, {"page_token"}),
        ("tasks.running.list", {"page_token": "a"}, {"page_token"}),
        ("tasks.list", {"status": "dancing", "root_only": "x"}, {"status", "root_only"}),
        ("tasks.update", {"name": "x"}, {"task_id"}),
        ("tasks.update", [1], {"task_id"}),
        ("tasks.update", {"task_id": "a"}, {"params"}),
        ("tasks.delete", {"task_id": ["a"]}, {"task_id"}),
        ("tasks.copy", {"task_id": "a", "children": None}, {"children"}),
        ("tasks.running.list", {"limit": 1001}, {"limit"}),
        ("tasks.running.status", {}, {"task_ids"}),
        ("tasks.running.count", {"who": 1}, {"who"}),
        ("tasks.events", {"task_id": "a", "after": -1}, {"after"}),
        ("system.health", {"verbose": True}, {"verbose"}),
        ("system.executors", {"x": 1}, {"x"}),
    ],
)
@pytest.mark.asyncio
async def test_wrong_param_is_named(call: Caller, method: str, params: Any, fields: set[str]) -> None:
    error = await refused(call, method, params)
    assert (error.code, error.fields) == (-32602, fields)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tasks.get", {"task_id": "x"}),
        ("tasks.tree", {"root_id": "x"}),
        ("tasks.children", {"parent_id": "x"}),
        ("tasks.execute", {"task_id": "x"}),
        ("tasks.update", {"task_id": "x", "priority": 1}),
        ("tasks.delete", {"task_id": "x"}),
        ("tasks.copy", {"task_id": "x"}),
        ("tasks.events", {"task_id": "x"}),
    ],
)
@pytest.mark.asyncio
async def test_unknown_task_is_not_found(call: Caller, method: str, params: Any) -> None:
    assert (await refused(call, method, params)).code == -32001


# Execute


@pytest.mark.asyncio
async def test_execute_answers_at_once(call: Caller) -> None:
    task_id = await call.tree({"name": "hold"})
    answer = await call("tasks.execute", {"task_id": task_id})
    assert (answer["success"], answer["root_task_id"], answer["task_id"]) == (True, task_id, task_id)
    assert answer["status"] in ("pending", "in_progress")
    assert (await refused(call, "tasks.execute", {"task_id": task_id})).code == -32004


@pytest.mark.asyncio
async def test_execute_with_wait_answers_with_the_finished_tree(call: Caller) -> None:
    tree = await run(call, *PAIR)
    assert (tree["status"], tree["tree_status"], tree["tree_progress"]) == ("completed", "completed", 1.0)
    assert [child["result"] for child in tree["children"]] == ["done", {"a": "done"}]


@pytest.mark.asyncio
async def test_running_again_does_only_what_is_left_unless_forced(call: Caller) -> None:
    tree = await run(call, {"name": "echo"})
    assert (await refused(call, "tasks.execute", {"task_id": tree["id"]})).code == -32004
    again = await call("tasks.execute", {"task_id": tree["id"], "force": True, "wait": True})
    assert (again["id"], again["attempt"], again["status"]) == (tree["id"], 2, "completed")


@pytest.mark.asyncio
async def test_ended_tree_of_a2a_is_run_as_a_copy_that_keeps_results(call: Caller) -> None:
    tasks = [
        {"id": "r", "name": "folder"},
        {"id": "e", "name": "echo", "parent_id": "r"},
        {"id": "b", "name": "boom", "parent_id": "r", "dependencies": ["e"]},
    ]
    said = {"messageId": "m", "role": "ROLE_USER", "contextId": "c", "parts": [{"data": {"tasks": tasks}}]}
    task = (await call("SendMessage", {"message": said}))["task"]
    copy = await call("tasks.execute", {"task_id": task["id"], "wait": True})
    assert copy["id"] != task["id"]
    assert (copy["original_task_id"], copy["context_id"], copy["tree_status"]) == (task["id"], "c", "failed")
    assert len(call.lab.requests) == 1
    assert copy["children"][0]["result"] == {}
    assert (await call("GetTask", {"id": task["id"]}))["status"] == task["status"]


@pytest.mark.asyncio
async def test_completed_tree_of_a2a_is_not_copied_for_nothing(call: Caller) -> None:
    """The refusal names the task that was asked for, and no copy is made only to be deleted."""
    one = (await call.send("nothing"))["id"]
    many = (await call("SendMessage", tree_message(*PAIR)))["task"]["id"]
    node = (await call("tasks.children", {"parent_id": many}))[0]["id"]
    call.session.copy = None  # type: ignore[assignment, method-assign]
    for task_id in (one, many, node):
        error = await refused(call, "tasks.execute", {"task_id": task_id})
        assert (error.code, error.data[0]["metadata"]["taskId"]) == (-32004, task_id)
        assert task_id in error.message
    assert len(await call("tasks.list", {})) == 2


@pytest.mark.asyncio
async def test_completed_tree_of_a2a_is_run_again_as_a_copy_when_forced(call: Caller) -> None:
    task = await call.send("nothing")
    again = await call("tasks.execute", {"task_id": task["id"], "force": True, "wait": True})
    assert (again["original_task_id"], again["status"], again["id"] == task["id"]) == (task["id"], "completed", False)


@pytest.mark.asyncio
async def test_webhooks_are_refused_before_anything_runs() -> None:
    params = {"tasks": [{"name": "echo"}], "webhook_config": {"url": "https://example.com"}}
    async with calling(push=False) as call:
        assert (await refused(call, "tasks.execute", params)).code == -32003
        assert await call("tasks.list", {}) == []


@pytest.mark.parametrize(
    ("webhook", "field"),
    [
        ({"url": "ftp://example.com"}, "webhook_config.url"),
        ({"url": "https://example.com", "token": "a\r\nb"}, "webhook_config.token"),
        ({"url": "https://example.com", "more": 1}, "webhook_config.more"),
        ({"url": "https://example.com", "events": ["all"]}, "webhook_config.events"),
        ({"url": 5}, "webhook_config.url"),
        ({}, "webhook_config.url"),
    ],
)
@pytest.mark.asyncio
async def test_a_bad_webhook_is_named_and_nothing_runs(call: Caller, webhook: dict[str, Any], field: str) -> None:
    error = await refused(call, "tasks.execute", {"tasks": [{"name": "echo"}], "webhook_config": webhook})
    assert (error.code, error.fields) == (-32602, {field})
    assert await call("tasks.list", {}) == []


@pytest.mark.asyncio
async def test_stream_opens_with_the_response_and_closes_with_final_and_stream_end(call: Caller) -> None:
    frames = await call.frames("tasks.execute", {"tasks": list(PAIR), "use_streaming": True})
    assert frames[0].result["success"] is True
    assert types(frames) == [
        "task_start", "task_start", "progress", "task_completed", "task_start", "task_completed", "task_completed",
        "final", "stream_end",
    ]  # fmt: skip
    final = frames[-2].data
    assert (final["task_id"], final["status"], final["progress"]) == (
        frames[0].result["root_task_id"],
        "completed",
        1.0,
    )
    keys = {"type", "task_id", "root_task_id", "name", "status", "progress", "result", "error", "seq", "timestamp"}
    assert all(keys <= frame.data.keys() and frame.data["seq"] == frame.seq for frame in frames[1:-1])


@pytest.mark.asyncio
async def test_final_frame_carries_the_roots_result_and_error(call: Caller) -> None:
    for name, result, error in (("steps", "done", None), ("boom", None, "ValueError: boom (conftest.py:")):
        frames = await call.frames("tasks.execute", {"tasks": [{"name": name}], "use_streaming": True})
        assert frames[-2].data["result"] == result
        assert (frames[-2].data["error"] or "").startswith(error or "")


@pytest.mark.parametrize(
    ("name", "kind", "status"),
    [("boom", "task_failed", "failed"), ("decline", "task_failed", "rejected"), ("chunks", "artifact", "in_progress")],
)
@pytest.mark.asyncio
async def test_frames_have_the_types_that_older_clients_know(call: Caller, name: str, kind: str, status: str) -> None:
    frames = await call.frames("tasks.execute", {"tasks": [{"name": name}], "use_streaming": True})
    assert (frames[2].data["type"], frames[2].data["status"]) == (kind, status)


@pytest.mark.asyncio
async def test_question_does_not_end_the_stream_of_a_tree(call: Caller) -> None:
    frames = []
    answers = iter(["one", "two"])
    async for frame in call.stream("tasks.execute", {"tasks": [{"name": "ask"}], "use_streaming": True}):
        frames.append(frame)
        if frame.data.get("type") == "input_required":
            await call.session.provide_input(ProvideInput(frame.data["task_id"], next(answers)))
    assert types(frames).count("input_required") == 2
    assert types(frames)[-2:] == ["final", "stream_end"]


@pytest.mark.asyncio
async def test_question_of_a_tree_is_answered_through_its_root(call: Caller) -> None:
    made = await call("tasks.execute", {"tasks": [{"name": "ask"}], "wait": True})
    assert made["question"] == [{"text": "first?"}]
    answered = await call("tasks.answer", {"task_id": made["id"], "answer": {"n": 1}})
    assert answered["question"] is None
    await call.session.wait(made["id"], needs_caller)
    await call("tasks.answer", {"task_id": made["id"], "answer": "two"})
    await call.session.wait(made["id"], has_ended)
    with pytest.raises(RpcError) as refused:
        await call("tasks.answer", {"task_id": made["id"], "answer": "again"})
    assert refused.value.code == -32004
    with pytest.raises(RpcError) as missing:
        await call("tasks.answer", {"task_id": made["id"]})
    assert missing.value.fields == {"answer"}


async def ask_both(inputs: dict[str, Any], context: TaskContext) -> Any:
    return list(await asyncio.gather(context.ask("size?"), context.ask("colour?")))


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, {"answer"}),
        ({"answer": 1, "answers": [1, 2]}, {"answer"}),
        ({"answers": []}, {"answers"}),
        ({"answers": ["L"]}, {"answers"}),
        ({"answers": ["L", "red", 3]}, {"answers"}),
        ({"answers": "L"}, {"answers"}),
    ],
)
@pytest.mark.asyncio
async def test_answers_that_do_not_fit_the_questions_are_refused_and_those_that_do_are_each_ones_own(
    call: Caller, given: dict[str, Any], fields: set[str]
) -> None:
    call.session.registry.register(ExecutorSpec(id="both", make=lambda: _Executor(ask_both)))
    made = await call("tasks.execute", {"tasks": [{"name": "both"}], "wait": True})
    with pytest.raises(RpcError) as refused:
        await call("tasks.answer", {"task_id": made["id"]} | given)
    assert (refused.value.code, refused.value.fields) == (-32602, fields)
    await call("tasks.answer", {"task_id": made["id"], "answers": ["L", None]})
    await call.session.wait(made["id"], has_ended)
    assert (await call("tasks.get", {"task_id": made["id"]}))["result"] == ["L", None]


@pytest.mark.asyncio
async def test_one_question_takes_a_list_of_one_answer_too(call: Caller) -> None:
    made = await call("tasks.execute", {"tasks": [{"name": "ask"}], "wait": True})
    with pytest.raises(RpcError) as refused:
        await call("tasks.answer", {"task_id": made["id"], "answers": [1, 2]})
    assert refused.value.fields == {"answers"}
    await call("tasks.answer", {"task_id": made["id"], "answers": [["a"]]})
    await call.session.wait(made["id"], needs_caller)
    task = await call.session.storage.task(made["id"])
    assert task is not None and task.answers == (["a"],)


@pytest.mark.asyncio
async def test_tasks_are_listed_since_a_moment_and_its_time_zone_counts(call: Caller) -> None:
    made = await call("tasks.create", {"tasks": [{"name": "echo"}]})
    at = datetime.fromisoformat(made["created_at"])
    for since, is_listed in (
        (made["created_at"], True),
        ((at + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=5))).isoformat(), False),
        ((at - timedelta(seconds=1)).astimezone(timezone(timedelta(hours=-5))).isoformat(), True),
        ("0001-01-01T00:00:00+14:00", True),
        ("9999-12-31T23:59:59-14:00", False),
    ):
        listed = await call("tasks.list", {"since": since})
        assert (made["id"] in [task["id"] for task in listed]) is is_listed, since
    for wrong in ("yesterday", "2026-01-31", "2026-01-31T12:00:00", 7, ""):
        with pytest.raises(RpcError) as refused:
            await call("tasks.list", {"since": wrong})
        assert refused.value.fields == {"since"}, wrong


@pytest.mark.asyncio
async def test_second_run_streams_only_itself(call: Caller) -> None:
    tree = await run(call, {"name": "echo"})
    frames = await call.frames("tasks.execute", {"task_id": tree["id"], "force": True, "use_streaming": True})
    assert types(frames) == ["task_start", "task_completed", "final", "stream_end"]
    assert frames[1].data["attempt"] == 2


@pytest.mark.asyncio
async def test_stream_from_the_beginning_goes_on_after_the_final_of_an_earlier_run(call: Caller) -> None:
    call.lab.released["hold"].set()
    tree = await run(call, {"name": "hold"})
    call.lab.released["hold"].clear()
    await call("tasks.execute", {"task_id": tree["id"], "force": True})
    frames = []
    params = {"task_id": tree["id"], "use_streaming": True}
    async for frame in call.stream("tasks.execute", params, last_event_id=0):
        frames.append(frame)
        if frame.data.get("attempt") == 2:
            call.lab.released["hold"].set()
    one_run = ["task_start", "task_completed", "final"]
    assert types(frames) == [*one_run, *one_run, "stream_end"]


@pytest.mark.asyncio
async def test_stream_resumes_exactly_and_does_not_run_again(call: Caller) -> None:
    live = await call.frames("tasks.execute", {"tasks": list(PAIR), "use_streaming": True})
    task_id = live[0].result["root_task_id"]
    for n, frame in enumerate(live[:-1]):
        if frame.seq is not None:
            again = await call.frames(
                "tasks.execute", {"task_id": task_id, "use_streaming": True}, last_event_id=frame.seq
            )
            assert again[1:] == live[n + 1 :]


@pytest.mark.asyncio
async def test_tasks_are_not_created_twice_by_a_client_that_resumes(call: Caller) -> None:
    params = {"tasks": [{"name": "echo"}], "use_streaming": True}
    assert (await refused(call, "tasks.execute", params, last_event_id=3)).fields == {"Last-Event-ID"}
    assert await call("tasks.list", {}) == []


@pytest.mark.asyncio
async def test_stopping_server_ends_a_stream_without_pretending_that_the_tree_ended(call: Caller) -> None:
    frames = []
    async for frame in call.stream("tasks.execute", {"tasks": [{"name": "hold"}], "use_streaming": True}):
        frames.append(frame)
        if frame.data.get("type") == "task_start":
            call.application.drain()
    assert types(frames) == ["task_start"]


# Cancel


@pytest.mark.asyncio
async def test_cancel_answers_for_each_id(call: Caller) -> None:
    done = (await run(call, {"name": "nothing"}))["id"]
    pending = await call.tree({"name": "echo"})
    answers = await call("tasks.cancel", {"task_ids": f"{done}, {pending},unheard", "error_message": "enough"})
    assert [(a["task_id"], a["status"]) for a in answers] == [
        (done, "failed"),
        (pending, "cancelled"),
        ("unheard", "failed"),
    ]
    assert answers[0]["message"] == f"Task {done} is already completed, cannot cancel"
    assert (await call("tasks.get", {"task_id": pending}))["error"] == "enough"
    (again,) = await call("tasks.cancel", {"task_ids": [pending]})
    assert again["status"] == "cancelled"


@pytest.mark.asyncio
async def test_task_that_cannot_be_interrupted_fails_to_cancel_unless_forced(call: Caller) -> None:
    answer = await call("tasks.execute", {"tasks": [{"name": "stubborn", "inputs": {"key": "s"}}]})
    await call.lab.started["s"].wait()
    (left,) = await call("tasks.cancel", {"task_ids": [answer["task_id"]]})
    assert (left["status"], left["not_cancelable"]) == ("failed", [answer["task_id"]])
    (forced,) = await call("tasks.cancel", {"task_ids": [answer["task_id"]], "force": True})
    assert forced["status"] == "cancelled"
    call.lab.released["s"].set()


# Read


@pytest.mark.asyncio
async def test_get_shows_the_tasks_own_status_and_the_trees(call: Caller) -> None:
    answer = await call(
        "tasks.execute", {"tasks": [{"id": "r", "name": "nothing"}, {"name": "hold", "parent_id": "r"}]}
    )
    await call.lab.started["hold"].wait()
    await call.session.wait(answer["task_id"], lambda head: head.progress > 0)
    root = await call("tasks.get", {"task_id": answer["task_id"]})
    assert (root["status"], root["tree_status"]) == ("completed", "in_progress")
    assert root == await call("tasks.detail", {"task_id": answer["task_id"]})


@pytest.mark.asyncio
async def test_tree_is_found_by_any_node_and_children_by_their_parent(call: Caller) -> None:
    tree = await call("tasks.create", list(PAIR))
    children = await call("tasks.children", {"parent_id": tree["id"]})
    assert [child["name"] for child in children] == ["steps", "echo"]
    assert await call("tasks.tree", {"task_id": children[1]["id"]}) == tree
    assert await call("tasks.tree", {"root_id": tree["id"]}) == tree


@pytest.mark.parametrize("method", ["tasks.list", "tasks.running.list"])
@pytest.mark.asyncio
async def test_an_offset_is_refused_with_the_way_to_go(call: Caller, method: str) -> None:
    """Found from outside: a page by offset showed a row twice when one was added."""
    error = await refused(call, method, {"offset": 100})
    way = "unknown field; for the next page send page_token, from the last task of the page before"
    assert error.fields == {"offset"} and way in json.dumps(error.data)


@pytest.mark.asyncio
async def test_list_filters_and_pages_newest_first(call: Caller) -> None:
    first = await call.tree({"name": "echo", "user_id": "u1"})
    second = (await run(call, *PAIR))["id"]

    async def ids(**given: Any) -> list[str]:
        return [task["id"] for task in await call("tasks.list", given)]

    assert await ids() == [second, first]
    (newest,) = await call("tasks.list", {"limit": 1})
    assert await ids(limit=1, page_token=newest["page_token"]) == [first]
    assert await ids(user_id="u1") == [first]
    assert await ids(status="completed") == [second]
    assert await ids(name="folder") == [second]
    assert len(await ids(root_only=False)) == 4
    assert [task["tree_status"] for task in await call("tasks.list", {})] == ["completed", "pending"]


@pytest.mark.asyncio
async def test_results_that_are_parts_are_a_plain_list(call: Caller) -> None:
    tree = await run(call, {"name": "parts"})
    assert tree["result"] == [{"raw": "aGk=", "filename": "output.txt", "mediaType": "text/plain"}]


@pytest.mark.asyncio
async def test_events_are_the_frames_of_the_stream(call: Caller) -> None:
    live = await call.frames("tasks.execute", {"tasks": list(PAIR), "use_streaming": True})
    told = [frame.data for frame in live[1:-2]]
    root_id = live[0].result["root_task_id"]
    assert (await call("tasks.events", {"task_id": root_id}))[:-1] == told
    assert (await call("tasks.events", {"task_id": root_id, "after": told[2]["seq"]}))[:-1] == told[3:]
    assert await call("tasks.events", {"task_id": root_id, "limit": 2}) == told[:2]
    child = told[1]["task_id"]
    assert await call("tasks.events", {"task_id": child}) == [frame for frame in told if frame["task_id"] == child]


# Change


@pytest.mark.asyncio
async def test_update_changes_a_pending_task_and_names_every_wrong_field(call: Caller) -> None:
    task_id = await call.tree({"name": "echo"})
    changed = await call("tasks.update", {"task_id": task_id, "priority": 0, "inputs": {"x": 1}})
    assert (changed["priority"], changed["inputs"]) == (0, {"x": 1})
    error = await refused(call, "tasks.update", {"task_id": task_id, "priority": "x", "status": "completed"})
    assert (error.code, error.fields) == (-32602, {"priority", "status"})
    assert (await refused(call, "tasks.update", {"task_id": task_id})).code == -32602


@pytest.mark.asyncio
async def test_delete_removes_a_tree_at_rest_only(call: Caller) -> None:
    running = (await call("tasks.execute", {"tasks": [{"name": "hold"}]}))["task_id"]
    assert (await refused(call, "tasks.delete", {"task_id": running})).code == -32004
    await call("tasks.cancel", {"task_ids": running})
    assert (await call("tasks.delete", {"task_id": running}))["success"] is True
    assert (await refused(call, "tasks.get", {"task_id": running})).code == -32001


@pytest.mark.asyncio
async def test_copy_is_a_new_pending_tree(call: Caller) -> None:
    tree = await run(call, *PAIR)
    copy = await call("tasks.copy", {"task_id": tree["id"]})
    assert (copy["tree_status"], copy["original_task_id"]) == ("pending", tree["id"])
    assert [child["original_task_id"] for child in copy["children"]] == [child["id"] for child in tree["children"]]
    alone = await call("tasks.copy", {"task_id": tree["children"][0]["id"], "children": False})
    assert (alone["name"], alone["children"]) == ("steps", [])


# Running


@pytest.mark.asyncio
async def test_running_tasks_are_listed_counted_and_told(call: Caller) -> None:
    task_id = (await call("tasks.execute", {"tasks": [{"name": "hold", "user_id": "u1"}]}))["task_id"]
    await call.lab.started["hold"].wait()
    assert [task["id"] for task in await call("tasks.running.list", {"user_id": "u1"})] == [task_id]
    assert await call("tasks.running.count", {}) == {"count": 1}
    assert await call("tasks.running.count", {"user_id": "u2"}) == {"count": 0}
    told = await call("tasks.running.status", {"task_ids": f"{task_id},unheard"})
    assert [(each["status"], each["is_running"]) for each in told] == [("in_progress", True), ("not_found", False)]
    assert (await call("system.health"))["running_tasks"] == 1


@pytest.mark.asyncio
async def test_open_tasks_are_counted_over_the_calls_of_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    create = {"jsonrpc": "2.0", "id": 1, "method": "tasks.create", "params": {"name": "echo"}}
    async with calling(max_open_tasks=3) as call:
        storage = call.session.storage
        count = storage.count

        async def slow(query: TaskQuery, most: int) -> int:
            counted = await count(query, most)
            await asyncio.sleep(0)  # as a database: the others come in between
            return counted

        monkeypatch.setattr(storage, "count", slow)
        reply = await call.application.json_rpc.handle(json.dumps([create] * 10).encode(), RequestContext())
        codes = [answer.get("error", {}).get("code") for answer in json.loads(reply.body)]
        assert sorted(codes, key=bool) == [None] * 3 + [-32050] * 7
        assert len(await call("tasks.list")) == 3


@pytest.mark.asyncio
async def test_owner_with_too_many_open_tasks_is_refused() -> None:
    say = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": {"tasks": [{"name": "say"}]}}]}
    async with calling(max_open_tasks=2) as call:
        await call.tree({"id": "r", "name": "echo"}, {"name": "say", "parent_id": "r"})
        for method, params in (
            ("tasks.create", {"name": "echo"}),
            ("tasks.execute", {"tasks": [{"name": "echo"}]}),
            ("SendMessage", {"message": say}),
        ):
            assert (await refused(call, method, params)).code == -32050
        assert (await call("tasks.create", {"name": "echo"}, principal=somebody("else")))["status"] == "pending"


# System


@pytest.mark.asyncio
async def test_health_and_executors(call: Caller) -> None:
    health = await call("system.health")
    assert health["status"] == "healthy"
    assert health["uptime"] >= 0
    told = {spec["id"]: spec for spec in await call("system.executors")}
    assert {"echo", "system_info_executor", "rest_executor", "aggregate_results_executor"} <= told.keys()
    assert "command_executor" not in told
    assert (told["stubborn"]["cancelable"], told["internal"]["is_skill"]) == (False, False)
    assert told["rest_executor"]["input_schema"]["properties"]


@pytest.mark.asyncio
async def test_discover_lists_every_method(call: Caller) -> None:
    names = {method["name"] for method in (await call("rpc.discover"))["methods"]}
    assert {"SendMessage", "tasks.create", "tasks.running.count", "system.health"} <= names


def test_tree_too_deep_to_be_nested_is_refused_without_recursion() -> None:
    """Trees made through the Python API may be any depth; JSON objects may not."""
    tasks = [Task(id="0", name="t", created_at=0.0)]
    tasks += [Task(id=str(n), name="t", parent_id=str(n - 1), created_at=0.0) for n in range(1, 20_000)]
    head = TreeHead(id="0", created_at=0.0, updated_at=0.0)
    with pytest.raises(UnsupportedOperation, match=f"more than {MAX_NESTED} levels"):
        tree_object(head, reversed(tasks))
    assert tree_object(head, tasks[:MAX_NESTED])["children"]


@pytest.mark.asyncio
async def test_batch_of_cancels_runs_side_by_side(call: Caller) -> None:
    ids = [(await call("tasks.execute", {"tasks": [{"name": "hold"}]}))["task_id"] for _ in range(20)]
    async with asyncio.timeout(5):
        answers = await call("tasks.cancel", {"task_ids": ids})
    assert {answer["status"] for answer in answers} == {"cancelled"}


# Alternatives


def alternatives(primary: str) -> tuple[dict[str, Any], ...]:
    """A primary, its fallback, and what takes the result of the one that ran."""
    merge = {"dependencies": [{"id": "first", "on": "any"}, {"id": "second", "on": "any"}]}
    return (
        {"id": "root", "name": "folder"},
        {"id": "first", "name": primary, "parent_id": "root", "inputs": {"from": "primary"}},
        {
            "id": "second", "name": "echo", "parent_id": "root", "inputs": {"from": "fallback"},
            "dependencies": [{"id": "first", "on": "failure"}],
        },
        {"id": "merge", "name": "echo", "parent_id": "root"} | merge,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("primary", "ends", "cause", "source"),
    [
        ("echo", ["completed", "completed", "completed"], "skipped", "primary"),
        ("boom", ["failed", "completed", "completed"], None, "fallback"),
        ("decline", ["rejected", "completed", "completed"], None, "fallback"),
    ],
)
@pytest.mark.asyncio
async def test_a_fallback_runs_only_where_it_is_needed(
    call: Caller, primary: str, ends: list[str], cause: str | None, source: str
) -> None:
    """Found from outside: the guide's fallback ran and won although its primary had worked."""
    tree = await run(call, *alternatives(primary))
    first, second, merge = tree["children"]
    assert (tree["tree_status"], [each["status"] for each in (first, second, merge)]) == ("completed", ends)
    assert (second["cause"], second["attempt"]) == (cause, 0 if cause else 1)
    assert source in json.dumps(merge["result"])
    assert second["dependencies"] == [{"id": first["id"], "on": "failure"}]


@pytest.mark.asyncio
async def test_a_skip_is_told_by_streams_events_and_a2a(call: Caller) -> None:
    root_id = (await call("SendMessage", tree_message(*alternatives("echo"))))["task"]["id"]
    events = await call("tasks.events", {"task_id": root_id})
    (skipped,) = [each for each in events if each.get("cause") == "skipped"]
    assert (skipped["type"], skipped["status"], skipped["result"]) == ("task_completed", "completed", None)
    assert skipped["message"].startswith("skipped, because 'echo' (first) completed")
    task = await call("GetTask", {"id": skipped["task_id"]})
    assert task["status"]["state"] == "TASK_STATE_COMPLETED" and not task.get("artifacts")
    whole = await call("GetTask", {"id": root_id})
    assert [each["name"] for each in whole["artifacts"]] == ["echo", "echo"], "what was skipped made nothing"


@pytest.mark.asyncio
async def test_what_a_tree_says_of_its_dependencies_can_be_given_again(call: Caller) -> None:
    first, second, merge = (await run(call, *alternatives("echo")))["children"]
    wanted = ("name", "parent_id", "id", "dependencies")
    items = [{"id": first["parent_id"], "name": "folder"}]
    items += [{name: each[name] for name in wanted} for each in (first, second, merge)]
    again = await call("tasks.create", items)
    assert [[d["on"] for d in each["dependencies"]] for each in again["children"]] == [[], ["failure"], ["any", "any"]]


# Trees that A2A clients see


@pytest.mark.parametrize("is_a2a", [True, False])
@pytest.mark.asyncio
async def test_a_tree_is_a_task_of_a2a_where_its_caller_wants_it_so(call: Caller, is_a2a: bool) -> None:
    """Found from outside: trees of tasks.execute did not exist for A2A clients."""
    given = {"tasks": list(PAIR), "a2a": is_a2a, "wait": True}
    tree = await call("tasks.execute", given, principal=somebody("ann"))
    listed = await call("ListTasks", {}, principal=somebody("ann"))
    if not is_a2a:
        assert (await refused(call, "GetTask", {"id": tree["id"]}, principal=somebody("ann"))).code == -32001
        assert listed["tasks"] == []
        return
    task = await call("GetTask", {"id": tree["id"]}, principal=somebody("ann"))
    assert (task["status"]["state"], task["contextId"]) == ("TASK_STATE_COMPLETED", tree["context_id"])
    assert {each["name"] for each in task["artifacts"]} == {"steps", "echo"}
    child = await call("GetTask", {"id": tree["children"][1]["id"]}, principal=somebody("ann"))
    assert child["metadata"]["rootTaskId"] == tree["id"]
    assert [each["id"] for each in listed["tasks"]] == [tree["id"]]
    assert (await refused(call, "GetTask", {"id": tree["id"]}, principal=somebody("bob"))).code == -32001


@pytest.mark.asyncio
async def test_a_stored_tree_does_not_become_a_task_of_a2a(call: Caller) -> None:
    error = await refused(call, "tasks.execute", {"task_id": await call.tree({"name": "echo"}), "a2a": True})
    assert error.fields == {"a2a"}


@pytest.mark.asyncio
async def test_a_tree_for_a2a_is_cancelled_and_continued_by_a2a(call: Caller) -> None:
    made = await call("tasks.execute", {"tasks": [{"name": "ask"}], "a2a": True})
    await call.session.wait(made["root_task_id"], needs_caller)
    answered = await call("SendMessage", message(text="yes", task=made["root_task_id"]))
    assert answered["task"]["id"] == made["root_task_id"]
    held = await call("tasks.execute", {"tasks": [{"name": "hold", "inputs": {"key": "k"}}], "a2a": True})
    cancelled = await call("CancelTask", {"id": held["root_task_id"]})
    assert cancelled["status"]["state"] == "TASK_STATE_CANCELED"
