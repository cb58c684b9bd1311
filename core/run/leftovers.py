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
    """The work that goes on without its attempt."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._kept: dict[asyncio.Future[Any], Claim] = {}
        self._is_short = False

    @property
    def claims(self) -> list[Claim]:
        """What each of them holds, but for its slot."""
        return list(self._kept.values())

    def keep(self, claim: Claim, task: Task, work: "asyncio.Future[Any]", freed: Callable[[Claim], None]) -> None:
        """Give back the slot at once; the rest when the work has ended, which `freed` is called about then."""
        kind = "thread" if claim.uses_thread else "coroutine"
        text = "attempt %d of task %s (executor %s) is over, but its %s is still running and keeps its slot"
        logger.warning(text, task.attempt, task.id, claim.lane, kind)
        self._room.give_slot(claim)
        self._kept[work] = claim
        if claim.uses_thread:
            self._look()
        work.add_done_callback(lambda done: self._end(done, freed))

    def _end(self, work: "asyncio.Future[Any]", freed: Callable[[Claim], None]) -> None:
        claim = self._kept.pop(work)
        if not work.cancelled():
            work.exception()  # seen: no longer wanted
        self._room.give_rest(claim)
        if claim.uses_thread:
            self._look()
        freed(claim)

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
        threads = self._room.threads
        if threads.used < threads.total:
            return None
        by_executor = Counter(claim.lane for claim in self._kept.values() if claim.uses_thread)
        if 2 * (hung := by_executor.total()) < threads.total:
            return None
        holders = ", ".join(f"{lane} {count}" for lane, count in by_executor.most_common(NAMED))
        return f"no thread is free: {hung} of {threads.total} still run although their attempts are over ({holders})"
