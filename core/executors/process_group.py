"""Child processes that leave nothing behind: each leads a process group of its own and has a mark.

The group dies with it, and so does what carries its mark, into whatever session it went.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psutil

from core.executors.family import end_all
from core.executors.marks import VARIABLE, Mark

Result = TypeVar("Result")

GRACE = 0.5  # seconds between SIGTERM and SIGKILL
REAP_LOOKS = 50
REAP_INTERVAL = 0.02  # seconds between looks at a group that was sent SIGKILL


async def uninterrupted(work: Coroutine[Any, Any, Result]) -> Result:
    """Finish the work even when the caller is cancelled meanwhile; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        with suppress(Exception):
            task.result()
        raise cancelled
    return task.result()


class Output:
    """What a program writes: the beginning is kept, the rest is dropped, so that the program never has to wait."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()
        self.truncated = False

    def add(self, data: bytes) -> None:
        room = self._limit - len(self._kept)
        self.truncated = self.truncated or len(data) > room
        self._kept += data[:room]

    def text(self) -> str:
        return self._kept.decode("utf-8", errors="replace")


class _Watch(asyncio.SubprocessProtocol):
    """Notes what happens to a process. asyncio's own `Process.wait()` waits for whoever holds its pipes too."""

    def __init__(self, max_output: int) -> None:
        self.outputs = {1: Output(max_output), 2: Output(max_output)}
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.hung_up: asyncio.Future[None] = loop.create_future()  # exited, and every pipe closed

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.outputs[fd].add(data)

    def process_exited(self) -> None:
        self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.hung_up.set_result(None)


class ProcessGroup:
    """A child process and all that it starts, found by the group or, where that was left (setsid), by the mark."""

    def __init__(self, transport: asyncio.SubprocessTransport, watch: _Watch, mark: Mark) -> None:
        self._transport = transport
        self._watch = watch
        self._mark = mark
        self._is_swept = False
        self.id = transport.get_pid()  # the leader's pid is the group's id

    @property
    def stdout(self) -> Output:
        return self._watch.outputs[1]

    @property
    def stderr(self) -> Output:
        return self._watch.outputs[2]

    async def wait(self) -> int:
        """Wait for the leader's end, and return its exit code: negative for a signal."""
        await asyncio.wait([self._watch.exited])
        code = self._transport.get_returncode()
        assert code is not None
        return code

    async def drain(self, seconds: float) -> None:
        """Wait until no process holds the output open any more, but no longer than this."""
        await asyncio.wait([self._watch.hung_up], timeout=seconds)

    def feed(self, data: bytes) -> None:
        """Give the leader its input, all at once; it may end without having read it."""
        pipe = self._input()
        assert pipe is not None
        pipe.write(data)
        pipe.write_eof()

    async def kill(self, *, grace: float = 0.0) -> None:
        """End every process of the group and of the mark, and return when they are gone.

        The group gets SIGTERM, and after `grace` seconds SIGKILL.
        """
        if grace and not self._watch.exited.done() and self._signal(signal.SIGTERM):
            await asyncio.wait([self._watch.exited], timeout=grace)
        self._signal(signal.SIGKILL)
        await self.wait()
        await self._see_group_end()
        if not self._is_swept:
            self._is_swept = True
            await end_all(self._mark)

    async def _see_group_end(self) -> None:
        # The leader is gone; what it left in the group dies in its own time, and init collects it. Where nobody
        # collects (a container without an init) zombies stay, so that the group's existence says nothing in the end.
        for look in range(REAP_LOOKS):
            if not self._signal(0) or (look > REAP_LOOKS // 4 and not living_members(self.id)):
                return
            await asyncio.sleep(REAP_INTERVAL)

    async def close(self, *, grace: float = 0.0) -> None:
        """Kill what is left of the group, and let go of its pipes: a process that left the group may hold them open."""
        await self.kill(grace=grace)
        if (pipe := self._input()) is not None and pipe.get_write_buffer_size():
            pipe.abort()  # closing it would wait until the rest is read
        self._transport.close()
        await asyncio.wait([self._watch.hung_up])

    def _input(self) -> asyncio.WriteTransport | None:
        pipe = self._transport.get_pipe_transport(0)
        assert pipe is None or isinstance(pipe, asyncio.WriteTransport)
        return pipe

    def _signal(self, number: int) -> bool:
        """Send a signal to the group; whether there was anybody to receive it."""
        try:
            os.killpg(self.id, number)
        except (ProcessLookupError, PermissionError):
            return False
        return True


def living_members(group: int) -> list[int]:
    """The processes of a group that still run; a zombie does not."""
    members = []
    for pid in psutil.pids():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                members.append(pid)
    return members


async def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    mark: Mark,
    has_input: bool = False,
    max_output: int | None = None,
    pass_fds: Sequence[int] = (),
    cwd: str | None = None,
) -> ProcessGroup:
    """Start a program with this mark as the leader of a new session. Raises OSError when it cannot be started.

    With `max_output` (bytes) its outputs are kept, else they go where the server's own go. A cancellation that arrives
    meanwhile waits for the start and kills what was started: no other code would know of it.
    """
    output = None if max_output is None else subprocess.PIPE
    loop = asyncio.get_running_loop()
    starting = asyncio.ensure_future(
        loop.subprocess_exec(
            lambda: _Watch(max_output or 0),
            *argv,
            env={**env, VARIABLE: mark.text()},
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=pass_fds,
            cwd=cwd,
            start_new_session=True,
        )
    )
    try:
        return ProcessGroup(*await asyncio.shield(starting), mark)
    except asyncio.CancelledError:
        await uninterrupted(_discard(starting, mark))
        raise


async def _discard(starting: "asyncio.Future[tuple[asyncio.SubprocessTransport, _Watch]]", mark: Mark) -> None:
    with suppress(OSError):
        await ProcessGroup(*await starting, mark).close()
