"""What runs on after its attempt is over: a thread, which cannot be stopped, or a coroutine that does not stop.

It keeps its executor's place and its thread until it really ends, so that a limit of one at a time stays one.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

from core.model.room import Claim, Room
from core.model.task import Task

logger = logging.getLogger(__name__)

NAMED = 5  # executors that are named when threads run out


class Leftovers:
    """The work that goes on without its attempt. `freed` is called with the claim of one that has ended at last."""

    def __init__(self, room: Room, freed: Callable[[Claim], None]) -> None:
        self._room = room
        self._freed = freed
        self._threads: Counter[str] = Counter()  # by executor
        self._is_short = False

    def keep(self, claim: Claim, task: Task, work: "asyncio.Future[Any]") -> None:
        """Give back the slot at once, and the rest when the work has ended."""
        kind = "thread" if claim.uses_thread else "coroutine"
        text = "attempt %d of task %s (executor %s) is over, but its %s is still running and keeps its slot"
        logger.warning(text, task.attempt, task.id, claim.lane, kind)
        self._room.give_slot(claim)
        if claim.uses_thread:
            self._threads[claim.lane] += 1
            self._look()
        work.add_done_callback(lambda done: self._end(claim, done))

    def _end(self, claim: Claim, work: "asyncio.Future[Any]") -> None:
        if not work.cancelled():
            work.exception()  # seen: no longer wanted
        self._room.give_rest(claim)
        if claim.uses_thread:
            self._threads[claim.lane] -= 1
            self._threads += Counter()  # without those at 0
            self._look()
        self._freed(claim)

    def _look(self) -> None:
        """Say once that threads have run out, and once that there are some again."""
        problem = self.problem()
        if problem and not self._is_short:
            logger.error(problem)
        elif self._is_short and not problem:
            logger.info("threads are free again")
        self._is_short = problem is not None

    def problem(self) -> str | None:
        """Why no plain function can start any more: no thread is free, and at least half of them hang. Else None."""
        threads, hung = self._room.threads, self._threads.total()
        if threads.used < threads.total or 2 * hung < threads.total:
            return None
        holders = ", ".join(f"{lane} {count}" for lane, count in self._threads.most_common(NAMED))
        return f"no thread is free: {hung} of {threads.total} still run although their attempts are over ({holders})"
