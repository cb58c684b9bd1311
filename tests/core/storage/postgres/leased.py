"""A storage for the tests of storages alone: its appends carry the lease that the orchestrator would give them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from msgspec.structs import replace

from core.storage.base import Append
from core.storage.postgres.storage import PostgresStorage

Value = TypeVar("Value")


async def polled(look: Callable[[], Awaitable[Value | None]]) -> Value:
    """What the look gives as soon as it is not None: what another member does has no event here."""
    async with asyncio.timeout(30):
        while True:
            if (found := await look()) is not None:
                return found
            await asyncio.sleep(0)


class Leased(PostgresStorage):
    """Knows which trees live by what was appended here."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._live: dict[str, bool] = {}  # as appended last
        self._stored: dict[str, bool] = {}  # as stored last

    def append(self, append: Append) -> asyncio.Future[None]:
        tree_id, is_live = append.head.id, append.head.is_live
        fence = self.lease if self._live.get(tree_id) else ""
        self._live[tree_id] = is_live
        stored = super().append(replace(append, lease=append.lease or fence))

        def answered(done: asyncio.Future[None]) -> None:
            if done.exception() is None:
                self._stored[tree_id] = is_live
            else:
                self._live[tree_id] = self._stored.get(tree_id, False)

        stored.add_done_callback(answered)
        return stored
