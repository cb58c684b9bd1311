"""Brings a database file to the present schema. Where it has it, nothing is written or loaded."""

import importlib
import sqlite3
from pathlib import Path

from core.errors import StorageError

REVISIONS = ("0001", "0002", "0003")  # oldest first; the last one is what this program needs


def migrate(path: Path) -> None:
    """Raises StorageError, with the file unchanged, when it is no database of ours or comes from a newer program."""
    try:
        revision = stored_revision(path)
    except sqlite3.Error as error:
        raise StorageError(f"The database {path} cannot be read: {error}") from error
    if revision == REVISIONS[-1]:
        return
    if revision is not None and revision not in REVISIONS:
        raise StorageError(
            f"The database {path} has schema {revision}, unknown to this program (its own is {REVISIONS[-1]}): "
            "it was written by a newer version of this program"
        )
    # Alembic costs as much time as all other imports of a start together and is needed for a new or old file only.
    run = importlib.import_module("core.storage.migrations.run")
    try:
        run.upgrade(path)
    except sqlite3.Error as error:
        raise StorageError(f"The database {path} cannot be migrated: {error}") from error


def stored_revision(path: Path) -> str | None:
    """The schema's revision in the file; None for an empty database. Raises sqlite3.Error, StorageError."""
    connection = sqlite3.connect(path)
    try:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise StorageError(f"The file {path} is a database of another program")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])
    finally:
        connection.close()
