"""Fair shares: a fixed number of places, shared by key (a caller) and handed out in rounds. Pure.

No key holds more than its cap, and keys that wait take turns, so that a key with a thousand waiting items delays
another key's item by one place at most. A place is never idle while an item waits whose key is below its cap.
"""

from collections.abc import Hashable
from typing import Generic, TypeVar

Item = TypeVar("Item", bound=Hashable)


class FairShares(Generic[Item]):
    """`total` places, of which one key holds `each` at most. All operations take constant time.

    Raises ValueError for a number of places below one.
    """

    def __init__(self, total: int, each: int) -> None:
        if total < 1 or each < 1:
            raise ValueError("there must be at least one place, in all and for each key")
        self._total = total
        self._each = each
        self._held: dict[str, int] = {}  # key -> the places that it holds
        self._waiting: dict[str, dict[Item, None]] = {}  # key -> its items, oldest first
        self._rota: dict[str, None] = {}  # keys that wait and are below their cap, the next one first
        self._in_use = 0

    @property
    def in_use(self) -> int:
        """How many places are held."""
        return self._in_use

    @property
    def waiting(self) -> int:
        """How many items wait."""
        return sum(map(len, self._waiting.values()))

    def held(self, key: str) -> int:
        """How many places the key holds."""
        return self._held.get(key, 0)

    def ask(self, key: str, item: Item) -> None:
        """The item waits for a place of this key, behind the key's other items."""
        self._waiting.setdefault(key, {})[item] = None
        self._line_up(key)

    def take(self) -> tuple[str, Item] | None:
        """The next item with its key, which holds a place from now on; None when no item may have one."""
        if self._in_use >= self._total or not self._rota:
            return None
        key = next(iter(self._rota))
        del self._rota[key]
        items = self._waiting[key]
        item = next(iter(items))
        del items[item]
        if not items:
            del self._waiting[key]
        self._held[key] = self.held(key) + 1
        self._in_use += 1
        self._line_up(key)
        return key, item

    def give_back(self, key: str) -> None:
        """A place of the key is free again. Raises KeyError when the key holds none."""
        held = self._held.pop(key)
        if held > 1:
            self._held[key] = held - 1
        self._in_use -= 1
        self._line_up(key)

    def withdraw(self, key: str, item: Item) -> bool:
        """The item does not wait any more; whether it did."""
        items = self._waiting.get(key, {})
        if item not in items:
            return False
        del items[item]
        if not items:
            del self._waiting[key]
            self._rota.pop(key, None)
        return True

    def _line_up(self, key: str) -> None:
        """Let the key stand in the rota, at its end, if it may have a place; where it stands, it stays."""
        if key in self._waiting and self.held(key) < self._each:
            self._rota.setdefault(key)
