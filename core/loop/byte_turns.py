"""Bytes that jobs of one event loop hold, shared fairly by key (a caller): a caller that finds none free waits."""

import asyncio
from collections import deque


class ByteTurns:
    """`total` bytes, of which one key holds `each` at most; keys that wait take turns.

    What is larger than `each` counts as so much, so that it comes through, too. While one waits for bytes that others
    hold, no other overtakes it: what is small would keep a large one waiting for ever.
    Raises ValueError for less than a byte, and for a share that is larger than the whole.
    """

    def __init__(self, total: int, each: int) -> None:
        if not 1 <= each <= total:
            raise ValueError("a share has at least one byte, and no more than there are in all")
        self._total = total
        self._each = each
        self._held: dict[str, int] = {}  # key -> the bytes that it holds
        self._waiting: dict[str, deque[tuple[int, asyncio.Future[None]]]] = {}  # in the order of their turns
        self.taken = 0

    def held(self, key: str) -> int:
        """How many bytes the key holds."""
        return self._held.get(key, 0)

    def take_now(self, key: str, size: int) -> bool:
        """Hold so many bytes of the key, if it is its turn and they are free; whether it is and they are."""
        place = self._ask(key, size)
        if place.done():
            return True
        place.cancel()
        self._fill()
        return False

    async def take(self, key: str, size: int) -> None:
        """Wait for so many bytes of the key, and hold them until `give`. May be cancelled at any moment."""
        place = self._ask(key, size)
        if place.done():
            return
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._fill()  # others may have waited for it to go first
            else:  # it had been given them already
                self.give(key, size)
            raise

    def give(self, key: str, size: int) -> None:
        """Give back what was taken. Raises KeyError when the key holds nothing."""
        size = min(size, self._each)
        left = self._held.pop(key) - size
        if left:
            self._held[key] = left
        self.taken -= size
        self._fill()

    def _ask(self, key: str, size: int) -> asyncio.Future[None]:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append((min(size, self._each), place))
        self._fill()
        return place

    def _fill(self) -> None:
        while self._let_one_in():
            pass

    def _let_one_in(self) -> bool:
        """Let the first one in that may come; whether there was one."""
        for key, line in list(self._waiting.items()):
            while line and line[0][1].done():  # it has gone away
                line.popleft()
            if not line:
                del self._waiting[key]
                continue
            size, place = line[0]
            if self.held(key) + size > self._each:
                continue  # it waits for its own
            if self.taken + size > self._total:
                return False
            line.popleft()
            del self._waiting[key]
            if line:
                self._waiting[key] = line  # behind the others
            self._held[key] = self.held(key) + size
            self.taken += size
            place.set_result(None)
            return True
        return False
