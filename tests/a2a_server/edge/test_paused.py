"""Tests of a2a_server.edge.paused: pauses end in their time, and many of them together."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from a2a_server.edge.paused import TURN, PausedConnections
from core.loop.alarms import MANY_ALARMS

START = 50.0


class Line:
    """A connection, as far as a pause needs one."""

    def __init__(self, resumed: Callable[["Line"], None], *, is_closing: bool = False) -> None:
        self.transport = cast("asyncio.Transport", self)
        self._resumed = resumed
        self._is_closing = is_closing

    def is_closing(self) -> bool:
        return self._is_closing

    def resume(self) -> None:
        self._resumed(self)


class Room:
    """Paused connections whose clock stands where a test puts it."""

    def __init__(self) -> None:
        self.now = START
        self.paused = PausedConnections(lambda: self.now)
        self.resumed: list[Line] = []

    def rest(self, seconds: float) -> Line:
        line = Line(self.resumed.append)
        self.paused.rest(line, seconds)
        return line

    async def after(self, seconds: float) -> list[Line]:
        """Which are resumed by then, in the next turn of the event loop."""
        self.now += seconds
        self.paused._ends._set_timer()  # the event loop's own clock has not moved
        for _ in range(2):
            await asyncio.sleep(0)
        return self.resumed


@pytest.mark.asyncio
@pytest.mark.parametrize("seconds", [0.0, TURN, 0.5])
async def test_pause_ends_in_its_time_or_a_turn_later(seconds: float) -> None:
    room = Room()
    line = room.rest(seconds)
    assert await room.after(seconds - TURN / 10) == []
    assert await room.after(TURN + TURN / 10) == [line]
    assert await room.after(10.0) == [line] and len(room.paused) == 0


@pytest.mark.asyncio
async def test_those_of_one_turn_resume_together_in_their_order() -> None:
    """A turn of the loop for each one would cost more than the rejection."""
    room = Room()
    room.now += TURN / 10
    lines = [room.rest(TURN * part / 20) for part in range(15, 0, -1)]
    assert await room.after(0.8 * TURN) == []
    assert await room.after(0.2 * TURN) == lines


@pytest.mark.asyncio
async def test_connections_that_are_gone_are_dropped_from_a_long_list() -> None:
    room = Room()
    for _ in range(3 * MANY_ALARMS):
        room.paused.rest(Line(room.resumed.append, is_closing=True), 1.0)
    assert len(room.paused) <= MANY_ALARMS + 1
