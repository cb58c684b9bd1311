"""Plain functions in processes of their own, which cancel and timeout really end. The child is `process_worker.py`."""

import asyncio
import inspect
import json
import os
import socket
import sys
from base64 import b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from core.executors import process_worker
from core.executors.base import Parts, Rejected, TaskContext
from core.executors.process_group import ProcessGroup, start, uninterrupted
from core.executors.raised import ForeignError
from core.executors.signature import InputsRefused, Signature
from core.loop.large_values import encoded, is_small
from core.model.content_json import message_object
from core.model.errors import CallerError, ConfigurationError

HEADER = process_worker.HEADER
QUICKLY_READ = 64 * 1024  # bytes: more are decoded beside the event loop
MAX_FRAME = 64 * 1024 * 1024  # bytes, at least
FRAME = 4  # times what an artifact may have: what the child sends escapes all that is not ASCII
CALLS = frozenset(
    {"progress", "message", "reply", "artifact", "ask", "read_file", "is_cancelled"}
)  # what a child may have its context do


class ProcessFailed(ForeignError):
    """What the function raised, as text; or that its process ended without a word."""

    def __init__(self, text: str, kind: str = "ProcessFailed") -> None:
        super().__init__(text, kind)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a child process finds a function or class."""

    module: str
    path: str
    qualified_name: str


def locate(found: Any) -> Location:
    """Where it is defined. Raises ConfigurationError when a fresh process could not get at it."""
    qualified_name = found.__qualname__
    path = inspect.getsourcefile(found)
    if "<" in qualified_name or path is None or not Path(path).is_file():
        raise ConfigurationError(
            f"{qualified_name}: isolation='process' needs a function or class at the top level of a file"
        )
    return Location(found.__module__, os.path.abspath(path), qualified_name)


def refuse_while_loading() -> None:
    """Raises ConfigurationError in a worker that loads its function's file: the file starts work as it is loaded."""
    if process_worker.is_loading():
        raise ConfigurationError(
            "this program starts its work whenever its file is loaded, as isolation='process' has to do for each "
            'attempt; guard its start with if __name__ == "__main__":'
        )


class ProcessExecutor:
    """Runs one function in one process for one attempt. The process is gone when `execute` ends, however it ends."""

    def __init__(self, location: Location, signature: Signature) -> None:
        self._location = location
        self._signature = signature

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        """Run the function. Raises ProcessFailed with the text of what it raised."""
        refuse_while_loading()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            group = await start(
                [sys.executable, "-P", process_worker.__file__, str(theirs.fileno())],
                env=os.environ,
                mark=context.family.new_mark(),
                pass_fds=(theirs.fileno(),),
            )
            try:
                theirs.close()
                streams = await asyncio.open_connection(sock=ours)
                beside = partial(context.beside.run, context.stored_task.owner)
                channel = Channel(*streams, max(MAX_FRAME, FRAME * context.max_artifact), beside)
                return await self._talk(channel, group, inputs, context)
            finally:
                await uninterrupted(group.close())

    async def _talk(self, channel: "Channel", group: ProcessGroup, inputs: dict[str, Any], context: TaskContext) -> Any:
        try:
            await channel.send(self._job(inputs, context))
            while "call" in (said := await channel.receive()):
                await channel.send(await answer(said, context))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ProcessFailed(f"the process ended without a result ({await ending(group)})") from error
        finally:
            channel.close()
        if "rejected" in said:
            raise Rejected(said["rejected"])
        if "unfit" in said:
            raise InputsRefused(said["unfit"])
        if "refused" in said:
            raise CallerError(said["refused"])
        if "raised" in said:
            raise ProcessFailed(said["raised"], said["kind"])
        return unwrapped(said["result"])

    def _job(self, inputs: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        return {
            "module": self._location.module,
            "path": self._location.path,
            "qualified_name": self._location.qualified_name,
            # None: it is called with more than its inputs and context as they are, which the core knows how to do
            "arity": None if self._signature.whole is not None else self._signature.arity,
            "sys_path": sys.path,
            "inputs": inputs,
            "context": {
                "task": to_builtins(context.stored_task),
                "answer_messages": [
                    None if said is None else message_object(said) for said in context.stored_task.answer_messages
                ],
                "task_id": context.task_id,
                "run": context.run,
                "attempt": context.attempt,
                "idempotency_key": context.idempotency_key,
                "dependencies": dict(context.stored_results),
                "absent": context.absent,
                "request": dict(context.stored_request),
                "extensions": context.extensions,
                "context_id": context.context_id,
            },
        }


class Channel:
    """The socket to the child, which may send so many bytes at once. `beside` runs what takes long."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        max_frame: int,
        beside: Callable[..., Awaitable[Any]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._max_frame = max_frame
        self._beside = beside

    async def send(self, value: Any) -> None:
        data = encoded(value) if is_small(value) else await self._beside(encoded, value)
        self._writer.write(len(data).to_bytes(HEADER) + data)
        await self._writer.drain()

    async def receive(self) -> Any:
        size = int.from_bytes(await self._reader.readexactly(HEADER))
        if size > self._max_frame:
            raise ProcessFailed(f"the process sent {size} bytes at once; {self._max_frame} are allowed")
        data = await self._reader.readexactly(size)
        return json.loads(data) if size <= QUICKLY_READ else await self._beside(json.loads, data)

    def close(self) -> None:
        self._writer.transport.abort()  # nothing is owed to a child that is killed next


async def answer(said: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    """Do what the child asks of its context. A question without an answer (Suspend) and a lost attempt end the talk."""
    if said["call"] not in CALLS:
        return {"error": "no such method"}
    positional = [unwrapped(value) if isinstance(value, dict) else value for value in said["positional"]]
    try:
        value = await getattr(context, said["call"])(*positional, **said["named"])
        return {"value": b64encode(value).decode() if isinstance(value, bytes) else value}
    except (TypeError, ValueError, CallerError) as error:
        return {"error": str(error)}


def unwrapped(content: dict[str, Any]) -> Any:
    """A value from the wire as it was."""
    return Parts(content["parts"]) if "parts" in content else content["value"]


async def ending(group: ProcessGroup) -> str:
    """How a process that hung up came to its end."""
    await group.kill()
    code = await group.wait()
    return f"signal {-code}" if code < 0 else f"exit code {code}"
