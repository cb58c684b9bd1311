"""Jobs beside others: asyncio tasks that nobody waits for, held until they end."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Jobs:
    """Those of one owner. An asyncio task that nobody holds may be collected while it runs."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        """Run it from the next turn of the event loop on."""
        job = asyncio.create_task(work)
        self._running.add(job)
        job.add_done_callback(self._running.discard)

    async def wait(self, limit: float | None = None) -> None:
        """Wait until those that run now have ended, `limit` seconds at most."""
        if self._running:
            await asyncio.wait(self._running, timeout=limit)

    async def cancel(self) -> None:
        """Cancel them, and wait for their end."""
        for job in self._running:
            job.cancel()
        await self.wait()
