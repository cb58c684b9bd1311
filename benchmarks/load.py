"""The load: a closed loop over keep-alive connections, in a process of its own on its own core.

`wrk` where it is installed, else a client in Python, which can be the bottleneck above some thousand answers a second.
Each answer is looked at: one that is not what the method promises ends the measurement.
"""

import asyncio
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

WARM_UP = 1  # seconds


class Ask(NamedTuple):
    """What is asked again and again, and what each answer must hold."""

    method: str
    value: str  # the message's text, or the task's id
    expect: str

    def body(self, n: int) -> bytes:
        """The request of this number."""
        params: dict[str, Any] = {"id": self.value}
        if self.method == "SendMessage":
            params = {"message": {"messageId": f"m{n}", "role": "ROLE_USER", "parts": [{"text": self.value}]}}
        return json.dumps({"jsonrpc": "2.0", "id": n, "method": self.method, "params": params}).encode()


class Load(NamedTuple):
    """What one round of load saw."""

    rate: float  # answers a second
    p50: float  # milliseconds
    p99: float


def http_request(body: bytes, more: str = "") -> bytes:
    head = (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nA2A-Version: 1.0\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One caller, which calls again as soon as it has its answer."""

    def __init__(self, ask: Ask, numbers: "itertools.count[int]", seen: list[tuple[float, float]]) -> None:
        self._asked, self._numbers, self._seen = ask, numbers, seen
        self._expect = ask.expect.encode()
        self._begin = 0.0
        self._buffer = b""
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._begin = time.perf_counter()
        self._transport.write(http_request(self._asked.body(next(self._numbers))))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return
        if len(rest) < _length(head):
            return
        if not head.startswith(b"HTTP/1.1 200") or self._expect not in rest:
            self._fail(self._buffer)
            return
        now = time.perf_counter()
        self._seen.append((now, now - self._begin))
        self._buffer = b""
        self._ask()

    def _fail(self, answer: bytes) -> None:
        if not self.lost.done():
            self.lost.set_exception(SystemExit(f"a wrong answer: {answer[:500]!r}"))
        self._transport.close()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_exception(SystemExit("the server closed a connection"))


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise SystemExit(f"an answer without a length: {head[:300]!r}")


async def closed_loop(port: int, ask: Ask, *, connections: int, warm_up: float, seconds: float) -> Load:
    """So many callers for so long; what happened during the warm-up is not counted."""
    numbers = itertools.count()
    seen: list[tuple[float, float]] = []
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Connection(ask, numbers, seen), "127.0.0.1", port)
        for _ in range(connections)
    ]
    begin = time.perf_counter() + warm_up
    done, _ = await asyncio.wait(
        [protocol.lost for _, protocol in made], timeout=warm_up + seconds, return_when=asyncio.FIRST_COMPLETED
    )
    end = time.perf_counter()
    for each in done:
        each.result()
    for transport, protocol in made:
        protocol.lost.cancel()
        transport.abort()
    times = sorted(latency for at, latency in seen if begin <= at)
    if not times:
        raise SystemExit("nothing was answered in time")
    return Load(len(times) / (end - begin), 1e3 * times[len(times) // 2], 1e3 * times[int(0.99 * len(times))])


def with_wrk(port: int, ask: Ask, *, connections: int, seconds: int) -> Load:
    """The same with wrk, which takes less of its core than any client in Python."""
    command = [
        "wrk", "--threads", "1", "--connections", str(connections), "--duration", str(seconds), "--timeout", "30",
        "--script", str(Path(__file__).with_name("wrk.lua")), f"http://127.0.0.1:{port}/", "--",
        ask.method, ask.value, ask.expect,
    ]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    seen = json.loads(ran.stdout.strip().splitlines()[-1])
    if seen["wrong"] or seen["lost"]:
        raise SystemExit(f"wrong or missing answers: {seen}")
    return Load(seen["answers"] / seen["seconds"], seen["p50"], seen["p99"])


def put(port: int, ask: Ask, *, connections: int, seconds: int) -> Load:
    """The load of one round, after a second to warm up, from the core that this process is pinned to."""
    if shutil.which("wrk"):
        with_wrk(port, ask, connections=connections, seconds=WARM_UP)
        return with_wrk(port, ask, connections=connections, seconds=seconds)
    return asyncio.run(closed_loop(port, ask, connections=connections, warm_up=WARM_UP, seconds=seconds))
