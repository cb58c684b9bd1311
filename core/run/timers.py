"""When something is due of a task that waits: it becomes runnable, or its deadline passes."""

import asyncio
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush

from core.outside.clock import Clock

MANY_TIMERS = 1_000  # from here on timers that are no longer needed are thrown away
RUNG_TOGETHER = 200  # timers; those that are due with them ring in the next turns of the event loop
LONGEST = 60.0  # seconds between two looks at the clock, so that one that is set does not keep a task waiting

Timer = tuple[float, str, str]  # (when, tree, task)


class Timers:
    """The timers of one process. `is_needed` says whether one still is; `ring` gets those whose time has come."""

    def __init__(
        self, clock: Clock, is_needed: Callable[[Timer], bool], ring: Callable[[Sequence[Timer]], None]
    ) -> None:
        self._clock = clock
        self._is_needed = is_needed
        self._ring = ring
        self._timers: list[Timer] = []
        self._sweep_at = MANY_TIMERS
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._timers)

    def set(self, timer: Timer) -> None:
        """Ring at that time, in seconds since 1970, or soon if it has passed."""
        heappush(self._timers, timer)
        if len(self._timers) > self._sweep_at:
            self._timers = [each for each in self._timers if self._is_needed(each)]
            heapify(self._timers)
            self._sweep_at = max(MANY_TIMERS, 2 * len(self._timers))
        if self._timers[:1] == [timer]:
            self._set_alarm()

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        self._set_alarm()

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._timers and not self._closed:
            delay = min(LONGEST, max(0.0, self._timers[0][0] - self._clock.now()))
            self._alarm = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        now = self._clock.now()
        due: list[Timer] = []
        while self._timers and self._timers[0][0] <= now and len(due) < RUNG_TOGETHER:
            due.append(heappop(self._timers))
        self._ring(due)
        self._set_alarm()  # at once where more are due
