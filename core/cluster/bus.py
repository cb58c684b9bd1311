"""Hints between the members that share a database: who hears one looks at what is stored.

A hint may be lost, come twice, or late. Nothing may be true only because a hint came: behind each there is a poll.
"""

from collections.abc import Callable
from typing import Protocol, TypeAlias

VERSION = "v"  # a tree's log goes up to this number
INTEREST = "f"  # somebody follows this tree there; with NEWLY from now on, and its version is wanted at once
DELETED = "d"  # a tree was deleted

NEWLY = 1

HintValue: TypeAlias = int | str | None
Heard: TypeAlias = Callable[[str, HintValue], None]


class Bus(Protocol):
    """One member's side of it. Bound to the event loop that opens it."""

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody who could send a hint or hear one."""
        ...

    async def open(self) -> None:
        """Listen. Raises ConfigurationError where hints do not arrive, StorageError where there is no connection."""
        ...

    def abandon(self) -> None:
        """Close without the event loop that opened it, which is gone."""
        ...

    async def close(self) -> None:
        """Listen no more. May be called twice."""
        ...

    def on(self, kind: str, heard: Heard) -> None:
        """Call this one, and none that was named before, with the key and the value of each hint of that kind.

        It must return at once and never raise. Hints of kinds that nobody asked for are ignored.
        """
        ...

    def on_return(self, returned: Callable[[], None]) -> None:
        """Call this one whenever hints arrive again after some may have been lost. It must never raise."""
        ...

    def hint(self, kind: str, key: str, value: HintValue = None) -> None:
        """Tell all other members soon. Of several hints of a kind with one key only the last one need arrive."""
        ...

    def changed(self, tree_id: str, version: int) -> None:
        """The tree's log is durable up to this number: tell it if another member follows the tree."""
        ...

    def deleted(self, tree_id: str) -> None:
        """The tree is no more: tell it if another member follows the tree."""
        ...


class LocalBus:
    """There is nobody else."""

    is_alone = True

    async def open(self) -> None:
        """Nothing to listen to."""

    def abandon(self) -> None:
        """Nothing is open."""

    async def close(self) -> None:
        """Nothing is open."""

    def on(self, kind: str, heard: Heard) -> None:
        """No hint will come."""

    def on_return(self, returned: Callable[[], None]) -> None:
        """None is lost."""

    def hint(self, kind: str, key: str, value: HintValue = None) -> None:
        """Nobody hears it."""

    def changed(self, tree_id: str, version: int) -> None:
        """Nobody else follows it."""

    def deleted(self, tree_id: str) -> None:
        """Nobody else follows it."""
