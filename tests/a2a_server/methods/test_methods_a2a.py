"""The methods of A2A v1.0, through the endpoint."""

import asyncio
import base64
import json
from typing import Any

import pytest

from a2a_server.auth.principal import Principal
from a2a_server.bindings.context import RequestContext
from a2a_server.methods import a2a as methods_a2a
from core.model.owners import owner_of
from core.storage.base import EventQuery
from tests.a2a_server.conftest import Caller, RpcError, calling, message, tree_message

FAN = (
    {"id": "root", "name": "folder"},
    {"id": "a", "name": "number", "parent_id": "root"},
    {"id": "b", "name": "echo", "parent_id": "root", "dependencies": ["a"], "inputs": {"own": 1}},
)


async def refused(call: Caller, method: str, params: Any = None, **context: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        await call(method, params, **context)
    return error.value


def state(task: dict[str, Any]) -> str:
    return str(task["status"]["state"].removeprefix("TASK_STATE_"))


def states(frames: list[Any]) -> list[str]:
    return [state(f.result["statusUpdate"]) for f in frames if "statusUpdate" in f.result]


# Sending


@pytest.mark.asyncio
async def test_blocking_send_answers_with_the_finished_task(call: Caller) -> None:
    task = await call.send("echo")
    assert state(task) == "COMPLETED"
    assert task["artifacts"] == [{"artifactId": task["id"], "name": "echo", "parts": [{"data": {"text": "hi"}}]}]
    assert [m["parts"] for m in task["history"]] == [[{"text": "hi"}]]
    assert task["history"][0]["taskId"] == task["id"]
    assert task["history"][0]["contextId"] == task["contextId"]


@pytest.mark.asyncio
async def test_integers_stay_integers(call: Caller) -> None:
    assert (await call.send("number"))["artifacts"][0]["parts"] == [{"data": 2**60 + 1}]


@pytest.mark.parametrize(
    ("skill", "expected", "text"),
    [
        ("boom", "FAILED", "ValueError: boom (conftest.py:"),
        ("decline", "REJECTED", "not me"),
        ("login", "AUTH_REQUIRED", "log in"),
    ],
)
@pytest.mark.asyncio
async def test_blocking_send_answers_at_every_end_and_question(
    call: Caller, skill: str, expected: str, text: str
) -> None:
    task = await call.send(skill)
    (part,) = task["status"]["message"]["parts"]
    assert state(task) == expected and part["text"].startswith(text)


@pytest.mark.asyncio
async def test_return_immediately_answers_before_the_work_is_done(call: Caller) -> None:
    task_id = await call.begin("hold")
    assert state(await call("GetTask", {"id": task_id})) in ("SUBMITTED", "WORKING")
    call.lab.released["hold"].set()
    await call.session.wait(task_id, lambda head: head.status.is_terminal)
    assert state(await call("GetTask", {"id": task_id})) == "COMPLETED"


@pytest.mark.asyncio
async def test_direct_reply_is_a_message_without_a_task(call: Caller) -> None:
    answer = await call("SendMessage", message("reply"))
    assert answer.keys() == {"message"}
    assert answer["message"]["parts"] == [{"text": "direct"}]
    assert "taskId" not in answer["message"]
    assert answer["message"]["contextId"]


@pytest.mark.asyncio
async def test_tree_in_a_data_part_is_run_and_shown_as_one_task(call: Caller) -> None:
    task = (await call("SendMessage", tree_message(*FAN)))["task"]
    assert state(task) == "COMPLETED"
    assert [artifact["name"] for artifact in task["artifacts"]] == ["number", "echo"]
    child = await call("GetTask", {"id": task["artifacts"][1]["artifactId"]})
    assert state(child) == "COMPLETED"
    assert child["contextId"] == task["contextId"]
    assert child["artifacts"] == [task["artifacts"][1]]


@pytest.mark.asyncio
async def test_wrong_tree_names_every_field_and_stores_nothing(call: Caller) -> None:
    error = await refused(call, "SendMessage", tree_message({"name": "echo", "priority": "x"}, {"name": ""}))
    assert error.code == -32602
    assert error.fields >= {"message.parts[0].data.tasks[0].priority", "message.parts[0].data.tasks[1].name"}
    assert (await call("ListTasks", {}))["totalSize"] == 0


@pytest.mark.asyncio
async def test_tree_larger_or_deeper_than_the_limit_is_refused(call: Caller) -> None:
    error = await refused(call, "SendMessage", tree_message(*({"name": "echo"} for _ in range(51))))
    assert (error.code, "50 allowed" in error.message) == (-32602, True)
    chain = [{"id": str(n), "name": "echo"} | ({"parent_id": str(n - 1)} if n else {}) for n in range(6)]
    assert "5 are allowed" in (await refused(call, "SendMessage", tree_message(*chain))).message


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"message": None}, "message"),
        ({"message": {"role": "ROLE_USER", "parts": [{"text": "x"}]}}, "message.messageId"),
        ({"message": {"messageId": "m", "role": "ROLE_NOBODY", "parts": [{"text": "x"}]}}, "message.role"),
        ({"message": {"messageId": "m", "role": "ROLE_USER", "parts": []}}, "message.parts"),
        (
            {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x", "url": "y"}]}},
            "message.parts[0]",
        ),
        ({"configuration": {"historyLength": -1}}, "configuration.historyLength"),
        ({"configuration": {"returnImmediately": "yes"}}, "configuration.returnImmediately"),
        ({"configuration": {"acceptedOutputModes": "text"}}, "configuration.acceptedOutputModes"),
        ({"metadata": {"skillId": 5}}, "metadata.skillId"),
        ({"metadata": []}, "metadata"),
    ],
)
@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
@pytest.mark.asyncio
async def test_wrong_param_of_a_message_is_named(call: Caller, method: str, change: Any, field: str) -> None:
    error = await refused(call, method, message("echo") | change)
    assert (error.code, error.fields) == (-32602, {field})


@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("GetTask", {}, "id"),
        ("GetTask", {"id": 1}, "id"),
        ("GetTask", {"id": "x", "historyLength": -1}, "historyLength"),
        ("CancelTask", {"id": ""}, "id"),
        ("SubscribeToTask", None, "id"),
        ("ListTasks", {"pageSize": 0}, "pageSize"),
        ("ListTasks", {"pageSize": 101}, "pageSize"),
        ("ListTasks", {"status": "TASK_STATE_DANCING"}, "status"),
        ("ListTasks", {"statusTimestampAfter": "yesterday"}, "statusTimestampAfter"),
        ("ListTasks", {"pageToken": "???"}, "pageToken"),
        ("ListTasks", {"pageToken": "é"}, "pageToken"),
        ("ListTasks", {"pageToken": base64.urlsafe_b64encode(b'["x","y"]').decode()}, "pageToken"),
        ("ListTasks", {"includeArtifacts": 1}, "includeArtifacts"),
        ("ListTasks", {"historyLength": -1}, "historyLength"),
    ],
)
@pytest.mark.asyncio
async def test_wrong_param_is_named(call: Caller, method: str, params: Any, field: str) -> None:
    error = await refused(call, method, params)
    assert (error.code, error.fields) == (-32602, {field})


@pytest.mark.asyncio
async def test_media_types_that_fit_nobody_are_content_type_errors(call: Caller) -> None:
    given = message("echo", {"text": "x", "mediaType": "video/mp4"})
    assert (await refused(call, "SendMessage", given)).code == -32005
    unwanted = message("echo") | {"configuration": {"acceptedOutputModes": ["video/mp4"]}}
    assert (await refused(call, "SendMessage", unwanted)).code == -32005
    wanted = message("echo") | {"configuration": {"acceptedOutputModes": ["video/mp4", "text/*"]}}
    assert state((await call("SendMessage", wanted))["task"]) == "COMPLETED"


@pytest.mark.asyncio
async def test_executor_sees_the_request(call: Caller) -> None:
    await call("SendMessage", message("echo") | {"metadata": {"skillId": "echo", "trace": "t1"}})
    assert call.lab.requests[0]["metadata"]["trace"] == "t1"
    assert call.lab.requests[0]["message"]["parts"] == [{"text": "hi"}]


# Several turns


@pytest.mark.asyncio
async def test_question_is_answered_by_task_id_alone(call: Caller) -> None:
    task = await call.send("ask")
    assert (state(task), task["status"]["message"]["parts"]) == ("INPUT_REQUIRED", [{"text": "first?"}])
    again = (await call("SendMessage", message(text="one", task=task["id"])))["task"]
    assert (again["id"], again["contextId"]) == (task["id"], task["contextId"])
    assert again["status"]["message"]["parts"] == [{"text": "second?"}]
    done = (await call("SendMessage", message(text="two", task=task["id"], context=task["contextId"])))["task"]
    assert state(done) == "COMPLETED"
    assert done["artifacts"][0]["parts"] == [{"data": ["one", "two"]}]
    assert [m["parts"][0]["text"] for m in done["history"]] == ["hi", "first?", "one", "second?", "two"]


@pytest.mark.asyncio
async def test_child_is_asked_and_answered_by_its_own_id(call: Caller) -> None:
    task = (await call("SendMessage", tree_message({"id": "r", "name": "g"}, {"name": "ask", "parent_id": "r"})))[
        "task"
    ]
    child = (await call("tasks.children", {"parent_id": task["id"]}))[0]["id"]
    again = (await call("SendMessage", message(text="one", task=child)))["task"]
    assert (again["id"], state(again)) == (child, "INPUT_REQUIRED")
    assert state((await call("SendMessage", message(text="two", task=child)))["task"]) == "COMPLETED"


@pytest.mark.asyncio
async def test_message_to_a_working_task_is_kept_in_its_history(call: Caller) -> None:
    task_id = await call.begin("hold")
    await call.lab.started["hold"].wait()
    params = message(text="more", task=task_id) | {"configuration": {"returnImmediately": True}}
    task = (await call("SendMessage", params))["task"]
    assert (state(task), [m["parts"][0]["text"] for m in task["history"]]) == ("WORKING", ["hi", "more"])


@pytest.mark.asyncio
async def test_message_to_an_unknown_ended_or_other_context_task_is_refused(call: Caller) -> None:
    task = await call.send("nothing")
    assert (await refused(call, "SendMessage", message(task="unheard"))).code == -32001
    assert (await refused(call, "SendMessage", message(task=task["id"]))).code == -32004
    mismatch = await refused(call, "SendMessage", message(task=task["id"], context="other"))
    assert (mismatch.code, mismatch.fields) == (-32602, {"message.contextId"})


@pytest.mark.asyncio
async def test_context_of_the_caller_is_kept(call: Caller) -> None:
    assert (await call.send("nothing", context="mine"))["contextId"] == "mine"


@pytest.mark.parametrize(
    ("length", "kept"), [(0, []), (1, ["one"]), (2, ["first?", "one"]), (9, ["hi", "first?", "one"])]
)
@pytest.mark.asyncio
async def test_history_length_trims_everywhere(call: Caller, length: int, kept: list[str]) -> None:
    task = await call.send("ask")
    params = message(text="one", task=task["id"]) | {"configuration": {"historyLength": length}}
    sent = (await call("SendMessage", params))["task"]
    got = await call("GetTask", {"id": task["id"], "historyLength": length})
    (listed,) = (await call("ListTasks", {"historyLength": length}))["tasks"]
    for each in (sent, got, listed):
        assert [m["parts"][0]["text"] for m in each.get("history", [])] == kept


# Streams


@pytest.mark.asyncio
async def test_stream_opens_with_the_submitted_task_and_ends_with_the_end(call: Caller) -> None:
    frames = await call.frames("SendStreamingMessage", message("steps"))
    assert state(frames[0].result["task"]) == "SUBMITTED"
    assert states(frames) == ["WORKING", "WORKING", "WORKING", "COMPLETED"]
    assert [f.seq for f in frames] == [3, 4, 5, None, 6, 7]
    assert frames[3].result["artifactUpdate"]["artifact"]["parts"] == [{"text": "done"}]


@pytest.mark.asyncio
async def test_stream_of_chunks_appends(call: Caller) -> None:
    frames = await call.frames("SendStreamingMessage", message("chunks"))
    pieces = [f.result["artifactUpdate"] for f in frames if "artifactUpdate" in f.result]
    told = [(p["artifact"]["parts"][0]["text"], p.get("append"), p.get("lastChunk")) for p in pieces]
    assert told == [("one ", None, None), ("two", True, True)]


@pytest.mark.asyncio
async def test_stream_of_a_direct_reply_is_that_message_alone(call: Caller) -> None:
    (frame,) = await call.frames("SendStreamingMessage", message("reply"))
    assert frame.result["message"]["parts"] == [{"text": "direct"}]


@pytest.mark.asyncio
async def test_reply_that_comes_late_is_a_status_message_of_its_task(call: Caller) -> None:
    """The stream has opened with the Task by then, and after a Task only Tasks are told: once, like every message."""
    frames = []
    async for frame in call.stream("SendStreamingMessage", message("late_reply")):
        frames.append(frame)
        call.lab.released["late"].set()
    assert "task" in frames[0].result
    told = [f.result["statusUpdate"]["status"].get("message", {}).get("parts") for f in frames[1:]]
    assert told == [None, [{"text": "late"}], None, None]


@pytest.mark.asyncio
async def test_message_stream_closes_at_a_question_and_stays_open_for_a_login(call: Caller) -> None:
    frames = await call.frames("SendStreamingMessage", message("ask"))
    assert states(frames)[-1] == "INPUT_REQUIRED"
    seen = []
    async for frame in call.stream("SendStreamingMessage", message("login")):
        seen.append(frame)
        if "AUTH_REQUIRED" in states([frame]):
            task_id = seen[0].result["task"]["id"]
            await call("SendMessage", message(text="token", task=task_id))
    assert states(seen)[-1] == "COMPLETED"


@pytest.mark.asyncio
async def test_subscription_opens_with_a_snapshot_and_outlives_questions(call: Caller) -> None:
    task = await call.send("ask")
    frames = []
    answers = iter(["one", "two"])
    async for frame in call.stream("SubscribeToTask", {"id": task["id"]}):
        frames.append(frame)
        waits = frame.result.get("task") or frame.result.get("statusUpdate")
        if waits is not None and state(waits) == "INPUT_REQUIRED":
            await call("SendMessage", message(text=next(answers), task=task["id"]))
    assert state(frames[0].result["task"]) == "INPUT_REQUIRED"
    assert states(frames)[-1] == "COMPLETED"
    assert "INPUT_REQUIRED" in states(frames)


@pytest.mark.asyncio
async def test_child_has_a_stream_of_its_own(call: Caller) -> None:
    tree = tree_message(
        {"id": "r", "name": "g"}, {"name": "hold", "parent_id": "r"}, {"name": "steps", "parent_id": "r"}
    )
    task = (await call("SendMessage", tree | {"configuration": {"returnImmediately": True}}))["task"]
    child = (await call("tasks.children", {"parent_id": task["id"]}))[0]["id"]
    await call.lab.started["hold"].wait()
    frames = []
    async for frame in call.stream("SubscribeToTask", {"id": child}):
        frames.append(frame)
        call.lab.released["hold"].set()
    told = [next(iter(f.result.values())) for f in frames]
    assert {t.get("taskId", t.get("id")) for t in told} == {child}
    assert states(frames) == ["COMPLETED"]


@pytest.mark.asyncio
async def test_subscription_is_refused_for_unknown_and_ended_tasks(call: Caller) -> None:
    task = await call.send("nothing")
    assert (await refused(call, "SubscribeToTask", {"id": "unheard"})).code == -32001
    assert (await refused(call, "SubscribeToTask", {"id": task["id"]})).code == -32004


@pytest.mark.asyncio
async def test_subscription_resumes_exactly_even_when_the_task_has_ended(call: Caller) -> None:
    live = await call.frames("SendStreamingMessage", message("steps"))
    task_id = live[0].result["task"]["id"]
    for n, frame in enumerate(live):
        if frame.seq is not None:
            rest = await call.frames("SubscribeToTask", {"id": task_id}, last_event_id=frame.seq)
            assert rest == live[n + 1 :]


@pytest.mark.asyncio
async def test_resuming_after_events_that_are_not_there_is_refused(call: Caller) -> None:
    task = await call.send("nothing")
    assert (await refused(call, "SubscribeToTask", {"id": task["id"]}, last_event_id=99)).fields == {"Last-Event-ID"}


@pytest.mark.asyncio
async def test_message_is_not_sent_twice_by_a_client_that_resumes(call: Caller) -> None:
    error = await refused(call, "SendStreamingMessage", message("echo"), last_event_id=4)
    assert error.fields == {"Last-Event-ID"}
    assert (await call("ListTasks", {}))["totalSize"] == 0


@pytest.mark.parametrize("method", ["SendMessage", "SendStreamingMessage"])
@pytest.mark.parametrize("role", ["ROLE_AGENT", 2, "ROLE_UNSPECIFIED", 0, None, "absent"])
@pytest.mark.asyncio
async def test_only_what_the_client_says_is_taken(call: Caller, method: str, role: Any) -> None:
    """An agent's message cannot come from a client; role is REQUIRED."""
    params = message("echo")
    params["message"]["role"] = role
    if role == "absent":
        del params["message"]["role"]
    error = await refused(call, method, params)
    assert (error.code, error.fields) == (-32602, {"message.role"})
    assert (await call("ListTasks", {}))["totalSize"] == 0


# Listing and cancelling


@pytest.mark.asyncio
async def test_list_always_has_its_four_fields(call: Caller) -> None:
    assert await call("ListTasks", {"contextId": "none"}) == {
        "tasks": [],
        "nextPageToken": "",
        "pageSize": 50,
        "totalSize": 0,
    }


@pytest.mark.asyncio
async def test_pages_go_through_all_tasks_once_latest_first(call: Caller) -> None:
    made = [(await call.send("nothing"))["id"] for _ in range(5)]
    seen: list[str] = []
    token = ""
    while True:
        page = await call("ListTasks", {"pageSize": 2, "pageToken": token})
        assert (page["pageSize"], page["totalSize"]) == (2, 5)
        seen += [task["id"] for task in page["tasks"]]
        if not (token := page["nextPageToken"]):
            break
        assert token.replace("-", "").replace("_", "").isalnum()
    assert sorted(seen) == sorted(made)
    stamps = [(await call("GetTask", {"id": i}))["status"]["timestamp"] for i in seen]
    assert stamps == sorted(stamps, reverse=True)


@pytest.mark.asyncio
async def test_pages_end_early_where_the_tasks_are_large(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred tasks of ten megabytes would be a gigabyte of memory for one answer."""
    monkeypatch.setattr(methods_a2a, "PAGE_BYTES", 2_000)
    sent = message("echo", {"data": {"text": "x" * 1_200}})
    made = [(await call("SendMessage", sent))["task"]["id"] for _ in range(5)]

    async def pages(**given: Any) -> list[list[str]]:
        found: list[list[str]] = []
        token = ""
        while True:
            page = await call("ListTasks", given | {"pageToken": token})
            found.append([task["id"] for task in page["tasks"]])
            if not (token := page["nextPageToken"]):
                return found

    large = await pages(includeArtifacts=True, historyLength=0)
    assert [len(page) for page in large] == [2, 2, 1]
    assert sorted(task_id for page in large for task_id in page) == sorted(made)
    assert [len(page) for page in await pages(historyLength=0)] == [5], "without the artifacts they are small"


@pytest.mark.asyncio
async def test_list_filters_by_context_status_and_time(call: Caller) -> None:
    done = await call.send("nothing", context="c1")
    failed = await call.send("boom", context="c2")

    async def ids(**given: Any) -> set[str]:
        return {task["id"] for task in (await call("ListTasks", given))["tasks"]}

    assert await ids(contextId="c1") == {done["id"]}
    assert await ids(status="TASK_STATE_FAILED") == {failed["id"]}
    assert await ids(statusTimestampAfter=done["status"]["timestamp"]) == {done["id"], failed["id"]}
    assert await ids(statusTimestampAfter="2999-01-01T00:00:00Z") == set()


@pytest.mark.asyncio
async def test_list_has_the_artifacts_key_only_when_asked_for(call: Caller) -> None:
    await call.send("nothing")
    (without,) = (await call("ListTasks", {}))["tasks"]
    (with_them,) = (await call("ListTasks", {"includeArtifacts": True}))["tasks"]
    assert "artifacts" not in without
    assert with_them["artifacts"] == []


@pytest.mark.asyncio
async def test_cancel_stops_the_work_and_is_idempotent(call: Caller) -> None:
    task_id = await call.begin("hold")
    await call.lab.started["hold"].wait()
    for _ in range(2):
        task = await call("CancelTask", {"id": task_id, "metadata": {"reason": "enough"}})
        assert (state(task), task["status"]["message"]["parts"]) == ("CANCELED", [{"text": "enough"}])
    assert call.session.runner.books.running == 0


@pytest.mark.asyncio
async def test_cancel_of_what_ended_otherwise_is_refused(call: Caller) -> None:
    task = await call.send("nothing")
    assert (await refused(call, "CancelTask", {"id": task["id"]})).code == -32002
    assert (await refused(call, "CancelTask", {"id": "unheard"})).code == -32001


# What is not offered, and what is not seen


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("GetExtendedAgentCard", None, -32004),
        ("CreateTaskPushNotificationConfig", {"taskId": "t", "url": "https://example.com"}, -32003),
        ("GetTaskPushNotificationConfig", {"taskId": "t", "id": "c"}, -32003),
        ("ListTaskPushNotificationConfigs", {"taskId": "t"}, -32003),
        ("DeleteTaskPushNotificationConfig", {"taskId": "t", "id": "c"}, -32003),
    ],
)
@pytest.mark.asyncio
async def test_what_the_card_does_not_offer_is_refused(method: str, params: Any, code: int) -> None:
    async with calling(push=False) as call:
        assert (await refused(call, method, params)).code == code


@pytest.mark.asyncio
async def test_the_extended_card_is_for_known_callers() -> None:
    """A2A §13.3: it requires authentication, in HTTP's words as well."""
    async with calling(auth=("keys",)) as call:
        endpoint, ask = call.application.json_rpc, b'{"jsonrpc": "2.0", "id": 1, "method": "GetExtendedAgentCard"}'
        unknown = await endpoint.handle(ask, RequestContext())
        known = await endpoint.handle(ask, RequestContext(principal=Principal(id="p", skills=frozenset({"echo"}))))
    assert (unknown.status, "WWW-Authenticate" in unknown.headers) == (401, True)
    result = json.loads(known.body)["result"]
    card = call.application.cards.published.card
    assert (result["name"], [skill["id"] for skill in result["skills"]]) == (card.name, ["echo"])


@pytest.mark.asyncio
async def test_inline_push_configuration_is_refused_and_nothing_runs() -> None:
    push = {"configuration": {"taskPushNotificationConfig": {"url": "https://example.com"}}}
    async with calling(push=False) as call:
        assert (await refused(call, "SendMessage", message("echo") | push)).code == -32003
        assert (await call("ListTasks", {}))["totalSize"] == 0


@pytest.mark.asyncio
async def test_trees_of_the_task_methods_are_invisible(call: Caller) -> None:
    task_id = await call.tree({"name": "hold"})
    for method in ("GetTask", "CancelTask", "SubscribeToTask"):
        assert (await refused(call, method, {"id": task_id})).code == -32001
    assert (await refused(call, "SendMessage", message(task=task_id))).code == -32001
    assert (await call("ListTasks", {}))["totalSize"] == 0


@pytest.mark.asyncio
async def test_foreign_task_looks_exactly_like_a_missing_one(call: Caller) -> None:
    mallory = Principal(id="mallory", tenant="other", owner=owner_of("other", "mallory"), is_operator=True)
    task = await call.send("ask")
    for method, params in (
        ("GetTask", {"id": task["id"]}),
        ("CancelTask", {"id": task["id"]}),
        ("SubscribeToTask", {"id": task["id"]}),
        ("SendMessage", message(task=task["id"], context="other")),
        ("SendStreamingMessage", message(task=task["id"])),
        ("tasks.get", {"task_id": task["id"]}),
        ("tasks.tree", {"task_id": task["id"]}),
        ("tasks.children", {"parent_id": task["id"]}),
        ("tasks.events", {"task_id": task["id"]}),
        ("tasks.update", {"task_id": task["id"], "name": "x"}),
        ("tasks.delete", {"task_id": task["id"]}),
        ("tasks.copy", {"task_id": task["id"]}),
        ("tasks.execute", {"task_id": task["id"]}),
    ):
        error = await refused(call, method, params, principal=mallory)
        assert (error.code, error.message) == (-32001, "Task not found"), method
    assert (await call("ListTasks", {}, principal=mallory))["totalSize"] == 0
    assert await call("tasks.list", {}, principal=mallory) == []
    (answer,) = await call("tasks.cancel", {"task_ids": [task["id"]]}, principal=mallory)
    assert answer["status"] == "failed"
    assert state(await call("GetTask", {"id": task["id"]})) == "INPUT_REQUIRED"


@pytest.mark.asyncio
async def test_stopping_server_answers_blocking_calls_with_the_task_as_it_is(call: Caller) -> None:
    sending = asyncio.create_task(call("SendMessage", message("hold")))
    await call.lab.started["hold"].wait()
    call.application.drain()
    assert state((await sending)["task"]) == "WORKING"


@pytest.mark.asyncio
@pytest.mark.parametrize(("length", "is_read"), [(0, False), (1, True), (None, True)])
async def test_what_callers_wrote_is_not_read_where_no_history_is_asked_for(
    call: Caller, length: int | None, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be large: reads that asked for no history took as long and as much memory as those that did."""
    task = await call.send("nothing")
    storage = call.session.storage
    asked: list[Any] = []
    events = storage.events

    async def watched(query: EventQuery) -> Any:
        asked.append(query.kinds)
        return await events(query)

    monkeypatch.setattr(storage, "events", watched)
    monkeypatch.setattr(call.session.feed, "told", lambda *_: None)  # as after a restart
    given = {} if length is None else {"historyLength": length}
    assert (await call("GetTask", {"id": task["id"], **given}))["status"]["state"] == "TASK_STATE_COMPLETED"
    assert [("message_received" in kinds) for kinds in asked if kinds] == [is_read]
