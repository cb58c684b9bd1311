"""Bytes in flight: the memory that open trees and fetched answers take, by owner and in all. Pure.

What frees memory is never refused: ends and cancels take nothing, and small results may use a reserve.
"""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from core.errors import NoRoom
from core.jsonscan import most_values
from core.task import Task

SMALL: Final = 4 * 1024  # bytes: a result of so many may use the reserve
RESERVE: Final = 4  # the part of each limit that is kept for those, beyond the limit: a fourth
PER_TASK: Final = 1024  # bytes, about, that a task takes beside what its caller gives it
PER_VALUE: Final = 48  # bytes, about, that a value takes beside its text


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
    held = [(task.inputs, task.result, task.answers, task.schemas, task.params) for task in tasks]
    return PER_TASK * len(held) + memory_of(msgspec.json.encode((held, others)))


class ByteBudget:
    """How many bytes are taken, by owner and in all. None: without a limit."""

    def __init__(self, per_owner: int | None = None, total: int | None = None) -> None:
        self._per_owner = per_owner
        self._total = total
        self._by_owner: dict[str, int] = {}
        self.taken = 0

    def of(self, owner: str) -> int:
        """How many bytes the owner has taken."""
        return self._by_owner.get(owner, 0)

    def refusal(self, owner: str, size: int) -> NoRoom | None:
        """Why the owner cannot take so many bytes more. What is taken of the reserve counts as well."""
        if self._per_owner is not None and self.of(owner) + size > self._per_owner:
            text = f"your open tasks and fetched answers take {self.of(owner)} bytes of memory"
            return NoRoom(f"{text}; {size} more are beyond your {self._per_owner}", of_caller=True)
        if self._total is not None and self.taken + size > self._total:
            return NoRoom("open tasks and fetched answers take too much memory at this moment", of_caller=False)
        return None

    def take(self, owner: str, size: int, *, reserve: bool = False) -> None:
        """Take so many bytes. Raises NoRoom beyond a limit, or with `reserve` beyond its reserve."""
        refusal = self.refusal(owner, size)
        if refusal is not None and reserve and self._is_in_reserve(owner, size):
            refusal = None
        try:
            if refusal is not None:
                raise refusal
        finally:
            del refusal  # else it and this frame, and all frames that called it, would keep each other
        self.force(owner, size)

    def _is_in_reserve(self, owner: str, size: int) -> bool:
        for taken, limit in ((self.of(owner), self._per_owner), (self.taken, self._total)):
            if limit is not None and taken + size > limit + limit // RESERVE:
                return False
        return True

    def force(self, owner: str, size: int) -> None:
        """Take what is there in any case."""
        self._by_owner[owner] = self.of(owner) + size
        self.taken += size

    def give(self, owner: str, size: int) -> None:
        """Give back what was taken."""
        self.taken -= size
        left = self.of(owner) - size
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
        """The tree takes so many bytes more, unless it is gone. Raises NoRoom; what is small may use the reserve."""
        if (held := self._trees.get(tree_id)) is None:
            return
        owner, before = held
        self._budget.take(owner, size, reserve=size <= SMALL)
        self._trees[tree_id] = owner, before + size

    def drop(self, tree_id: str) -> None:
        """The tree leaves memory."""
        if (held := self._trees.pop(tree_id, None)) is not None:
            self._budget.give(*held)
