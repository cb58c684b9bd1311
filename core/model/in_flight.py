"""Bytes in flight: the memory that open trees and fetched answers take, by owner and in all. Pure.

What frees memory is never refused: ends and cancels take nothing, and small results may use a reserve.
"""

from collections.abc import Iterable
from math import inf
from operator import attrgetter
from typing import Any, Final

import msgspec

from core.model.errors import NoRoom
from core.model.jsonscan import most_values
from core.model.task import Task

SMALL: Final = 4 * 1024  # bytes: a result of so many may use the reserve
RESERVE: Final = 0.25  # of each limit, beyond it
PER_TASK: Final = 1024  # bytes, about, that a task takes beside what its caller gives it
PER_VALUE: Final = 48  # bytes, about, that a value takes beside its text

_HELD = attrgetter("inputs", "result", "answers", "answer_messages", "schemas", "params")
_encode = msgspec.json.Encoder().encode


def memory_of(data: bytes) -> int:
    """About how much memory the value of this JSON takes."""
    if len(data) <= SMALL:
        return len(data)
    return len(data) * _width(data) + PER_VALUE * most_values(data)


def _width(data: bytes) -> int:
    """The most bytes that each character of a text may take in memory: the widest one of a text decides."""
    if data.isascii():
        return 1
    return 4 if any(lead.to_bytes() in data for lead in range(0xF0, 0xF5)) else 2


def memory_of_tasks(tasks: Iterable[Task], *others: Any) -> int:
    """About how much memory their inputs, results and answers take, and what else comes with their tree."""
    held = [*map(_HELD, tasks)]
    data = _encode((held, others))
    size = len(data)
    return PER_TASK * len(held) + (size if size <= SMALL else memory_of(data))


class ByteBudget:
    """How many bytes are taken, by owner and in all. None: without a limit."""

    def __init__(self, per_owner: int | None = None, total: int | None = None) -> None:
        self._per_owner = inf if per_owner is None else per_owner
        self._total = inf if total is None else total
        self._by_owner: dict[str, int] = {}
        self.taken = 0

    def of(self, owner: str) -> int:
        """How many bytes the owner has taken."""
        return self._by_owner.get(owner, 0)

    def take(self, owner: str, size: int, *, reserve: bool = False) -> None:
        """Take so many bytes. Raises NoRoom beyond a limit; with `reserve`, beyond that of the owner's share."""
        taken = self._by_owner.get(owner, 0) + size
        if taken > self._per_owner or self.taken + size > self._total:
            self._refuse(owner, size, reserve=reserve)
        self._by_owner[owner] = taken
        self.taken += size

    def is_beyond(self, owner: str, size: int) -> tuple[bool, bool]:
        """Whether so many bytes more are beyond the owner's share, and whether they are beyond the whole."""
        return self.of(owner) + size > self._per_owner, self.taken + size > self._total

    def _refuse(self, owner: str, size: int, *, reserve: bool) -> None:
        """Raises NoRoom, unless the reserve has room."""
        share = self._per_owner * (1 + RESERVE if reserve else 1)
        if self.of(owner) + size > share:
            text = f"your open tasks and fetched answers use {self.of(owner)} bytes of memory"
            raise NoRoom(f"{text}; {size} more would exceed your {self._per_owner}", of_caller=True)
        # What is small has a reserve of the whole in any case: a few owners with large trees keep no other out.
        if self.taken + size > self._total * (1 + RESERVE if size <= SMALL else 1):
            raise NoRoom("open tasks and fetched answers use too much memory at the moment", of_caller=False)

    def force(self, owner: str, size: int) -> None:
        """Take what is there in any case."""
        self._by_owner[owner] = self._by_owner.get(owner, 0) + size
        self.taken += size

    def give(self, owner: str, size: int) -> None:
        """Give back what was taken."""
        self.taken -= size
        left = self._by_owner.get(owner, 0) - size
        if left:
            self._by_owner[owner] = left
        else:
            self._by_owner.pop(owner, None)


class Holdings:
    """What each open tree takes of a budget."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self._trees: dict[str, tuple[str, int]] = {}  # tree -> owner, bytes

    def __contains__(self, tree_id: str) -> bool:
        return tree_id in self._trees

    def hold(self, tree_id: str, owner: str, size: int) -> None:
        """A tree comes into memory, with so many bytes. Raises NoRoom."""
        self._budget.take(owner, size)
        self._trees[tree_id] = owner, size

    def force(self, tree_id: str, owner: str, size: int) -> None:
        """A tree is in memory with so many bytes, whatever the limits: it was begun before."""
        self.drop(tree_id)
        self._budget.force(owner, size)
        self._trees[tree_id] = owner, size

    def add(self, tree_id: str, size: int) -> None:
        """The tree takes so many bytes more, unless it is gone. Raises NoRoom; what is small may use the reserve.

        What has no more bytes than PER_TASK is counted with its task already.
        """
        if (held := self._trees.get(tree_id)) is None:
            return
        owner, before = held
        self._budget.take(owner, size, reserve=size <= SMALL)
        self._trees[tree_id] = owner, before + size

    def drop(self, tree_id: str) -> None:
        """The tree leaves memory."""
        if (held := self._trees.pop(tree_id, None)) is not None:
            self._budget.give(*held)
