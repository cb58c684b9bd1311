"""The reading connections of a database: callers share them, no caller holds all, and waiting callers take turns."""

import asyncio
from collections import OrderedDict, defaultdict, deque
from typing import Generic, TypeVar

OWN = ""  # the key of what the process reads for itself: it may hold all

Connection = TypeVar("Connection")


class SharedConnections(Generic[Connection]):
    """Connections of one event loop, of which one caller holds `each` at most."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._idle: list[Connection] = []
        self._held: defaultdict[str, int] = defaultdict(int)
        self._waiting: OrderedDict[str, deque[asyncio.Future[Connection]]] = OrderedDict()

    def add(self, connection: Connection) -> None:
        """One more that may be taken."""
        self._idle.append(connection)
        self._fill()

    async def take(self, key: str) -> Connection:
        """A connection for this key, until it is given back. May be cancelled at any moment."""
        if self._idle and key not in self._waiting and (key == OWN or self._held[key] < self._each):
            self._held[key] += 1
            return self._idle.pop()
        place: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.give(key, place.result())
            raise

    def give(self, key: str, connection: Connection) -> None:
        """Give it back, to whose turn it is."""
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._idle.append(connection)
        if self._waiting:
            self._fill()

    def _fill(self) -> None:
        """Hand idle connections to those who wait, one key after the other."""
        for key in list(self._waiting):
            if not self._idle:
                return
            line = self._waiting[key]
            while line and line[0].done():  # no longer waited for
                line.popleft()
            if line and (key == OWN or self._held[key] < self._each):
                self._held[key] += 1
                line.popleft().set_result(self._idle.pop())
                self._waiting.move_to_end(key)
            if not line:
                del self._waiting[key]
