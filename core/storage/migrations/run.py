"""Runs alembic on one database. The only module outside the revisions that loads it."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool


def upgrade(path: Path) -> None:
    """All revisions that a file misses, in one transaction. Raises sqlite3.Error, with the file unchanged."""
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(path, isolation_level=None), poolclass=NullPool)
    try:
        with engine.connect() as connection:
            # sqlite3 would begin a transaction for rows but not for tables, so it is begun here.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _upgrade(connection)
            connection.commit()
    except DBAPIError as error:
        raise error.orig if isinstance(error.orig, sqlite3.Error) else error from error


async def upgrade_over(connect: Callable[[], Awaitable[Any]]) -> None:
    """All revisions that a database of PostgreSQL misses, in one transaction, over a connection of asyncpg's."""
    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=NullPool)
    async with engine.begin() as connection:
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
