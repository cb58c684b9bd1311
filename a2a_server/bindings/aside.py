"""Decoding and judging of large bodies, in a thread beside the event loop.

One thread is enough: the interpreter runs one at a time anyway, and gives way to the loop's every few milliseconds.
What holds the interpreter at a stretch (decoding) is bounded by `max_body` and `max_values` (decision 0013).
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, ParamSpec, TypeVar

from core.loop.keyed_locks import KeyedLocks

P = ParamSpec("P")
T = TypeVar("T")

LARGE: Final = 8 * 1024  # bytes of a body from which on it is decoded and judged in the thread
MANY: Final = 500  # tasks of a tree from which on its answer is made there


class Aside:
    """The thread. Callers take turns: what one of them sends waits behind one job of each of the others."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self._turns = KeyedLocks()

    async def run(self, owner: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The function's value, or what it raises. Of one owner there is one job at a time."""
        turn = self._turns.of(owner)
        loop = asyncio.get_running_loop()
        async with turn:
            return await loop.run_in_executor(self._pool, _call, function, args, kwargs)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _call(function: Callable[..., T], args: Any, kwargs: Any) -> T:
    return function(*args, **kwargs)
