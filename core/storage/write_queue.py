"""The event loop's side of the writer: takes writes, bounds and gathers them, and settles their futures.

It knows nothing of the database: writes go to the writer through its inbox, and come back as answers.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any, Protocol

from core.model.errors import StorageError, StorageUnavailable
from core.storage.base import Append
from core.storage.writes import Answers, Job, Outcome, Write

MAX_WAITING = 10_000  # items not yet durable; jobs may fill half of it, so that appends, which never wait, find room
GATHERED = 0.005  # seconds that a write waits at most for others to share its commit
CLOSED = "The database is closed"


class Inbox(Protocol):
    """Where a writer finds what it is to write; None is the end."""

    def put(self, writes: list[Write] | None, /) -> None: ...


class Writer(Protocol):
    """Makes durable, in order, what comes through its inbox."""

    @property
    def inbox(self) -> Inbox: ...

    def start(self, answers: Answers) -> None:
        """Begin, on the event loop that is to be answered."""
        ...

    def abandon(self) -> None:
        """End without the event loop, and wait for that."""
        ...


class Gathering:
    """Writes that are not handed to the writer yet: those of one turn of the event loop, and of the next ones."""

    def __init__(self, inbox: Inbox, loop: asyncio.AbstractEventLoop) -> None:
        self.writes: list[Write] = []
        self._inbox = inbox
        self._loop = loop
        self._is_under_way = False

    def add(self, item: Write) -> None:
        """It is handed over soon."""
        self.writes.append(item)
        if not self._is_under_way:
            self._is_under_way = True
            self._loop.call_soon(self._gather, 1, self._loop.time() + GATHERED)

    def _gather(self, seen: int, latest: float) -> None:
        """Hand over what waits as soon as a turn of the event loop adds nothing to it, and at the latest then.

        So while many are at work they share a commit, and the turn in which it is answered.
        """
        waiting = len(self.writes)
        if waiting > seen and self._loop.time() < latest:
            self._loop.call_soon(self._gather, waiting, latest)
        else:
            self._is_under_way = False
            self.hand_over()

    def hand_over(self) -> None:
        """The writer wakes once for all of it."""
        if self.writes:
            self._inbox.put(self.writes)
            self.writes = []


class WriteQueue:
    """Takes writes on the event loop and hands them to the writer, in order."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._closing = True
        self.written: defaultdict[str, int] = defaultdict(int)  # owner -> bytes of its events and tasks, an upper bound
        self._waiting = 0
        self._in_line: deque[Write] = deque()  # jobs without room yet
        self._failures_known = 0
        self._inbox = writer.inbox

    async def start(self) -> None:
        """Connect. Raises StorageError when the file cannot be used."""
        self._loop = asyncio.get_running_loop()
        self._gathering = Gathering(self._inbox, self._loop)
        self._started: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._writer.start(self)
        try:
            await self._started
        except asyncio.CancelledError:
            self._inbox.put(None)  # nobody else would end the writer
            raise
        self._closing = False

    async def close(self) -> None:
        """Write what waits, checkpoint and disconnect."""
        if not self._closing:
            self._closing = True
            while self._in_line:
                self._enqueue(self._in_line.popleft())
            self._gathering.hand_over()
            self._inbox.put(None)
        await asyncio.shield(self._ended)

    def abandon(self) -> None:
        """End the writer without the event loop, and wait for that. What was not handed to it is dropped."""
        self._closing = True
        self._writer.abandon()

    def submit(self, work: Append | Job, owner: str = "", names: tuple[str, ...] = ()) -> asyncio.Future[Any]:
        """Queue a write; the future resolves, with a job's result, when it is durable.

        Without room an append is refused at once; a job waits, which slows its caller down. Where more waits than one
        transaction takes, owners take turns; the order of one owner's writes, of those to one tree, and of jobs that
        concern one of these names stays.
        """
        future = self._loop.create_future()
        item = Write(future, work, self._failures_known, owner, names)
        if self._closing:
            future.set_exception(StorageUnavailable(CLOSED))
        elif not isinstance(work, Append):
            self._in_line.append(item)
            self._let_in()
        elif self._waiting >= MAX_WAITING:
            future.set_exception(StorageUnavailable(f"The database is {MAX_WAITING} writes behind"))
        else:
            self._enqueue(item)
        return future

    def _let_in(self) -> None:
        while self._in_line and self._waiting < MAX_WAITING // 2:
            self._enqueue(self._in_line.popleft())

    def _enqueue(self, item: Write) -> None:
        if item.future.cancelled():  # while it stood in line
            return
        self._waiting += 1
        self._gathering.add(item)

    def flush(self) -> None:
        """Hand over what a turn of the event loop has made, unless it is of several, whom others may follow."""
        if len(self._gathering.writes) == 1:
            self._gathering.hand_over()

    def started(self, error: StorageError | None) -> None:
        """The writer's answer."""
        if not self._started.done():
            self._started.set_result(None) if error is None else self._started.set_exception(error)

    def settle(self, outcomes: list[Outcome], failures: int, sizes: Mapping[str, int]) -> None:
        """The writer's answer."""
        self._waiting -= len(outcomes)
        self._failures_known = failures
        for owner, size in sizes.items():
            self.written[owner] += size
        for future, result, error in outcomes:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)
        self._let_in()

    def ended(self) -> None:
        """The writer's answer."""
        if not self._ended.done():
            self._ended.set_result(None)
