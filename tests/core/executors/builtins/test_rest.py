"""HTTP calls for a task: what is sent, what comes back, and what a task cannot decide."""

import asyncio
import threading
from typing import Any

import msgspec
import pytest

from core.executors.builtins import rest
from core.executors.builtins.rest import (
    INPUT_SCHEMA,
    MOST_HEADERS,
    MOST_PARAMS,
    MOST_TEXT,
    CallFailed,
    RestExecutor,
    outgoing,
    rest_executor_spec,
)
from core.executors.registry import ExecutorRegistry
from core.executors.schema import check_schema, violation
from core.executors.signature import InputsRefused
from core.loop.large_values import CHARACTERS, VALUES
from core.model.errors import CoreError
from core.model.task import Cause, TaskStatus
from core.outside.egress import DestinationNotAllowed, Egress, EgressPolicy
from core.outside.fetched import AnswerNotReadable
from core.run.runner_limits import RunnerLimits
from core.session import Session
from core.storage.memory import MemoryStorage
from tests.core.cores import finish, item
from tests.core.executors.context import make_context
from tests.core.outside.test_egress import OPEN, canary, replies, silent


async def call(inputs: dict[str, Any], *, merged: dict[str, Any] | None = None, policy: EgressPolicy = OPEN) -> Any:
    """Call with a task's own inputs; `merged` are those that came from its dependencies."""
    spec = rest_executor_spec(policy)
    assert spec.input_schema is not None and spec.output_schema is not None
    given = (merged or {}) | inputs
    assert violation(spec.input_schema, given, "inputs") is None
    result = (await spec.make().execute(given, make_context(inputs=inputs))).value
    assert violation(spec.output_schema, result, "result") is None
    return result


def head_of(request: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = request.decode().split("\r\n")
    return first, {k.lower(): v for k, _, v in (line.partition(": ") for line in lines if line)}


def test_schemas_are_usable() -> None:
    spec = rest_executor_spec(EgressPolicy())
    for schema in (spec.input_schema, spec.output_schema):
        assert schema is not None
        check_schema(schema, "it")


@pytest.mark.asyncio
async def test_json_answer_is_the_result() -> None:
    async with canary(replies("200 OK", "content-type: application/json", body=b'{"a": [1, null]}')) as server:
        result = await call({"url": f"http://127.0.0.1:{server.port}/x", "params": {"q": "a b", "n": [1, 2]}})
    assert (result["status_code"], result["json"]) == (200, {"a": [1, None]})
    assert result["headers"]["content-type"] == "application/json"
    assert result["url"].endswith("/x?q=a+b&n=1&n=2") or result["url"].endswith("/x?q=a%20b&n=1&n=2")
    assert result["elapsed"] >= 0
    assert "text" not in result and "error" not in result


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content_type", "body", "key"),
    [
        ("text/plain", b"hello", "text"),
        ("application/problem+json; charset=utf-8", b'"hello"', "json"),
        ("application/json", b"hello", "text"),
        ("application/json", b"", "text"),
    ],
)
async def test_answer_is_json_only_where_it_says_so_and_is(content_type: str, body: bytes, key: str) -> None:
    async with canary(replies("200 OK", f"content-type: {content_type}", body=body)) as server:
        result = await call({"url": f"http://127.0.0.1:{server.port}/"})
    assert result[key] == (body.decode().strip('"'))


@pytest.mark.asyncio
@pytest.mark.parametrize("status", ["301 Moved", "404 Not Found", "500 Oops"])
async def test_answer_that_is_no_success_fails_and_names_the_status(status: str) -> None:
    async with canary(replies(status, body=b"the reason " + b"x" * 1000)) as server:
        with pytest.raises(CallFailed, match=f"status {status[:3]}: the reason") as caught:
            await call({"url": f"http://127.0.0.1:{server.port}/"})
    assert len(str(caught.value)) < 400


@pytest.mark.asyncio
async def test_changing_call_carries_the_idempotency_key_unless_the_caller_gave_one() -> None:
    async with canary(replies("204 No Content")) as server:
        url = f"http://127.0.0.1:{server.port}/"
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            await call({"url": url, "method": method})
        await call({"url": url, "method": "POST", "headers": {"idempotency-KEY": "mine"}})
        await call({"url": url})
    keys = [head_of(request)[1].get("idempotency-key") for request in server.requests]
    assert keys == ["t1:1"] * 4 + ["mine", None]


@pytest.mark.asyncio
async def test_body_is_sent_as_json_or_as_text() -> None:
    bodies: list[bytes] = []

    async def read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        _, headers = head_of(head)
        bodies.append(headers.get("content-type", "-").encode())
        bodies.append(await reader.readexactly(int(headers.get("content-length", 0))))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(read, "127.0.0.1", 0)
    async with server:
        base: dict[str, Any] = {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "method": "POST"}
        await call(base | {"json": {"a": "ä"}})
        await call(base | {"json": None, "headers": {"Content-Type": "application/x+json"}})
        await call(base | {"body": "ä"})
        await call(base, merged={"json": [1]})
        await call(base | {"body": "own"}, merged={"json": [1]})
    assert bodies == [
        *(b"application/json", msgspec.json.encode({"a": "ä"})),
        *(b"application/x+json", b"null"),
        *(b"-", "ä".encode()),
        *(b"application/json", b"[1]"),
        *(b"-", b"own"),
    ]


@pytest.mark.asyncio
async def test_result_of_one_call_does_not_become_headers_or_body_of_the_next() -> None:
    """Its `headers` and `json` have the names of inputs, and may hold one server's secrets."""
    async with canary(replies("200 OK")) as server:
        await call(
            {"url": f"http://127.0.0.1:{server.port}/"},
            merged={
                "url": "http://other.example/",
                "headers": {"set-cookie": "s3cret", "connection": "x"},
                "json": "s3cret",
            },
        )
    assert b"s3cret" not in server.requests[0]
    assert b"content-length" not in server.requests[0].lower()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Connection", "Upgrade", "Proxy-Authorization"]
)
async def test_header_that_frames_the_message_cannot_be_set(name: str) -> None:
    with pytest.raises(CallFailed, match=f"inputs.headers: {name.lower()} cannot be set"):
        await call({"url": "http://127.0.0.1:9/", "headers": {name: "x"}})


@pytest.mark.asyncio
async def test_json_and_body_together_are_refused() -> None:
    with pytest.raises(CallFailed, match="either json or body"):
        await call({"url": "http://127.0.0.1:9/", "method": "POST", "json": 1, "body": "x"})


@pytest.mark.parametrize(
    "name", ["verify", "proxies", "proxy", "cert", "trust_env", "allow_private", "max_bytes", "auth"]
)
def test_server_policy_is_not_an_input(name: str) -> None:
    assert "was unexpected" in str(violation(INPUT_SCHEMA, {"url": "http://a.example/", name: True}, "inputs"))


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({}, "'url' is a required property"),
        ({"url": 5}, "inputs.url"),
        ({"url": "http://a", "method": "TRACE"}, "inputs.method"),
        ({"url": "http://a", "headers": {"a": 1}}, "inputs.headers.a"),
        ({"url": "http://a", "timeout": 0}, "inputs.timeout"),
        ({"url": "http://a", "follow_redirects": "yes"}, "inputs.follow_redirects"),
    ],
)
def test_wrong_input_is_named(inputs: dict[str, Any], field: str) -> None:
    assert field in str(violation(INPUT_SCHEMA, inputs, "inputs"))


@pytest.mark.asyncio
async def test_private_destination_is_refused_unless_allowed() -> None:
    async with canary(replies("200 OK")) as server:
        with pytest.raises(DestinationNotAllowed):
            await call({"url": f"http://127.0.0.1:{server.port}/"}, policy=EgressPolicy())
        assert server.connections == 0


@pytest.mark.asyncio
async def test_task_cannot_extend_the_policys_time_limit() -> None:
    async with canary(silent) as server:
        policy = EgressPolicy(allowed=("127.0.0.1",), timeout=0.05)
        with pytest.raises(CoreError, match=r"within 0\.05 s"):
            await call({"url": f"http://127.0.0.1:{server.port}/", "timeout": 9999}, policy=policy)


@pytest.mark.asyncio
async def test_cancel_drops_the_connection() -> None:
    async with canary(silent) as server:
        inputs = {"url": f"http://127.0.0.1:{server.port}/"}
        attempt = asyncio.ensure_future(RestExecutor(Egress(OPEN)).execute(inputs, make_context(inputs=inputs)))
        await server.asked.wait()
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        await asyncio.wait_for(server.hung_up.wait(), 5)


@pytest.mark.asyncio
async def test_answers_beyond_their_owner_s_share_wait_or_fail_and_never_fill_the_memory() -> None:
    """Five fit into what is held at the same time; the tree stays open until all have ended."""
    registry = ExecutorRegistry()
    registry.register(rest_executor_spec(OPEN))
    limits = RunnerLimits(in_flight_per_owner=1_500_000)
    async with (
        canary(replies("200 OK", body=b"x" * 250_000)) as server,
        Session(MemoryStorage(), registry=registry, limits=limits) as session,
    ):
        inputs = {"url": f"http://127.0.0.1:{server.port}/"}
        calls = [item(f"t{n}", "rest_executor", inputs=inputs) for n in range(8)]
        tasks = await finish(session, *calls)
        fetched = [task for key, task in tasks.items() if task.status is TaskStatus.COMPLETED and key != "root"]
        failed = [task for key, task in tasks.items() if task.status is TaskStatus.FAILED and key != "root"]
        assert (len(fetched) + len(failed), len(fetched) <= 5, len(fetched) >= 1) == (8, True, True)
        assert {task.cause for task in failed} == {Cause.NO_ROOM}
        assert (await finish(session, calls[0]))["t0"].status is TaskStatus.COMPLETED, "all has been given back"
    assert session.holdings._budget.taken == 0


@pytest.mark.asyncio
async def test_json_with_too_many_values_fails_the_call() -> None:
    body = b"[" + b"{}," * 30_000 + b"{}]"
    async with canary(replies("200 OK", "content-type: application/json", body=body)) as server:
        with pytest.raises(AnswerNotReadable, match="more than 50000 JSON values"):
            await call({"url": f"http://127.0.0.1:{server.port}/"})
    async with canary(replies("200 OK", body=body)) as server:
        assert len((await call({"url": f"http://127.0.0.1:{server.port}/"}))["text"]) == len(body)


TOO_LONG: dict[str, dict[str, Any]] = {
    "a value of the query": {"params": {"a": "x" * (MOST_TEXT + 1)}},
    "a value of two bytes a character": {"params": {"a": "ü" * (MOST_TEXT // 2 + 1)}},
    "many values of the query": {"params": {f"k{n}": " " * 100 for n in range(MOST_PARAMS)}},
    "an array of the query": {"params": {"a": ["x" * 100] * MOST_PARAMS}},
    "arrays of the query": {"params": {f"k{n}": [1.5] * MOST_PARAMS for n in range(MOST_PARAMS)}},
    "a name with many values": {"params": {"n" * 100: [None] * MOST_PARAMS}},
    "long integers": {"params": {"a": [10**398] * MOST_PARAMS}},
    "a name of the query": {"params": {"n" * (MOST_TEXT + 1): None}},
    "a header": {"headers": {"a": "x" * (MOST_TEXT + 1)}},
    "a header's name": {"headers": {"a" * (MOST_TEXT + 1): ""}},
    "many headers": {"headers": {f"h{n}": "v" * 1_000 for n in range(MOST_HEADERS)}},
}
TOO_MANY: dict[str, dict[str, Any]] = {
    "names of the query": {"params": {f"k{n}": "" for n in range(MOST_PARAMS + 1)}},
    "headers": {"headers": {f"h{n}": "" for n in range(MOST_HEADERS + 1)}},
}
LONG: dict[str, dict[str, Any]] = {
    "the query": {"params": {"a": "x" * (MOST_TEXT - 1)}},
    "names of the query": {"params": {f"k{n}": "" for n in range(MOST_PARAMS)}},
    "values of the query": {"params": {"a": [1] * MOST_PARAMS}},
    "a header": {"headers": {"a": "x" * (MOST_TEXT - 1)}},
    "headers": {"headers": {f"h{n}": "" for n in range(MOST_HEADERS)}},
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", [*TOO_LONG, *TOO_MANY])
async def test_what_is_too_long_for_a_query_or_for_headers_fails_for_good_before_anything_is_made_of_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query of 9 MiB held the loop for half a second in each attempt, and was refused after that."""
    looked_at = 0
    texts = rest._texts

    def counted(fields: Any) -> Any:
        nonlocal looked_at
        for text in texts(fields):
            looked_at += 1
            yield text

    monkeypatch.setattr(rest, "_texts", counted)
    inputs = {"url": "http://127.0.0.1:9/"} | (TOO_LONG | TOO_MANY)[name]
    (field,) = set(inputs) - {"url"}
    with pytest.raises(InputsRefused, match=f"^inputs.{field}: .*(bytes; send what is large as|are allowed|more than)"):
        await outgoing(inputs, inputs, "key", asyncio.to_thread)
    assert looked_at <= MOST_TEXT // 2, "no more is looked at than may be sent"
    registry = ExecutorRegistry()
    registry.register(rest_executor_spec(OPEN))
    async with Session(MemoryStorage(), registry=registry) as session:
        task = (await finish(session, item("t", "rest_executor", inputs=inputs, max_attempts=5)))["t"]
    assert (task.status, task.cause, task.attempt) == (TaskStatus.FAILED, Cause.INVALID_INPUT, 1)


@pytest.mark.parametrize("name", TOO_MANY)
def test_schema_says_how_many_names_there_may_be(name: str) -> None:
    (field,) = TOO_MANY[name]
    most = MOST_HEADERS if field == "headers" else MOST_PARAMS
    found = violation(INPUT_SCHEMA, {"url": "http://a"} | TOO_MANY[name], "inputs")
    assert found == f"inputs.{field}: has {most + 1} properties, more than {most}"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", LONG)
async def test_what_is_just_short_enough_is_sent(name: str) -> None:
    inputs = {"url": "http://127.0.0.1:9/"} | LONG[name]
    assert violation(INPUT_SCHEMA, inputs, "inputs") is None
    call = await outgoing(inputs, inputs, "key", asyncio.to_thread)
    assert (call.params, call.headers) == (inputs.get("params"), inputs.get("headers", {}))


BODIES: dict[str, tuple[dict[str, Any], bool]] = {
    "a text": ({"body": "ü" * CHARACTERS}, False),
    "a long text": ({"body": "ü" * (CHARACTERS + 1)}, True),
    "a value": ({"json": ["x" * 100] * 100}, False),
    "a value with much text": ({"json": ["x" * 100] * (CHARACTERS // 100 + 1)}, True),
    "a value with many values": ({"json": [{}] * (VALUES + 1)}, True),
    "a value with long integers": ({"json": [-(10**398)] * (VALUES - 1)}, True),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("name", BODIES)
async def test_body_is_encoded_beside_the_loop_where_it_is_large(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (inputs, is_large), used = BODIES[name], []
    for function in (rest.encoded, rest.encoded_text):

        def watched(value: Any, encode: Any = function) -> bytes:
            used.append(threading.current_thread() is not threading.main_thread())
            return bytes(encode(value))

        monkeypatch.setattr(rest, function.__name__, watched)
    inputs = {"url": "http://127.0.0.1:9/", "method": "POST"} | inputs
    call = await outgoing(inputs, inputs, "key", asyncio.to_thread)
    assert call.body == (inputs["body"].encode() if "body" in inputs else msgspec.json.encode(inputs["json"]))
    assert used == [is_large]
