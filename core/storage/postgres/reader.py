"""Reads through the connections of a pool.

Each reads what is committed at that moment in one statement; where two statements are needed, in one snapshot.
"""

from collections.abc import Callable
from typing import Any

from core.model.errors import AnswerTooLarge
from core.storage.base import LIST_SECONDS
from core.storage.postgres.connect import Connection, Place, Row
from core.storage.postgres.read_pool import ReadPool, Unfindable
from core.storage.queries import HEAD_COLUMNS, TASK_COLUMNS, Bound
from core.storage.relational.storage import Page

# The tree and its tasks in one statement: the rows of both have the same shape.
LOAD = (
    f"SELECT -1 AS position, {', '.join(c.name for c in HEAD_COLUMNS)} FROM trees WHERE id = $1 UNION ALL "
    f"SELECT * FROM (SELECT position, {', '.join(c.name for c in TASK_COLUMNS)} FROM tasks WHERE tree_id = $1 "
    "ORDER BY position) AS members"
)
TREE_SIZE = "SELECT coalesce(sum(length(spec) + length(state)), 0) FROM tasks WHERE tree_id = $1"
EVENT_SIZE, TASK_SIZE, HEAD_SIZE = "length(body)", "length(spec) + length(state)", "length(body)"
PLACES = 3  # columns that `_sized` adds to a row


class Reader:
    """Reads a database. `gives_up_at` says until when a lost connection is tried again, by `time.monotonic`."""

    def __init__(self, place: Place, gives_up_at: Callable[[], float], *, list_seconds: float = LIST_SECONDS) -> None:
        self.pool = ReadPool(place, gives_up_at, list_seconds=list_seconds)

    async def rows(self, query: Bound) -> list[Row]:
        """All rows of one statement; the statement's limit keeps them few."""
        try:
            return await self.pool.read(lambda connection: connection.fetch(query[0], *query[1]))
        except Unfindable:
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

    async def list_page(self, query: Bound, most: int) -> Page:
        """The first rows of a list, up to the one with which they have `most` bytes of JSON. Raises QueryTooLong."""
        bound = _sized(query, TASK_SIZE, f"total - ({TASK_SIZE}) < {{most}}", most)
        return _page(await self.list_rows(bound))

    async def list_rows(self, query: Bound) -> list[Row]:
        """All rows of a list's statement. Raises QueryTooLong."""
        try:
            return await self.pool.read(lambda connection: connection.fetch(query[0], *query[1]), is_list=True)
        except Unfindable:
            return []

    async def count_and_page(self, count: Bound, query: Bound, most: int) -> tuple[int, Page]:
        """A number and a page of a list, read at one moment. Raises QueryTooLong."""
        bound = _sized(query, HEAD_SIZE, f"total - ({HEAD_SIZE}) < {{most}}", most)

        async def read(connection: Connection) -> tuple[int, Page]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                number: int = await connection.fetchval(count[0], *count[1])
                return number, _page(await connection.fetch(bound[0], *bound[1]))

        return await self.pool.read(read, is_list=True)

    async def two(self, first: Bound, second: Bound) -> tuple[list[Row], list[Row]]:
        """All rows of two statements, read at one moment."""

        async def read(connection: Connection) -> tuple[list[Row], list[Row]]:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                rows = await connection.fetch(first[0], *first[1])
                return rows, await connection.fetch(second[0], *second[1])

        return await self.pool.read(read)

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
