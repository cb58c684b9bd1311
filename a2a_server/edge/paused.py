"""Connections paused after a rejection: clients that retry at once must not take time from work."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from math import ceil
from time import monotonic
from typing import Final, Protocol

from core.loop.alarms import Alarms

TURN: Final = 0.01  # seconds, at least, between two times at which connections are read again


class Paused(Protocol):
    """A connection that can be paused."""

    transport: asyncio.Transport

    def resume(self) -> None: ...


_End = tuple[float, int, Paused]  # when, in which order, and whose pause ends


class PausedConnections:
    """They are resumed many at a time: a turn of the loop for each one would cost more than the rejection."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._order = count()
        self._ends: Alarms[_End] = Alarms(now, _is_open, _resume)

    def __len__(self) -> int:
        return len(self._ends)

    def rest(self, connection: Paused, seconds: float) -> None:
        """Resume the connection after so many seconds, with all others of the same TURN."""
        at = ceil((self._now() + seconds) / TURN) * TURN
        self._ends.set((at, next(self._order), connection))


def _is_open(end: _End) -> bool:
    return not end[2].transport.is_closing()


def _resume(ended: Sequence[_End]) -> None:
    for _, _, connection in ended:
        connection.resume()
