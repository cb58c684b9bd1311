"""Whether the server has taken on more than it can do, and what it takes in spite of that.

Two things must come together. *Busy*: calls that are not answered, and runs that have not ended, though only within
their first second, since what takes longer waits for an executor or a caller and costs nothing. And *late*: a read of
the database takes long, which waits in every line that a call waits in: the event loop, the threads, the readers.
Either alone says nothing: a thousand calls that wait are no load, and a machine that others use is late with one.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from math import inf
from statistics import median
from time import monotonic
from typing import Any, Final

import msgspec
from msgspec import Struct

from core import events as e
from core.errors import StorageError
from core.events import Recorded
from core.task import TreeHead

REFUSED: Final = "a2a_server.refused"  # in the scope of a request that is to be refused
RETRY_AFTER: Final = 1  # seconds; busy is what began within the last one
YOUNG: Final = 1.0  # seconds
YOUNG_WHILE_LATE: Final = 10.0  # then it may well be us for whom something waits
PAUSE: Final = 0.02  # seconds between two reads
SEEN: Final = 3  # reads: the one in the middle counts
KEPT: Final = 1.0  # seconds that late is late
COST: Final = 0.0001  # seconds that a refusal takes, with its system calls, where the machine is busy
SHARE_OF_WORK: Final = 0.2
SHARE_OF_TIME: Final = 0.02
MOST_SAVED: Final = 0.001  # seconds of refusals that may be made at once: long turns of the loop hold up all threads


class Kind(IntEnum):
    """What a call asks for; the largest of a batch's is the batch's."""

    SPARED = 0  # frees something, or tells whether the server lives: never refused
    OTHER = 1  # refused at the hard threshold
    WORK = 2  # may store and start new work: refused at the soft one


METHODS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(("CancelTask", "tasks/cancel", "tasks.cancel", "system.health"), Kind.SPARED),
    **dict.fromkeys(("SendMessage", "SendStreamingMessage", "message/send", "message/stream"), Kind.WORK),
    **dict.fromkeys(("tasks.create", "tasks.execute", "tasks.copy"), Kind.WORK),
}


class _Envelope(Struct):
    method: str = ""
    id: str | int | None = None


_read = msgspec.json.Decoder(_Envelope | list[_Envelope]).decode


def kind_of_body(body: bytes | bytearray) -> tuple[Kind, str | int | None]:
    """What a JSON-RPC body asks for, and the id of its request; what cannot be told counts as work."""
    try:
        envelope = _read(body)
    except (ValueError, RecursionError):
        return Kind.WORK, None
    if isinstance(envelope, list):
        return max((METHODS.get(each.method, Kind.OTHER) for each in envelope), default=Kind.OTHER), None
    return METHODS.get(envelope.method, Kind.OTHER), envelope.id


def kind_of_path(method: str, path: str) -> Kind | None:
    """What a request asks for by its path; None where only the body tells."""
    if path.endswith(("/healthz", "/readyz")):
        return Kind.SPARED
    if method != "POST":
        return Kind.OTHER
    if path.endswith(("/message:send", "/message:stream")):
        return Kind.WORK
    if path.endswith(":cancel"):
        return Kind.SPARED
    return Kind.OTHER if path.endswith((":subscribe", "/pushNotificationConfigs")) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Past `soft` busy ones no new work is taken when reads take `wait` seconds, past `hard` hardly anything.

    So many at once that `hard` is passed are refused before it is felt.
    """

    soft: int
    hard: int
    wait: float


class Allowance:
    """How many refusals may be made, so that they take a fifth of what the event loop works, and work the rest.

    Where it has little to work, it is a fiftieth of all time. Time comes from outside, as worked and as passed.
    """

    def __init__(self) -> None:
        self._left = MOST_SAVED
        self._worked = 0.0
        self._passed = 0.0

    def spend(self, worked: float, passed: float) -> bool:
        """One is made; whether the next one may be made at once."""
        self._save(worked, passed)
        self._left -= COST
        return self._left >= 0

    def room(self, worked: float, passed: float) -> int:
        """How many may be made."""
        self._save(worked, passed)
        return max(0, int(self._left / COST))

    def _save(self, worked: float, passed: float) -> None:
        saved = max(SHARE_OF_WORK * (worked - self._worked), SHARE_OF_TIME * (passed - self._passed))
        self._left = min(MOST_SAVED, self._left + saved)
        self._worked, self._passed = worked, passed


class _Young:
    """Things that have begun of late and not ended."""

    def __init__(self) -> None:
        self._begun: OrderedDict[Hashable, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def begin(self, key: Hashable, now: float) -> None:
        self._begun.pop(key, None)
        self._begun[key] = now

    def end(self, key: Hashable) -> None:
        self._begun.pop(key, None)

    def age(self, until: float) -> None:
        """Leave out those that have begun by then."""
        while self._begun and next(iter(self._begun.values())) <= until:
            self._begun.popitem(last=False)


class Load:
    """What one server has to do at the moment.

    `probe` is a read of the database; it is made again and again while enough is busy that the answer matters.
    """

    def __init__(
        self, thresholds: Thresholds, probe: Callable[[], Awaitable[Any]], now: Callable[[], float] = monotonic
    ) -> None:
        self._thresholds = thresholds
        self._probe = probe
        self._now = now
        self._calls = _Young()
        self._runs = _Young()
        self._waits: deque[float] = deque(maxlen=SEEN)
        self._late_until = -inf
        self._reading_since = inf
        self._watching: asyncio.Task[None] | None = None
        self._is_closed = False

    # What there is to do

    def begin(self, call: Hashable) -> None:
        """A call is taken."""
        self._calls.begin(call, self._now())
        self._watch()

    def end(self, call: Hashable) -> None:
        """It is answered, or its caller is gone."""
        self._calls.end(call)

    def committed(self, head: TreeHead, events: Sequence[Recorded]) -> None:
        """A watcher of the feed: runs outlive the calls that do not wait for them."""
        for recorded in events:
            if isinstance(recorded.event, e.RunStarted):
                self._runs.begin(head.id, self._now())
                self._watch()
            elif isinstance(recorded.event, e.TreeFinished):
                self._runs.end(head.id)

    @property
    def busy(self) -> int:
        """A call that waits for its run is counted once."""
        return max(len(self._calls), len(self._runs))

    # Whether that is too much

    @property
    def room(self) -> int:
        """How many more would not be too many."""
        return max(0, self._thresholds.soft - self.busy)

    @property
    def is_pressed(self) -> bool:
        """Whether anything is refused."""
        busy = self.busy
        return busy >= self._thresholds.hard or (busy >= self._thresholds.soft and self._is_late)

    def refuses(self, kind: Kind) -> bool:
        """Whether such a call is one too many."""
        if kind is Kind.SPARED or not self.is_pressed:
            return False
        return kind is Kind.WORK or (self._is_late and len(self._calls) >= self._thresholds.hard)

    @property
    def _is_late(self) -> bool:
        now = self._now()
        return now < self._late_until or now - self._reading_since >= self._thresholds.wait

    def waited(self, seconds: float) -> None:
        """A read has taken so long."""
        self._waits.append(seconds)
        if len(self._waits) == SEEN and median(self._waits) >= self._thresholds.wait:
            self._late_until = self._now() + KEPT

    def _watch(self) -> None:
        if self._watching is None and not self._is_closed and 2 * self.busy >= self._thresholds.soft:
            self._watching = asyncio.create_task(self._read_on())

    async def _read_on(self) -> None:
        """Until less is busy."""
        try:
            while 2 * self.busy >= self._thresholds.soft:
                self._reading_since = begin = self._now()
                with suppress(StorageError):
                    await self._probe()
                now = self._now()
                self.waited(now - begin)
                oldest = now - (YOUNG_WHILE_LATE if self._is_late else YOUNG)
                self._reading_since = inf
                self._calls.age(oldest)
                self._runs.age(oldest)
                await asyncio.sleep(PAUSE)
        finally:
            self._waits.clear()
            self._reading_since = inf
            self._watching = None

    async def close(self) -> None:
        """Read no more."""
        self._is_closed = True
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
