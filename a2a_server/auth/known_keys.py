"""The keys that callers show, in memory: read once, or again and again where other processes change keys, too."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import NamedTuple

from cachetools import LRUCache

from a2a_server.auth.stored_keys import KIND, ApiKey, read_key
from core.outside.clock import Clock
from core.storage.base import DocumentQuery, Documents

MAX_AGE = 5.0  # seconds that a key is good without being read again, where other processes change keys, too
MOST_CACHED = 10_000  # keys, those that were used last


class _Known(NamedTuple):
    """A key as it was when it was read."""

    key: ApiKey
    at: float


def _no_streams(key_id: str, left: float) -> None:
    """Nothing was opened with a key."""


class KnownKeys:
    """Those of one storage. `max_age`: for how many seconds a key is good without being read again.

    `ended` is told the id of each key that another process has revoked or rotated, and for how many seconds what was
    good before is good still.
    """

    def __init__(
        self,
        storage: Documents,
        clock: Clock,
        max_age: float = inf,
        ended: Callable[[str, float], None] = _no_streams,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._max_age = max_age
        self._ended = ended
        self._cached: LRUCache[str, _Known] = LRUCache(MOST_CACHED)
        self._reading: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._changes = 0

    async def find(self, key_id: str) -> ApiKey | None:
        """The key with this id."""
        known = self._cached.get(key_id)
        if known is not None and self._clock.now() - known.at < self._max_age:
            return known.key
        reading = self._reading.get(key_id)
        if reading is None:  # else what comes at the same time has the same answer
            reading = self._reading[key_id] = asyncio.create_task(self._read(key_id))
            reading.add_done_callback(partial(self._was_read, key_id))
        return await asyncio.shield(reading)

    async def look(self, key_ids: Sequence[str]) -> None:
        """Read these keys again, all together, and tell what became of them."""
        query = DocumentQuery(kind=KIND, ids=key_ids, limit=len(key_ids))
        changes = -1
        while changes != self._changes:  # else one may have been changed while it was read
            changes, began = self._changes, self._clock.now()
            keys = {document.id: read_key(document) for document in await self._storage.documents(query)}
        for key_id in key_ids:
            self._note(key_id, keys.get(key_id), began)

    def forget(self, key_id: str) -> None:
        """It was changed."""
        self._changes += 1
        self._cached.pop(key_id, None)
        self._reading.pop(key_id, None)  # which may have been read before the change

    async def _read(self, key_id: str) -> ApiKey | None:
        began = self._clock.now()
        document = await self._storage.document(KIND, key_id)
        key = None if document is None else read_key(document)
        if self._reading.get(key_id) is asyncio.current_task():  # else it was changed while it was read
            self._note(key_id, key, began)
        return key

    def _was_read(self, key_id: str, reading: asyncio.Task[ApiKey | None]) -> None:
        if self._reading.get(key_id) is reading:
            del self._reading[key_id]
        if not reading.cancelled():
            reading.exception()  # whoever waits for it gets it; nobody may wait any more

    def _note(self, key_id: str, key: ApiKey | None, at: float) -> None:
        """What was read of a key, beginning at that time."""
        before = self._cached.get(key_id)
        if (left := _left(before.key if before else None, key, self._clock.now())) is not None:
            self._ended(key_id, left)
        if key is None:
            self._cached.pop(key_id, None)
        else:
            self._cached[key_id] = _Known(key, at)


def _left(before: ApiKey | None, key: ApiKey | None, now: float) -> float | None:
    """For how many seconds what was good before is good still; None: for as long as it was."""
    if key is None or key.revoked_at is not None:
        return 0.0
    if before is None or before.digest == key.digest:
        return None
    until = key.replaced_until if key.replaced == before.digest else None
    return 0.0 if until is None else max(0.0, until - now)
