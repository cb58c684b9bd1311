"""How many bytes requests hold in memory: those of each caller, and all together.

A request holds its body while that arrives and is worked on, with what the values in it take, and then its answer until
the client has taken it. What is small always passes, so that cancels and questions of health find room.
"""

from typing import Final

from a2a_server.protocol.errors import Overloaded, RateLimited

SMALL: Final = 16 * 1024  # bytes of a body, or of an answer, that are not counted
PIECE: Final = 256 * 1024  # bytes of an answer that are handed to its connection at a time
VALUE: Final = 80  # bytes of memory that a value of JSON takes, beside its text


class InFlight:
    """The bytes that requests of one server hold."""

    def __init__(self, *, per_caller: int, total: int) -> None:
        self._per_caller = per_caller
        self._most = total
        self._of: dict[str, int] = {}
        self.total = 0

    def take(self, owner: str, size: int) -> None:
        """The caller holds so many bytes more. Raises RateLimited or Overloaded, and takes nothing then."""
        held = self._of.get(owner, 0) + size
        if held > self._per_caller:
            text = f"The bodies and answers of one caller may take {self._per_caller} bytes at the same time"
            raise RateLimited(text)
        if self.total + size > self._most:
            raise Overloaded(f"The bodies and answers of all callers may take {self._most} bytes at the same time")
        self._of[owner] = held
        self.total += size

    def give(self, owner: str, size: int) -> None:
        """The caller holds so many bytes fewer."""
        self.total -= size
        self._of[owner] -= size
        if not self._of[owner]:
            del self._of[owner]
