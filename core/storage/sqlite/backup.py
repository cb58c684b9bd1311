"""Copies of a database: made beside the server that writes it, and put in its place while no server does.

A copy is whole or not there: it is written under another name, examined, synced, and only then given its own.
"""

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from glob import escape
from pathlib import Path

from core.model.errors import StorageError
from core.storage.sqlite.commit_marker import marker_path, noted_commit
from core.storage.sqlite.integrity import examine
from core.storage.sqlite.lock import DatabaseLock
from core.storage.sqlite.uri import read_only
from core.storage.tables import REVISIONS

LOGS = ("-wal", "-shm")


def back_up(database: Path, target: Path) -> int:
    """Copy the database as it is at one moment into a new file; its size. Raises StorageError."""
    _require_new(target)
    part = _beside(target, f".{os.getpid()}")  # two copies under way do not write into each other
    noted = noted_commit(database)
    try:
        _remove_what_was_killed(target)
        part.touch(mode=0o600)
        source = sqlite3.connect(read_only(database), uri=True)
        with closing(source), closing(sqlite3.connect(part)) as copy:
            source.backup(copy)  # in one read transaction: writers go on, and nothing of what they do gets in
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, that lies anywhere
        _require_sound(part)
        with closing(sqlite3.connect(part)) as copy:
            if noted is not None and noted.is_missed_in(copy):
                raise StorageError(f"The database {database} lacks its last commits; run `a2a-server db check`")
        _require_new(target)
        return _put(part, target)
    except sqlite3.Error as error:
        raise StorageError(f"The database {database} cannot be copied: {error}") from error
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror}") from error
    finally:
        _remove(part)


def restore(backup: Path, database: Path) -> int:
    """Put a copy of the backup in the database's place; its size.

    Raises DatabaseInUse while a server holds the database, StorageError when the backup is not whole; then the
    database is as it was.
    """
    if not backup.is_file():
        raise StorageError(f"The backup does not exist: {backup}")
    log = backup.with_name(f"{backup.name}-wal")
    if (log.exists() and log.stat().st_size) or (database.exists() and backup.samefile(database)):
        # Without its log, what was committed last would be gone.
        raise StorageError(f"{backup} is a database in use, not a backup; make one with `a2a-server db backup`")
    lock = DatabaseLock(database)
    lock.acquire()
    file = database.resolve()
    part = _beside(file)
    try:
        _remove(part)
        part.touch(mode=0o600)
        with backup.open("rb") as source, part.open("r+b") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
        _require_sound(part)
        _retire(file)
        return _put(part, file)
    except OSError as error:
        raise StorageError(f"The database {database} cannot be restored: {error.strerror}") from error
    finally:
        _remove(part)
        lock.release()


def _retire(file: Path) -> None:
    """Take the logs of the database away, for they must not be applied to another one."""
    if file.exists():
        with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as connection:
            # What is replaced stays whole without its log, should this process end before it is.
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for suffix in LOGS:
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    marker_path(file).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _require_sound(part: Path) -> None:
    verdict = examine(part)
    if verdict.problems:
        raise StorageError(f"The copy would be damaged: {verdict.problems[0]}")
    if verdict.schema not in REVISIONS:
        raise StorageError("The source is not a database of this program, or has a newer version")


def _put(part: Path, target: Path) -> int:
    """Give the file its name, for good; its size."""
    _sync(part, os.O_RDONLY)
    os.replace(part, target)
    _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    return target.stat().st_size


def _require_new(target: Path) -> None:
    if target.exists():
        raise StorageError(f"{target} exists already")


def _beside(target: Path, of: str = "") -> Path:
    return target.with_name(f"{target.name}{of}.part")


def _remove_what_was_killed(target: Path) -> None:
    """Halves of copies whose processes are gone; one with our own number is of a process that had it before."""
    for part in target.parent.glob(f"{escape(target.name)}.*.part"):
        pid = part.name.removeprefix(f"{target.name}.").removesuffix(".part")
        if pid.isdecimal() and (int(pid) == os.getpid() or not _is_alive(int(pid))):
            _remove(part)


def _remove(part: Path) -> None:
    for suffix in ("", "-journal", *LOGS):
        part.with_name(part.name + suffix).unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
