"""Sends what `fuzz` makes to a server, in a process of its own, beside a good client; judges every answer.

    python -m tests.faults.fuzz_client PORT PID SEED FIRST COUNT

prints one JSON object of figures and failures. A failure names the number of its request, which with the seed gives the
bytes again.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.faults.fuzz import Fuzzer, Shot, post

WORKERS = 12
RETRIES = 2  # of a request whose connection ended without a word
HANG = 5.0  # seconds without an answer
PATIENCE = 60.0  # seconds after which nothing is waited for any more
GLANCE = 0.05  # seconds for what is not waited for longer: a stream's first event, the answer to what is hardly HTTP
RENEWED = 2_000  # requests after which the known tasks are others
KNOWN = 24
MOST_TOLD = 20  # failures
LEAKS = re.compile(
    rb"Traceback|msgspec|sqlalchemy|sqlite|starlette|uvicorn|object at 0x|NoneType|File \\\\?\"|"
    rb"(?:Key|Type|Value|Attribute|Index|Unicode\w+|Recursion|Overflow|Runtime|Assertion)Error"
)
TREE = [
    {"id": "r", "name": "noop"},
    {"id": "a", "name": "noop", "parent_id": "r"},
    {"id": "b", "name": "noop", "parent_id": "r", "dependencies": ["a"]},
]


class Answer:
    """What came back: status, body (of a stream its beginning), and whether the connection can be used again."""

    def __init__(self, status: int, body: bytes, is_stream: bool, is_last: bool) -> None:
        self.status = status
        self.body = body
        self.is_stream = is_stream
        self.is_last = is_last


class Connection:
    """A connection that is made when it is needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, data: bytes) -> Answer:
        """Raises OSError or IncompleteReadError where the connection ends without an answer.

        One that was idle may be closed just as it is used again, and a new one before we had a processor to send: then
        another one is asked.
        """
        for _ in range(RETRIES):
            try:
                return await self._ask(data)
            except ConnectionError:
                pass
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise
        return await self._ask(data)

    async def _ask(self, data: bytes) -> Answer:
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=2**22)
        assert self._reader is not None
        try:
            self._writer.write(data)
            answer = await _answer(self._reader, is_head=data.startswith(b"HEAD "))
        except BaseException:
            self.close()
            raise
        if answer.is_last:
            self.close()
        return answer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    async def rpc(self, method: str, params: Any) -> Any:
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        answer = await self.ask(post(json.dumps(call).encode(), headers={"A2A-Version": "1.0"}))
        return json.loads(answer.body)["result"]


async def _answer(reader: asyncio.StreamReader, *, is_head: bool) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head[9:12])
    if 100 <= status < 200:
        return await _answer(reader, is_head=is_head)
    is_last = b"connection: close" in head
    if is_head or status in (204, 304):
        return Answer(status, b"", False, is_last)
    if b"text/event-stream" in head:
        return Answer(status, await _beginning(reader), True, True)
    if b"transfer-encoding: chunked" in head:
        body = b""
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
        return Answer(status, body, False, is_last)
    length = re.search(rb"content-length: (\d+)", head)
    body = await reader.readexactly(int(length[1])) if length else await reader.read()
    return Answer(status, body, False, is_last or not length)


async def _beginning(reader: asyncio.StreamReader) -> bytes:
    """What a stream says at once; one of a task at rest says nothing."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GLANCE):
            return await reader.read(65536)
    return b""


class Starvation:
    """How long the server's main thread, and we, were ready and had no processor: that time is not the server's."""

    def __init__(self, *pids: int) -> None:
        self._files = [Path(f"/proc/{pid}/schedstat") for pid in pids]

    def __call__(self) -> float:
        """Seconds, since the processes began; 0 where the system does not tell."""
        try:
            return sum(int(file.read_text().split()[1]) for file in self._files) / 1e9
        except OSError:
            return 0.0


class Campaign:
    """One run of so many requests from `first` on."""

    def __init__(self, port: int, pid: int, seed: int, first: int, count: int) -> None:
        self._port = port
        self._seed = seed
        self._numbers: Iterator[int] = iter(range(first, first + count))
        self._starved = Starvation(pid, os.getpid())
        self._giants = asyncio.Lock()
        self._is_over = False
        self._fuzzer: Fuzzer | None = None
        self.kinds: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.codes: Counter[int] = Counter()
        self.failures: list[str] = []
        self.failed = 0
        self.slowest = 0.0
        self.slowest_number = -1
        self.probes = 0
        self.probes_failed = 0
        self.probe_seconds: list[float] = []

    async def run(self) -> dict[str, Any]:
        good = Connection(self._port)
        document = await good.rpc("rpc.discover", {})
        self._fuzzer = Fuzzer(self._seed, document, [await self._known(good, n) for n in range(KNOWN)])
        begin = time.monotonic()
        probe = asyncio.create_task(self._probe())
        await asyncio.gather(*(self._work(good if n == 0 else Connection(self._port)) for n in range(WORKERS)))
        seconds = time.monotonic() - begin
        self._is_over = True
        await probe
        ordered = sorted(self.probe_seconds)
        return {
            "kinds": self.kinds, "statuses": self.statuses, "codes": self.codes, "failed": self.failed,
            "failures": self.failures, "slowest": self.slowest, "slowest_number": self.slowest_number,
            "probes": self.probes, "probes_failed": self.probes_failed, "seconds": seconds,
            "probe_p99": ordered[int(0.99 * len(ordered))] if ordered else 0.0,
        }  # fmt: skip

    @staticmethod
    async def _known(connection: Connection, number: int) -> str:
        """A task that the requests may name: at rest, ended, or with a question."""
        if number % 3:
            said = {"messageId": f"k{number}", "role": "ROLE_USER", "parts": [{"data": {}}]}
            skill = ("noop", "greet")[number % 2]
            result = await connection.rpc("SendMessage", {"message": said, "metadata": {"skillId": skill}})
            return str(result["task"]["id"])
        return str((await connection.rpc("tasks.create", TREE))["root_task_id"])

    async def _work(self, connection: Connection) -> None:
        assert self._fuzzer is not None
        for number in self._numbers:
            shot = self._fuzzer.shot(number)
            self.kinds[shot.kind] += 1
            if number % (RENEWED // KNOWN) == 0:
                place = number // (RENEWED // KNOWN) % KNOWN
                # What waits for an answer is kept in memory: it is not left behind.
                with suppress(KeyError):  # an error: somebody has deleted it
                    await connection.rpc("tasks.cancel", {"task_ids": [self._fuzzer.ids[place]]})
                self._fuzzer.ids[place] = await self._known(connection, number)
            if shot.kind == "giant":
                async with self._giants:
                    await self._shoot(number, shot, connection)
            else:
                await self._shoot(number, shot, connection)
        connection.close()

    async def _shoot(self, number: int, shot: Shot, connection: Connection) -> None:
        begin, starved = time.monotonic(), self._starved()
        try:
            async with asyncio.timeout(PATIENCE):
                if shot.is_raw:
                    self._judge_raw(number, await self._raw(shot.data))
                else:
                    self._judge(number, shot, await connection.ask(shot.data))
        except TimeoutError:
            self._fail(number, shot, "no answer")
        except (OSError, asyncio.IncompleteReadError, ValueError) as error:
            self._fail(number, shot, f"no answer, the connection ended: {error!r}")
        seconds = time.monotonic() - begin - (self._starved() - starved)
        if seconds > self.slowest:
            self.slowest, self.slowest_number = seconds, number
        if seconds > HANG:
            self._fail(number, shot, f"took {seconds:.1f} s")

    async def _raw(self, data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(data)
            answer = b""
            try:
                async with asyncio.timeout(GLANCE):
                    while piece := await reader.read(65536):
                        answer += piece
            except TimeoutError:
                writer.write_eof()
                while piece := await reader.read(65536):
                    answer += piece
        except ConnectionError:  # closed on what we were still writing
            pass
        finally:
            writer.close()
        return answer

    def _judge_raw(self, number: int, answer: bytes) -> None:
        for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer):
            self._count(number, int(status), answer)
        if LEAKS.search(answer) or b"-32603" in answer:
            self._fail(number, None, f"says too much: {answer[:500]!r}")

    def _judge(self, number: int, shot: Shot, answer: Answer) -> None:
        self._count(number, answer.status, answer.body)
        body = answer.body
        if answer.is_stream or not body:
            errors = []
        else:
            try:
                value = json.loads(body)
            except ValueError:
                if answer.status == 200 or body[:1] in (b"{", b"["):
                    self._fail(number, shot, f"answered with what is no JSON: {answer.status} {body[:300]!r}")
                value = {}
            each = value if isinstance(value, list) else [value]
            errors = [item["error"] for item in each if isinstance(item, dict) and isinstance(item.get("error"), dict)]
        codes = {int(error["code"]) for error in errors}
        self.codes.update(codes)
        if -32603 in codes or b'"code":-32603' in body:
            self._fail(number, shot, f"an internal error: {body[:500]!r}")
        if shot.codes is not None and answer.status == 200 and not (codes and codes <= shot.codes):
            self._fail(number, shot, f"was answered with {codes or 'a result'}, not {set(shot.codes)}: {body[:300]!r}")
        for error in errors:
            if LEAKS.search(json.dumps(error).encode()):
                self._fail(number, shot, f"says too much: {error}")

    def _count(self, number: int, status: int, body: bytes) -> None:
        self.statuses[status] += 1
        if status >= 500 and status != 501:  # an unknown method or transfer coding (RFC 9110 §15.6.2)
            self._fail(number, None, f"status {status}: {body[:500]!r}")

    def _fail(self, number: int, shot: Shot | None, text: str) -> None:
        self.failed += 1
        if len(self.failures) < MOST_TOLD:
            sent = "" if shot is None else f" {shot.kind} {shot.data[:400]!r}"
            self.failures.append(f"#{number} {text}{sent}")

    async def _probe(self) -> None:
        """The good client: a task is made, runs, and is read back."""
        connection = Connection(self._port)
        while not self._is_over:
            self.probes += 1
            begin = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    said = {"messageId": "p", "role": "ROLE_USER", "parts": [{"text": "x"}]}
                    sent = await connection.rpc("SendMessage", {"message": said, "metadata": {"skillId": "noop"}})
                    read = await connection.rpc("GetTask", {"id": sent["task"]["id"]})
                    is_fine = read["status"]["state"] == "TASK_STATE_COMPLETED"
            except (OSError, asyncio.IncompleteReadError, TimeoutError, KeyError) as error:
                is_fine = False
                self._fail(-1, None, f"the good client: {error!r}")
            self.probe_seconds.append(time.monotonic() - begin)
            self.probes_failed += not is_fine
            await asyncio.sleep(0.05)
        connection.close()


def main() -> None:
    port, pid, seed, first, count = map(int, sys.argv[1:])
    print(json.dumps(asyncio.run(Campaign(port, pid, seed, first, count).run())))


if __name__ == "__main__":
    main()
