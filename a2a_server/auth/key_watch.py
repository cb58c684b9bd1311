"""Looks at the keys of open streams, where another process may have revoked one: its streams end here, too."""

import asyncio
import logging

from a2a_server.auth.known_keys import MAX_AGE, KnownKeys
from a2a_server.auth.lifetimes import Lifetimes
from core.model.errors import StorageError, StorageUnavailable

logger = logging.getLogger(__name__)


class KeyWatch:
    """Of one server. `pause`: seconds between two looks."""

    def __init__(self, keys: KnownKeys, lifetimes: Lifetimes, pause: float = MAX_AGE) -> None:
        self._keys = keys
        self._lifetimes = lifetimes
        self._pause = pause
        self._run: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Work beside everything else, until `close`."""
        self._run = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Look no more. May be called twice."""
        run, self._run = self._run, None
        if run is not None:
            run.cancel()
            await asyncio.wait([run])

    async def _work(self) -> None:
        while True:
            await asyncio.sleep(self._pause)
            try:
                if held := self._lifetimes.credentials():
                    await self._keys.look(held)
            except StorageUnavailable:
                continue  # also whoever shows a key now is refused
            except StorageError:
                logger.exception("keys of open streams cannot be read")
