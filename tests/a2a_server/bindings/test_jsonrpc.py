"""The JSON-RPC endpoint: envelopes, batches, notifications, streams, and what of an error reaches the caller."""

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2a_server.auth.principal import Principal
from a2a_server.bindings import jsonrpc
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Event, Frame, JsonLimits, JsonRpcEndpoint, Method, Reply, error_reply, parse
from a2a_server.edge.overload import CallKind
from a2a_server.protocol.dialect import A2A_1_0
from a2a_server.protocol.errors import ContentTypeNotSupported, Overloaded, ParseError
from a2a_server.protocol.types import GetTaskRequest, SendMessageRequest
from core.model import jsonscan
from core.model.errors import Problem, TaskNotFound

SECRET = "password=hunter2"


class EchoParams(msgspec.Struct):
    value: Any = None


class StreamParams(msgspec.Struct):
    use_streaming: bool = False


class Server:
    """An endpoint with methods of every kind, and what was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.contexts: list[RequestContext] = []
        self.closed = 0
        self.json_rpc = JsonRpcEndpoint(
            [
                Method(name="echo", kind=CallKind.OTHER, handler=self.kept("echo", self.echo), params_type=EchoParams),
                Method(
                    name="tasks.create", kind=CallKind.WORK, handler=self.kept("tasks.create", self.raw), is_raw=True
                ),
                Method(name="noop", kind=CallKind.OTHER, handler=self.kept("noop", self.raw)),
                Method(name="broken", kind=CallKind.OTHER, handler=self.broken),
                Method(name="opaque", kind=CallKind.OTHER, handler=self.opaque),
                Method(name="missing", kind=CallKind.OTHER, handler=self.missing),
                Method(name="busy", kind=CallKind.OTHER, handler=self.busy),
                Method(
                    name="GetTask",
                    kind=CallKind.OTHER,
                    handler=self.kept("GetTask", self.get),
                    params_type=GetTaskRequest,
                    dialect=A2A_1_0,
                ),
                Method(
                    name="SendMessage",
                    kind=CallKind.WORK,
                    handler=self.kept("SendMessage", self.raw),
                    params_type=SendMessageRequest,
                    dialect=A2A_1_0,
                ),
                Method(
                    name="SubscribeToTask",
                    kind=CallKind.OTHER,
                    handler=self.stream,
                    params_type=GetTaskRequest,
                    dialect=A2A_1_0,
                    is_stream=True,
                ),
                Method(
                    name="tasks.execute",
                    kind=CallKind.WORK,
                    handler=self.execute,
                    params_type=StreamParams,
                    is_stream=lambda params: params.use_streaming,
                ),
            ]
        )

    def kept(self, name: str, handler: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, Any], Awaitable[Any]]:
        async def call(context: RequestContext, params: Any) -> Any:
            self.calls.append((name, params))
            self.contexts.append(context)
            return await handler(params)

        return call

    async def echo(self, params: EchoParams) -> Any:
        return params.value

    async def raw(self, params: Any) -> Any:
        return None

    async def get(self, params: GetTaskRequest) -> Any:
        return {"id": params.id}

    async def broken(self, context: RequestContext, params: Any) -> Any:
        raise RuntimeError(SECRET)

    async def opaque(self, context: RequestContext, params: Any) -> Any:
        return object()

    async def missing(self, context: RequestContext, params: Any) -> Any:
        raise TaskNotFound("t1")

    async def busy(self, context: RequestContext, params: Any) -> Any:
        raise Overloaded("too many open tasks", retry_after=7)

    async def stream(self, context: RequestContext, params: GetTaskRequest) -> AsyncGenerator[Frame, None]:
        if params.id == "unknown":
            raise TaskNotFound(params.id)
        return self.frames(params.id)

    async def execute(self, context: RequestContext, params: StreamParams) -> Any:
        self.calls.append(("tasks.execute", params))
        return self.frames("t") if params.use_streaming else {"success": True}

    async def frames(self, task_id: str) -> AsyncGenerator[Frame, None]:
        try:
            yield Frame({"task": {"id": task_id}}, 1)
            if task_id == "breaks":
                raise RuntimeError(SECRET)
            yield Frame(msgspec.Raw(b'{"type":"final"}'), 2, is_response=False)
        finally:
            self.closed += 1

    async def post(self, body: Any, **context: Any) -> Reply:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.json_rpc.handle(body, RequestContext(**context))

    async def ask(self, body: Any, **context: Any) -> Any:
        """The JSON of the answer; None where there is none."""
        reply = await self.post(body, **context)
        return json.loads(reply.body) if reply.body else None


ANN = Principal(id="ann", owner="ann")


@pytest.fixture
def server() -> Server:
    return Server()


def call(method: str, params: Any = None, request_id: Any = 1) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def notification(method: str, params: Any = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


async def events_of(reply: Reply) -> list[Event]:
    assert reply.events is not None
    return [event async for event in reply.events]


@pytest.mark.asyncio
@pytest.mark.parametrize("request_id", ["a", "", 0, -5, 2**80, None])
async def test_the_result_comes_back_under_the_request_s_id(server: Server, request_id: Any) -> None:
    answer = await server.ask(call("echo", {"value": [1, "x", None]}, request_id))
    assert answer == {"jsonrpc": "2.0", "id": request_id, "result": [1, "x", None]}


@pytest.mark.asyncio
async def test_params_may_be_null_or_absent(server: Server) -> None:
    assert (await server.ask(call("echo", None)))["result"] is None
    assert (await server.ask({"jsonrpc": "2.0", "id": 1, "method": "echo"}))["result"] is None


@pytest.mark.asyncio
async def test_large_integers_stay_exact(server: Server) -> None:
    for number in (2**53 + 1, 2**64, -(2**63) - 1, 10**399):
        assert (await server.ask(call("echo", {"value": number})))["result"] == number


@pytest.mark.asyncio
async def test_the_method_sees_the_request_s_surroundings(server: Server) -> None:
    await server.post(call("GetTask", {"id": "t"}), principal=ANN, a2a_version="1.0", last_event_id=7)
    assert server.contexts == [RequestContext(principal=ANN, a2a_version="1.0", last_event_id=7)]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[1,]",
        b"\xef\xbb\xbf{}",
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":NaN}}',
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":1e400}}',
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":Infinity}}',
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":"\\ud800"}}',
        b'{"jsonrpc":"2.0","id":"\\udc00","method":"echo"}',
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":"\xff"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":"\xed\xa0\x80"}}',
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":' + b"1" * 5000 + b"}}",
        b'{"jsonrpc":"2.0","id":1,"method":"echo","params":{"value":' + b"1" * 401 + b"}}",
        b'{"jsonrpc":"2.0","id":1,"method":"echo"}x',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 65 + b"]" * 65,
    ],
)
async def test_what_is_no_json_is_a_parse_error(server: Server, body: bytes) -> None:
    reply = await server.post(body)
    answer = json.loads(reply.body)
    assert (reply.status, answer["id"], answer["error"]["code"]) == (200, None, -32700)
    assert server.calls == []


def test_nesting_is_limited_exactly() -> None:
    assert parse(b"[" * 64 + b"]" * 64) is not None
    with pytest.raises(ParseError):
        parse(b"[" * 65 + b"]" * 65)
    with pytest.raises(ParseError):
        parse(b'{"a":[' * 33 + b"]}" * 33)


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b"1", 1),
        (b"[1,2,3]", 4),
        (b'{"a":1,"b":[2]}', 4),
        (b"[[],{}]", 5),  # an empty one counts as two
        (b'["a,b,[{","\\",","\\\\",5]', 5),
        (b'{"a\\"":1}', 2),
    ],
)
def test_values_are_counted_and_limited_exactly(body: bytes, values: int) -> None:
    assert parse(body, JsonLimits(values=values)) == json.loads(body)
    with pytest.raises(ParseError, match=f"more than {values - 1} values"):
        parse(body, JsonLimits(values=values - 1))


@given(st.text('[]{}"\\\\,ab:', max_size=60), st.integers(2, 9))
def test_a_body_that_is_looked_at_in_pieces_is_judged_as_a_whole(text: str, piece: int) -> None:
    value = [text, {text: [text, []]}, [[text]]]
    body = json.dumps(value).encode()
    with patch.object(jsonscan, "PIECE", piece):
        assert parse(body, JsonLimits(nesting=4, values=10)) == value
        for limits in (JsonLimits(nesting=3), JsonLimits(values=9)):
            with pytest.raises(ParseError):
                parse(body, limits)


def test_brackets_in_strings_and_in_a_row_are_no_nesting() -> None:
    text = "[{" * 100 + '"' + "\\" + '\\"' + "[" * 100
    assert parse(json.dumps([text, text]).encode()) == [text, text]
    assert parse(json.dumps({text: [[]] * 500}).encode()) == {text: [[]] * 500}


@given(st.text('[]{}"\\,ab:', max_size=200))
def test_the_nesting_check_never_refuses_shallow_json(text: str) -> None:
    value = [text, {text: [[text]] * 70}]
    assert parse(json.dumps(value).encode()) == value


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("item", "fields", "request_id"),
    [
        (5, [""], None),
        ("x", [""], None),
        (None, [""], None),
        ({}, ["jsonrpc", "method"], None),
        (call("echo") | {"jsonrpc": "1.0"}, ["jsonrpc"], 1),
        (call("echo") | {"jsonrpc": 2.0}, ["jsonrpc"], 1),
        (call("echo") | {"method": 5}, ["method"], 1),
        (call("echo") | {"method": None}, ["method"], 1),
        (call("echo", request_id=True), ["id"], None),
        (call("echo", request_id=1.0), ["id"], None),
        (call("echo", request_id={}), ["id"], None),
        (call("echo", request_id=[1]), ["id"], None),
        (call("echo", "text"), ["params"], 1),
        (call("echo", 5), ["params"], 1),
        (call("echo", False), ["params"], 1),
        (call(5, "x", 1.5), ["id", "method", "params"], None),  # type: ignore[arg-type]
    ],
)
async def test_a_wrong_envelope_is_refused(server: Server, item: Any, fields: list[str], request_id: Any) -> None:
    answer = await server.ask(item)
    assert answer["error"]["code"] == -32600
    assert answer["id"] == request_id
    assert [violation["field"] for violation in answer["error"]["data"][0]["fieldViolations"]] == fields
    assert server.calls == []


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "method", ["", "nope", "Echo", "rpc.discover", "rpc.x", "message/send", "__class__", "x" * 9999]
)
async def test_an_unknown_method_is_refused(server: Server, method: str) -> None:
    answer = await server.ask(call(method))
    assert answer == {"jsonrpc": "2.0", "id": 1, "error": {"code": -32601, "message": "Method not found"}}


@pytest.mark.asyncio
async def test_array_params_are_refused_where_fields_have_names(server: Server) -> None:
    for method in ("echo", "GetTask", "noop"):
        assert (await server.ask(call(method, [1])))["error"]["code"] == -32602
    await server.ask(call("tasks.create", [{"name": "a"}]))
    await server.ask(call("tasks.create", {"tasks": []}))
    assert server.calls == [("tasks.create", [{"name": "a"}]), ("tasks.create", {"tasks": []})]


@pytest.mark.asyncio
async def test_params_with_the_dispatcher_s_own_names_are_only_params(server: Server) -> None:
    """Params become one argument, never keyword arguments."""
    answer = await server.ask(call("noop", {"self": 1, "context": 2, "call": 3, "": 4}))
    fields = [violation["field"] for violation in answer["error"]["data"][0]["fieldViolations"]]
    assert (answer["error"]["code"], fields) == (-32602, ["self", "context", "call", '""'])


@pytest.mark.asyncio
async def test_wrong_params_name_every_field(server: Server) -> None:
    answer = await server.ask(call("SendMessage", {"message": {"role": "user", "parts": [{}]}}))
    fields = {violation["field"] for violation in answer["error"]["data"][0]["fieldViolations"]}
    assert answer["error"]["code"] == -32602
    assert fields == {"message.messageId", "message.role", "message.parts[0]"}


@pytest.mark.asyncio
async def test_a_notification_runs_and_is_not_answered(server: Server) -> None:
    reply = await server.post(notification("echo", {"value": 1}))
    assert (reply.status, reply.body, reply.events) == (204, b"", None)
    assert len(server.calls) == 1

    for method in ("nope", "broken"):
        assert (await server.post(notification(method))).status == 204


@pytest.mark.asyncio
async def test_an_a2a_method_without_an_id_is_refused(server: Server) -> None:
    """A2A has no notifications: nothing of it runs silently."""
    answer = await server.ask(notification("GetTask", {"id": "t"}))
    assert (answer["error"]["code"], answer["id"]) == (-32600, None)
    assert server.calls == []


@pytest.mark.asyncio
async def test_a_batch_is_answered_item_by_item_in_order(server: Server) -> None:
    answer = await server.ask(
        [
            call("echo", {"value": 1}, "a"),
            notification("echo", {"value": 2}),
            5,
            call("nope", request_id="b"),
            call("GetTask", {"id": ""}, "c"),
            notification("GetTask", {"id": "t"}),
            call("SubscribeToTask", {"id": "t"}, "d"),
            call("tasks.execute", {"use_streaming": True}, "e"),
            call("tasks.execute", {}, "f"),
            call("broken", request_id="g"),
            call("echo", {"value": 3}, "h"),
        ]
    )
    assert [(item["id"], item.get("error", {}).get("code"), item.get("result")) for item in answer] == [
        ("a", None, 1),
        (None, -32600, None),
        ("b", -32601, None),
        ("c", -32602, None),
        (None, -32600, None),
        ("d", -32600, None),
        ("e", -32600, None),
        ("f", None, {"success": True}),
        ("g", -32603, None),
        ("h", None, 3),
    ]
    assert [name for name, _ in server.calls] == ["echo", "echo", "tasks.execute", "echo"]


@pytest.mark.asyncio
async def test_a_batch_has_one_to_fifty_items(server: Server) -> None:
    for size in (0, 51):
        answer = await server.ask([notification("echo")] * size)
        assert (answer["error"]["code"], answer["id"]) == (-32600, None)
    assert server.calls == []
    assert len(await server.ask([call("echo")] * 50)) == 50


@pytest.mark.asyncio
async def test_reads_of_a_batch_take_turns_and_end_where_their_responses_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fifty reads of large tasks at once took gigabytes. Work is begun at once: each call may wait for its task."""
    monkeypatch.setattr(jsonrpc, "BATCH_BYTES", 1_000)
    at_once = [0, 0]  # reads, work
    most = [0, 0]
    all_work = asyncio.Event()

    async def read(context: RequestContext, params: Any) -> str:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        await asyncio.sleep(0)
        at_once[0] -= 1
        return "x" * 600

    async def work(context: RequestContext, params: Any) -> str:
        at_once[1] += 1
        if at_once[1] == 3:
            all_work.set()
        await all_work.wait()
        return "done"

    endpoint = JsonRpcEndpoint(
        [
            Method(name="tasks.get", kind=CallKind.OTHER, handler=read),
            Method(name="tasks.execute", kind=CallKind.WORK, handler=work),
        ]
    )
    reads = [{"jsonrpc": "2.0", "id": f"r{n}", "method": "tasks.get"} for n in range(4)]
    works = [{"jsonrpc": "2.0", "id": f"w{n}", "method": "tasks.execute"} for n in range(3)]
    silent = {"jsonrpc": "2.0", "method": "tasks.get"}
    reply = await endpoint.handle(json.dumps([*reads, silent, *works]).encode(), RequestContext())
    answers = json.loads(reply.body)
    assert [answer["id"] for answer in answers] == ["r0", "r1", "r2", "r3", "w0", "w1", "w2"]
    assert ["result" in answer for answer in answers] == [True, True, False, False, True, True, True]
    assert answers[2]["error"]["code"] == -32600 and "smaller batches" in json.dumps(answers[2]["error"])
    assert most[0] == 1


@pytest.mark.asyncio
async def test_a_batch_of_notifications_is_not_answered(server: Server) -> None:
    reply = await server.post([notification("echo")] * 3)
    assert (reply.status, reply.body) == (204, b"")
    assert len(server.calls) == 3


@pytest.mark.asyncio
async def test_a_stream_is_responses_under_the_request_s_id_and_bare_frames(server: Server) -> None:
    reply = await server.post(call("SubscribeToTask", {"id": "t"}, "s"))
    assert (reply.status, reply.body) == (200, b"")
    assert await events_of(reply) == [
        Event(b'{"jsonrpc":"2.0","id":"s","result":{"task":{"id":"t"}}}', 1),
        Event(b'{"type":"final"}', 2),
    ]
    assert server.closed == 1


@pytest.mark.asyncio
async def test_an_error_before_the_first_event_is_a_plain_error(server: Server) -> None:
    for params, code in (({"id": "unknown"}, -32001), ({}, -32602)):
        reply = await server.post(call("SubscribeToTask", params))
        assert reply.events is None
        assert json.loads(reply.body)["error"]["code"] == code


@pytest.mark.asyncio
async def test_an_error_within_a_stream_is_its_last_event(server: Server) -> None:
    events = await events_of(await server.post(call("SubscribeToTask", {"id": "breaks"}, "s")))
    last = json.loads(events[-1].data)
    assert len(events) == 2
    assert (last["id"], last["error"]["code"], events[-1].seq) == ("s", -32603, None)
    assert SECRET not in events[-1].data.decode()
    assert server.closed == 1


@pytest.mark.asyncio
async def test_closing_a_stream_closes_the_method_s_generator(server: Server) -> None:
    reply = await server.post(call("SubscribeToTask", {"id": "t"}))
    assert reply.events is not None
    await anext(reply.events)
    await reply.events.aclose()
    assert server.closed == 1


@pytest.mark.asyncio
async def test_a_method_may_stream_on_request(server: Server) -> None:
    assert (await server.ask(call("tasks.execute", {})))["result"] == {"success": True}
    assert len(await events_of(await server.post(call("tasks.execute", {"use_streaming": True})))) == 2


@pytest.mark.asyncio
async def test_a_notification_that_would_stream_runs_without_its_stream(server: Server) -> None:
    reply = await server.post(notification("tasks.execute", {"use_streaming": True}))
    assert (reply.status, reply.events) == (204, None)
    assert len(server.calls) == 1


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["broken", "opaque"])
async def test_a_bug_is_an_id_for_the_caller_and_a_traceback_for_the_operator(
    server: Server, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        reply = await server.post(call(method))
    error = json.loads(reply.body)["error"]

    assert (error["code"], error["message"]) == (-32603, "Internal error")
    assert SECRET not in reply.body.decode()
    assert error["data"][0]["metadata"]["errorId"] in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.asyncio
async def test_a_core_error_finds_its_code(server: Server) -> None:
    error = (await server.ask(call("missing")))["error"]
    assert (error["code"], error["data"][0]["metadata"]) == (-32001, {"taskId": "t1"})


@pytest.mark.asyncio
async def test_refusal_for_a_moment_has_a_status_and_retry_after(server: Server) -> None:
    reply = await server.post(call("busy"))
    assert (reply.status, reply.headers) == (503, {"Retry-After": "7"})
    assert json.loads(reply.body)["error"]["code"] == -32051
    assert (await server.post([call("busy")])).status == 200


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["0.3", "99.0", "x"])
async def test_another_a2a_version_is_refused_for_a2a_methods_only(server: Server, version: str) -> None:
    error = (await server.ask(call("GetTask", {"id": "t"}), a2a_version=version))["error"]
    assert error["code"] == -32009
    assert error["data"][0]["metadata"] == {"supportedVersions": "0.3,1.0"}
    assert "result" in await server.ask(call("echo"), a2a_version=version)


@pytest.mark.asyncio
async def test_an_event_id_that_is_none_stops_only_what_would_stream(server: Server) -> None:
    problem = Problem("Last-Event-ID", "must be a number")
    for body in (call("echo"), call("GetTask", {"id": "t"}), call("tasks.execute")):
        assert "result" in await server.ask(body, event_id_problem=problem)
    for body in (call("SubscribeToTask", {"id": "t"}, "s"), call("tasks.execute", {"use_streaming": True}, "s")):
        answer = await server.ask(body, event_id_problem=problem)
        assert (answer["id"], answer["error"]["code"]) == ("s", -32602)
        assert answer["error"]["data"][0]["fieldViolations"][0]["field"] == "Last-Event-ID"


@pytest.mark.asyncio
async def test_cancelling_the_request_cancels_the_method() -> None:
    """A caller that goes away is not an internal error."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait(context: RequestContext, params: Any) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    endpoint = JsonRpcEndpoint([Method(name="wait", kind=CallKind.OTHER, handler=wait)])
    for body in (call("wait"), [call("wait")]):
        request = asyncio.create_task(endpoint.handle(json.dumps(body).encode(), RequestContext()))
        await began.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await ended.wait()
        began.clear()
        ended.clear()


def test_a_request_that_never_gets_in_has_an_error_too() -> None:
    reply = error_reply(ContentTypeNotSupported(), status=415)
    assert reply.status == 415
    assert json.loads(reply.body)["error"]["code"] == -32005
