"""Keeps a session's clock by its database's, where other machines share that: their own clocks change nothing there."""

import asyncio
from contextlib import suppress

from core.model.errors import StorageError
from core.outside.clock import Clock, SharedClock, SystemClock
from core.storage.base import Storage

PAUSE = 30.0  # seconds between two looks
FIRST_LOOKS = 3  # of which the shortest counts
LONGEST_LOOK = 1_000_000_000  # nanoseconds; a longer one says too little, and the next one is waited for


def clock_of(storage: Storage) -> Clock:
    """The clock of whoever uses this storage."""
    return SystemClock() if storage.is_exclusive else SharedClock()


class SharedTime:
    """Of one session. A clock that is no shared one is left alone."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock if isinstance(clock, SharedClock) else None
        self._run: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Go by the open storage's clock from now on. Raises StorageError."""
        if (clock := self._clock) is None:
            return
        _, shared, uptime = min([await self._look(clock) for _ in range(FIRST_LOOKS)])
        clock.follow(shared, uptime)
        self._run = asyncio.create_task(self._work(clock))

    async def close(self) -> None:
        """The clock goes on by itself. May be called twice."""
        run, self._run = self._run, None
        if run is not None:
            run.cancel()
            await asyncio.wait([run])

    async def _work(self, clock: SharedClock) -> None:
        while True:
            await asyncio.sleep(PAUSE)
            with suppress(StorageError):
                took, shared, uptime = await self._look(clock)
                if took < LONGEST_LOOK:
                    clock.follow(shared, uptime)

    async def _look(self, clock: SharedClock) -> tuple[int, float, int]:
        """How long it took, and the shared time in the middle of that."""
        before = clock.uptime
        shared = await self._storage.time()
        after = clock.uptime
        return after - before, shared, (before + after) // 2
