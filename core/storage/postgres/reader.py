"""Reading connections, in two lanes as in SQLite: reads by key, and lists, which have a time after which they end.

Each reads what is committed at that moment in one statement; where two statements are needed, in one snapshot. One that
was lost is made anew, and its read repeated, until the database is away for too long.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from core.loop.origin import CALLER
from core.model.errors import AnswerTooLarge, QueryTooLong, StorageError, StorageUnavailable
from core.storage.base import LIST_SECONDS, READS_PER_CALLER
from core.storage.connections import SharedConnections
from core.storage.postgres.connect import ERRORS, Connection, Fault, Place, Row, code_of, fault_of
from core.storage.queries import HEAD_COLUMNS, TASK_COLUMNS, Bound
from core.storage.write_queue import CLOSED

CONNECTIONS = 3  # for reads by key
LIST_CONNECTIONS = 1
PAUSE = 0.1  # seconds between two tries to connect
ANSWER = 40.0  # seconds that a read may take, the server's own limit of 30 included

# The tree and its tasks in one statement: the rows of both have the same shape.
LOAD = (
    f"SELECT -1 AS position, {', '.join(c.name for c in HEAD_COLUMNS)} FROM trees WHERE id = $1 UNION ALL "
    f"SELECT * FROM (SELECT position, {', '.join(c.name for c in TASK_COLUMNS)} FROM tasks WHERE tree_id = $1 "
    "ORDER BY position) AS members"
)
TREE_SIZE = "SELECT coalesce(sum(length(spec) + length(state)), 0) FROM tasks WHERE tree_id = $1"
EVENT_SIZE, TASK_SIZE, HEAD_SIZE = "length(body)", "length(spec) + length(state)", "length(body)"
PLACES = 3  # columns that `_sized` adds to a row

Value = TypeVar("Value")


class Page(NamedTuple):
    """Rows, and whether the statement has more of them."""

    rows: list[Any]
    is_cut: bool
    size: int = 0  # bytes of their JSON, where these are bounded


class _Unfindable(StorageError):
    """Nothing can have such a key: the database has no such text."""


class _Slot:
    """Room for one connection, which is made when it is needed."""

    def __init__(self, place: Place, timeout: str) -> None:
        self._place = place
        self._settings = {"statement_timeout": timeout, "application_name": "a2a-server reader"}
        self._connection: Connection | None = None

    async def connection(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._place.connect(self._settings)
            except ERRORS as error:  # whatever it is, it may be over in a moment
                raise ConnectionRefusedError(str(error)) from error
        return self._connection

    def drop(self) -> None:
        connection = self.leave()
        if connection is not None:
            connection.terminate()

    def leave(self) -> Connection | None:
        connection, self._connection = self._connection, None
        return connection


class Reader:
    """Reads a database. `gives_up_at` says until when a lost connection is tried again, by `time.monotonic`."""

    def __init__(self, place: Place, gives_up_at: Callable[[], float], *, list_seconds: float = LIST_SECONDS) -> None:
        self._gives_up_at = gives_up_at
        self._list_seconds = list_seconds
        self._shared: SharedConnections[_Slot] = SharedConnections(READS_PER_CALLER)
        self._shared_for_lists: SharedConnections[_Slot] = SharedConnections(LIST_CONNECTIONS)
        timeout = f"{round(list_seconds * 1000)}ms"
        by_key = [_Slot(place, "30s") for _ in range(CONNECTIONS)]
        lists = [_Slot(place, timeout) for _ in range(LIST_CONNECTIONS)]
        for shared, slots in ((self._shared, by_key), (self._shared_for_lists, lists)):
            for slot in slots:
                shared.add(slot)
        self._slots = [*by_key, *lists]
        self._is_open = True

    async def close(self) -> None:
        """Ends reads that are under way."""
        self._is_open = False
        for slot in self._slots:
            slot.drop()

    def abandon(self) -> list[Connection]:
        """The connections, of which nothing is known here any more."""
        self._is_open = False
        return [connection for slot in self._slots if (connection := slot.leave()) is not None]

    async def rows(self, query: Bound) -> list[Row]:
        """All rows of one statement; the statement's limit keeps them few."""
        try:
            return await self._read(self._shared, lambda connection: connection.fetch(query[0], *query[1]))
        except _Unfindable:
            return []

    async def page(self, query: Bound, most: int | None) -> Page:
        """The first events of one statement: those that have `most` bytes of JSON together, and one at least."""
        if most is None:
            return Page(await self.rows(query), is_cut=False)
        return _page(await self.rows(_sized(query, EVENT_SIZE, "total <= {most} OR place = 1", most)))

    async def short_rows(self, query: Bound, most: int, size: int) -> list[Any] | None:
        """All events of one statement; None where they are more than `most`, or have more than `size` bytes of JSON."""
        length = f"coalesce({EVENT_SIZE}, {size + 1})"  # one that is too long comes without its JSON
        page = _page(await self.rows(_sized(query, length, "total <= {most} OR place = 1", size)))
        return None if page.is_cut or len(page.rows) > most or page.size > size else page.rows

    async def list_page(self, query: Bound, most: int, size: str) -> Page:
        """The first rows of a list, up to the one with which they have `most` bytes of JSON. Raises QueryTooLong."""
        bound = _sized(query, size, f"total - ({size}) < {{most}}", most)
        return _page(await self.list_rows(bound))

    async def list_rows(self, query: Bound) -> list[Row]:
        """All rows of a list's statement. Raises QueryTooLong."""
        try:
            return await self._read(self._shared_for_lists, lambda connection: connection.fetch(query[0], *query[1]))
        except _Unfindable:
            return []

    async def count_and_page(self, count: Bound, query: Bound, most: int, size: str) -> tuple[int, Page]:
        """A number and a page of a list, read at one moment. Raises QueryTooLong."""
        bound = _sized(query, size, f"total - ({size}) < {{most}}", most)

        async def read(connection: Connection) -> tuple[int, Page]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                number: int = await connection.fetchval(count[0], *count[1])
                return number, _page(await connection.fetch(bound[0], *bound[1]))

        return await self._read(self._shared_for_lists, read)

    async def two(self, first: Bound, second: Bound) -> tuple[list[Row], list[Row]]:
        """All rows of two statements, read at one moment."""

        async def read(connection: Connection) -> tuple[list[Row], list[Row]]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                rows = await connection.fetch(first[0], *first[1])
                return rows, await connection.fetch(second[0], *second[1])

        return await self._read(self._shared, read)

    async def tree(self, tree_id: str, most: int | None) -> tuple[Any, list[Any]] | None:
        """A tree's row and those of its tasks by position. Raises AnswerTooLarge where these have more than `most`."""
        if most is not None:
            ((size,),) = await self.rows((TREE_SIZE, (tree_id,)))
            if size > most:
                raise AnswerTooLarge(most)
        rows = await self.rows((LOAD, (tree_id,)))
        rows.sort(key=lambda row: row[0])  # as they came, which is quick, but not promised
        if not rows or rows[0][0] != -1:
            return None
        return rows[0][1:], [row[1:] for row in rows[1:]]

    async def _read(self, shared: SharedConnections[_Slot], read: Callable[[Connection], Awaitable[Value]]) -> Value:
        if not self._is_open:
            raise StorageUnavailable(CLOSED)
        caller = CALLER.get()
        slot = await shared.take(caller)
        began_at = time.monotonic()
        try:
            while True:
                try:
                    async with asyncio.timeout(ANSWER):
                        return await read(await slot.connection())
                except (*ERRORS, ValueError) as error:
                    await self._after(slot, error, began_at, is_list=shared is self._shared_for_lists)
        finally:
            shared.give(caller, slot)

    async def _after(self, slot: _Slot, error: BaseException, began_at: float, *, is_list: bool) -> None:
        """Come back when the read may be tried again; raises what its caller gets otherwise."""
        fault = fault_of(error)
        if not self._is_open:
            raise StorageUnavailable(CLOSED) from error
        if fault is Fault.TOO_LONG and is_list:
            raise QueryTooLong(self._list_seconds) from error
        if fault is Fault.LOST:
            slot.drop()
            if time.monotonic() < min(self._gives_up_at(), began_at + ANSWER):
                await asyncio.sleep(PAUSE)
                return
        elif fault is Fault.BUSY and time.monotonic() < began_at + ANSWER:
            return
        if fault is Fault.UNSTORABLE:
            raise _Unfindable(f"The database cannot be asked for this ({code_of(error)})") from error
        is_passing = fault in (Fault.LOST, Fault.BUSY, Fault.UNAVAILABLE, Fault.TOO_LONG)
        kind = StorageUnavailable if is_passing else StorageError
        raise kind(f"The database cannot be read ({code_of(error)})") from error


def _sized(query: Bound, size: str, condition: str, most: int) -> Bound:
    """The rows up to a size: it is known without reading the values, so that none too many are sent."""
    sql, parameters = query
    place = f"${len(parameters) + 1}::bigint"
    return (
        f"SELECT * FROM (SELECT q.*, sum({size}) OVER w AS total, row_number() OVER w AS place, "
        f"count(*) OVER () AS available FROM ({sql}) AS q WINDOW w AS (ROWS UNBOUNDED PRECEDING)) AS sized "
        f"WHERE {condition.format(most=place)}",
        (*parameters, most),
    )


def _page(rows: list[Row]) -> Page:
    if not rows:
        return Page([], is_cut=False)
    total, _, available = rows[-1][-PLACES:]
    return Page([row[:-PLACES] for row in rows], is_cut=available > len(rows), size=int(total))
