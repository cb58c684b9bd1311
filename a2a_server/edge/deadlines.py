"""How long a connection may keep us waiting: for a head, for a body, and for taking what was written to it.

That is settled below ASGI, where a client that says nothing is seen at all; uvicorn's own connections wait for ever.
All of them are looked at once a second, so that it costs a request nothing and each deadline is met within a second.
Pure: the time and what the connection is about are arguments.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

RATE_AFTER: Final = 5.0  # seconds of a body before its rate counts: a connection may begin slowly


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """In seconds; `body_rate` in bytes a second."""

    head: float  # a handshake and the first head together, too
    body: float
    body_rate: int
    taking: float


class Exchange(NamedTuple):
    """What a connection is about when its deadlines are looked at."""

    unsent: int = 0  # bytes that wait until the client takes them
    body: int = 0  # bytes that have arrived of the body that arrives
    is_answering: bool = False  # a request is being answered, or waits for its turn
    has_responded: bool = False  # that answer has begun
    waits_for_us: bool = False  # the client may not send, or was not told to go on
    is_ending: bool = False  # nothing more is read


class Due(Enum):
    """Which deadline a client has missed."""

    TAKING = "it takes nothing of what was written to it"
    ARRIVING = "its request takes too long to arrive"


class Deadlines:
    """Those of one connection, which was accepted at `now`."""

    def __init__(self, timeouts: Timeouts, now: float) -> None:
        self._timeouts = timeouts
        self.head_since: float | None = now  # since when a head is waited for
        self.body_since: float | None = None  # since when a body arrives
        self._body_before = 0  # how many of its bytes had arrived then
        self._unsent = 0  # bytes that waited for the client when it was looked at last
        self._taken_at = now  # when it was seen to take some, or to have taken all

    def head_begins(self, now: float) -> None:
        """Whatever comes while nothing is asked begins a head; empty lines too, which the parser does not report."""
        if self.head_since is None and self.body_since is None:
            self.head_since = now

    def body_begins(self, now: float) -> None:
        """The head is whole."""
        self.head_since = None
        self.body_since, self._body_before = now, 0

    def body_ends(self) -> None:
        """The request is whole."""
        self.body_since = None

    def due(self, now: float, exchange: Exchange) -> Due | None:
        """What the client has missed."""
        if self._has_stalled(now, exchange.unsent):
            return Due.TAKING
        if self._is_head_late(now, exchange) or self._is_body_late(now, exchange):
            return Due.ARRIVING
        return None

    def _has_stalled(self, now: float, unsent: int) -> bool:
        """Whether it takes nothing of what waits. One that only falls further behind counts as such."""
        if unsent == 0 or unsent < self._unsent:
            self._taken_at = now
        self._unsent = unsent
        return now - self._taken_at >= self._timeouts.taking

    def _is_head_late(self, now: float, exchange: Exchange) -> bool:
        if self.head_since is None or exchange.is_answering:
            return False
        return now - self.head_since >= self._timeouts.head

    def _is_body_late(self, now: float, exchange: Exchange) -> bool:
        if self.body_since is None or exchange.is_ending:
            return False
        if exchange.waits_for_us:
            self.body_since, self._body_before = now, exchange.body
            return False
        if exchange.is_answering and exchange.has_responded:
            return False  # a refusal, which reads on for a while and then closes
        spent = now - self.body_since
        arrived = exchange.body - self._body_before
        is_slow = spent >= RATE_AFTER and arrived < self._timeouts.body_rate * spent
        return is_slow or spent >= self._timeouts.body
