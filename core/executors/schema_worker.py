"""The child's end of `judges.py`: judges by schemas, one job after the other, within bounds of its own.

It talks with its parent over one socket, in frames: four bytes of length, then JSON.
It ends when its parent hangs up, and by its bounds when it works on without one.
"""

import os
import resource
import socket
import sys
from contextlib import suppress
from typing import Any

import msgspec

from core.executors.process_worker import HEADER
from core.executors.schema import judge_schema, violation

NICENESS = 5  # steps behind the server, which serves everybody: judgements may wait for the processor


def bound_memory(size: int) -> None:
    """Let this process take at most so many bytes of memory, where the system knows such a bound."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def bound_time(seconds: float) -> None:
    """Let this process work so many seconds more: should its parent be gone, nothing else would end it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + seconds) + 2
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def judged(data: bytes) -> dict[str, Any]:
    """What is wrong with each schema, or with the value by the schema; None: nothing."""
    try:
        job = msgspec.json.decode(data)
        if "schemas" in job:
            return {"found": [judge_schema(schema) for schema in job["schemas"]]}
        return {"found": violation(job["schema"], job["value"], job["root"])}
    except MemoryError:
        return {"failed": "memory"}


def received(connection: socket.socket) -> bytes:
    """The next frame. Raises EOFError when the parent is gone."""
    return _exactly(connection, int.from_bytes(_exactly(connection, HEADER)))


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        if not (count := connection.recv_into(view)):
            raise EOFError
        view = view[count:]
    return bytes(data)


def send(connection: socket.socket, answer: dict[str, Any]) -> None:
    """Send a frame."""
    data = msgspec.json.encode(answer)
    connection.sendall(len(data).to_bytes(HEADER) + data)


def main() -> None:  # pragma: no cover - runs in a process of its own
    """Serve until the parent hangs up. Arguments: the socket's file descriptor, bytes of memory, seconds of a job."""
    descriptor, memory, seconds = sys.argv[-3:]
    connection = socket.socket(fileno=int(descriptor))
    connection.set_inheritable(False)
    bound_memory(int(memory))
    os.nice(NICENESS)
    with suppress(EOFError, ConnectionError):
        send(connection, {"ready": True})
        while True:
            data = received(connection)
            bound_time(float(seconds))
            send(connection, judged(data))
