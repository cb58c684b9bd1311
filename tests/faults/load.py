"""A load of calls from a process of its own, over raw sockets, so that it costs a tenth of what it asks for.

`python -m tests.faults.load PORT SECONDS CONNECTIONS [RATE]` sends the body from stdin, at that rate (an answer is
not waited for before the next call is due), or without one over every connection as soon as it is free. It writes
one line of JSON to stdout: the `Load`.
"""

import asyncio
import subprocess
import sys
from collections import Counter
from typing import Any

import msgspec

SLICE = 0.002  # seconds: how often it is looked whether calls are due
LATEST = 30.0  # seconds for the answers that are still under way in the end


class Load(msgspec.Struct):
    """What came of one load."""

    seconds: float = 0.0
    sent: int = 0
    unsent: int = 0  # calls that were due while no connection was free
    lost: int = 0  # connections that broke
    unanswered: int = 0
    untold: int = 0  # refusals without Retry-After
    statuses: dict[int, int] = {}
    served: list[float] = []  # seconds of each 200
    refused: list[float] = []

    @property
    def goodput(self) -> float:
        """Calls served in a second."""
        return len(self.served) / self.seconds


def quantile(values: list[float], share: float) -> float:
    """The value below which that share of them lies; 0 without any."""
    return sorted(values)[int(share * (len(values) - 1))] if values else 0.0


class Caller(asyncio.Protocol):
    """One connection, with one call at a time."""

    def __init__(self, generator: "Generator") -> None:
        self._generator = generator
        self._buffer = b""
        self._sent_at = 0.0
        self.is_waiting = False
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.lost(self)

    def send(self, request: bytes, now: float) -> None:
        self._sent_at = now
        self.is_waiting = True
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        fields = head.lower()
        length = int(fields.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self._buffer = b""
        self.is_waiting = False
        self._generator.answered(self, int(head[9:12]), self._sent_at, b"\r\nretry-after: " in fields)


class Generator:
    """Calls over all connections, for so many seconds."""

    def __init__(self, port: int, connections: int, rate: float | None, body: bytes) -> None:
        head = (
            f"POST / HTTP/1.1\r\nHost: localhost:{port}\r\nContent-Type: application/json\r\nA2A-Version: 1.0\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body
        self._port = port
        self._connections = connections
        self._rate = rate
        self._free: list[Caller] = []
        self._loop = asyncio.get_running_loop()
        self._is_over = False
        self._waiting = 0
        self._all_answered = asyncio.Event()
        self._statuses: Counter[int] = Counter()
        self.load = Load()

    async def run(self, seconds: float) -> Load:
        for _ in range(self._connections):
            _, caller = await self._loop.create_connection(lambda: Caller(self), "127.0.0.1", self._port)
            self._free.append(caller)
        begin = self._loop.time()
        if self._rate is None:
            while self._free:
                self._send(begin)
        else:
            self._due(begin, 0)
        over = asyncio.Event()
        self._loop.call_at(begin + seconds, over.set)
        await over.wait()
        self._is_over = True
        self.load.seconds = self._loop.time() - begin
        if self._waiting:
            try:
                await asyncio.wait_for(self._all_answered.wait(), LATEST)
            except TimeoutError:
                self.load.unanswered = self._waiting
        self.load.statuses = dict(self._statuses)
        return self.load

    def _due(self, begin: float, done: int) -> None:
        if self._is_over:
            return
        now = self._loop.time()
        assert self._rate is not None
        due = int((now - begin) * self._rate)
        for _ in range(due - done):
            if self._free:
                self._send(now)
            else:
                self.load.unsent += 1
        self._loop.call_later(SLICE, self._due, begin, due)

    def _send(self, now: float) -> None:
        self._waiting += 1
        self.load.sent += 1
        self._free.pop().send(self._request, now)

    def answered(self, caller: Caller, status: int, sent_at: float, has_retry: bool) -> None:
        now = self._loop.time()
        self._waiting -= 1
        self._statuses[status] += 1
        (self.load.served if status == 200 else self.load.refused).append(now - sent_at)
        if status != 200 and not has_retry:
            self.load.untold += 1
        if not self._is_over:
            self._free.insert(0, caller) if self._rate is not None else self._free.append(caller)
            if self._rate is None:
                self._send(now)
        elif self._waiting == 0:
            self._all_answered.set()

    def lost(self, caller: Caller) -> None:
        if self._is_over:
            return
        self.load.lost += 1
        if caller in self._free:
            self._free.remove(caller)
        if caller.is_waiting:
            self._waiting -= 1


def start(
    port: int, body: bytes, seconds: float, connections: int, rate: float | None = None
) -> subprocess.Popen[bytes]:
    """A generator that has begun."""
    given = [str(port), str(seconds), str(connections), *([] if rate is None else [str(rate)])]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.load", *given], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    process.stdin.write(body)
    process.stdin.close()
    return process


def finish(process: subprocess.Popen[bytes]) -> Load:
    """What it has found, when it is done."""
    assert process.stdout is not None
    with process.stdout:
        found = msgspec.json.decode(process.stdout.read(), type=Load)
    assert process.wait() == 0
    return found


async def _main() -> None:
    port, seconds, connections, *rate = sys.argv[1:]
    generator = Generator(int(port), int(connections), float(rate[0]) if rate else None, sys.stdin.buffer.read())
    sys.stdout.buffer.write(msgspec.json.encode(await generator.run(float(seconds))))


if __name__ == "__main__":
    asyncio.run(_main())
