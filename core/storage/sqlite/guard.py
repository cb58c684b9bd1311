"""Whether a database may be written: its file is still there, the disk has more room than the reserve, writes succeed.

The reserve is for what frees space or ends work: small appends (ends, cancels), documents (keys, webhooks), deletes.
New trees and large appends are refused before the disk is that full.
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path

from core.model.errors import DatabaseLost, DiskReserved

logger = logging.getLogger(__name__)

RESERVE = 64 * 1024 * 1024  # bytes of the disk
SMALL = 64 * 1024  # bytes of an append that may use the reserve
COPIES = 4  # what an event says stands in a task's row, too, and all of it in SQLite's log and, later, in the database


def free_bytes(directory: Path) -> int:
    """The bytes that an unprivileged process may still write there. Raises OSError."""
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


class Guard:
    """Asked by the writer's thread before each transaction, and by code that needs to know whether writes succeed.

    `loss` says why the file is not the one that was opened; `free` how many bytes the disk has.
    """

    def __init__(
        self,
        path: Path,
        *,
        reserve: int = RESERVE,
        loss: Callable[[], str | None] | None = None,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:
        self._path = path
        self._reserve = max(reserve, SMALL)  # with less a write may fail at any moment
        self._loss = loss or _no_loss
        self._watches = loss is not None
        self._free = free
        self._told: str | None = None
        self.failure: str | None = None  # what the last write failed with; None: it succeeded

    @property
    def wants_looks(self) -> bool:
        """Whether to look each second although nothing is written."""
        return self._watches or self.failure is not None

    def refusal(self) -> str | None:
        """Why writes are refused at this moment; None: they are not. A change stands in the log once."""
        reason = self._loss() or self.failure
        if reason is None and not self._has_room(0):
            reason = f"The disk of {self._path.name} has less than {self._reserve} bytes free: new work is refused"
        if reason != self._told:
            self._told = reason
            if reason is None:
                logger.warning("writes to %s are accepted again", self._path)
            else:
                logger.error("writes to %s are refused: %s", self._path, reason)
        return reason

    def require_file(self) -> None:
        """Raises DatabaseLost when what is written now would be gone at the next start."""
        if (reason := self._loss()) is not None:
            self.refusal()
            raise DatabaseLost(reason)

    def require_room(self, size: int, *, is_new: bool) -> None:
        """Raises DiskReserved when an append of so many bytes would take the reserve, and is none that may."""
        if (is_new or size > SMALL) and not self._has_room(size):
            self.refusal()
            raise DiskReserved(
                f"The disk is nearly full (less than {self._reserve} bytes free); delete tasks, or try again later"
            )

    def _has_room(self, size: int) -> bool:
        try:
            return self._free(self._path.parent) - COPIES * size >= self._reserve
        except OSError:
            return True  # the write itself will tell


def _no_loss() -> None:
    return None
