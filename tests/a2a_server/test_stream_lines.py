"""The lines of a stream as clients read them that are not quite right, and clients that have closed their half."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message, Scope

from a2a_server.bindings.sse import PING, EventStream, _Ping
from a2a_server.cli.output import print_json_line
from a2a_server.edge.inflight import PIECE
from a2a_server.protocol.codec import one_line
from tests.a2a_server.conftest import message, running, until
from tests.a2a_server.test_rfc9112 import exchange
from tests.a2a_server.views.test_streams import frames_of, rpc

SEPARATORS = "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # what `str.splitlines` takes for a line's end, beside LF and CR
NEIGHBOURS = "\u2027\u202a\x84\x86é\u2020\u0028…\U0001f600"
TEXT = f"a{SEPARATORS}b{NEIGHBOURS}"
PART = {"kind": "text", "text": TEXT}
OF_0_3 = {"kind": "message", "messageId": "m", "role": "user", "parts": [PART], "metadata": {"skillId": "echo"}}
TASK = {"name": "echo", "inputs": {"text": TEXT}}
STREAMS = {
    "JSON-RPC": ("/", rpc("SendStreamingMessage", message("echo", text=TEXT))),
    "HTTP+JSON": ("/message:stream", message("echo", text=TEXT)),
    "v0.3": ("/", rpc("message/stream", {"message": OF_0_3})),
    "tasks": ("/tasks", rpc("tasks.execute", {"use_streaming": True, "tasks": [TASK]})),
}


@pytest.mark.parametrize("binding", STREAMS)
@pytest.mark.asyncio
async def test_no_text_ends_a_line_for_python(binding: str) -> None:
    """Found from outside: U+2028, U+2029 and U+0085 in a text cut the streams of a2a-sdk 1.3.0.

    a2a-sdk 1.3.0 splits a stream by `splitlines`; for it and all others the JSON is the same.
    """
    path, content = STREAMS[binding]
    async with running() as server, server.client() as client:
        told = await client.post(path, json=content)
        assert told.status_code == 200
        task_id = (await client.post("/", json=rpc("tasks.list", {}))).json()["result"][0]["id"]
        own = await client.get(f"/tasks/{task_id}/events")
    for text in (told.text, own.text):
        assert text.splitlines() == text.split("\n")[:-1]
        assert not set(SEPARATORS) & set(text)
        assert NEIGHBOURS in text, "and nothing else is changed"
        assert any(TEXT in strings(frame.data) for frame in frames_of(text)), "the same text for who reads the JSON"


def strings(value: object) -> list[str]:
    """All strings in a JSON value."""
    if isinstance(value, dict):
        return [each for part in value.values() for each in strings(part)]
    if isinstance(value, list):
        return [each for part in value for each in strings(part)]
    return [value] if isinstance(value, str) else []


def test_json_in_one_line_is_the_same_json() -> None:
    data = json.dumps({TEXT: [TEXT, "\\u2028", "\\"]}, ensure_ascii=False).encode()
    assert json.loads(one_line(data)) == json.loads(data)
    plain = b'{"a":"\xe2\x80\xa6\xc2\x84"}'
    assert one_line(plain) == plain


def test_client_commands_print_each_item_on_one_line_for_python_too(capsys: pytest.CaptureFixture[str]) -> None:
    print_json_line({"text": TEXT})
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {"text": TEXT}


# Comments


@pytest.mark.asyncio
async def test_comment_waits_until_an_event_is_whole() -> None:
    """A large event goes in pieces; in the middle of it a comment would be part of its JSON."""
    event = b"data: " + b"x" * (3 * PIECE) + b"\n\n"
    is_due, sent = asyncio.Event(), bytearray()

    async def events() -> AsyncIterator[bytes]:
        yield event

    async def receive() -> Message:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal sent
        sent += message.get("body", b"")
        if len(message.get("body", b"")) == PIECE:
            await is_due.wait()
            for _ in range(20):  # turns in which a comment that does not wait would be written
                await asyncio.sleep(0)

    def due() -> _Ping:
        is_due.set()
        return _Ping()

    stream = EventStream(events(), ping=0.001)
    stream.ping_message_factory = due
    scope: Scope = {"type": "http", "method": "GET", "path": "/"}
    await stream(scope, receive, send)
    assert is_due.is_set() and event in sent


@pytest.mark.asyncio
async def test_no_blank_line_belongs_to_a_comment() -> None:
    """Found from outside: a comment's blank line ended the streams of a2a-sdk 0.3.0 to 0.3.22.

    httpx-sse takes each blank line for an event once it has seen an id: that ends a2a-sdk 0.3.0 to 0.3.22.
    """
    async with running(sse_ping=0.01) as server, server.client() as client:
        text = ""
        async with client.stream("POST", "/", json=rpc("SendStreamingMessage", message("hold"))) as response:
            async for chunk in response.aiter_text():
                text += chunk
                if text.count(": ping\n") >= 2 and not server.application.readiness.is_draining:
                    server.application.drain()
    assert ": the server is stopping" in text
    blocks = text.split("\n\n")
    assert len(blocks) == 1 + len(frames_of(text)), "as many blank lines as events"


# Clients that send nothing more


@pytest.mark.parametrize("leaves", ["at once", "later"])
@pytest.mark.parametrize("kind", ["JSON-RPC", "HTTP+JSON", "tasks", "EventSource"])
@pytest.mark.asyncio
async def test_client_that_closes_its_half_keeps_its_stream_and_one_that_leaves_does_not(
    kind: str, leaves: str
) -> None:
    """Both look alike until something is written: so a comment is written at once, and then as usual."""
    async with running(sse_ping=3600 if leaves == "at once" else 0.05) as server, server.client() as client:
        made = (await client.post("/", json=rpc("tasks.create", {"name": "hold"}))).json()["result"]
        executed = {"use_streaming": True, "task_id": made["id"]}
        sent = {
            "JSON-RPC": ("/", rpc("SendStreamingMessage", message("hold"))),
            "HTTP+JSON": ("/message:stream", message("hold")),
            "tasks": ("/tasks", rpc("tasks.execute", executed)),
        }
        if kind == "EventSource":
            await client.post("/", json=rpc("tasks.execute", {"task_id": made["id"]}))
            request = f"GET /tasks/{made['id']}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        else:
            path, content = sent[kind]
            body = json.dumps(content).encode()
            head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request)
        await reader.readuntil(b"data: ")
        followers = server.application.session.feed
        await until(lambda: followers.followers == 1)
        if leaves == "later":
            writer.write_eof()
            for _ in range(3):
                await reader.readuntil(PING)
            assert followers.followers == 1, "it waits for the rest"
        writer.close()
        await until(lambda: followers.followers == 0)
        server.lab.released["hold"].set()


@pytest.mark.asyncio
async def test_stream_of_a_client_that_closed_its_half_is_told_to_its_end() -> None:
    """Found from outside: a client that closed its sending half got nothing of its task."""
    async with running(sse_ping=3600) as server:
        body = json.dumps(rpc("SendStreamingMessage", message("hold"))).encode()
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        told = asyncio.create_task(exchange(server.port, head + b"Content-Length: %d\r\n\r\n" % len(body) + body))
        await server.lab.started["hold"].wait()
        server.lab.released["hold"].set()
        (answer,) = await told
    assert "TASK_STATE_COMPLETED" in answer.body and answer.body.endswith("0\r\n\r\n")
