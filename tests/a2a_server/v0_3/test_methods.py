"""The methods of v0.3 behind the endpoint: their answers, streams and errors, and how versions are told apart."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import JsonRpcEndpoint, Method
from a2a_server.edge.overload import CallKind
from a2a_server.protocol import types as v1
from a2a_server.protocol.errors import Overloaded, PushNotificationNotSupported, TaskNotFound, UnsupportedOperation
from a2a_server.v0_3.dialect import A2A_0_3
from a2a_server.v0_3.methods import table
from core.model.task import TaskStatus
from tests.a2a_server.conftest import Caller, RpcError, calling, message, running, somebody, until, unwrapped

SAID = {"kind": "message", "messageId": "m1", "role": "user", "parts": [{"kind": "text", "text": "hi"}]}


def sent(skill: str | None = None, *, task: str = "", data: Any = None, **configuration: Any) -> dict[str, Any]:
    """Params of message/send."""
    said: dict[str, Any] = SAID | ({"parts": [{"kind": "data", "data": data}]} if data is not None else {})
    said |= {"taskId": task} if task else {}
    return {"message": said, "metadata": {"skillId": skill} if skill else {}, "configuration": configuration}


def results(frames: list[Any]) -> list[dict[str, Any]]:
    return [frame.result for frame in frames]


def finals(frames: list[Any]) -> list[bool]:
    return [told["final"] for told in results(frames) if told["kind"] == "status-update"]


async def refused(call: Caller, method: str, params: Any, **context: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        await call(method, params, **context)
    return error.value


# Messages and tasks


@pytest.mark.asyncio
async def test_send_waits_for_the_end_and_answers_with_the_bare_task(call: Caller) -> None:
    task = await call("message/send", sent("number"))
    assert (task["kind"], task["status"]["state"]) == ("task", "completed")
    (artifact,) = task["artifacts"]
    assert artifact["parts"] == [{"kind": "data", "data": {"value": 2**60 + 1}, "metadata": {"data_part_compat": True}}]
    assert [said["parts"] for said in task["history"]] == [SAID["parts"]]
    assert await call("tasks/get", {"id": task["id"]}) == task


@pytest.mark.asyncio
async def test_direct_reply_is_a_bare_message(call: Caller) -> None:
    said = await call("message/send", sent("reply"))
    assert (said["kind"], said["role"], said["parts"]) == ("message", "agent", [{"kind": "text", "text": "direct"}])
    (frame,) = await call.frames("message/stream", sent("reply"))
    assert (frame.result["kind"], frame.result["parts"]) == ("message", said["parts"])


@pytest.mark.asyncio
async def test_without_blocking_the_answer_comes_at_once(call: Caller) -> None:
    task = await call("message/send", sent("hold", blocking=False))
    assert task["status"]["state"] in ("submitted", "working")
    cancelled = await call("tasks/cancel", {"id": task["id"], "metadata": {"reason": "enough"}})
    assert (cancelled["kind"], cancelled["status"]["state"]) == ("task", "canceled")


@pytest.mark.asyncio
async def test_task_of_one_version_is_readable_in_the_other(call: Caller) -> None:
    """There is one model behind both."""
    older = await call("message/send", sent("echo"))
    newer = await call.send("echo")
    assert (await call("GetTask", {"id": older["id"]}))["status"]["state"] == "TASK_STATE_COMPLETED"
    assert (await call("tasks/get", {"id": newer["id"]}))["status"]["state"] == "completed"


@pytest.mark.asyncio
@pytest.mark.parametrize(("length", "kept"), [(None, 5), (0, 5), (1, 1), (2, 2)])
async def test_history_is_cut_only_by_a_positive_length(call: Caller, length: int | None, kept: int) -> None:
    task = await call("message/send", sent("ask"))
    assert task["status"]["state"] == "input-required"
    for _ in range(2):
        task = await call("message/send", sent(task=task["id"]))
    told = await call("tasks/get", {"id": task["id"], "historyLength": length})
    assert len(told["history"]) == kept


# Streams


@pytest.mark.asyncio
async def test_stream_begins_with_the_task_and_only_its_end_is_final(call: Caller) -> None:
    frames = await call.frames("message/stream", sent("chunks"))
    assert all(set(frame.data) == {"jsonrpc", "id", "result"} for frame in frames)
    told = results(frames)
    assert told[0]["kind"] == "task"
    assert [each["append"] for each in told if each["kind"] == "artifact-update"] == [False, True]
    assert (told[-1]["kind"], told[-1]["status"]["state"]) == ("status-update", "completed")
    assert finals(frames)[-1] and not any(finals(frames)[:-1])


@pytest.mark.asyncio
async def test_question_is_final_where_it_closes_the_stream_and_not_where_it_does_not(call: Caller) -> None:
    """message/stream ends with a question, tasks/resubscribe goes on: the same event, told in two ways."""
    asked = await call.frames("message/stream", sent("ask"))
    assert results(asked)[-1]["status"]["state"] == "input-required"
    assert finals(asked)[-1] and not any(finals(asked)[:-1])

    task_id = results(asked)[0]["id"]
    whole = call.stream("tasks/resubscribe", {"id": task_id}, last_event_id=asked[0].seq)
    seen = await until_input(whole)
    assert finals(seen) == [False] * len(finals(seen))
    for _ in range(2):
        await call("message/send", sent(task=task_id))
    rest = [frame async for frame in whole]
    assert results(rest)[-1]["status"]["state"] == "completed"
    assert finals(rest)[-1] and not any(finals(rest)[:-1])


async def until_input(stream: AsyncIterator[Any]) -> list[Any]:
    seen = []
    async for frame in stream:
        seen.append(frame)
        if frame.result.get("status", {}).get("state") == "input-required":
            return seen
    raise AssertionError("the stream ended before the question")


@pytest.mark.asyncio
async def test_followers_in_both_versions_see_the_same_events_each_in_its_own(call: Caller) -> None:
    task_id = await call.begin("hold")
    methods = ("tasks/resubscribe", "SubscribeToTask")
    following = [asyncio.create_task(call.frames(method, {"id": task_id})) for method in methods]
    await call.lab.started["hold"].wait()
    await until(lambda: call.session.feed.followers == 2)
    call.lab.released["hold"].set()
    older, newer = await asyncio.gather(*following)
    names = {"status-update": "statusUpdate", "artifact-update": "artifactUpdate", "task": "task"}
    tail = min(len(older), len(newer)) - 1
    assert [frame.seq for frame in older[-tail:]] == [frame.seq for frame in newer[-tail:]]
    for mine, theirs in zip(older[-tail:], newer[-tail:], strict=True):
        assert set(theirs.result) == {names[mine.result["kind"]]}


@pytest.mark.asyncio
async def test_error_within_a_stream_is_told_in_the_stream_s_version() -> None:
    async def breaks(context: RequestContext, params: Any) -> Any:
        async def frames() -> AsyncIterator[Any]:
            raise PushNotificationNotSupported
            yield

        return frames()

    endpoint = endpoint_of(SubscribeToTask=breaks)
    reply = await endpoint.handle(body("tasks/resubscribe", {"id": "t"}), RequestContext())
    assert reply.events is not None
    (event,) = [event async for event in reply.events]
    assert json.loads(event.data)["error"]["code"] == -32003


# Versions


@pytest.mark.asyncio
@pytest.mark.parametrize("version", [None, "", "0.3", "0.3.0"])
async def test_methods_are_there_for_who_asks_for_0_3_or_says_nothing(call: Caller, version: str | None) -> None:
    assert (await refused(call, "tasks/get", {"id": "nope"}, a2a_version=version)).code == -32001


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["1.0", "0.2", "2.0", "x"])
async def test_methods_of_one_version_under_another_are_refused(call: Caller, version: str) -> None:
    error = await refused(call, "tasks/get", {"id": "nope"}, a2a_version=version)
    assert error.code == -32004
    assert error.data[0]["metadata"] == {"supportedVersions": "0.3,1.0"}


@pytest.mark.asyncio
async def test_v1_method_under_0_3_is_refused(call: Caller) -> None:
    assert (await refused(call, "SendMessage", message("echo"), a2a_version="0.3")).code == -32009


# Errors


@pytest.mark.asyncio
async def test_what_v1_calls_unsupported_v0_3_calls_wrong_params(call: Caller) -> None:
    ended = (await call("message/send", sent("echo")))["id"]
    assert (await refused(call, "message/send", sent(task=ended))).code == -32602
    for method, params in (("message/stream", sent(task=ended)), ("tasks/resubscribe", {"id": ended})):
        (frame,) = await call.frames(method, params)
        assert frame.data["error"]["code"] == -32602
    assert (await refused(call, "tasks/cancel", {"id": ended})).code == -32002
    assert (await refused(call, "agent/getAuthenticatedExtendedCard", None)).code == -32007


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "params", "field"),
    [
        ("message/send", None, "message"),
        ("message/send", {"message": SAID | {"parts": []}}, "message.parts"),
        ("message/send", {"message": SAID | {"parts": {}}}, "message.parts"),
        ("message/send", {"message": SAID | {"parts": [{"kind": "x"}]}}, "message.parts[0].kind"),
        ("message/send", {"message": SAID | {"parts": [{"text": "x", "data": {}}]}}, "message.parts[0]"),
        ("message/send", {"message": SAID | {"parts": [{"type": "other", "text": "x"}]}}, "message.parts[0].type"),
        ("message/send", {"message": SAID | {"parts": [{"type": "data", "text": "x"}]}}, "message.parts[0].type"),
        ("message/send", {"message": SAID | {"parts": [{"type": 5, "text": "x"}]}}, "message.parts[0].type"),
        ("message/send", {"message": SAID | {"role": "agent"}}, "message.role"),
        ("message/send", {"message": SAID, "configuration": {"historyLength": -1}}, "configuration.historyLength"),
        ("tasks/get", {"id": "t", "historyLength": -1}, "historyLength"),
        ("tasks/get", {"id": 5}, "id"),
        ("tasks/cancel", {}, "id"),
        ("tasks/pushNotificationConfig/set", {"taskId": "t"}, "pushNotificationConfig"),
        ("tasks/pushNotificationConfig/delete", {"id": "t"}, "pushNotificationConfigId"),
    ],
)
async def test_wrong_params_name_the_field(call: Caller, method: str, params: Any, field: str) -> None:
    error = await refused(call, method, params)
    assert (error.code, error.fields) == (-32602, {field})


@pytest.mark.asyncio
async def test_error_of_a_stream_is_its_only_event_once_the_params_are_read(call: Caller) -> None:
    """v0.3 clients that ask for a stream do not look into a plain JSON body; v1.0 wants exactly that."""
    (frame,) = await call.frames("tasks/resubscribe", {"id": "nope"})
    assert (frame.seq, frame.data["error"]["code"]) == (None, -32001)
    (frame,) = await call.frames("message/stream", sent("no-such-skill"))
    assert frame.data["error"]["code"] == -32602
    for method in ("tasks/resubscribe", "message/stream"):
        assert (await refused(call, method, {})).code == -32602


@pytest.mark.asyncio
async def test_caller_that_is_refused_a_stream_gets_the_status() -> None:
    async def refuse(context: RequestContext, params: Any) -> Any:
        raise Overloaded(retry_after=7)

    reply = await endpoint_of(SubscribeToTask=refuse).handle(body("tasks/resubscribe", {"id": "t"}), RequestContext())
    assert (reply.status, reply.headers, reply.events) == (503, {"Retry-After": "7"}, None)


@pytest.mark.asyncio
async def test_canceled_task_cannot_be_canceled_again(call: Caller) -> None:
    """In v1.0 it can, and nothing happens."""
    task_id = await call.begin("hold")
    assert (await call("tasks/cancel", {"id": task_id}))["status"]["state"] == "canceled"
    assert (await refused(call, "tasks/cancel", {"id": task_id})).code == -32002
    assert (await call("CancelTask", {"id": task_id}))["status"]["state"] == "TASK_STATE_CANCELED"


@pytest.mark.asyncio
async def test_foreign_tasks_are_not_there(call: Caller) -> None:
    task = await call("message/send", sent("echo"))
    for method in ("tasks/get", "tasks/cancel"):
        assert (await refused(call, method, {"id": task["id"]}, principal=somebody("eve"))).code == -32001
    (frame,) = await call.frames("tasks/resubscribe", {"id": task["id"]}, principal=somebody("eve"))
    assert frame.data["error"]["code"] == -32001


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("message/send", sent("echo"), -32600),
        ("message/stream", sent("echo"), -32600),
        ("message/send", {"message": {}}, -32602),
        ("message/nope", {}, -32601),
    ],
)
async def test_request_without_an_id_is_refused_and_nothing_runs(
    call: Caller, method: str, params: Any, code: int
) -> None:
    """A2A has no notifications; the answer says first what else is wrong (a2a-tck 0.3.x)."""
    request = {"jsonrpc": "2.0", "method": method, "params": params}
    reply = await call.application.json_rpc.handle(json.dumps(request).encode(), RequestContext())
    answer = json.loads(reply.body)
    assert (reply.status, answer["id"], answer["error"]["code"]) == (200, None, code)
    assert call.lab.requests == []


@pytest.mark.asyncio
async def test_both_versions_may_stand_in_one_batch(call: Caller) -> None:
    batch = [
        {"jsonrpc": "2.0", "id": 1, "method": "tasks/get", "params": {"id": "nope"}},
        {"jsonrpc": "2.0", "id": 2, "method": "GetTask", "params": {"id": "nope"}},
        {"jsonrpc": "2.0", "id": 3, "method": "message/stream", "params": sent("echo")},
    ]
    reply = await call.application.json_rpc.handle(json.dumps(batch).encode(), RequestContext(a2a_version="1.0"))
    answers = [(each["id"], each["error"]["code"]) for each in json.loads(reply.body)]
    assert answers == [(1, -32004), (2, -32001), (3, -32004)]


# Webhooks, over handlers that keep them


def body(method: str, params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def endpoint_of(**handlers: Any) -> JsonRpcEndpoint:
    """An endpoint with the v0.3 methods over these v1.0 handlers."""

    async def unused(context: RequestContext, params: Any) -> Any:
        raise UnsupportedOperation

    names = ("SendMessage", "SendStreamingMessage", "GetTask", "CancelTask", "SubscribeToTask", "GetExtendedAgentCard")
    names += tuple(f"{verb}TaskPushNotificationConfig" for verb in ("Create", "Get", "Delete"))
    names += ("ListTaskPushNotificationConfigs",)
    streams = ("SendStreamingMessage", "SubscribeToTask")
    v1_methods = [
        Method(name=name, kind=CallKind.OTHER, handler=handlers.get(name, unused), is_stream=name in streams)
        for name in names
    ]

    async def status(context: RequestContext, task_id: str) -> TaskStatus:
        return TaskStatus.IN_PROGRESS

    return JsonRpcEndpoint(table(v1_methods, status))


class Webhooks:
    """v1.0 handlers over a list of configs; a page has two of them."""

    def __init__(self) -> None:
        self.kept: list[v1.TaskPushNotificationConfig] = []
        self.dialects: set[str] = set()
        self.json_rpc = endpoint_of(
            CreateTaskPushNotificationConfig=self.create,
            GetTaskPushNotificationConfig=self.get,
            DeleteTaskPushNotificationConfig=self.delete,
            ListTaskPushNotificationConfigs=self.page,
        )

    async def create(self, context: RequestContext, params: v1.TaskPushNotificationConfig) -> Any:
        self.dialects.add(context.dialect.version)
        self.kept.append(params)
        return params

    async def get(self, context: RequestContext, params: v1.PushNotificationConfigRequest) -> Any:
        found = [each for each in self.kept if (each.task_id, each.id) == (params.task_id, params.id)]
        if not found:
            raise TaskNotFound
        return found[0]

    async def delete(self, context: RequestContext, params: v1.PushNotificationConfigRequest) -> None:
        self.kept = [each for each in self.kept if each.id != params.id]

    async def page(self, context: RequestContext, params: v1.ListTaskPushNotificationConfigsRequest) -> Any:
        start = int(params.page_token or 0)
        size = params.page_size or 2
        token = str(start + size) if start + size < len(self.kept) else ""
        configs = self.kept[start : start + size]
        return v1.ListTaskPushNotificationConfigsResponse(configs=configs, next_page_token=token)

    async def __call__(self, method: str, **params: Any) -> Any:
        reply = await self.json_rpc.handle(body(f"tasks/pushNotificationConfig/{method}", params), RequestContext())
        return unwrapped(json.loads(reply.body))


def webhook(name: str) -> dict[str, Any]:
    return {"id": name, "url": f"https://example.com/{name}"}


@pytest.mark.asyncio
async def test_webhooks_are_set_read_listed_and_deleted() -> None:
    call = Webhooks()
    for name in "abc":
        told = await call("set", taskId="t", pushNotificationConfig=webhook(name))
        assert told == {"taskId": "t", "pushNotificationConfig": webhook(name)}
    assert call.dialects == {A2A_0_3.version}, "whoever keeps a webhook is told its version"
    read = await call("get", id="t", pushNotificationConfigId="b")
    assert read["pushNotificationConfig"] == webhook("b")
    listed = await call("list", id="t")
    assert [each["pushNotificationConfig"]["id"] for each in listed] == ["a", "b", "c"]
    assert await call("delete", id="t", pushNotificationConfigId="b") is None
    assert [each["pushNotificationConfig"]["id"] for each in await call("list", id="t")] == ["a", "c"]


@pytest.mark.asyncio
@pytest.mark.parametrize("named", [{}, {"pushNotificationConfigId": None}, {"pushNotificationConfigId": ""}])
async def test_who_names_no_webhook_gets_the_first(named: dict[str, Any]) -> None:
    call = Webhooks()
    with pytest.raises(RpcError) as error:
        await call("get", id="t", **named)
    assert error.value.code == -32001
    for name in "ab":
        await call("set", taskId="t", pushNotificationConfig=webhook(name))
    assert (await call("get", id="t", **named))["pushNotificationConfig"] == webhook("a")


@pytest.mark.asyncio
async def test_extended_card_has_the_fields_of_both_versions() -> None:
    interface = v1.AgentInterface(url="http://x/", protocol_binding="JSONRPC", protocol_version="0.3")
    card = v1.AgentCard(
        name="a",
        description="a",
        version="1",
        supported_interfaces=[interface],
        capabilities=v1.AgentCapabilities(extended_agent_card=True),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[],
    )

    async def extended(context: RequestContext, params: Any) -> Any:
        return card

    reply = await endpoint_of(GetExtendedAgentCard=extended).handle(
        body("agent/getAuthenticatedExtendedCard", {"anything": 1}), RequestContext()
    )
    told = unwrapped(json.loads(reply.body))
    assert (told["url"], told["supportedInterfaces"][0]["url"]) == ("http://x/", "http://x/")


# Over HTTP


EXTENSION = "https://example.com/ext/v1"


@pytest.mark.asyncio
@pytest.mark.parametrize("header", ["X-A2A-Extensions", "A2A-Extensions"])
async def test_extensions_are_named_back_in_the_header_that_named_them(header: str, tmp_path: Any) -> None:
    extension = {"uri": EXTENSION, "required": True}
    template = {
        "name": "a",
        "description": "a",
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "capabilities": {"extensions": [extension]},
    }
    (file := tmp_path / "card.json").write_text(json.dumps(template))
    async with running(card=str(file)) as server, server.client() as client:
        request = json.loads(body("message/send", sent("echo")))
        without = (await client.post("/", json=request)).json()
        response = await client.post("/", json=request, headers={header: f"{EXTENSION}, https://example.com/other"})
    assert without["error"]["code"] == -32004
    assert response.json()["result"]["kind"] == "task"
    assert response.headers[header] == EXTENSION


@pytest.mark.asyncio
async def test_v0_3_needs_a_default_skill_as_v1_does() -> None:
    async with calling(default_skill="echo") as call:
        assert (await call("message/send", {"message": SAID}))["status"]["state"] == "completed"
    async with calling() as call:
        assert (await refused(call, "message/send", {"message": SAID})).code == -32602
