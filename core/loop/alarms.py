"""What is due later, in the order of its times, with one timer of the event loop for all of it."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import chain
from typing import Any, Generic, TypeVar

MANY_ALARMS = 1_000  # from here on alarms that nobody needs any more are thrown away
SWEPT = 4  # alarms that are looked at for that with each new one
RUNG_TOGETHER = 200  # alarms; those that are due with them ring in the next turns of the event loop
LONGEST = 60.0  # seconds between two looks at the clock, so that one that is set does not keep anything waiting

TOLERANCE = 1e-3  # seconds: `now` and the event loop may not be the same clock

Alarm = TypeVar("Alarm", bound=tuple[float, Any, Any])  # (when, what puts those of one moment in order, more)


class Alarms(Generic[Alarm]):
    """Alarms at times of `now`. `is_needed` says whether one still is; `ring` gets those whose time has come."""

    def __init__(
        self,
        now: Callable[[], float],
        is_needed: Callable[[Alarm], bool],
        ring: Callable[[Sequence[Alarm]], None],
    ) -> None:
        self._now = now
        self._is_needed = is_needed
        self._ring = ring
        self._alarms: list[Alarm] = []
        self._unswept: list[Alarm] = []  # a second heap, while alarms are swept: what is left of the first one
        self._sweep_at = MANY_ALARMS
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._alarms) + len(self._unswept)

    def __iter__(self) -> Iterator[Alarm]:
        return chain(self._alarms, self._unswept)

    def set(self, alarm: Alarm) -> None:
        """Ring at that time, in seconds as `now` counts them, or soon if it has passed."""
        heappush(self._alarms, alarm)
        if self._unswept:
            self._sweep_on()
        elif len(self._alarms) > self._sweep_at:
            self._unswept, self._alarms = self._alarms, []
        heap = self._next_heap() if self._unswept else self._alarms
        if heap[0] is alarm:
            self._set_timer()

    def close(self) -> None:
        """Ring no more."""
        self._closed = True
        self._set_timer()

    def check(self) -> None:
        """Raise AssertionError when the next alarm would not ring at its time. For tests and simulations."""
        first = min(self, default=None)
        assert self._next_heap()[:1] == ([] if first is None else [first]), "the first alarm is not the next one"
        if first is None or self._closed:
            return
        timer = self._timer
        assert timer is not None and not timer.cancelled(), "alarms are set, and no timer of the event loop"
        left = timer.when() - asyncio.get_running_loop().time()
        assert left <= min(LONGEST, max(0.0, first[0] - self._now())) + TOLERANCE, "the timer comes after its alarm"

    def _sweep_on(self) -> None:
        """Look at some more of those that are not swept. The last item of a heap leaves a heap behind."""
        for alarm in self._unswept[: -SWEPT - 1 : -1]:
            self._unswept.pop()
            if self._is_needed(alarm):
                heappush(self._alarms, alarm)
        if not self._unswept:
            self._sweep_at = max(MANY_ALARMS, 2 * len(self._alarms))

    def _next_heap(self) -> list[Alarm]:
        """The heap that the next alarm is in."""
        alarms, unswept = self._alarms, self._unswept
        return unswept if unswept and not (alarms and alarms[0] <= unswept[0]) else alarms

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        heap = self._next_heap() if self._unswept else self._alarms
        if heap and not self._closed:
            delay = min(LONGEST, max(0.0, heap[0][0] - self._now()))
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _look(self) -> None:
        now = self._now()
        due: list[Alarm] = []
        while len(due) < RUNG_TOGETHER and (heap := self._next_heap()) and heap[0][0] <= now:
            due.append(heappop(heap))
        self._ring(due)
        self._set_timer()  # at once where more are due
