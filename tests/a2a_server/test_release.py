"""A connection that has ended is freed at once: nothing of it waits for the garbage collector, however it ended."""

import asyncio
import gc
import json
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

import httptools
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from a2a_server.edge.connection import Connection, RequestReader
from a2a_server.edge.handshake import Handshake
from a2a_server.protocol import types as wire
from tests.a2a_server.conftest import RunningServer, message, running, until
from tests.a2a_server.edge.test_admission import occupy
from tests.a2a_server.edge.test_connection_framing import request
from tests.a2a_server.edge.test_deadlines import GET, HEAD, LENGTH
from tests.a2a_server.test_tls import Files, files
from tests.a2a_server.views.test_streams import rpc

__all__ = ["files"]  # a fixture

KINDS = (Connection, RequestReader, Handshake, RequestResponseCycle, httptools.HttpRequestParser)
TIMES = 3  # connections of each kind, one after the other
FULL = b"".join(b"x%d: %b\r\n" % (n, b"a" * 140) for n in range(90))
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
HANGS = json.dumps(rpc("SendStreamingMessage", message("hold"))).encode()
SENDS = {  # what the client has sent when it goes
    "nothing": b"",
    "an empty line": b"\r\n",
    "half a head": HEAD + FULL,
    "half a body": HEAD + FULL + LENGTH % 100 + b"{",
    "half a body in chunks": CHUNKED + b"1\r\n{\r\n",
    "a request with a full head": GET.replace(b"\r\n\r\n", b"\r\n" + FULL + b"\r\n"),
    "a request that is the last": request("GET", "Connection: close"),
    "a call": request("JSON-RPC"),
    "a call of a v0.3 client": request("v0.3"),
    "an HTTP+JSON call": request("HTTP+JSON"),
    "a stream": request("a stream"),
    "a stream that goes on": HEAD + b"A2A-Version: 1.0\r\n" + LENGTH % len(HANGS) + HANGS,
    "requests behind a stream that goes on": HEAD + b"A2A-Version: 1.0\r\n" + LENGTH % len(HANGS) + HANGS + GET * 3,
    "an upgrade": request("JSON-RPC", "Connection: Upgrade", "Upgrade: h2c"),
    "requests sent ahead": GET * 3,
    "requests sent ahead, the last one broken": GET * 3 + b"\x00\r\n\r\n",
    "garbage": b"\x00\xff\r\n\r\n",
    "too large a head": HEAD + b"X: " + b"a" * 65536 + b"\r\n\r\n",
    "too large a field": GET.replace(b"\r\n\r\n", b"\r\nCookie: a=" + b"a" * 60_000 + b"\r\n\r\n"),
    "too many fields": GET.replace(b"\r\n\r\n", b"\r\n" + FULL + FULL + b"\r\n"),
    "a tunnel": b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
    "a coding that is not known": HEAD + b"Transfer-Encoding: gzip\r\n\r\n",
    "a target that is none": GET.replace(b" /", b" a", 1),
    "too large a body": HEAD + LENGTH % 100_000_000 + b"{",
    "a broken chunk": CHUNKED + b"zz\r\n",
    "no call": HEAD + LENGTH % 2 + b"[]",
    "expect": HEAD + b"Expect: 100-continue\r\n" + LENGTH % 100,
}


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def kept() -> list[str]:
    return [kind.__name__ for each in gc.get_objects() for kind in KINDS if issubclass(type(each), kind)]


async def freed() -> None:
    """Wait until nothing of any connection is left."""
    try:
        await until(lambda: not kept())
    except TimeoutError:
        pytest.fail(f"kept: {kept()}")


async def leave(writer: asyncio.StreamWriter, *, is_reset: bool) -> None:
    if is_reset:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def visit(server: RunningServer, sent: bytes, *, is_reset: bool, tls: Files | None = None) -> None:
    """Send it, read what comes first if anything does, and leave."""
    context = tls.client() if tls is not None else None
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    writer.write(sent)
    with suppress(OSError):
        await writer.drain()
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(0.05):
            await reader.read(64)
    await leave(writer, is_reset=is_reset)


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("sent", SENDS)
@pytest.mark.usefixtures("no_collector")
@pytest.mark.asyncio
async def test_a_connection_that_its_client_ends_is_freed(sent: str, is_reset: bool) -> None:
    """Found later: 60 KiB of each connection stayed until the garbage collector ran."""
    async with running() as server:
        for _ in range(TIMES):
            await visit(server, SENDS[sent], is_reset=is_reset)
        await freed()


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.usefixtures("no_collector")
@pytest.mark.asyncio
async def test_a_connection_over_tls_is_freed(files: Files, is_reset: bool) -> None:
    async with running(tls_cert=files.cert, tls_key=files.key) as server:
        for sent in ("nothing", "half a head", "half a body", "a call", "a stream that goes on", "garbage"):
            await visit(server, SENDS[sent], is_reset=is_reset, tls=files)
            await freed()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"no TLS\r\n"])
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.usefixtures("no_collector")
@pytest.mark.asyncio
async def test_a_handshake_that_fails_is_freed(files: Files, said: bytes, is_reset: bool) -> None:
    async with running(tls_cert=files.cert, tls_key=files.key) as server:
        for _ in range(TIMES):
            await visit(server, said, is_reset=is_reset)
        await freed()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.asyncio
async def test_a_connection_that_the_server_ends_is_freed() -> None:
    """One is idle, one is late with its head, and one is one too many."""
    async with running(keep_alive=1, head_timeout=0.5, max_connections=2) as server:
        lines = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        lines[0][1].write(GET)
        lines[1][1].write(HEAD + FULL)
        for reader, _ in lines:
            await reader.read()
        for _, writer in lines:
            await leave(writer, is_reset=False)
        await freed()


@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.usefixtures("no_collector")
@pytest.mark.asyncio
async def test_a_connection_that_was_refused_for_the_load_is_freed(is_reset: bool) -> None:
    """It rests until it may ask again; it is freed at the latest then."""
    async with running(overload_soft=1, overload_hard=1) as server:
        occupy(server, 2)
        for _ in range(TIMES):
            await visit(server, request("work"), is_reset=is_reset)
        await freed()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.asyncio
async def test_a_stream_with_requests_behind_it_hears_that_its_client_has_gone(server: RunningServer) -> None:
    await visit(server, SENDS["requests behind a stream that goes on"], is_reset=True)
    await until(lambda: not server.server.server_state.tasks)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.asyncio
async def test_a_stream_keeps_no_snapshot_behind_its_first_event(server: RunningServer) -> None:
    """Found later: each open stream kept the snapshot with which it began."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(SENDS["a stream that goes on"])
    await reader.readuntil(b'"task":')
    await until(lambda: not any(type(each) is wire.Task for each in gc.get_objects()))
    await leave(writer, is_reset=True)
