"""One process for one database file: an operating-system lock on `<database>.lock`, which names its holder.

`<database>` is the file's own path, so symbolic links to it, or to a directory above it, lead to the same lock. Other
names of the same file (hard links, bind mounts) are found out by the lock on its inode: `held`.
"""

import fcntl
import os
import time
from pathlib import Path

from core.model.errors import DatabaseInUse, StorageError
from core.storage.sqlite.held import HeldFile

_NETWORK = ("nfs", "cifs", "smb", "fuse.sshfs")
_MOUNTS = Path("/proc/self/mounts")  # Linux


class DatabaseLock:
    """Held from `acquire` to `release`, and given up by the operating system when the process dies.

    `file` is the database itself. With `creates` it is made where there is none.
    """

    def __init__(self, database: Path, *, creates: bool = False) -> None:
        self._database = database
        self._creates = creates
        self._file: int | None = None
        self.file = HeldFile(database)

    def acquire(self) -> None:
        """Raises DatabaseInUse with the holder's process id, StorageError when the file cannot be made."""
        try:
            database = self._database.resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: links that lead in a circle
            raise StorageError(
                f"The database {self._database} cannot be opened: its path cannot be resolved"
            ) from error
        if (kind := file_system(database.parent)).startswith(_NETWORK):
            raise StorageError(
                f"The database {self._database} is on a network file system ({kind}), which is unsafe; use a local disk"
            )
        try:
            file = os.open(database.with_name(database.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"The database {self._database} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(file, 64).decode("ascii", "replace").split()
            os.close(file)
            name = f"process {holder[0]}" if holder else "another process"
            refusal = DatabaseInUse(f"The database {self._database} is in use by {name}")
            refusal.is_own = holder[:1] == [str(os.getpid())]
            raise refusal from error
        try:
            if self._creates or database.exists():
                self.file.hold()
        except StorageError:
            os.close(file)
            raise
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()} {time.time():.0f}\n".encode(), 0)
        self._file = file
        _held[self] = file

    def release(self) -> None:
        """May be called twice. The file stays: removing it would let two processes lock two files of one name."""
        if self._file is not None:
            self.file.release()
            os.ftruncate(self._file, 0)
            self._close(self._file)

    def _close(self, file: int) -> None:
        os.close(file)
        self._file = None
        del _held[self]


_held: dict[DatabaseLock, int] = {}  # of this process, with their files


def _give_up() -> None:  # pragma: no cover - runs in forked children only, where nothing is measured
    for lock, file in list(_held.items()):
        lock._close(file)


# A child made by fork would share the locks and keep them after its parent's death.
os.register_at_fork(after_in_child=_give_up)


def file_system(directory: Path, mounts: Path = _MOUNTS) -> str:
    """The type of the file system that holds the directory; empty where the system does not tell."""
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    target = str(directory.resolve()) + "/"
    best, kind = "", ""
    for line in lines:
        _, point, name, *_ = line.split(" ")
        folder = point.replace("\\040", " ").rstrip("/") + "/"
        if target.startswith(folder) and len(folder) >= len(best):
            best, kind = folder, name
    return kind
