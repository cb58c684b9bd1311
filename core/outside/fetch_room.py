"""Room in memory for fetched answers and copies of values: an attempt whose owner's share is used up waits for others.

Answers that are small need none. A larger one takes more room in steps as it grows, or all at once when its length is
announced. When everybody who could give room back waits for more, the last one to ask is refused.
"""

import asyncio
from typing import Final

from core.model.in_flight import ByteBudget

FREE: Final = 64 * 1024  # bytes of an answer that need no room
GROWTH: Final = 4  # times the room that it had, when an answer outgrows it
COPIES: Final = 4  # of an answer that are in memory at once, until its result is stored


class FetchRooms:
    """The rooms of one process, on a budget that they share with open trees."""

    def __init__(self, budget: ByteBudget, most: int) -> None:
        self.budget = budget
        self.most = most  # bytes of one answer
        self._rooms: dict[FetchRoom, None] = {}  # that have taken something
        self._waiting: dict[FetchRoom, asyncio.Future[None]] = {}

    def room(self, owner: str) -> "FetchRoom":
        """The room of one attempt. Close it when the attempt's result is stored."""
        return FetchRoom(self, owner)

    async def take(self, room: "FetchRoom", size: int) -> None:
        """Have so many bytes more. Raises NoRoom when no holder is left to give them back."""
        while any(beyond := self.budget.is_beyond(room.owner, size)):
            if not self._may_come(room, of_caller=beyond[0]):
                break
            self._waiting[room] = come = asyncio.get_running_loop().create_future()
            try:
                await come
            finally:
                self._waiting.pop(room, None)
        self.budget.take(room.owner, size)
        self._rooms[room] = None

    def give(self, room: "FetchRoom", size: int, *, is_last: bool) -> None:
        """Give so many back, and let those who wait look again, the first of them first."""
        self.budget.give(room.owner, size)
        if is_last:
            self._rooms.pop(room, None)
        for come in self._waiting.values():
            if not come.done():
                come.set_result(None)

    def _may_come(self, room: "FetchRoom", *, of_caller: bool) -> bool:
        """Whether one of those rooms that are in the way is not waiting itself."""
        others = (each for each in self._rooms if each is not room and each not in self._waiting)
        return any(each.owner == room.owner for each in others) if of_caller else any(others)


class FetchRoom:
    """The room of one attempt."""

    def __init__(self, rooms: FetchRooms, owner: str) -> None:
        self.owner = owner
        self._rooms = rooms
        self._size = 0  # of an answer that fits
        self._copies = 0  # bytes of those that it has taken that are for copies of values
        self._taken = 0

    async def hold(self, size: int) -> None:
        """Have so many bytes for copies of values, in all, beside those for answers. Raises NoRoom as `reserve`."""
        if (more := size - self._copies) > 0:
            await self._rooms.take(self, more)
            self._copies, self._taken = size, self._taken + more

    async def reserve(self, size: int) -> None:
        """Have room for an answer of so many bytes, in all. Raises NoRoom when there will be none."""
        if size <= FREE or size <= self._size:
            return
        wanted = max(size, min(self._rooms.most, GROWTH * max(self._size, FREE)))
        more = COPIES * wanted - (self._taken - self._copies)
        await self._rooms.take(self, more)
        self._size, self._taken = wanted, self._taken + more

    def shrink(self, taken: int) -> None:
        """Keep so many bytes for answers, at most: how much memory the result takes is known now."""
        if taken < self._taken - self._copies:
            self._size = taken // COPIES
            self._keep(taken + self._copies)

    def drop_copies(self) -> None:
        """Give back what is for copies of values."""
        if self._copies:
            left, self._copies = self._taken - self._copies, 0
            self._keep(left)

    def close(self) -> None:
        """Give everything back."""
        self.drop_copies()
        self.shrink(0)

    def _keep(self, left: int) -> None:
        given, self._taken = self._taken - left, left
        self._rooms.give(self, given, is_last=not left)
