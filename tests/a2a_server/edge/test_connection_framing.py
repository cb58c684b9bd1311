"""Where requests end: what asks for another protocol is served as it stands, and nothing is read behind an error."""

import asyncio
import json
from typing import Any

import pytest

from a2a_server.edge.head_bounds import SENT_AHEAD
from tests.a2a_server.conftest import RunningServer, message, running
from tests.a2a_server.edge.test_admission import occupy
from tests.a2a_server.edge.test_deadlines import GET, HEAD, LENGTH, Bench
from tests.a2a_server.test_app import HEALTH, raw
from tests.a2a_server.views.test_streams import rpc
from tests.faults.framing import BEHIND, INNER, Server

UPGRADES = {
    "h2c, as a JDK sends it": (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAEAAEAAAAIAAAAB",
    ),
    "before Connection": ("Upgrade: h2c", "Connection: upgrade"),
    "websocket": ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="),
    "a list": ("Connection: keep-alive, Upgrade", "UPGRADE: TLS/1.0, h2c"),
    "empty": ("Connection: Upgrade", "Upgrade:"),
    "twice": ("Connection: Upgrade", "Upgrade: a", "Upgrade: b"),
    "in two Connection fields": ("Connection: upgrade", "Upgrade: h2c", "Connection: keep-alive"),
}
SEND = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}], "metadata": {"skillId": "echo"}}}
SEND_0_3 = {"message": {"kind": "message", "messageId": "n", "role": "user", "parts": [{"kind": "text", "text": "x"}]}}
CALLS: dict[str, tuple[str, str, Any, str]] = {  # method, path, body, and what stands in the answer
    "JSON-RPC": ("POST", "/", HEALTH, '"healthy"'),
    "work": ("POST", "/", rpc("SendMessage", message("echo")), "TASK_STATE_COMPLETED"),
    "a tasks path": ("POST", "/tasks", rpc("tasks.list", {}), '"result"'),
    "HTTP+JSON": ("POST", "/message:send", SEND, "TASK_STATE_COMPLETED"),
    "a stream": ("POST", "/", rpc("SendStreamingMessage", message("chunks")), "TASK_STATE_COMPLETED"),
    "v0.3": ("POST", "/", rpc("message/send", {**SEND_0_3, "metadata": {"skillId": "echo"}}), '"kind":"task"'),
    "GET": ("GET", "/healthz", None, '"ok"'),
    "DELETE": ("DELETE", "/tasks/none/pushNotificationConfigs/x", None, "error"),
}


def request(call: str, *fields: str, version: str = "1.1") -> bytes:
    method, path, body, _ = CALLS[call]
    data = b"" if body is None else json.dumps(body).encode()
    own = ["Host: localhost", f"A2A-Version: {'0.3' if call == 'v0.3' else '1.0'}"]
    own += [] if body is None else ["Content-Type: application/json", f"Content-Length: {len(data)}"]
    return "\r\n".join([f"{method} {path} HTTP/{version}", *own, *fields, "", ""]).encode() + data


@pytest.mark.parametrize("upgrade", UPGRADES)
@pytest.mark.asyncio
async def test_upgrade_is_ignored_by_every_method_and_binding(server: RunningServer, upgrade: str) -> None:
    for call, (*_, expected) in CALLS.items():
        answer = await raw(server, request(call, *UPGRADES[upgrade]) + request("GET", "Connection: close"))
        assert expected in answer, call
        assert answer.count("HTTP/1.1 ") == 2, f"{call}: the request behind it is served, too"


@pytest.mark.asyncio
async def test_chunks_behind_an_upgrade_are_its_body(server: RunningServer) -> None:
    body = json.dumps(HEALTH).encode()
    head = HEAD + b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await raw(
        server, head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) + request("GET", "Connection: close")
    )
    assert '"healthy"' in answer and answer.count("HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("padding", [b"", b"\r\n", b"\r\n" * 150_000])
@pytest.mark.asyncio
async def test_a_request_in_a_body_is_not_served(server: RunningServer, padding: bytes) -> None:
    inner = padding + request("HTTP+JSON")
    head = HEAD.replace(b"POST /", b"POST /healthz") + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + LENGTH % len(inner)
    for pieces in ((head + inner,), (head, inner)):
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 405 ")
        writer.write(request("GET", "Connection: close"))
        await reader.read()
        writer.close()
    async with server.client() as client:
        told = await client.post("/", json=rpc("ListTasks", {}), headers={"A2A-Version": "1.0"})
    assert told.json()["result"]["totalSize"] == 0


@pytest.mark.asyncio
async def test_a_tunnel_is_refused_whatever_its_target(server: RunningServer) -> None:
    for target in (b"localhost:80", b"/", b"http://localhost/", b"*"):
        answer = await raw(server, b"CONNECT %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target + GET)
        assert answer.startswith("HTTP/1.1 400 ") and answer.count("HTTP/1.1 ") == 1


@pytest.mark.parametrize("version", ["0.9", "2.0"])
@pytest.mark.asyncio
async def test_other_versions_of_http_are_refused(server: RunningServer, version: str) -> None:
    answer = await raw(server, request("JSON-RPC", "Connection: keep-alive", version=version) + GET)
    assert answer.startswith("HTTP/1.1 400 ") and answer.count("HTTP/1.1 ") == 1


@pytest.mark.asyncio
async def test_a_call_with_an_upgrade_is_refused_like_others_when_there_is_too_much_to_do() -> None:
    async with running(overload_soft=1, overload_hard=1) as server:
        occupy(server, 2)
        answer = await raw(
            server, request("work", *UPGRADES["before Connection"]) + request("work", "Connection: close")
        )
    assert answer.count("HTTP/1.1 503 ") == 2 == answer.count("HTTP/1.1 ")


# Behind what cannot be read


@pytest.mark.asyncio
async def test_what_came_before_is_answered_and_then_the_connection_ends() -> None:
    bench = Bench()
    bench.send(GET + b"\x00\r\n\r\n")
    assert (bench.transport.end, bench.transport.written) == ("", b""), "the answer to the first is still owed"
    bench.send(GET)
    await bench.answer()
    assert bench.transport.end == "closed"
    assert bench.transport.written.count(b"HTTP/1.1 ") == 1


@pytest.mark.asyncio
async def test_a_length_that_is_too_short_gives_one_request_and_the_end(server: RunningServer) -> None:
    body = json.dumps(HEALTH).encode()
    answer = await raw(server, HEAD + LENGTH % 10 + body)
    assert answer.count("HTTP/1.1 ") == 1 and "-32700" in answer and "healthy" not in answer


@pytest.mark.asyncio
async def test_an_answer_that_has_begun_is_not_cut_in_two() -> None:
    """A stream, say: another answer's head in the middle of it would be read as part of it."""
    bench = Bench()
    bench.send(GET)
    cycle = bench.connection.cycle
    await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
    bench.send(b"\x00\r\n\r\n")
    await cycle.send({"type": "http.response.body", "body": b"abc"})
    assert bench.transport.written.count(b"HTTP/1.1 ") == 1
    assert bench.transport.written.endswith(b"3\r\nabc\r\n0\r\n\r\n")
    assert bench.transport.end == "closed"


@pytest.mark.parametrize("before", [1, 2, 3])
@pytest.mark.asyncio
async def test_a_body_that_breaks_is_dropped_and_the_calls_before_it_are_answered(before: int) -> None:
    bench = Bench()
    bench.send(GET * before + HEAD + b"Transfer-Encoding: chunked\r\n\r\nx")
    cycles = [bench.connection.running, *(each for each, _ in reversed(bench.connection.pipeline))][:before]
    for cycle in cycles:
        assert cycle is not None and bench.transport.end == ""
        await cycle.send({"type": "http.response.start", "status": 200, "headers": []})
        await cycle.send({"type": "http.response.body", "body": b""})
    assert bench.transport.end == "closed"
    assert bench.transport.written.count(b"HTTP/1.1 200 ") == before == bench.transport.written.count(b"HTTP/1.1 ")


@pytest.mark.asyncio
async def test_a_body_that_breaks_alone_is_told() -> None:
    bench = Bench()
    bench.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\nx")
    assert bench.transport.written.startswith(b"HTTP/1.1 400 ") and bench.transport.end == "closed"


@pytest.mark.asyncio
async def test_a_body_that_breaks_behind_its_answers_beginning_ends_the_connection() -> None:
    bench = Bench()
    bench.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    await bench.connection.cycle.send({"type": "http.response.start", "status": 200, "headers": []})
    bench.send(b"x")
    assert bench.transport.written.count(b"HTTP/1.1 ") == 1 and bench.transport.end == "closed"


@pytest.mark.asyncio
async def test_what_comes_after_the_end_is_not_read() -> None:
    """TLS hands over what it has received although the connection has been closed."""
    read = await Server().ours((BEHIND.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), INNER), waits=True)
    assert read.is_closed and [path for _, path, _ in read.requests] == [b"/behind"]


@pytest.mark.asyncio
async def test_so_many_requests_are_taken_ahead_and_one_more_ends_the_connection() -> None:
    server = Server()
    full = await server.ours((BEHIND * (SENT_AHEAD + 1),), waits=False)
    assert (len(full.requests), full.is_closed) == (SENT_AHEAD + 1, False)
    more = await server.ours((BEHIND * (SENT_AHEAD + 2),), waits=False)
    assert (len(more.requests), more.is_closed) == (SENT_AHEAD + 1, True)
