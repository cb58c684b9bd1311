"""How many connections there are, and how many there may be."""

import resource
from collections import Counter
from collections.abc import Callable
from typing import Final

ACCEPTED_AT_ONCE: Final = 16
# Open files that connections must leave: for the database and executors, and for connections that have been accepted
# and are not counted yet, or not gone yet, which takes four turns of the loop.
RESERVED_FILES: Final = 64 + 4 * ACCEPTED_AT_ONCE


class Connections:
    """How many connections there are, and how many there may be: in all, and from one address.

    `is_exempt` says which addresses stand for many callers.
    """

    def __init__(self, limit: int, per_address: int, is_exempt: Callable[[str], bool]) -> None:
        self._limit = limit
        self._per_address = per_address
        self._is_exempt = is_exempt
        self._by_address: Counter[str] = Counter()
        self._count = 0

    def enter(self, address: str) -> bool:
        """Count one more, if there is room for it."""
        is_crowded = self._by_address[address] >= self._per_address and not self._is_exempt(address)
        if is_crowded or self._count >= self._limit:
            return False
        self._count += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One that was counted is gone."""
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


def room(wanted: int) -> int:
    """How many connections the limit on open files has room for, after raising it as far as that is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return max(1, raised - RESERVED_FILES)
