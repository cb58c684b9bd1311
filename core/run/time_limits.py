"""How long an attempt may take: its task's `timeout`, and what the process allows at the most."""

import asyncio
import math
from collections.abc import Callable, Mapping

from core.run.attempt import Attempt


class TimeLimits:
    """The clocks of the attempts. `overdue` is called with one whose time is up.

    `attempts` are in the order of their beginning, so those without a shorter `timeout` share one timer.
    """

    def __init__(
        self,
        attempts: Mapping[tuple[str, str], Attempt],
        longest: float | None,
        overdue: Callable[[Attempt], None],
    ) -> None:
        self._attempts = attempts
        self._longest = longest
        self._overdue = overdue
        self._alarm: asyncio.TimerHandle | None = None

    def begin(self, attempt: Attempt) -> None:
        """Let the attempt's time run, from now on."""
        loop = asyncio.get_running_loop()
        limit = attempt.task.timeout
        if limit is not None and (self._longest is None or limit <= self._longest):
            attempt.limit, attempt.due_at = limit, loop.time() + limit
            attempt.timer = loop.call_at(attempt.due_at, self._overdue, attempt)
        elif self._longest is not None:
            attempt.limit, attempt.due_at = self._longest, loop.time() + self._longest
            if self._alarm is None:
                self._alarm = loop.call_at(attempt.due_at, self._ring)

    def _ring(self) -> None:
        """Tell of the oldest attempts, and wait for the next one."""
        loop = asyncio.get_running_loop()
        self._alarm = None
        for attempt in self._attempts.values():
            if attempt.timer is not None or attempt.is_overdue or attempt.is_over:
                continue
            if attempt.due_at > loop.time():
                self._alarm = loop.call_at(attempt.due_at, self._ring)
                return
            self._overdue(attempt)

    def check(self) -> None:
        """Raise AssertionError when an attempt's time would pass unnoticed. For tests and simulations."""
        for (_, task_id), attempt in self._attempts.items():
            if attempt.due_at == math.inf or attempt.is_overdue or attempt.is_over:
                continue
            timer = self._alarm if attempt.timer is None else attempt.timer
            is_set = timer is not None and not timer.cancelled() and timer.when() <= attempt.due_at
            assert is_set, f"the attempt of task {task_id} has a time limit that nothing watches"

    def close(self) -> None:
        """Watch nothing any more."""
        if self._alarm is not None:
            self._alarm.cancel()
