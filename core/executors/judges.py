"""Schema validation in child processes, where it could take long: an endless job is killed and holds up no other.

Owners take turns, so that one with many jobs keeps none of the others waiting for more than the job that runs.
"""

import asyncio
import json
import os
import socket
import sys
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import msgspec

from core.executors.family import Family
from core.executors.process_group import ProcessGroup, start, uninterrupted
from core.executors.process_worker import HEADER
from core.loop.large_values import encoded, is_small
from core.model.errors import NoRoom

PROCESSES: Final = 2
SECONDS: Final = 5.0  # that one job may take
MEMORY: Final = 768 * 1024 * 1024  # bytes that a process may take
START_LIMIT: Final = 30.0  # seconds until a process must be ready
MOST_WAITING: Final = 100  # jobs of one owner
PIECE: Final = 1024 * 1024  # bytes that are written at a time
MOST_ANSWERED: Final = 1024 * 1024  # bytes of an answer
STOPPING: Final = "the server is stopping"
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from core.executors.schema_worker import main; main()"
)


class Undecided(Exception):
    """It could not be found out within the bounds. The text says why, and is safe to show."""


@dataclass(slots=True, eq=False)
class _Job:
    owner: str
    content: Mapping[str, Any]  # encoded when its turn comes
    answer: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    serving: asyncio.Task[Any] | None = None


class _Turns:
    """Jobs that wait; their owners take turns."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[_Job]] = OrderedDict()  # whose turn is next is first

    def add(self, job: _Job) -> None:
        """Raises NoRoom when its owner has too many."""
        jobs = self._waiting.setdefault(job.owner, deque())
        if len(jobs) >= MOST_WAITING:
            raise NoRoom(f"{MOST_WAITING} of your values wait for schema validation, the maximum", of_caller=True)
        jobs.append(job)

    def next(self) -> _Job | None:
        """The next one that somebody still waits for."""
        while self._waiting:
            owner, jobs = self._waiting.popitem(last=False)
            job = jobs.popleft()
            if jobs:
                self._waiting[owner] = jobs
            if not job.answer.done():
                return job
        return None


class _Process:
    """One child process, which does one job at a time."""

    def __init__(self, group: ProcessGroup, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._group = group
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, family: Family, memory: int, seconds: float) -> "_Process":
        """Start one, and wait until it is ready. Raises OSError, TimeoutError or EOFError."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                arguments = [json.dumps(sys.path), str(theirs.fileno()), str(memory), str(seconds)]
                command = [sys.executable, "-P", "-c", _PROGRAM, *arguments]
                group = await start(
                    command, env=os.environ, mark=family.new_mark(), max_output=0, pass_fds=(theirs.fileno(),)
                )
            except BaseException:
                ours.close()
                raise
        process = cls(group, *await asyncio.open_connection(sock=ours))
        try:
            async with asyncio.timeout(START_LIMIT):
                await process.receive()
        except BaseException:
            await uninterrupted(process.kill())
            raise
        return process

    async def ask(self, content: Any) -> Any:
        """Have the job done. Raises EOFError or ConnectionError when the process ends over it."""
        data = encoded(content) if is_small(content) else await asyncio.to_thread(encoded, content)
        self._writer.write(len(data).to_bytes(HEADER))
        for begin in range(0, len(data), PIECE):
            self._writer.write(data[begin : begin + PIECE])
            await self._writer.drain()
        del data
        return await self.receive()

    async def receive(self) -> Any:
        """What the process says next."""
        size = int.from_bytes(await self._reader.readexactly(HEADER))
        if size > MOST_ANSWERED:
            raise ConnectionError("the validating process sent too much")
        return msgspec.json.decode(await self._reader.readexactly(size))

    async def kill(self) -> None:
        self._writer.transport.abort()
        await self._group.close()


class Judges:
    """The processes, which are started when they are first needed. Close it."""

    def __init__(
        self,
        family: Family | None = None,
        *,
        processes: int = PROCESSES,
        seconds: float = SECONDS,
        memory: int = MEMORY,
    ) -> None:
        self._family = family or Family()
        self._most = processes
        self._seconds = seconds
        self._memory = memory
        self._turns = _Turns()
        self._idle: list[_Process] = []
        self._working: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    async def violation(self, owner: str, schema: Mapping[str, Any], value: Any, root: str) -> str | None:
        """What is wrong with the value by the schema (`core.executors.schema.violation`), and None when nothing is.

        Raises Undecided when that takes too much time or memory, and NoRoom.
        """
        job = {"schema": dict(schema), "value": value, "root": root}
        found: str | None = await self._judged(owner, job)
        return found

    async def unusable(self, owner: str, schemas: Sequence[Mapping[str, Any]]) -> list[str | None]:
        """What is wrong with each of the schemas, None when it can be used. Raises Undecided and NoRoom."""
        found: list[str | None] = await self._judged(owner, {"schemas": schemas})
        return found

    async def close(self) -> None:
        """End the processes, and whatever is judged."""
        self._is_closed = True
        while (job := self._turns.next()) is not None:
            job.answer.set_exception(Undecided(STOPPING))
        for serving in self._working:
            serving.cancel()
        if self._working:
            await asyncio.wait(self._working)
        while self._idle:
            await self._idle.pop().kill()

    async def _judged(self, owner: str, content: Mapping[str, Any]) -> Any:
        if self._is_closed:
            raise Undecided(STOPPING)
        job = _Job(owner, content)
        self._turns.add(job)
        self._serve_next()
        try:
            return await job.answer
        finally:
            if job.answer.cancelled() and job.serving is not None:
                job.serving.cancel()  # no longer wanted

    def _serve_next(self) -> None:
        while len(self._working) < self._most and not self._is_closed and (job := self._turns.next()) is not None:
            job.serving = serving = asyncio.create_task(self._done(job))
            self._working.add(serving)
            serving.add_done_callback(partial(self._served, job))

    def _served(self, job: _Job, serving: asyncio.Task[Any]) -> None:
        self._working.discard(serving)
        if job.answer.done():
            if not serving.cancelled():
                serving.exception()  # seen, though no longer wanted
        elif serving.cancelled():
            job.answer.set_exception(Undecided(STOPPING))
        elif (error := serving.exception()) is not None:
            job.answer.set_exception(error)
        else:
            job.answer.set_result(serving.result())
        self._serve_next()

    async def _done(self, job: _Job) -> Any:
        try:
            process = (
                self._idle.pop() if self._idle else await _Process.start(self._family, self._memory, self._seconds)
            )
        except (OSError, TimeoutError, EOFError) as error:
            raise Undecided("no process could be started to validate it") from error
        is_whole = False
        try:
            async with asyncio.timeout(self._seconds):
                answer = await process.ask(job.content)
            is_whole = "found" in answer
        except TimeoutError:
            raise Undecided(f"validating it takes more than {self._seconds:g} s") from None
        except (EOFError, ConnectionError):
            raise Undecided("validating it takes too much memory or time") from None
        except (ValueError, TypeError, RecursionError):
            raise Undecided("it is not a JSON value") from None
        finally:
            if is_whole:
                self._idle.append(process)
            else:
                await uninterrupted(process.kill())
        if not is_whole:
            raise Undecided("validating it takes too much memory")
        return answer["found"]
