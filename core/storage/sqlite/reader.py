"""A few read-only aiosqlite connections, in two lanes. No read transaction outlives the page or the tree that it reads.

Reads of one row or one log have connections of their own: a list, which may look at many rows, never holds one of them.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiosqlite

from core.loop.library_hooks import require
from core.loop.origin import CALLER
from core.loop.pieces import in_pieces
from core.model.errors import AnswerTooLarge, QueryTooLong, StorageError, StorageUnavailable
from core.storage.base import LIST_SECONDS, LOG_BYTES, READS_PER_CALLER
from core.storage.connections import SharedConnections
from core.storage.queries import Bound
from core.storage.sqlite.uri import read_only
from core.storage.write_queue import CLOSED

Value = TypeVar("Value")
Row = Sequence[Any]

CONNECTIONS = 3  # for reads by key
LIST_CONNECTIONS = 2
CHUNK = 500  # rows that are fetched at a time, unless they have LOG_BYTES before
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


class Reader:
    """Reads the database of a writer in the same process, whose commits it sees at once."""

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
            await connection.close()

    def abandon(self) -> None:
        """Close without the event loop that opened it. Blocks until the threads have ended."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection._conn.interrupt()
            connection.stop()
        for connection in connections:
            connection._thread.join()

    async def rows(self, query: Bound) -> list[Row]:
        """All rows of one statement; the statement's limit keeps them few."""
        async with self._connection() as connection:
            return list(await connection.execute_fetchall(*query))

    async def page(self, query: Bound, most: int | None) -> "Page":
        """The first rows of one statement: those that have `most` bytes of text together, and one at least."""
        async with self._connection() as connection:
            return await _first_rows(connection, query, most, is_within=True)

    async def decoded(self, query: Bound, decode: Callable[[Row], Value], tree_id: str) -> list[Value]:
        """The tree's rows, up to the first one of another tree, decoded in the connection's thread."""
        async with self._connection() as connection:
            found: list[Value] = await connection._execute(  # type: ignore[no-untyped-call]
                _decoded_rows, connection._conn, query, decode, tree_id
            )
            return found

    async def short_rows(self, query: Bound, most: int, size: int) -> list[Row] | None:
        """All rows of one statement; None where they are more than `most`, or have more than `size` bytes of text."""
        async with self._connection() as connection:
            rows: list[Row] | None = await connection._execute(  # type: ignore[no-untyped-call]
                _short_rows, connection._conn, query, most, size
            )
            return rows

    async def list_page(self, query: Bound, most: int) -> "Page":
        """The first rows of a list, up to the one with which they have `most` bytes of text. Raises QueryTooLong."""
        async with self._list_connection() as connection:
            return await _first_rows(connection, query, most)

    async def count_and_page(self, count: Bound, query: Bound, most: int) -> tuple[int, "Page"]:
        """A number and a page of a list, read at one moment. Raises QueryTooLong."""
        async with self._list_connection() as connection, _transaction(connection):
            ((number,),) = await connection.execute_fetchall(*count)
            return number, await _first_rows(connection, query, most)

    async def two(self, first: Bound, second: Bound) -> tuple[list[Row], list[Row]]:
        """All rows of two statements, read at one moment."""
        async with self._connection() as connection, _transaction(connection):
            rows: list[Row] = list(await connection.execute_fetchall(*first))
            return rows, list(await connection.execute_fetchall(*second))

    async def first_and_rest(
        self, first: Bound, rest: Bound, decode: Callable[[Row], Value], most: int | None = None
    ) -> tuple[Row, list[Value]] | None:
        """One row, and any number of rows decoded in chunks, read at one moment; None when there is no first row.

        Raises AnswerTooLarge when these have more than `most` bytes of text.
        """
        async with self._connection() as connection, _transaction(connection):
            found = list(await connection.execute_fetchall(*first))
            if not found:
                return None
            values: list[Value] = []
            size = 0
            async with connection.execute(*rest) as cursor:
                while (chunk := await _chunk(connection, cursor)).rows:
                    size += chunk.size
                    if most is not None and size > most:
                        raise AnswerTooLarge(most)
                    values += await in_pieces(chunk.rows, decode)
            return found[0], values

    @asynccontextmanager
    async def _list_connection(self) -> AsyncIterator[aiosqlite.Connection]:
        """A connection for lists, whose statement is interrupted when its time is over. Raises QueryTooLong."""
        async with self._connection(self._shared_for_lists) as connection:
            # From outside and only once: a progress handler would wait for the event loop's thread again and again.
            alarm = asyncio.get_running_loop().call_later(self._list_seconds, connection._conn.interrupt)
            try:
                yield connection
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT and connection in self._connections:
                    raise QueryTooLong(self._list_seconds) from error
                raise
            finally:
                alarm.cancel()

    @asynccontextmanager
    async def _connection(
        self, shared: SharedConnections[aiosqlite.Connection] | None = None
    ) -> AsyncIterator[aiosqlite.Connection]:
        if not self._connections:
            raise StorageUnavailable(CLOSED)
        shared = self._shared if shared is None else shared
        caller = CALLER.get()
        connection = await shared.take(caller)
        try:
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


class Page(NamedTuple):
    """Rows, and whether the statement has more of them."""

    rows: list[Row]
    is_cut: bool
    size: int = 0  # bytes of their JSON, where these are bounded


async def _first_rows(
    connection: aiosqlite.Connection, query: Bound, most: int | None, *, is_within: bool = False
) -> Page:
    """In one visit to the connection's thread, for which aiosqlite has no public way but to fetch all rows."""
    page: Page = await connection._execute(  # type: ignore[no-untyped-call]
        _page, connection._conn, query, most, is_within
    )
    return page


def _decoded_rows(
    connection: sqlite3.Connection, query: Bound, decode: Callable[[Row], Value], tree_id: str
) -> list[Value]:
    values: list[Value] = []
    with closing(connection.execute(*query)) as cursor:
        for row in cursor:
            if row[0] != tree_id:
                break
            values.append(decode(row))
    return values


def _short_rows(connection: sqlite3.Connection, query: Bound, most: int, size: int) -> list[Row] | None:
    rows: list[Row] = []
    with closing(connection.execute(*query)) as cursor:
        for row in cursor:
            rows.append(row)
            size -= size + 1 if row[2] is None else len(row[2])  # one that is too long comes without its text
            if size < 0 or len(rows) > most:
                return None
    return rows


def _page(connection: sqlite3.Connection, query: Bound, most: int | None, is_within: bool) -> Page:
    """Rows up to the one with which they have `most` bytes; `is_within`: without that one, unless it is the first."""
    with closing(connection.execute(*query)) as cursor:
        if most is None:
            return Page(cursor.fetchall(), is_cut=False)
        rows: list[Row] = []
        size = 0
        for row in cursor:
            more = _size(row)
            if size >= most or (is_within and rows and size + more > most):
                return Page(rows, is_cut=True, size=size)
            rows.append(row)
            size += more
        return Page(rows, is_cut=False, size=size)


class _Chunk(NamedTuple):
    """Some rows, and the bytes of their JSON."""

    rows: list[Row]
    size: int


async def _chunk(connection: aiosqlite.Connection, cursor: aiosqlite.Cursor) -> _Chunk:
    """The cursor's next rows, in one visit to the connection's thread."""
    chunk: _Chunk = await connection._execute(_next_rows, cursor._cursor)  # type: ignore[no-untyped-call]
    return chunk


def _next_rows(cursor: sqlite3.Cursor) -> _Chunk:
    rows: list[Row] = []
    size = 0
    for row in cursor:
        rows.append(row)
        size += _size(row)
        if len(rows) == CHUNK or size >= LOG_BYTES:
            break
    return _Chunk(rows, size)


def _size(row: Row) -> int:
    """The bytes of the row's JSON, which is stored as bytes; ids and names beside it are short."""
    size = 0
    for value in row:
        if value.__class__ is bytes:
            size += len(value)
    return size


@asynccontextmanager
async def _transaction(connection: aiosqlite.Connection) -> AsyncIterator[None]:
    try:
        await connection.execute("BEGIN")
        yield
    finally:
        # Queued before any other use of the connection, also when the caller was cancelled; no error without a BEGIN.
        end = asyncio.ensure_future(connection.rollback())
        await asyncio.shield(end)
