"""Threads beside the event loop for what attempts take and give, where that is large: their callers take turns.

The loop's own pool has no turns: one caller's values in it would keep every other use of a thread waiting.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from core.loop.turns import Turns

T = TypeVar("T")

THREADS: Final = 2  # the interpreter runs one at a time anyway
PER_CALLER: Final = 1


class Beside:
    """The threads of one process. Close it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="values")
        self._turns = Turns(THREADS, PER_CALLER)

    async def run(self, caller: str, function: Callable[..., T], *args: Any) -> T:
        """The function's value, or what it raises, once it is the caller's turn."""
        await self._turns.enter(caller)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        finally:
            self._turns.leave(caller)

    def close(self) -> None:
        """Begin nothing more, and wait for nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)
