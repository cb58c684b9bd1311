"""One thing for the writer to write, and about how much it costs."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, exc

from core.storage.backlog import Backlog
from core.storage.base import TRANSACTION_ROWS, Append

MAX_BATCH = 512  # items of one transaction
ROW_BYTES = 2_048  # of JSON, which cost about as much as one row more
JOB_WEIGHT = 64  # rows that a job is taken for

Job = Callable[[Connection], Any]  # another kind of write; raises a CoreError to be refused

# What a value that is no JSON, or no value of its column, makes of a write.
UNSTORABLE = (
    TypeError, ValueError, OverflowError, RecursionError,
    sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
    exc.DataError, exc.InterfaceError, exc.ProgrammingError,
)  # fmt: skip

_encode = msgspec.json.Encoder().encode


class Write(NamedTuple):
    """One thing to write. `failures_known`: how many failed appends the event loop knew of when it was made.

    Of a job: the owner in whose name it writes, and the names of what it concerns, whose order matters.
    """

    future: asyncio.Future[Any]
    work: Append | Job
    failures_known: int
    owner: str = ""
    names: tuple[str, ...] = ()

    @property
    def tree_id(self) -> str:
        """The tree of an append; empty for a job."""
        return self.work.head.id if isinstance(self.work, Append) else ""

    @property
    def line(self) -> tuple[str, tuple[str, ...]]:
        """Its owner, and the names of what it concerns."""
        if isinstance(self.work, Append):
            return self.work.head.owner, (self.work.head.id,)
        return self.owner, self.names


def weight(write: Write) -> int:
    """About how many rows it is to write, or takes as long as."""
    work = write.work
    if not isinstance(work, Append):
        return JOB_WEIGHT
    try:
        size = len(_encode((work.tasks, work.events)))
    except UNSTORABLE:
        size = 0  # it will be refused
    return len(work.tasks) + len(work.events) + 1 + size // ROW_BYTES


def next_batch(backlog: Backlog[Write]) -> list[Write]:
    """What waits there, up to one transaction."""
    return backlog.take(MAX_BATCH, TRANSACTION_ROWS)


def is_one_batch(writes: Sequence[Write]) -> bool:
    """Whether they are few and small enough for one transaction."""
    if len(writes) <= 1:
        return True
    left = TRANSACTION_ROWS
    for write in writes[:MAX_BATCH]:
        left -= weight(write)
        if left < 0:
            return False
    return len(writes) <= MAX_BATCH
