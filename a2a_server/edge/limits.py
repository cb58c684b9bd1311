"""How much one caller may ask: so many requests a second, and so many calls and streams at the same time.

A request gets its permit from outside the routes (`Permits`), so whatever becomes of it, what it holds is given back
when it ends. Time comes from outside. What is kept of a caller is dropped as soon as it says nothing any more.

No library (limits, aiolimiter): one permit holds a batch's debt, concurrent calls, streams and bytes together, and the
token bucket is a dozen lines of it.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from a2a_server.edge.inflight import InFlight
from a2a_server.edge.overload import TAKEN
from a2a_server.protocol.errors import RateLimited

PERMIT: Final = "a2a_server.permit"  # in the scope
STREAM_RETRY: Final = 5.0  # seconds, told to those who hold too many streams: these last
SWEPT: Final = 2  # callers that are looked at, for each request, whether they can be forgotten


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerLimits:
    """What one caller may do; None: without a limit."""

    rate: float | None = None  # requests a second, in the long run
    burst: int | None = None  # requests at once; None: as many as come in two seconds
    calls: int | None = None  # at the same time, streams not counted
    streams: int | None = None

    @property
    def size(self) -> float:
        """How many requests an idle caller may send at once."""
        return 0.0 if self.rate is None else float(self.burst or max(1.0, 2 * self.rate))


NO_LIMITS: Final = CallerLimits()
OF_EVERYBODY: Final = CallerLimits(streams=5_000)  # of all who are not identified together; a stream may hold 128 KiB
OF_THE_IDENTIFIED: Final = CallerLimits(rate=100.0, calls=100, streams=100)  # unless the operator says otherwise


@dataclass(slots=True)
class _Caller:
    limits: CallerLimits
    tokens: float  # requests that may be made at once
    at: float  # when there were so many
    calls: int = 0
    streams: int = 0

    def refill(self, now: float) -> None:
        """Add what the time since then is worth."""
        if self.limits.rate is not None:
            self.tokens = min(self.limits.size, self.tokens + (now - self.at) * self.limits.rate)
            self.at = now

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost if it were forgotten."""
        return not (self.calls or self.streams) and self.tokens >= self.limits.size


class Callers:
    """The callers of one server that hold something, or have asked of late."""

    def __init__(self, now: Callable[[], float] = monotonic, *, inflight: InFlight | None = None) -> None:
        self._now = now
        self.inflight = inflight  # None: nothing is counted
        self._known: OrderedDict[str, _Caller] = OrderedDict()  # who asked last is last

    def __len__(self) -> int:
        return len(self._known)

    def permit(self, park: Callable[[], None] | None = None) -> "Permit":
        """That of one HTTP request, which has not said yet who makes it. `park` is called when it only waits."""
        return Permit(self, park)

    def take(self, owner: str, limits: CallerLimits, requests: int) -> _Caller:
        """Let the caller make so many requests more. Raises RateLimited.

        More than fit into a burst are taken from a full bucket, and paid for afterwards.
        """
        now = self._now()
        self._sweep(now)
        caller = self._known.get(owner) or _Caller(limits, limits.size, now)
        if limits.rate is not None:
            caller.refill(now)
            missing = min(float(requests), limits.size) - caller.tokens
            if missing > 0:
                raise RateLimited(retry_after=missing / limits.rate)
            caller.tokens -= requests
        self._known[owner] = caller
        self._known.move_to_end(owner)
        return caller

    def _sweep(self, now: float) -> None:
        """Forget callers who hold nothing and have their whole burst again, those first who asked longest ago."""
        for owner in list(islice(self._known, SWEPT)):
            self._known[owner].refill(now)
            if self._known[owner].is_idle:
                del self._known[owner]
            else:
                self._known.move_to_end(owner)


class Permit:
    """What one HTTP request may do and holds. Without callers behind it, everything and nothing."""

    def __init__(self, callers: Callers | None = None, park: Callable[[], None] | None = None) -> None:
        self._callers = callers
        self._park = park
        self._owner = ""
        self._held = 0  # bytes
        self._reserved = 0  # of these, for answers that are not made yet
        self._limits = NO_LIMITS
        self._caller: _Caller | None = None
        self._calls = 0
        self._streams = 0
        self.has_left = False  # the client has closed the connection, or its side of it: nobody may be waiting

    def admit(self, owner: str, limits: CallerLimits) -> None:
        """The request is this caller's, and one call. Raises RateLimited."""
        self._owner = owner
        if self._callers is None:
            return
        self._limits = limits
        if limits.rate is not None or limits.calls is not None:
            self._take(1)

    def extend(self, calls: int) -> None:
        """It makes so many calls more (a batch). Raises RateLimited."""
        if self._caller is not None and calls > 0:
            self._take(calls)

    def stream(self) -> None:
        """It is a stream from here on, and no call. Raises RateLimited."""
        limit = self._limits.streams
        if self._caller is None:
            if self._callers is None or limit is None:
                return
            self._caller = self._callers.take(self._owner, self._limits, 0)
        if limit is not None and self._caller.streams >= limit:
            raise RateLimited(f"At most {limit} concurrent streams are allowed", retry_after=STREAM_RETRY)
        if self._calls:
            self._caller.calls -= 1
            self._calls -= 1
        self._caller.streams += 1
        self._streams += 1

    def park(self) -> None:
        """From here on it waits for an executor, or for what its stream has to tell."""
        if self._park is not None:
            self._park()

    def hold(self, size: int) -> None:
        """It holds so many bytes in all. Raises RateLimited or Overloaded, and holds what it held before."""
        if self._callers is not None and (inflight := self._callers.inflight) is not None and size > self._held:
            inflight.take(self._owner, size - self._held)
            self._held = size

    def reserve(self, size: int) -> None:
        """It holds so many bytes more, for an answer that is about to be made. Raises what `hold` raises."""
        self.hold(self._held + size)
        self._reserved += size

    def answer(self, size: int) -> None:
        """An answer of so many bytes is made: where they were not reserved, it holds them now. Raises as `hold`."""
        self.hold(self._held + max(0, size - self._reserved))
        self._reserved = max(0, self._reserved - size)

    def answer_streams(self) -> None:
        """Its body is done with, and its stream begins: what is reserved for that is all that it holds."""
        reserved = self._reserved
        self.let_go()
        self.hold(reserved)

    def let_go(self) -> None:
        """It holds no bytes any more."""
        self._reserved = 0
        if self._held and self._callers is not None and self._callers.inflight is not None:
            self._callers.inflight.give(self._owner, self._held)
            self._held = 0

    def release(self) -> None:
        """The request is over."""
        if self._held:
            self.let_go()
        if self._caller is not None:
            self._caller.calls -= self._calls
            self._caller.streams -= self._streams
            self._calls = self._streams = 0

    def _take(self, calls: int) -> None:
        assert self._callers is not None
        self._caller = self._callers.take(self._owner, self._limits, calls)
        limit = self._limits.calls
        if limit is not None and self._caller.calls + calls > limit:
            raise RateLimited(f"At most {limit} concurrent calls are allowed")
        self._caller.calls += calls
        self._calls += calls


class Permits:
    """The app whose requests have a permit each, until they end."""

    def __init__(self, app: ASGIApp, callers: Callers) -> None:
        self._app = app
        self._callers = callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PERMIT] = permit = self._callers.permit(scope.get(TAKEN))
        try:
            await self._app(scope, receive, send)
        finally:
            permit.release()
