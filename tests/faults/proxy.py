"""A TCP proxy between a client and a server that cuts connections as chance wants it: anywhere, in every way."""

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

WAYS = {"closed": 6, "reset": 6, "half-open": 1}  # and how often; the last one costs the client its patience
LONGEST_DELAY = 0.002  # seconds, of a piece on its way
PIECE = 2048


class FaultProxy:
    """Each connection gets through so many bytes of the answer, and is then cut."""

    def __init__(self, target: int, chance: random.Random, *, least: int, most: int) -> None:
        self._target = target
        self._chance = chance
        self._least = least
        self._most = most
        self.cuts: Counter[str] = Counter()
        self.port = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FaultProxy"]:
        async with asyncio.TaskGroup() as connections:
            jobs: list[asyncio.Task[None]] = []

            def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                jobs.append(connections.create_task(self._serve(reader, writer)))

            server = await asyncio.start_server(accepted, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                server.close()
                for job in jobs:
                    job.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                up_writer.write(await reader.readuntil(b"\r\n\r\n"))
                if await self._pass_on(up_reader, writer):
                    await self._cut(reader, writer)
            except asyncio.IncompleteReadError:
                pass
            finally:
                up_writer.close()
                writer.close()

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> bool:
        """Whether there was more than this connection may pass on."""
        left = self._chance.randint(self._least, self._most)
        while left > 0:
            piece = await source.read(min(left, self._chance.randint(1, PIECE)))
            if not piece:
                return False
            left -= len(piece)
            if self._chance.random() < 0.1:
                await asyncio.sleep(self._chance.uniform(0, LONGEST_DELAY))
            sink.write(piece)
            await sink.drain()
        return True

    async def _cut(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (way,) = self._chance.choices(list(WAYS), list(WAYS.values()))
        self.cuts[way] += 1
        if way == "reset":
            handle: socket.socket = writer.get_extra_info("socket")
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif way == "half-open":
            await reader.read()  # nothing comes any more, until the client gives up
