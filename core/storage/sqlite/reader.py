"""Reads through the connections of a pool. No read transaction outlives the page or the tree that it reads."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import aiosqlite

from core.loop.pieces import in_pieces
from core.model.errors import AnswerTooLarge
from core.storage.base import LIST_SECONDS, LOG_BYTES
from core.storage.queries import Bound
from core.storage.relational.storage import Page
from core.storage.sqlite.read_pool import ReadPool, interruptible

Value = TypeVar("Value")
Row = Sequence[Any]

CHUNK = 500  # rows that are fetched at a time, unless they have LOG_BYTES before


class Reader:
    """Reads the database of a writer in the same process, whose commits it sees at once."""

    def __init__(self, path: Path, *, list_seconds: float = LIST_SECONDS) -> None:
        self.pool = ReadPool(path, list_seconds=list_seconds)

    async def open(self) -> None:
        """Raises sqlite3.Error."""
        await self.pool.open()

    async def close(self) -> None:
        """Ends reads that are under way at their next step."""
        await self.pool.close()

    def abandon(self) -> None:
        """Close without the event loop that opened it. Blocks until the threads have ended."""
        self.pool.abandon()

    async def rows(self, query: Bound) -> list[Row]:
        """All rows of one statement; the statement's limit keeps them few."""
        async with self.pool.connection() as connection:
            return list(await connection.execute_fetchall(*query))

    async def page(self, query: Bound, most: int | None) -> Page:
        """The first rows of one statement: those that have `most` bytes of text together, and one at least."""
        async with self.pool.connection() as connection:
            return await _first_rows(connection, query, most, is_within=True)

    async def decoded(self, query: Bound, decode: Callable[[Row], Value], tree_id: str) -> list[Value]:
        """The tree's rows, up to the first one of another tree, decoded in the connection's thread."""
        async with self.pool.connection() as connection:
            found: list[Value] = await connection._execute(  # type: ignore[no-untyped-call]
                _decoded_rows, connection._conn, query, decode, tree_id
            )
            return found

    async def short_rows(self, query: Bound, most: int, size: int) -> list[Row] | None:
        """All rows of one statement; None where they are more than `most`, or have more than `size` bytes of text."""
        async with self.pool.connection() as connection:
            rows: list[Row] | None = await connection._execute(  # type: ignore[no-untyped-call]
                _short_rows, connection._conn, query, most, size
            )
            return rows

    async def list_page(self, query: Bound, most: int) -> Page:
        """The first rows of a list, up to the one with which they have `most` bytes of text. Raises QueryTooLong."""
        async with self.pool.list_connection() as connection:
            return await _first_rows(connection, query, most)

    async def count_and_page(self, count: Bound, query: Bound, most: int) -> tuple[int, Page]:
        """A number and a page of a list, read at one moment. Raises QueryTooLong."""
        async with self.pool.list_connection() as connection, _transaction(connection), interruptible(connection):
            ((number,),) = await connection.execute_fetchall(*count)
            return number, await _first_rows(connection, query, most)

    async def two(self, first: Bound, second: Bound) -> tuple[list[Row], list[Row]]:
        """All rows of two statements, read at one moment."""
        async with self.pool.connection() as connection, _transaction(connection):
            rows: list[Row] = list(await connection.execute_fetchall(*first))
            return rows, list(await connection.execute_fetchall(*second))

    async def first_and_rest(
        self, first: Bound, rest: Bound, decode: Callable[[Row], Value], most: int | None = None
    ) -> tuple[Row, list[Value]] | None:
        """One row, and any number of rows decoded in chunks, read at one moment; None when there is no first row.

        Raises AnswerTooLarge when these have more than `most` bytes of text.
        """
        async with self.pool.connection() as connection, _transaction(connection):
            found = list(await connection.execute_fetchall(*first))
            if not found:
                return None
            return found[0], await _decoded_in_chunks(connection, rest, decode, most)


async def _first_rows(
    connection: aiosqlite.Connection, query: Bound, most: int | None, *, is_within: bool = False
) -> Page:
    """In one visit to the connection's thread, for which aiosqlite has no public way but to fetch all rows."""
    found: list[Page] = []
    await connection._execute(  # type: ignore[no-untyped-call]
        _find_page, found, connection._conn, query, most, is_within
    )
    return found.pop()


def _find_page(found: list[Page], *page: Any) -> None:
    """Gives nothing back: aiosqlite keeps the last call and its result until the next one, and pages are large."""
    found.append(_page(*page))


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


async def _decoded_in_chunks(
    connection: aiosqlite.Connection, query: Bound, decode: Callable[[Row], Value], most: int | None
) -> list[Value]:
    values: list[Value] = []
    size = 0
    async with connection.execute(*query) as cursor:
        while (chunk := await _chunk(connection, cursor)).rows:
            size += chunk.size
            if most is not None and size > most:
                raise AnswerTooLarge(most)
            values += await in_pieces(chunk.rows, decode)
    return values


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
