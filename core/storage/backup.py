"""Copies of a database: made beside the server that writes it, and put in its place while no server does.

A copy is whole or not there: it is written under another name, examined, synced, and only then given its own.
"""

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from core.errors import StorageError
from core.storage.integrity import examine
from core.storage.lock import DatabaseLock
from core.storage.migrate import REVISIONS
from core.storage.witness import witness_path

LOGS = ("-wal", "-shm")


def back_up(database: Path, target: Path) -> int:
    """Copy the database as it is at one moment into a new file; its size. Raises StorageError."""
    if target.exists():
        raise StorageError(f"{target} exists already")
    part = _beside(target)
    try:
        _remove(part)
        part.touch(mode=0o600)
        source = sqlite3.connect(f"file:{quote(str(database))}?mode=ro", uri=True)
        with closing(source), closing(sqlite3.connect(part)) as copy:
            source.backup(copy)  # in one read transaction: writers go on, and nothing of what they do gets in
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, that lies anywhere
        _require_sound(part)
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
        raise StorageError(f"There is no backup {backup}")
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
    witness_path(file).unlink(missing_ok=True)


def _require_sound(part: Path) -> None:
    verdict = examine(part)
    if verdict.problems:
        raise StorageError(f"The copy would be damaged: {verdict.problems[0]}")
    if verdict.schema not in REVISIONS:
        raise StorageError("What is to be copied is no database of this program, or one of a newer version")


def _put(part: Path, target: Path) -> int:
    """Give the file its name, for good; its size."""
    _sync(part, os.O_RDONLY)
    os.replace(part, target)
    _sync(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    return target.stat().st_size


def _beside(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _remove(part: Path) -> None:
    for suffix in ("", "-journal", *LOGS):
        part.with_name(part.name + suffix).unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
