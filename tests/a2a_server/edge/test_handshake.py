"""Handshakes are counted from the moment of the accept, and have no more time than a head."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from a2a_server.edge.connection import Connection
from a2a_server.edge.connection_count import Connections
from tests.a2a_server.conftest import RunningServer, running, until
from tests.a2a_server.edge.test_deadlines import GET
from tests.a2a_server.test_app import HEALTH
from tests.a2a_server.test_tls import Files, client_of, files

__all__ = ["files"]  # a fixture


@asynccontextmanager
async def serving(files: Files, **settings: Any) -> AsyncIterator[RunningServer]:
    async with running(tls_cert=files.cert, tls_key=files.key, **settings) as server:
        yield server


async def is_served(files: Files, port: int) -> bool:
    async with client_of(port, files.client()) as client:
        return (await client.post("/", json=HEALTH)).status_code == 200


async def seen(server: RunningServer, count: int) -> None:
    await until(lambda: len(server.server.server_state.connections) == count)


async def ending(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""


@pytest.mark.asyncio
async def test_silent_handshakes_are_counted_and_end_with_the_time_of_a_head(files: Files) -> None:
    """Found from outside: silent TLS handshakes were not counted, and lived for 60 s."""
    loop = asyncio.get_running_loop()
    async with serving(files, max_connections=2, head_timeout=0.5) as server:
        begin = loop.time()
        silent = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
        await seen(server, 2)
        refused, unused = await asyncio.open_connection("127.0.0.1", server.port)
        assert await ending(refused) == b"", "one too many is closed at once, without an answer"
        unused.close()
        assert loop.time() - begin < 0.5
        for reader, writer in silent:
            assert await ending(reader) == b""
            writer.close()
        assert loop.time() - begin >= 0.5
        await seen(server, 0)
        assert await is_served(files, server.port)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01"])
@pytest.mark.asyncio
async def test_a_handshake_that_fails_leaves_its_place_to_others(files: Files, said: bytes) -> None:
    async with serving(files, max_connections=1, head_timeout=30) as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(said)
        writer.close()
        await seen(server, 0)
        assert await is_served(files, server.port)


@pytest.mark.asyncio
async def test_the_time_of_the_first_head_runs_from_the_accept(files: Files) -> None:
    loop = asyncio.get_running_loop()
    async with serving(files, head_timeout=1) as server:
        begin = loop.time()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=files.client())
        connections = server.server.server_state.connections
        await until(lambda: any(isinstance(each, Connection) for each in connections))
        [since] = [each.deadlines.head_since for each in connections if isinstance(each, Connection)]
        assert since is not None and begin <= since <= loop.time()
        assert await ending(reader) == b""
        writer.close()


@pytest.mark.asyncio
async def test_the_servers_end_does_not_wait_for_a_silent_handshake(files: Files) -> None:
    async with serving(files, head_timeout=60) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        await seen(server, 1)
    assert await ending(reader) == b""
    writer.close()


@pytest.mark.asyncio
async def test_a_request_that_comes_with_the_last_message_of_the_handshake_is_served(files: Files) -> None:
    loop = asyncio.get_running_loop()
    async with serving(files) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as line:
            line.setblocking(False)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = files.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    await loop.sock_sendall(line, outgoing.read())
                    incoming.write(await loop.sock_recv(line, 65_536))
            client.write(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            await loop.sock_sendall(line, outgoing.read())  # the last message, and the request
            answer = b""
            while not answer.endswith(b'{"status":"ok"}'):
                incoming.write(await loop.sock_recv(line, 65_536))
                try:
                    answer += client.read(65_536)
                except ssl.SSLWantReadError:
                    continue
        assert answer.startswith(b"HTTP/1.1 200 ")


@pytest.mark.asyncio
async def test_a_client_that_leaves_as_its_handshake_ends_is_not_counted_for_ever(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []

    def leave(self: Connections, address: str) -> None:
        original(self, address)
        left.append(1)

    original = Connections.leave
    monkeypatch.setattr(Connections, "leave", leave)
    async with serving(files) as server:
        for _ in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=files.client())
            writer.transport.abort()
        await until(lambda: len(left) == 5)
        await seen(server, 0)
