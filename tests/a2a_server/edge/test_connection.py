"""Raw bytes on a connection (T10, T13): what could be read in two ways is refused, and the connection closed."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from uvicorn.server import ServerState

from a2a_server.config import Config
from a2a_server.edge.head_bounds import FEW_CHUNKS, FRAMING
from tests.a2a_server.conftest import RunningServer, running, until
from tests.a2a_server.test_app import HEALTH, raw
from tests.faults.framing import Server, Wire

MAX_HEAD, MAX_FIELDS = Config().max_head, Config().max_header_fields
BODY = json.dumps(HEALTH).encode()
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)

AMBIGUOUS = {
    "length and chunks": HEAD + LENGTH + CHUNKED + b"\r\n" + CHUNKS,
    "chunks and length": HEAD + CHUNKED + LENGTH + b"\r\n" + CHUNKS,
    "two equal lengths": HEAD + LENGTH + LENGTH + b"\r\n" + BODY,
    "two lengths": HEAD + LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "list of lengths": HEAD + b"Content-Length: 49, 49\r\n\r\n" + BODY,
    "negative length": HEAD + b"Content-Length: -1\r\n\r\n" + BODY,
    "signed length": HEAD + b"Content-Length: +49\r\n\r\n" + BODY,
    "hexadecimal length": HEAD + b"Content-Length: 0x31\r\n\r\n" + BODY,
    "length with a space": HEAD + b"Content-Length: 4 9\r\n\r\n" + BODY,
    "length beyond 64 bits": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n" + BODY,
    "empty length": HEAD + b"Content-Length: \r\n\r\n" + BODY,
    "space before the colon": HEAD + LENGTH.replace(b":", b" :") + b"\r\n" + BODY,
    "chunked twice": HEAD + CHUNKED + CHUNKED + b"\r\n" + CHUNKS,
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\n" + BODY,
    "a coding that is not undone": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + CHUNKS,
    "chunked is not the last coding": HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n" + CHUNKS,
    "unknown coding": HEAD + b"Transfer-Encoding: xchunked\r\n\r\n" + CHUNKS,
    "control character before chunked": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + CHUNKS,
    "folded field": HEAD + LENGTH + b"X-A: a\r\n b\r\n\r\n" + BODY,
    "folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + CHUNKS,
    "fold before the first field": HEAD.replace(b"\r\nHost", b"\r\n Host") + LENGTH + b"\r\n" + BODY,
    "chunk size that is no number": HEAD + CHUNKED + b"\r\nzz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size with 0x": HEAD + CHUNKED + b"\r\n0x31\r\n" + BODY + b"\r\n0\r\n\r\n",
    "negative chunk size": HEAD + CHUNKED + b"\r\n-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk size beyond 64 bits": HEAD + CHUNKED + b"\r\nfffffffffffffffff\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunk longer than its size": HEAD + CHUNKED + b"\r\n5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunks ended by bare line feeds": HEAD + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b"\n"),
    "bare line feed in a chunk's extension": HEAD + CHUNKED + b"\r\n" + CHUNKS.replace(b"\r\n", b";a\nb\r\n", 1),
    "bare line feeds": (HEAD + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + BODY,
    "one bare line feed": HEAD + b"X-A: b\n" + LENGTH + b"\r\n" + BODY,
    "bare carriage return": HEAD + b"X-A: b\rX-B: c\r\n" + LENGTH + b"\r\n" + BODY,
    "NUL in a value": HEAD + b"X-A: a\x00b\r\n" + LENGTH + b"\r\n" + BODY,
    "NUL in a name": HEAD + b"X\x00A: ab\r\n" + LENGTH + b"\r\n" + BODY,
    "control character in a value": HEAD + b"X-A: a\x01b\r\n" + LENGTH + b"\r\n" + BODY,
    "field without a colon": HEAD + b"X-A\r\n" + LENGTH + b"\r\n" + BODY,
    "field without a name": HEAD + b": a\r\n" + LENGTH + b"\r\n" + BODY,
    "space in a name": HEAD + b"X A: a\r\n" + LENGTH + b"\r\n" + BODY,
    "name that is not ASCII": HEAD + b"X-\xc3\xa9: a\r\n" + LENGTH + b"\r\n" + BODY,
    "target that is not ASCII": HEAD.replace(b"POST /", b"POST /\xff") + LENGTH + b"\r\n" + BODY,
    "method with a NUL": HEAD.replace(b"POST", b"PO\x00ST") + LENGTH + b"\r\n" + BODY,
    "tabs in the request line": HEAD.replace(b"POST / ", b"POST\t/\t") + LENGTH + b"\r\n" + BODY,
    "unknown version": HEAD.replace(b"1.1", b"9.9") + LENGTH + b"\r\n" + BODY,
    "preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "tunnel": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "garbage": b"\x00\xff\x00\xff\r\n\r\n",
}
TOO_LARGE = {
    "a thousand fields": HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(1000)) + LENGTH + b"\r\n" + BODY,
    "one field too many": HEAD + b"X-A: a\r\n" * (MAX_FIELDS - 2) + LENGTH + b"\r\n" + BODY,
    "a field of 64 KiB": HEAD + b"X-A: " + b"a" * 65536 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "a target of 32 KiB": HEAD.replace(b"POST /", b"POST /" + b"a" * 32768) + LENGTH + b"\r\n" + BODY,
    "a name of 64 KiB": HEAD + b"a" * 65536 + b": a\r\n" + LENGTH + b"\r\n" + BODY,
}


@asynccontextmanager
async def raw_connection(server: RunningServer) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    yield reader, writer
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@pytest.mark.asyncio
async def test_what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(server: RunningServer) -> None:
    """`raw` reads until the end of the connection, so an answer means that it was closed."""
    for name, request in AMBIGUOUS.items():
        answer = await raw(server, request)
        assert answer.startswith("HTTP/1.1 501 " if name == "a coding that is not undone" else "HTTP/1.1 400 "), name
        assert answer.count("HTTP/1.1") == 1, f"{name}: nothing of it was taken for a request"
        assert "healthy" not in answer, name


@pytest.mark.asyncio
async def test_head_that_is_too_large_is_refused_and_the_connection_closed(server: RunningServer) -> None:
    for name, request in TOO_LARGE.items():
        answer = await raw(server, request)
        assert answer.startswith("HTTP/1.1 414 " if "target" in name else "HTTP/1.1 431 "), name
        assert answer.count("HTTP/1.1") == 1, name


@pytest.mark.asyncio
async def test_field_that_never_ends_is_cut_off(server: RunningServer) -> None:
    """The parser tells of a field when it has ended; this one never does. The answer may be lost to our own writing."""
    async with raw_connection(server) as (reader, writer):
        writer.write(HEAD + b"X-A: ")
        answer = asyncio.create_task(reader.read())
        sent = 0
        while not answer.done():
            writer.write(b"a" * 1024)
            sent += 1024
            assert sent < 16 * 1024 * 1024, "nobody minds"
            with suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0)
        with suppress(ConnectionError):
            assert (await answer).startswith(b"HTTP/1.1 431 ")


@pytest.mark.asyncio
async def test_head_at_the_limit_passes_and_the_next_request_has_a_limit_of_its_own(server: RunningServer) -> None:
    fields = b"".join(b"X-%d: a\r\n" % n for n in range(MAX_FIELDS - 4))
    used = sum(len(line) + 2 for line in (HEAD + fields + LENGTH).split(b"\r\n")[1:] if line) + len(b"/")
    padding = b"X-Long: %b\r\n" % (b"a" * (MAX_HEAD - used - len(b"X-Long: \r\n")))
    last = b"Connection: close\r\n\r\n"
    answer = await raw(server, HEAD + fields + padding + LENGTH + b"\r\n" + BODY + HEAD + LENGTH + last + BODY)
    assert answer.count("HTTP/1.1 200 ") == 2
    answer = await raw(server, HEAD + fields + padding.replace(b": ", b": a") + LENGTH + b"\r\n" + BODY)
    assert answer.startswith("HTTP/1.1 431 ")


@pytest.mark.parametrize(("fields", "status"), [(5, 200), (6, 431)])
@pytest.mark.asyncio
async def test_fields_at_the_limit_pass_and_one_more_does_not(fields: int, status: int) -> None:
    """Host, Content-Type, Content-Length and Connection are four of them."""
    head = HEAD + LENGTH + b"Connection: close\r\n" + b"X-A: a\r\n" * (fields - 4)
    async with running(max_header_fields=5) as server:
        assert (await raw(server, head + b"\r\n" + BODY)).startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize(("size", "status"), [(200, 200), (201, 431)])
@pytest.mark.asyncio
async def test_size_of_the_head_is_what_was_configured(size: int, status: int) -> None:
    fields = [b"Host: localhost", b"Content-Type: application/json", LENGTH.strip(), b"Connection: close", b"X-A: "]
    fields[-1] += b"a" * (size - sum(len(field) + 2 for field in fields) - len(b"/"))
    async with running(max_head=200) as server:
        answer = await raw(server, b"POST / HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n" + BODY)
    assert answer.startswith(f"HTTP/1.1 {status} ")


@pytest.mark.asyncio
async def test_connection_that_is_idle_stays_until_its_time_has_come() -> None:
    loop = asyncio.get_running_loop()
    async with running(keep_alive=1) as server, raw_connection(server) as (reader, writer):
        for _ in range(2):  # it is used again within its time
            writer.write(HEAD + LENGTH + b"\r\n" + BODY)
            assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 200 ")
        begin = loop.time()
        assert await reader.read() == b""
        assert loop.time() - begin > 0.9


@pytest.mark.asyncio
async def test_body_that_comes_with_the_rest_of_the_head_does_not_count_for_it(server: RunningServer) -> None:
    body = BODY + b" " * (4 * MAX_HEAD)
    rest = b"Content-Length: %d\r\n\r\n" % len(body)
    async with raw_connection(server) as (reader, writer):
        for begun in (HEAD, HEAD + b"Connection: close\r\n"):
            writer.write(begun)
            await until(lambda: any(each._reader._bounds.is_in_head for each in server.server.server_state.connections))
            writer.write(rest + body)
            assert (await reader.readuntil(b"}}")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.asyncio
async def test_trailer_is_no_header(server: RunningServer) -> None:
    """Fields after the body could say what only a proxy in front may say, or be a second Host."""
    trailer = CHUNKS.removesuffix(b"\r\n") + b"Host: evil.example\r\nX-Trailer: 1\r\n\r\n"
    answer = await raw(server, HEAD + CHUNKED + b"Connection: close\r\n\r\n" + trailer)
    assert answer.startswith("HTTP/1.1 200 ")


@pytest.mark.asyncio
async def test_length_that_promises_more_than_comes_is_waited_for_and_nothing_is_done(server: RunningServer) -> None:
    async with raw_connection(server) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 1000\r\n\r\n" + BODY)
        writer.write_eof()
        assert await reader.read() == b""


@pytest.mark.parametrize(("size", "count", "served"), [(1, 4096, 1), (1, 4097, 0), (16, 20_000, 1), (15, 20_000, 0)])
@pytest.mark.asyncio
async def test_chunks_are_few_or_not_tiny(size: int, count: int, served: int) -> None:
    chunks = b"%x\r\n%b\r\n" % (size, b"x" * size) * count + b"0\r\n\r\n"
    read = await Server().ours((HEAD + CHUNKED + b"\r\n" + chunks,), waits=True)
    assert (len(read.requests), read.is_closed) == (served, not served)


# How many


@pytest.mark.asyncio
async def test_one_connection_too_many_is_told_and_closed_and_its_place_is_found_again() -> None:
    async with running(max_connections=2) as server:
        async with raw_connection(server) as (reader, writer), raw_connection(server):
            writer.write(HEAD + LENGTH + b"\r\n" + BODY)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            await until(lambda: len(server.server.server_state.connections) == 2)
            async with raw_connection(server) as (refused, _):
                answer = await refused.read()
            assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 5" in answer
        await until(lambda: not server.server.server_state.connections)
        async with server.client() as client:
            assert (await client.post("/", json=HEALTH)).status_code == 200


# What is around a body

ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "trailers": (b"2\r\n{}\r\n0\r\n", b"a: " + b"b" * 8185 + b"\r\n"),
    "one trailer": (b"2\r\n{}\r\n0\r\na: ", b"b" * 8190),
    "a chunk extension": (b"2;", b"b" * 8190),
    "extensions of small chunks": (b"", b"1;" + b"b" * 8180 + b"\r\n \r\n"),
    "the zeros of a chunk's size": (b"", b"0" * 8190),
}


@pytest.mark.parametrize("endless", ENDLESS)
@pytest.mark.parametrize("path", [b"/", b"/message:send", b"/healthz"])
@pytest.mark.asyncio
async def test_what_is_around_a_body_and_behind_it_is_bounded(server: RunningServer, endless: str, path: bytes) -> None:
    """Found later: trailers and chunk extensions were read without a limit."""
    begin, more = ENDLESS[endless]
    async with raw_connection(server) as (reader, writer):
        writer.write(HEAD.replace(b"POST /", b"POST " + path) + CHUNKED + b"\r\n" + begin)
        answer = asyncio.create_task(reader.read())
        sent = 0
        while not answer.done():
            writer.write(more)
            sent += len(more)
            assert sent < 16 * 1024 * 1024, "nothing bounds it"
            with suppress(ConnectionError):
                await writer.drain()
            await asyncio.sleep(0)
        with suppress(ConnectionError):
            await answer


@pytest.mark.parametrize(("framing", "is_taken"), [(FRAMING + MAX_HEAD, True), (FRAMING + MAX_HEAD + 1, False)])
@pytest.mark.asyncio
async def test_framing_at_the_limit_passes_and_one_byte_more_does_not(framing: int, is_taken: bool) -> None:
    read = await Server().ours((HEAD + CHUNKED + b"\r\n", b"2;" + b"a" * (framing - 2)), waits=False)
    assert read.is_closed is not is_taken


@pytest.mark.asyncio
async def test_a_body_of_many_chunks_that_has_waited_for_us_goes_on() -> None:
    """The time for which it waited does not count, but all of its bytes do."""
    state, wire = ServerState(), Wire()
    connection = Server().connection(state)
    connection.connection_made(wire)
    chunk = b"40\r\n" + b" " * 64 + b"\r\n"
    connection.data_received(HEAD + CHUNKED + b"\r\n" + chunk * (FEW_CHUNKS + 1))
    connection.flow.read_paused = True
    connection.enforce()
    connection.flow.read_paused = False
    connection.data_received(chunk * 9)
    assert not wire.is_closing()
    connection.connection_lost(None)
    await asyncio.gather(*state.tasks)
