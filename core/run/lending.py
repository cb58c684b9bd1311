"""An attempt that waits for a tree of its own lends what it holds: its slot, its executor's place, its thread's.

Without that the tree could wait for the attempt's slot, and the attempt for the tree. It takes everything back, before
any new task starts, when its wait is over; and while many wait for one another in a chain, each of them ends or lends.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from core.loop.origin import ORIGIN, Origin
from core.model.errors import CallerError
from core.model.room import Room
from core.run.attempt import Attempt

MAX_NESTED = 50  # trees that are run by an executor of a tree that is run by an executor, and so on


class NestedTooDeep(CallerError):
    """Executors run trees whose executors run trees, without an end."""


class Lending:
    """The loans of one process. `lend` gives back what an attempt holds, and starts what may have its place."""

    def __init__(
        self, attempts: Mapping[tuple[str, str], Attempt], room: Room, lend: Callable[[Attempt], None]
    ) -> None:
        self._attempts = attempts
        self._room = room
        self._lend = lend
        self.depths: dict[str, int] = {}  # of the trees that an executor started and that still run
        self.waiting: deque[tuple[Attempt, asyncio.Future[None]]] = deque()  # to take back what they lent

    def nest(self, tree_id: str) -> None:
        """Note that the tree is about to be run, perhaps by an executor. Raises NestedTooDeep."""
        if (attempt := self._borrowed_from(ORIGIN.get())) is None:
            return
        depth = self.depths.get(attempt.tree_id, 0) + 1
        if depth > MAX_NESTED:
            text = f"the executor {attempt.claim.lane} runs a tree nested in {MAX_NESTED} others that wait for it"
            raise NestedTooDeep(f"{text}; that is the limit")
        self.depths[tree_id] = depth

    @asynccontextmanager
    async def lent(self) -> AsyncIterator[None]:
        """What runs inside waits for a tree; the attempt that it is a part of holds nothing meanwhile."""
        attempt = self._borrowed_from(ORIGIN.get())
        if attempt is None:
            yield
            return
        attempt.lends += 1
        if attempt.lends == 1:
            self._lend(attempt)
        try:
            yield
        finally:
            if not (attempt.is_over or attempt.is_abandoned):
                attempt.lends -= 1
                if not attempt.lends:
                    await self._take_back(attempt)

    def end(self, attempt: Attempt) -> None:
        """The attempt ends while something of it still waits: it holds again what is now given back for good."""
        attempt.lends = 0
        self._take(attempt)

    def serve(self) -> None:
        """Let those that wait take back what there is room for, the first first."""
        for _ in range(len(self.waiting)):
            attempt, turn = self.waiting.popleft()
            claim = attempt.claim
            if turn.done():
                continue
            if attempt.is_over or attempt.is_abandoned:
                turn.set_result(None)  # only a part of it still waits, which holds nothing
            elif self._room.has_room(claim.caller, claim.tree_id, claim.lane):
                self._take(attempt)
                turn.set_result(None)
            else:
                self.waiting.append((attempt, turn))

    async def _take_back(self, attempt: Attempt) -> None:
        claim = attempt.claim
        if attempt.context.stopping or (
            not self.waiting and self._room.has_room(claim.caller, claim.tree_id, claim.lane)
        ):
            self._take(attempt)  # one that is stopped is about to give it
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append((attempt, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not attempt.holds and not (attempt.is_over or attempt.is_abandoned):
                self._take(attempt)
            raise

    def _take(self, attempt: Attempt) -> None:
        claim = attempt.claim
        self._room.take(claim.caller, claim.tree_id, claim.lane)
        attempt.holds = True

    def check(self) -> None:
        """Raise AssertionError when an attempt that lends nothing neither holds its claim nor waits for it."""
        waiting = {id(attempt) for attempt, turn in self.waiting if not turn.done()}
        for (_, task_id), attempt in self._attempts.items():
            is_open = not (attempt.holds or attempt.lends or attempt.is_over)
            assert not is_open or id(attempt) in waiting, f"the attempt of {task_id} has lent its slot for good"
            assert not attempt.holds or id(attempt) not in waiting, f"the attempt of {task_id} waits for what it holds"

    def _borrowed_from(self, origin: Origin | None) -> Attempt | None:
        """The running attempt of this process in whose context something runs."""
        if origin is None:
            return None
        attempt = self._attempts.get((origin.tree_id, origin.task_id))
        if attempt is None or attempt.task.attempt != origin.attempt or attempt.is_over or attempt.context.stopping:
            return None
        return attempt
