"""A lock for each key."""

import asyncio
from weakref import WeakValueDictionary


class KeyedLocks:
    """Of those with the same key one goes on at a time. A lock that nobody holds or waits for is forgotten."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._locks)

    def of(self, key: str) -> asyncio.Lock:
        """The key's lock: the same one for as long as anybody has it."""
        return self._locks.setdefault(key, asyncio.Lock())
