"""The core's errors: one type for each thing that can be wrong, saying whose fault it is.

Each message is safe to show to a caller: it never carries the text of a foreign exception.
"""

from collections.abc import Sequence
from typing import Self

from msgspec import Struct


class CoreError(Exception):
    """Any error the core raises on purpose."""


class CallerError(CoreError):
    """The caller asked for something impossible; the same request will fail again."""


class Problem(Struct, frozen=True):
    """One thing wrong with what a caller sent: the path of the field and what it should have been."""

    field: str
    message: str


class InvalidPlan(CallerError):
    """An array of tasks, or a field of a task, breaks the rules. Lists every problem at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.field}: {p.message}" if p.field else p.message for p in self.problems))


class TaskNotFound(CallerError):
    """No such task, or it belongs to another caller: the error is the same."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(f"Task {task_id} not found")


class IllegalCommand(CallerError):
    """The task's present status does not allow what was asked."""

    def __init__(self, task_id: str, message: str) -> None:
        self.task_id = task_id
        super().__init__(message)


class NothingToRun(IllegalCommand):
    """Every task is completed already."""


class TaskNotCancelable(IllegalCommand):
    """The task has ended in another way, so it cannot be cancelled."""

    @classmethod
    def already(cls, task_id: str, status: str) -> Self:
        """The task, or the tree of this root, has that status."""
        return cls(task_id, f"Task {task_id} is already {status}, cannot cancel")


class TreeIsRunning(IllegalCommand):
    """The tree runs at this moment, and what was asked needs it at rest."""


class LogCompacted(CallerError):
    """The events after the given number are compacted into the task's state; later ones follow `until`."""

    def __init__(self, tree_id: str, until: int) -> None:
        self.tree_id = tree_id
        self.until = until
        super().__init__(
            f"The events of task {tree_id} up to number {until} are compacted into its state: read the task"
        )


class QuotaExceeded(CallerError):
    """The caller has as many bytes stored as one caller may."""

    def __init__(self, used: int, most: int) -> None:
        super().__init__(f"your tasks take about {used} bytes of {most} allowed (max_stored_per_caller); delete tasks")


class AnswerTooLarge(CallerError):
    """A page of a list, or a tree, would be larger than one read may be: ask for fewer tasks."""

    def __init__(self, most: int) -> None:
        text = f"the answer would exceed {most} bytes of JSON; ask for fewer tasks"
        super().__init__(f"{text}: with a lower limit, or one by one")


class QueryTooLong(CallerError):
    """A list would scan more rows than one read has time for: use narrower filters."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the list took longer than {seconds:g} s; ask for fewer rows, or use narrower filters")


class NoRoom(CoreError):
    """What was asked does not fit at this moment; it may later. Nothing of it was done."""

    def __init__(self, message: str, *, of_caller: bool) -> None:
        self.of_caller = of_caller  # whether it is the caller's own share that is used up, not everybody's
        super().__init__(message)


class StaleAttempt(CoreError):
    """A report arrived from an attempt that no longer owns the task. It is dropped."""

    def __init__(self, task_id: str, attempt: int) -> None:
        self.task_id = task_id
        self.attempt = attempt
        super().__init__(f"Attempt {attempt} of task {task_id} no longer owns it")


class StorageError(CoreError):
    """The database could not do what was asked; nothing of it is stored."""


class VersionConflict(StorageError):
    """Another writer appended to this tree first: reload it and decide again."""

    def __init__(self, tree_id: str) -> None:
        self.tree_id = tree_id
        super().__init__(f"Tree {tree_id} was changed by another writer")


class StorageUnavailable(StorageError):
    """The database cannot be written or read at this moment (disk full, locked, closing)."""


class DatabaseLost(StorageUnavailable):
    """The database's file was removed or replaced, or others took it over: new writes would be lost, or are refused."""


class RunElsewhere(StorageUnavailable):
    """Another member that shares the database runs this tree, and it alone may change it."""

    def __init__(self, tree_id: str) -> None:
        self.tree_id = tree_id
        super().__init__(f"Tree {tree_id} is run by another server on this database: ask that one, or try again later")


class DiskReserved(StorageUnavailable):
    """The disk is nearly full; the rest is reserved for finishing, cancelling and deleting tasks."""


class DatabaseInUse(StorageError):
    """Another process, or another part of this one, holds this database."""

    is_own = False  # it is this process


class ConfigurationError(CoreError):
    """The settings cannot work. The message is for the operator."""
