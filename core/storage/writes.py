"""One thing for the writer to write, and about how much it costs."""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple, Protocol

import msgspec

from core.model.errors import StorageError
from core.model.events import Recorded
from core.model.task import Task
from core.storage import codec
from core.storage.backlog import Backlog, Weighed
from core.storage.base import TRANSACTION_ROWS, Append
from core.storage.codec import Row

MAX_BATCH = 512  # items of one transaction
PIECE = 256  # rows that are made at a time of a write with more than a transaction's: about 3 ms
ROW_BYTES = 2_048  # of JSON, which cost about as much as one row more
JOB_WEIGHT = 64  # rows that a job is taken for

Job = Callable[[Any], Any]  # another kind of write, given the database; raises a CoreError to be refused

# What a value that is no JSON, or no value of its column, makes of a write before it comes to the database.
UNSTORABLE = (TypeError, ValueError, OverflowError, RecursionError)

Outcome = tuple[asyncio.Future[Any], Any, BaseException | None]


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


def refused(items: Sequence[Write], error: StorageError) -> list[Outcome]:
    """Each gets an error of its own: a traceback is written into it wherever it is raised."""
    return [(item.future, None, type(error)(str(error))) for item in items]


class Answers(Protocol):
    """What a writer has to say to its queue, each called on the event loop."""

    def started(self, error: StorageError | None) -> None: ...

    def settle(self, outcomes: list[Outcome], failures: int, sizes: Mapping[str, int]) -> None:
        """`failures`: how many appends have failed so far; `sizes`: bytes that each owner's appends took."""

    def ended(self) -> None: ...


class Rows:
    """The rows of large writes that wait, made in pieces before their transaction.

    Between two pieces the small writes of others are written. A row is found by the identity of its event or task,
    which its write keeps alive.
    """

    def __init__(self) -> None:
        self._events: dict[int, Row] = {}
        self._tasks: dict[int, Row] = {}  # of new trees
        self._states: dict[int, Row] = {}
        self._weights: dict[int, int] = {}  # append -> its weight, once all its rows are made
        self.making: dict[int, Iterator[int]] = {}  # append -> what makes its rows; empty where there are none

    def event_row(self, recorded: Recorded) -> Row:
        """As in `codec`."""
        return self._events.get(id(recorded)) or codec.event_row(recorded)

    def task_row(self, task: Task) -> Row:
        """As in `codec`."""
        return self._tasks.get(id(task)) or codec.task_row(task)

    def task_state_row(self, task: Task) -> Row:
        """As in `codec`."""
        return self._states.get(id(task)) or codec.task_state_row(task)

    def weigh(self, write: Write) -> Weighed:
        """About how many rows it is to write, or takes as long as. Of a large write one piece more is made."""
        work = write.work
        if not isinstance(work, Append):
            return Weighed(JOB_WEIGHT)
        count = len(work.tasks) + len(work.events)
        if count <= TRANSACTION_ROWS:
            return Weighed(count + 1 + _size(work) // ROW_BYTES)
        making = self.making.get(id(work)) or self.making.setdefault(id(work), self._make(work))
        try:
            for weight in making:
                return Weighed(weight, is_whole=False)
        except UNSTORABLE:  # it will be refused
            self._weights[id(work)] = count + 1
        return Weighed(self._weights[id(work)])

    def _make(self, work: Append) -> Iterator[int]:
        """Makes its rows; yields the weight of each piece but the last."""
        rows, size, weighed = 0, 0, 0
        tasks, task_row = (self._tasks, codec.task_row) if work.is_new else (self._states, codec.task_state_row)
        things: chain[Recorded | Task] = chain(work.events, work.tasks)
        for thing in things:
            if rows and rows % PIECE == 0:
                yield rows + size // ROW_BYTES - weighed
                weighed = rows + size // ROW_BYTES
            if isinstance(thing, Recorded):
                row = self._events[id(thing)] = codec.event_row(thing)
            else:
                row = tasks[id(thing)] = task_row(thing)
            rows += 1
            for value in row:
                if type(value) is bytes:
                    size += len(value)
        self._weights[id(work)] = rows + 1 + size // ROW_BYTES

    def forget(self, writes: Iterable[Write]) -> None:
        """They are written, or refused."""
        for write in writes:
            work = write.work
            if isinstance(work, Append) and self.making.pop(id(work), None) is not None:
                self._weights.pop(id(work), None)
                for recorded in work.events:
                    self._events.pop(id(recorded), None)
                for task in work.tasks:
                    self._tasks.pop(id(task), None)
                    self._states.pop(id(task), None)


def _size(work: Append) -> int:
    """Bytes of JSON. One call of C costs less than making rows that a later write in the batch may replace."""
    try:
        return len(_encode((work.tasks, work.events)))
    except UNSTORABLE:
        return 0  # it will be refused


def next_batch(backlog: Backlog[Write]) -> list[Write]:
    """What waits there, up to one transaction."""
    return backlog.take(MAX_BATCH, TRANSACTION_ROWS)


def is_one_batch(writes: Sequence[Write], rows: Rows) -> bool:
    """Whether they are few and small enough for one transaction."""
    if len(writes) == 1:
        work = writes[0].work
        return not isinstance(work, Append) or len(work.tasks) + len(work.events) <= TRANSACTION_ROWS
    left = TRANSACTION_ROWS
    for write in writes[:MAX_BATCH]:
        weight, is_whole = rows.weigh(write)
        left -= weight
        if left < 0 or not is_whole:
            return False
    return len(writes) <= MAX_BATCH
