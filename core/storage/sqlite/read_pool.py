"""The read-only aiosqlite connections of a database, in two lanes, from the opening of the database to its end.

Reads of one row or one log have connections of their own: a list, which may look at many rows, never holds one of them.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiosqlite

from core.loop.library_hooks import require
from core.loop.origin import CALLER
from core.model.errors import QueryTooLong, StorageError, StorageUnavailable
from core.storage.base import LIST_SECONDS, READS_PER_CALLER
from core.storage.connections import SharedConnections
from core.storage.sqlite.uri import read_only
from core.storage.write_queue import CLOSED

CONNECTIONS = 3  # for reads by key
LIST_CONNECTIONS = 2
INTERRUPT_EVERY = 0.01  # seconds: a statement that waits in its connection's thread is not reached by the first one
# The primary codes of what may be better at the next try; all others say that the file is broken.
PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_PROTOCOL,
    }
)


def readable_text(raw: bytes) -> str:
    """A text of the file. Where a flipped bit made it no UTF-8, the checksum tells, and only its row is lost."""
    return raw.decode(errors="replace")


@asynccontextmanager
async def interruptible(connection: aiosqlite.Connection) -> AsyncIterator[None]:
    """Interrupts the statement of a caller that is cancelled, and waits for its end.

    Not for a cursor that is read in several visits: whoever comes next would be interrupted as long as it is open.
    """
    try:
        yield
    except asyncio.CancelledError:
        visit = connection._execute(_nothing)  # type: ignore[no-untyped-call]
        await asyncio.shield(asyncio.ensure_future(_interrupting(connection, visit)))
        raise


async def _interrupting(connection: aiosqlite.Connection, visit: Awaitable[None]) -> None:
    """Wait for this visit to the connection's thread; what is before it there is interrupted as soon as it begins."""
    visiting = asyncio.ensure_future(visit)
    while not visiting.done():
        with suppress(ValueError, sqlite3.ProgrammingError):  # it is closed
            connection._conn.interrupt()
        await asyncio.wait([visiting], timeout=INTERRUPT_EVERY)
    with suppress(ValueError):  # as above
        visiting.result()


def _nothing() -> None:
    """What a thread does last, so that it keeps no result of before."""


class ReadPool:
    """Opens the connections, lends them, and says what went wrong with one."""

    def __init__(self, path: Path, *, list_seconds: float = LIST_SECONDS) -> None:
        self._uri = read_only(path)
        self._list_seconds = list_seconds
        self._shared: SharedConnections[aiosqlite.Connection] = SharedConnections(READS_PER_CALLER)
        self._shared_for_lists: SharedConnections[aiosqlite.Connection] = SharedConnections(LIST_CONNECTIONS)
        self._connections: list[aiosqlite.Connection] = []

    async def open(self) -> None:
        """Raises sqlite3.Error."""
        for shared in (self._shared,) * CONNECTIONS + (self._shared_for_lists,) * LIST_CONNECTIONS:
            # None: sqlite3 begins no transaction by itself, so a statement alone is one.
            opening = aiosqlite.connect(self._uri, uri=True, isolation_level=None)
            require("aiosqlite", opening, ["_thread", "_execute", "_conn"], purpose="reading the database")
            # aiosqlite 0.22 has no option for it, and a program that ends without close() would hang for ever.
            opening._thread.daemon = True
            connection = await opening
            connection.text_factory = readable_text
            self._connections.append(connection)
            # To their last row: an interrupt lasts as long as any statement of the connection is under way.
            await connection.execute_fetchall("PRAGMA query_only=1")
            await connection.execute_fetchall("PRAGMA busy_timeout=5000")
            async with connection.execute("SELECT 1") as cursor:
                require("aiosqlite", cursor, ["_cursor"], purpose="reading in pieces")
                await cursor.fetchall()
            shared.add(connection)

    async def close(self) -> None:
        """Ends reads that are under way at their next step."""
        connections, self._connections = self._connections, []
        for connection in connections:
            await _interrupting(connection, connection.close())

    def abandon(self) -> None:
        """Close without the event loop that opened it. Blocks until the threads have ended."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection._conn.interrupt()
            connection.stop()
        for connection in connections:
            connection._thread.join()

    @asynccontextmanager
    async def list_connection(self) -> AsyncIterator[aiosqlite.Connection]:
        """A connection for lists, whose statement is interrupted when its time is over. Raises QueryTooLong."""
        async with self.connection(self._shared_for_lists) as connection:
            # From outside and only once: a progress handler would wait for the event loop's thread again and again.
            alarm = asyncio.get_running_loop().call_later(self._list_seconds, connection._conn.interrupt)
            try:
                async with interruptible(connection):
                    yield connection
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT and connection in self._connections:
                    raise QueryTooLong(self._list_seconds) from error
                raise
            finally:
                alarm.cancel()

    @asynccontextmanager
    async def connection(
        self, shared: SharedConnections[aiosqlite.Connection] | None = None
    ) -> AsyncIterator[aiosqlite.Connection]:
        """A connection for reads by key, or one of `shared`. What goes wrong with it becomes a StorageError."""
        if not self._connections:
            raise StorageUnavailable(CLOSED)
        shared = self._shared if shared is None else shared
        caller = CALLER.get()
        connection = await shared.take(caller)
        try:
            if connection not in self._connections:
                raise StorageUnavailable(CLOSED)
            yield connection
        except (sqlite3.Error, ValueError) as error:  # ValueError: of aiosqlite, or of what decodes rows
            if connection not in self._connections:
                raise StorageUnavailable(CLOSED) from error
            if isinstance(error, ValueError):
                raise
            is_passing = getattr(error, "sqlite_errorcode", 0) & 0xFF in PASSING
            kind = StorageUnavailable if is_passing else StorageError
            raise kind(f"The database cannot be read ({getattr(error, 'sqlite_errorname', 'unknown')})") from error
        finally:
            shared.give(caller, connection)
