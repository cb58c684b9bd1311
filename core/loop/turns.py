"""A semaphore whose places are shared fairly by key: `async with turns.of(key)`."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.model.shares import FairShares


class Turns:
    """`total` places of one event loop, of which one key holds `each` at most; keys that wait take turns."""

    def __init__(self, total: int, each: int) -> None:
        self._shares: FairShares[asyncio.Future[None]] = FairShares(total, each)

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Hold a place of the key meanwhile; wait for it where there is none. May be cancelled at any moment."""
        await self.enter(key)
        try:
            yield
        finally:
            self.leave(key)

    async def enter(self, key: str) -> None:
        """Wait for a place of the key, and hold it until `leave`."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._shares.ask(key, place)
        self._fill()
        if place.done():
            return
        try:
            await place
        except asyncio.CancelledError:
            if not self._shares.withdraw(key, place) and not place.cancelled():  # it had been given its place already
                self.leave(key)
            raise

    def leave(self, key: str) -> None:
        """Give a place of the key back, to whose turn it is."""
        self._shares.give_back(key)
        self._fill()

    def _fill(self) -> None:
        while (taken := self._shares.take()) is not None:
            key, place = taken
            if place.cancelled():
                self._shares.give_back(key)
            else:
                place.set_result(None)
