"""How many bytes each owner has stored, so that no owner fills the disk.

The count is an upper bound that costs a request nothing: it is read from the storage once for each owner, what was
appended since is added, and only when it reaches the quota is it read again, which is also when deletes show.
"""

from collections.abc import Callable
from typing import NamedTuple

from core.loop.keyed_locks import KeyedLocks
from core.model.errors import QuotaExceeded
from core.storage.base import Upkeep

RECOUNT = 10.0  # seconds between two counts of one owner


class _Count(NamedTuple):
    stored: int  # bytes, when it was read
    written: int  # what the storage had written for the owner by then
    read_at: float


class StoredBytes:
    """Holds each owner to `most` bytes (of JSON: the events and what callers wrote); 0: there is no quota."""

    def __init__(self, storage: Upkeep, most: int, now: Callable[[], float]) -> None:
        self._storage = storage
        self._most = most
        self._now = now
        self._counts: dict[str, _Count] = {}
        self._locks = KeyedLocks()  # one count of an owner at a time

    def is_full(self, owner: str) -> bool:
        """Whether the owner is known to have used its quota up."""
        count = self._counts.get(owner)
        return count is not None and self._used(owner, count) >= self._most

    async def require_room(self, owner: str) -> None:
        """Raises QuotaExceeded when the owner has used its quota up, StorageUnavailable when that cannot be read."""
        if not self._most or (owner in self._counts and not self.is_full(owner)):
            return
        async with self._locks.of(owner):
            count = self._counts.get(owner)
            if count is None or (self.is_full(owner) and self._now() - count.read_at >= RECOUNT):
                written = self._storage.written(owner)
                count = _Count(await self._storage.stored(owner), written, self._now())
                self._counts[owner] = count
        if self.is_full(owner):
            raise QuotaExceeded(self._used(owner, count), self._most)

    def _used(self, owner: str, count: _Count) -> int:
        return count.stored + self._storage.written(owner) - count.written
