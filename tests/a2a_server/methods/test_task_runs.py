"""`tasks.create` and `tasks.execute`: trees that are made and run, and the streams of runs."""

import asyncio
import json
from typing import Any

import pytest

from a2a_server.bindings.context import RequestContext
from core.model.commands import ProvideInput
from core.session import needs_caller
from core.storage.base import TaskQuery
from tests.a2a_server.conftest import Caller, calling, message, somebody, tree_message
from tests.a2a_server.methods.tasks_calls import PAIR, alternatives, refused, run, types


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
