"""What waits for the writer: owners take turns, and what concerns one thing stays in its order. Pure.

Each owner has a virtual time, which what is taken moves on by its weight; the owner with the earliest time is next
(weighted fair queueing, as in `core.model.queue`). So a caller with little to write waits for one batch of others, not
for all that they have in line.
"""

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, NamedTuple, TypeVar

MANY_AHEAD = 1_000  # owners without items; from here on those are forgotten who have had no more than others

Item = TypeVar("Item")


class Weighed(NamedTuple):
    """What an item costs, a number above 0; of one that is not whole yet, what its next piece has cost."""

    weight: int
    is_whole: bool = True


class _Line(Generic[Item]):
    """One owner's items, oldest first, each with the names of what it concerns."""

    def __init__(self, time: float, number: int) -> None:
        self.items: deque[tuple[Item, Sequence[str]]] = deque()
        self.time = time  # its virtual time
        self.number = number
        self.weight: int | None = None  # of the first item, once it is known


class Backlog(Generic[Item]):
    """Items by owner. `weigh` is asked when an item's turn comes, and of one in pieces again at each turn, until it is
    whole.
    """

    def __init__(self, weigh: Callable[[Item], Weighed]) -> None:
        self._weigh = weigh
        self._lines: dict[str, _Line[Item]] = {}
        self._turns: list[tuple[float, int, str]] = []  # a heap of the lines: virtual time, number, owner
        self._where: dict[str, tuple[str, int]] = {}  # name -> the line with all items that concern it, how many
        self._ahead: dict[str, float] = {}  # owner without items -> its virtual time
        self._now = 0.0
        self._number = 0

    def __bool__(self) -> bool:
        return bool(self._lines)

    def add(self, item: Item, owner: str, names: Sequence[str]) -> None:
        """Put an item in line behind the owner's others, and behind all that concern one of the names.

        Where others' items concern them, it stands in their line.
        """
        key = self._line_of(owner, names)
        if key not in self._lines:
            self._number += 1
            line = self._lines[key] = _Line(max(self._now, self._ahead.pop(key, 0.0)), self._number)
            heappush(self._turns, (line.time, line.number, key))
        self._lines[key].items.append((item, names))
        for name in names:
            _, count = self._where.get(name, (key, 0))
            self._where[name] = (key, count + 1)

    def take(self, items: int, weight: int) -> list[Item]:
        """At most so many of the next items, which weigh no more together, unless the first one alone does.

        None of them where the next one was only weighed by a piece more: others may come before its next piece.
        """
        taken: list[Item] = []
        while self._turns and len(taken) < items and weight > 0:
            time, number, key = self._turns[0]
            line = self._lines[key]
            item, names = line.items[0]
            if line.weight is None:
                cost, is_whole = self._weigh(item)
                if not is_whole:
                    self._now, line.time = time, time + cost
                    heapreplace(self._turns, (line.time, number, key))
                    break
                line.weight = cost
            if taken and line.weight > weight:
                break
            weight -= line.weight
            taken.append(item)
            line.items.popleft()
            self._forget(names)
            self._now = time
            line.time, line.weight = time + line.weight, None
            if line.items:
                heapreplace(self._turns, (line.time, number, key))
            else:
                heappop(self._turns)
                self._leave(key, line.time)
        return taken

    def _line_of(self, owner: str, names: Sequence[str]) -> str:
        lines = dict.fromkeys(self._where[name][0] for name in names if name in self._where)
        if not lines:
            return owner
        first, *others = lines
        for other in others:
            self._join(first, other)
        return first

    def _join(self, key: str, other: str) -> None:
        """One line of two: an item that concerns things in both comes behind all of them."""
        moved = self._lines.pop(other)
        self._lines[key].items.extend(moved.items)
        for _, names in moved.items:
            for name in names:
                self._where[name] = (key, self._where[name][1])
        self._turns = [turn for turn in self._turns if turn[2] != other]
        heapify(self._turns)
        self._ahead[other] = moved.time

    def _forget(self, names: Sequence[str]) -> None:
        for name in names:
            key, count = self._where.pop(name)
            if count > 1:
                self._where[name] = (key, count - 1)

    def _leave(self, key: str, time: float) -> None:
        """The owner has nothing in line any more. When it comes back, it has had what it has had."""
        del self._lines[key]
        if not self._lines:
            self._ahead.clear()  # no caller waits, so there are no debts
            return
        self._ahead[key] = time
        if len(self._ahead) > MANY_AHEAD:
            self._ahead = {owner: ahead for owner, ahead in self._ahead.items() if ahead > self._now}
