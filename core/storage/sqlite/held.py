"""The database's file, held by its inode: a lock to which every name of it leads, and a look at whether it is there.

A hard link, a bind mount, or a lost `<database>.lock` lead a second process to the same inode, and to this lock. It
is a `flock`, which on Linux knows nothing of SQLite's own locks (POSIX ones) and does not touch them. POSIX locks of a
process end when it closes *any* descriptor of the file, so this one is closed after SQLite's connections, and a file
that this process holds already is never opened a second time.
"""

import fcntl
import os
import sys
from pathlib import Path

from core.loop.forks import let_go
from core.model.errors import DatabaseInUse, StorageError

LOGS = ("-wal", "-shm")  # SQLite's files beside the database; what is in the first one may be nowhere else
BESIDE = (*LOGS, ".lock", ".commits")

Identity = tuple[int, int]  # device and inode


class HeldFile:
    """One open database file. `hold` and `release` it once; `loss` may be asked from any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._identity: Identity | None = None
        self._watched: list[tuple[str, Identity]] = []  # the file, and SQLite's beside it

    @property
    def identity(self) -> str:
        """`device:inode` in hexadecimal; empty while the file is not held."""
        return "" if self._identity is None else f"{self._identity[0]:x}:{self._identity[1]:x}"

    def hold(self) -> None:
        """Make the file where there is none, and lock it. Raises DatabaseInUse, or StorageError if it cannot be."""
        if (known := _identity(self._path)) is not None and known in _held:
            refusal = DatabaseInUse(f"The database {self._path} is in use by process {os.getpid()}")
            refusal.is_own = True
            raise refusal
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)  # SQLite's logs get the same mode
        except OSError as error:
            raise StorageError(f"The database {self._path} cannot be opened: {error.strerror}") from error
        if not _locked(file):
            os.close(file)
            raise DatabaseInUse(f"The database {self._path} is in use by another process, under this or another name")
        found = os.fstat(file)
        self._file, self._identity = file, (found.st_dev, found.st_ino)
        self._watched = [(str(self._path), self._identity)]
        _held[self._identity] = self

    def watch_logs(self) -> None:
        """Remember SQLite's files beside the database, which are there as soon as it is read for the first time."""
        logs = [self._beside(suffix) for suffix in LOGS]
        self._watched += [(str(log), found) for log in logs if (found := _identity(log)) is not None]

    def identities(self) -> list[Identity]:
        """Of the file and of what lies beside it."""
        found = [*(identity for _, identity in self._watched), *(_identity(self._beside(suffix)) for suffix in BESIDE)]
        return [each for each in found if each is not None]

    def _beside(self, suffix: str) -> Path:
        resolved = self._path.resolve()
        return resolved.with_name(resolved.name + suffix)

    def loss(self) -> str | None:
        """Why what is written now would be gone at the next start; None: it would not."""
        if self._identity is None:
            return None
        for file, identity in self._watched:
            try:
                found = os.stat(file)
            except OSError:
                return _told(file, "was removed")
            if (found.st_dev, found.st_ino) != identity:
                return _told(file, "was replaced by another file")
        return None

    def release(self) -> None:
        """Let go of the file, after the last SQLite connection to it is closed. May be called twice."""
        if self._file is not None and self._identity is not None:
            os.close(self._file)
            del _held[self._identity]
            self._file, self._identity, self._watched = None, None, []


_held: dict[Identity, HeldFile] = {}  # of this process


def _give_up() -> None:  # pragma: no cover - runs in forked children only, where nothing is measured
    if _held:
        ours = {identity for held in _held.values() for identity in held.identities()}
        let_go(lambda number, found: (found.st_dev, found.st_ino) in ours)
        _held.clear()


# A child made by fork would share the lock and keep it after its parent's death, and SQLite's open files with it.
os.register_at_fork(after_in_child=_give_up)


def _identity(path: Path) -> Identity | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _locked(file: int) -> bool:
    """Whether the lock was free and is ours now. Other systems than Linux mix it up with SQLite's locks."""
    if sys.platform != "linux":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _told(path: str, what: str) -> str:
    return f"The file {os.path.basename(path)} {what} while the server was using it; put it back, or restart the server"
