"""Brings a database file to the present schema. Where it has it, nothing is written or loaded.

A new file gets the tables as they are described now; only an old one goes through the revisions. A test holds the two
ways to the same end.
"""

import importlib
import sqlite3
from pathlib import Path

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from core.model.errors import StorageError
from core.storage.tables import REVISIONS, metadata

# As alembic makes it.
REVISION_TABLE = (
    "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, "
    "CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
)


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
            f"The database {path} has schema {revision}, unknown to this program (latest: {REVISIONS[-1]}): "
            "it was written by a newer version of this program"
        )
    try:
        if revision is None:
            _create(path)
        else:
            # Alembic costs as much time as half of all other imports of a start, and is needed for an old file only.
            importlib.import_module("core.storage.migrations.run").upgrade(path)
    except sqlite3.Error as error:
        raise StorageError(f"The database {path} cannot be migrated: {error}") from error


def _create(path: Path) -> None:
    """All tables, and the mark of the revision that they are, in one transaction. Raises sqlite3.Error."""
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            # sqlite3 would begin a transaction for rows but not for tables, so it is begun here.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql(REVISION_TABLE)
            connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (REVISIONS[-1],))
            metadata.create_all(connection, checkfirst=False)
            connection.commit()
    except DBAPIError as error:
        raise error.orig if isinstance(error.orig, sqlite3.Error) else error from error


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
