"""What RFC 9112 (HTTP/1.1) demands of a server and a client can see: bytes in, answers out, section by section."""

import asyncio
import json
import re
import ssl
from contextlib import suppress
from typing import NamedTuple

import pytest

from tests.a2a_server.conftest import RunningServer, message, running
from tests.a2a_server.edge.test_admission import occupy
from tests.a2a_server.edge.test_connection_framing import request
from tests.a2a_server.test_app import HEALTH
from tests.a2a_server.test_tls import Files, files  # noqa: F401  # a fixture
from tests.a2a_server.views.test_streams import rpc

HOST = b"Host: localhost\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST + b"\r\n"
BODY = json.dumps(HEALTH).encode()
TYPE = b"Content-Type: application/json\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST + TYPE
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


class Answer(NamedTuple):
    """One answer as it came: its fields in order, names in lower case."""

    status: int
    fields: tuple[tuple[str, str], ...]
    body: str

    def __getitem__(self, name: str) -> str:  # type: ignore[override]  # by name, as a mapping
        """All values of a field, joined by commas; empty where there is none."""
        return ", ".join(value for each, value in self.fields if each == name)


async def exchange(port: int, *pieces: bytes, ends: bool = True, tls: ssl.SSLContext | None = None) -> list[Answer]:
    """All answers to what is sent, until the server closes. With `ends` the client closes its sending half."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    if ends:
        writer.write_eof()
    answer = (await reader.read()).decode()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    return answers(answer)


def answers(text: str) -> list[Answer]:
    """Whole answers; JSON holds no line that begins as an answer does."""
    found = []
    for each in re.split(r"(?=HTTP/1\.1 \d\d\d )", text)[1:]:
        head, _, body = each.partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        fields = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        found.append(Answer(int(first.split()[1]), fields, body))
    return found


async def statuses(server: RunningServer, *pieces: bytes) -> list[int]:
    return [each.status for each in await exchange(server.port, *pieces)]


def get(target: bytes, *fields: bytes, version: bytes = b"1.1") -> bytes:
    return b"GET %b HTTP/%b\r\n%b\r\n" % (target, version, b"".join(each + b"\r\n" for each in fields))


LOCAL = b"Host: localhost"
OTHER = b"Host: evil.example"

ROWS: dict[str, tuple[str, bytes, list[int]]] = {
    # what: (section, what is sent, the statuses of the answers); behind a refusal nothing is served
    "empty lines before a request": ("2.2", b"\r\n\r\n" + GET, [200]),
    "an empty line between requests": ("2.2", GET + b"\r\n" + GET, [200, 200]),
    "bare CR in a value": ("2.2", get(b"/healthz", LOCAL, b"X: a\rb") + GET, [400]),
    "bare CR in the request line": ("2.2", b"GET /\rx HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [400]),
    "space before the first field": ("2.2", b"GET /healthz HTTP/1.1\r\n " + HOST + b"\r\n" + GET, [400]),
    "version 1.0": ("2.3", get(b"/healthz", LOCAL, version=b"1.0"), [200]),
    "a version in lower case": ("2.3", b"GET /healthz http/1.1\r\n" + HOST + b"\r\n" + GET, [400]),
    "no version": ("3", b"GET /healthz\r\n" + HOST + b"\r\n" + GET, [400]),
    "a method that nobody knows": ("3.1", b"BREW /healthz HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [501]),
    "a method in lower case": ("3.1", b"get /healthz HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [501]),
    "a target that is too long": ("3", get(b"/" + b"a" * 20_000, LOCAL) + GET, [414]),
    "a space in the target": ("3.2", get(b"/health z", LOCAL) + GET, [400]),
    "a fragment": ("3.2", get(b"/healthz#a", LOCAL) + GET, [400]),
    "no Host": ("3.2", get(b"/.well-known/agent-card.json"), [400]),
    "no Host, a probe": ("3.2", get(b"/healthz"), [400]),
    "no Host, a call": ("3.2", POST.replace(HOST, b"") + LENGTH + b"\r\n" + BODY, [400]),
    "no Host, a path of the binding": ("3.2", get(b"/tasks"), [400]),
    "no Host over 1.0": ("3.2", get(b"/healthz", version=b"1.0"), [200]),
    "two Hosts": ("3.2", get(b"/healthz", LOCAL, LOCAL), [400]),
    "two Hosts, 1.0": ("3.2", get(b"/healthz", LOCAL, LOCAL, version=b"1.0"), [400]),
    "an empty Host": ("3.2", get(b"/healthz", b"Host:"), [400]),
    "a Host with a space": ("3.2", get(b"/healthz", b"Host: local host"), [400]),
    "a Host with a path": ("3.2", get(b"/healthz", b"Host: localhost/"), [400]),
    "a Host with user information": ("3.2", get(b"/healthz", b"Host: a@localhost"), [400]),
    "a Host with a port that is none": ("3.2", get(b"/healthz", b"Host: localhost:http"), [400]),
    "two names in one Host": ("3.2", get(b"/healthz", b"Host: localhost, localhost:80"), [400]),
    "a Host that is not ours": ("3.2", get(b"/tasks", OTHER), [421]),
    "a Host in capitals, with a port": ("3.2", get(b"/tasks", b"HOST: LocalHost:1"), [200]),
    "an absolute target": ("3.2.2", get(b"http://localhost/tasks", LOCAL), [200]),
    "an absolute target in capitals": ("3.2.2", get(b"HTTP://LOCALHOST:80/tasks?pageSize=1", LOCAL), [200]),
    "its authority counts, for": ("3.2.2", get(b"http://localhost/tasks", OTHER), [200]),
    "its authority counts, against": ("3.2.2", get(b"http://evil.example/tasks", LOCAL), [421]),
    "absolute, no Host": ("3.2", get(b"http://localhost/tasks"), [400]),
    "absolute, no Host over 1.0": ("3.2.2", get(b"http://localhost/tasks", version=b"1.0"), [200]),
    "absolute, two Hosts": ("3.2", get(b"http://localhost/tasks", LOCAL, LOCAL), [400]),
    "absolute, a wrong Host": ("3.2", get(b"http://localhost/tasks", b"Host: a b"), [400]),
    "absolute, no path": ("3.2.1", get(b"http://localhost", LOCAL), [405]),
    "absolute, a query and no path": ("3.2.1", get(b"http://localhost?a=b", LOCAL), [405]),
    "absolute, user information": ("3.2.2", get(b"http://a@localhost/tasks", LOCAL), [400]),
    "absolute, no host": ("3.2.2", get(b"http:///tasks", LOCAL), [400]),
    "absolute, https over plain TCP": ("3.3", get(b"https://localhost/tasks", LOCAL), [421]),
    "absolute, another scheme": ("3.3", get(b"ftp://localhost/tasks", LOCAL), [421]),
    "absolute with an Upgrade": (
        "3.2.2",
        get(b"http://evil.example/tasks", LOCAL, b"Connection: upgrade", b"Upgrade: h2c"),
        [421],
    ),
    "two slashes are a path": ("3.2.1", get(b"//localhost/tasks", LOCAL), [404]),
    "an authority for a target": ("3.2.3", get(b"localhost:80", LOCAL) + GET, [400]),
    "a tunnel": ("3.2.3", b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [400]),
    "the server as a whole": ("3.2.4", b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n" + GET, [405, 200]),
    "a star with another method": ("3.2.4", get(b"*", LOCAL) + GET, [400]),
    "space before a colon": ("5.1", get(b"/healthz", LOCAL, b"X : y") + GET, [400]),
    "no space behind a colon": ("5.1", get(b"/healthz", b"Host:localhost"), [200]),
    "white space around a value": ("5.1", get(b"/healthz", b"Host: \t localhost \t "), [200]),
    "a name in odd case": ("5.1", get(b"/healthz", b"hOsT: localhost"), [200]),
    "an empty value": ("5.1", get(b"/healthz", LOCAL, b"X-A:"), [200]),
    "octets beyond ASCII in a value": ("5.5", get(b"/healthz", LOCAL, b"X-A: \xe4\xff"), [200]),
    "a folded field": ("5.2", get(b"/healthz", LOCAL, b"X: a\r\n b") + GET, [400]),
    "a folded Host": ("5.2", get(b"/healthz", b"Host:\r\n localhost") + GET, [400]),
    "chunks": ("6.1", POST + CHUNKED + b"\r\n" + CHUNKS + GET, [200, 200]),
    "a coding in capitals": ("7", POST + CHUNKED.upper() + b"\r\n" + CHUNKS + GET, [200, 200]),
    "chunks over 1.0": ("6.1", POST.replace(b"1.1", b"1.0") + CHUNKED + b"\r\n" + CHUNKS, [400]),
    "chunks and a length over 1.0": ("6.1", POST.replace(b"1.1", b"1.0") + CHUNKED + LENGTH + b"\r\n" + BODY, [400]),
    "a coding that is not known": ("6.1", POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS + GET, [501]),
    "chunked is not the last": ("6.3", POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS + GET, [400]),
    "chunked twice": ("6.1", POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n" + CHUNKS + GET, [400]),
    "a length beside chunks": ("6.3", POST + CHUNKED + LENGTH + b"\r\n" + CHUNKS + GET, [400]),
    "a length that is none": ("6.3", POST + b"Content-Length: 1x\r\n\r\n" + BODY + GET, [400]),
    "two lengths": ("6.3", POST + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY + GET, [400]),
    "neither is no body": ("6.3", get(b"/healthz", LOCAL) + GET, [200, 200]),
    "a body with a GET": ("6.3", get(b"/healthz", LOCAL, b"Content-Length: 3") + b"abc" + GET, [200, 200]),
    "a chunk size in capitals": ("7.1", POST + CHUNKED + b"\r\n" + CHUNKS.replace(b"3", b"0003", 1) + GET, [200, 200]),
    "chunk extensions": ("7.1.1", POST + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b';a="b;c"\r\n', 1), [200]),
    "a chunk size that is none": ("7.1", POST + CHUNKED + b"\r\nxyz\r\n" + GET, [400]),
    "trailers are no fields": (
        "7.1.2",
        POST + CHUNKED + b"\r\n" + CHUNKS[:-2] + b"Host: evil.example\r\nContent-Type: text/html\r\n\r\n" + GET,
        [200, 200],
    ),
    "TE": ("7.4", get(b"/healthz", LOCAL, b"TE: trailers, deflate;q=0.5", b"Connection: TE") + GET, [200, 200]),
    "a body that ends too early": ("8", POST + b"Content-Length: 1000\r\n\r\n" + BODY, []),
    "chunks that end too early": ("8", POST + CHUNKED + b"\r\n" + CHUNKS[:-5], []),
    "a head that ends too early": ("8", GET + POST, [200]),
    "a second call": ("9.3", GET + GET, [200, 200]),
    "close": ("9.6", get(b"/healthz", LOCAL, b"Connection: close") + GET, [200]),
    "close in a list, in capitals": ("9.6", get(b"/healthz", LOCAL, b"Connection: X, CLOSE") + GET, [200]),
    "close on a second line": ("9.6", get(b"/healthz", LOCAL, b"Connection: X", b"Connection: close") + GET, [200]),
    "close, and a body": ("9.6", POST + b"Connection: close\r\n" + LENGTH + b"\r\n" + BODY + GET, [200]),
    "1.0 does not stay": ("9.3", get(b"/healthz", LOCAL, version=b"1.0") + GET, [200]),
    "1.0 and keep-alive": ("9.3", get(b"/healthz", LOCAL, b"Connection: keep-alive", version=b"1.0") + GET, [200]),
    "calls sent ahead": (
        "9.3.2",
        GET + get(b"/no", LOCAL) + POST + LENGTH + b"\r\n" + BODY + b"DELETE / HTTP/1.1\r\n" + HOST + b"\r\n" + GET,
        [200, 404, 200, 405, 200],
    ),
}


@pytest.mark.parametrize("what", ROWS)
@pytest.mark.asyncio
async def test_what_a_client_sees(server: RunningServer, what: str) -> None:
    section, sent, expected = ROWS[what]
    told = await exchange(server.port, sent)
    assert [each.status for each in told] == expected, f"RFC 9112 §{section}"
    for each in told:
        assert sum(name == "connection" for name, _ in each.fields) <= 1
        assert each["date"] or each.status >= 500, "RFC 9110 §6.6.1"
    if told and 400 <= told[-1].status != 404:
        assert told[-1]["connection"] == "close" or told[-1].status in (405, 421) or b"http" in sent


STREAMS: dict[str, tuple[str, object]] = {
    "JSON-RPC": ("/", rpc("SendStreamingMessage", message("chunks"))),
    "HTTP+JSON": ("/message:stream", message("chunks")),
    "tasks": ("/tasks", rpc("tasks.execute", {"use_streaming": True, "tasks": [{"name": "chunks"}]})),
}
CALLS: dict[str, tuple[str, object]] = {
    "JSON-RPC": ("/", rpc("SendMessage", message("echo"))),
    "HTTP+JSON": ("/message:send", message("echo")),
    "tasks": ("/tasks", rpc("tasks.execute", {"wait": True, "tasks": [{"name": "echo"}]})),
    "batch": ("/", [rpc("tasks.list", {}), rpc("system.health", {})]),
    **STREAMS,
}


def call(name: str, *fields: bytes, version: str = "1.1") -> bytes:
    path, content = CALLS[name]
    body = json.dumps(content).encode()
    own = [b"Host: localhost", b"A2A-Version: 1.0", b"Content-Type: application/json", *fields]
    head = f"POST {path} HTTP/{version}\r\n".encode() + b"".join(each + b"\r\n" for each in own)
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize("binding", CALLS)
@pytest.mark.asyncio
async def test_answers_over_http_1_0_have_no_chunks_and_end_with_the_connection(
    server: RunningServer, binding: str
) -> None:
    """§6.1 and §6.3; whatever a client says of keeping the connection, one field tells of its end (§9.6)."""
    for said in ((), (b"Connection: keep-alive",), (b"Connection: close",)):
        (told,) = await exchange(server.port, call(binding, *said, version="1.0"), ends=False)
        assert (told.status, told["transfer-encoding"], told["connection"]) == (200, "", "close")
        if binding in STREAMS:
            assert told["content-length"] == "" and told.body.startswith(("id: ", "data: "))
            assert told.body.endswith("\n\n"), "whole"
        else:
            assert len(told.body) == int(told["content-length"])


@pytest.mark.parametrize("binding", STREAMS)
@pytest.mark.asyncio
async def test_streams_say_once_what_becomes_of_the_connection(server: RunningServer, binding: str) -> None:
    """Found from outside: clients of HTTP/1.0 got chunks and two Connection fields."""
    kept, ended = await exchange(server.port, call(binding) + call(binding, b"Connection: close"), ends=False)
    assert [kept["connection"], ended["connection"]] == ["", "close"]
    assert {kept["transfer-encoding"], ended["transfer-encoding"]} == {"chunked"}
    assert kept.body.endswith("0\r\n\r\n") and ended.body.endswith("0\r\n\r\n")


@pytest.mark.parametrize("binding", CALLS)
@pytest.mark.asyncio
async def test_client_that_sends_nothing_more_gets_its_answers(server: RunningServer, binding: str) -> None:
    """§9.6: alone, sent ahead, with a broken request behind it, and in two pieces."""
    one = call(binding)
    for pieces, count in (((one,), 1), ((one + one,), 2), ((one + b"GET /hea",), 1), ((one[:80], one[80:]), 1)):
        told = await exchange(server.port, *pieces)
        assert [each.status for each in told] == [200] * count
        assert all(each.body.endswith(("\n\n", "}", "]", "0\r\n\r\n")) for each in told)


@pytest.mark.asyncio
async def test_client_that_sends_nothing_more_gets_its_refusals_too() -> None:
    """A connection rests behind a refusal; what was sent behind it is heard then, and so is its end."""
    async with running(overload_soft=1, overload_hard=1) as server:
        occupy(server, 2)
        told = await exchange(server.port, call("JSON-RPC") * 2)
        alone = await exchange(server.port, call("HTTP+JSON"))
    assert [each.status for each in (*told, *alone)] == [503] * 3


@pytest.mark.asyncio
async def test_closed_tls_is_told_so(files: Files) -> None:  # noqa: F811
    """§9.8: an answer's end is a closure alert; without one this client raises an error."""
    async with running(tls_cert=files.cert, tls_key=files.key) as server:
        told = await exchange(server.port, request("work", "Connection: close"), ends=False, tls=files.client())
    assert [each.status for each in told] == [200]
