"""The statements that read events: made as those of `queries` are."""

from collections.abc import Collection
from functools import lru_cache, partial
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, bindparam, case, func, or_, select, true, tuple_

from core.storage.base import EventQuery
from core.storage.dialect import Dialect, Statement, compiled
from core.storage.queries import EVENT_COLUMNS, SHAPES, Bound, many, one_of
from core.storage.tables import events


class EventQueries:
    """The statements of one database that read events."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._at = compiled(_numbered_events(dialect), dialect)
        self._page = lru_cache(SHAPES)(partial(_make_page, dialect))
        self._places = lru_cache(SHAPES)(partial(_make_places, dialect))
        self._short = lru_cache(SHAPES)(partial(_make_short, dialect))

    def page(self, query: EventQuery) -> Bound:
        """The query's page of events, in order."""
        kinds = query.kinds
        values = {
            "tree_id": query.tree_id,
            "after": query.after,
            "until": query.until,
            "task_id": query.task_id,
            "limit": query.limit,
            **many("kind", kinds or ()),
        }
        number = None if kinds is None else len(set(kinds))
        statement = self._page(query.until is not None, query.task_id is not None, number)
        return statement.sql, statement.parameters(values)

    def places(self, query: EventQuery) -> Bound:
        """A tree's latest events, the latest first, without what they carry: sizes are known without reading values."""
        kinds = query.kinds
        values: dict[str, Any] = {"tree_id": query.tree_id, "until": query.until, "task_id": query.task_id}
        values |= {"limit": query.limit, **many("kind", kinds or ())}
        statement = self._places(query.task_id is not None, None if kinds is None else len(set(kinds)))
        return statement.sql, statement.parameters(values)

    def at(self, tree_id: str, seqs: Collection[int]) -> Bound:
        """A tree's events of these numbers, in order, and then any of the next tree, where the reader ends."""
        values = {"tree_id": tree_id, "first": min(seqs, default=0), "ids": self._dialect.listed(seqs)}
        return self._at.sql, self._at.parameters({**values, "limit": len(seqs)})

    def short(self, query: EventQuery, longest: int) -> Bound:
        """The query's events and one more, in order; longer ones without what they carry, which is not read."""
        kinds = query.kinds
        values: dict[str, Any] = {"tree_id": query.tree_id, "until": query.until, "task_id": query.task_id}
        values |= {"limit": query.limit + 1, "longest": longest, **many("kind", kinds or ())}
        statement = self._short(query.task_id is not None, None if kinds is None else len(set(kinds)))
        return statement.sql, statement.parameters(values)


def _numbered_events(dialect: Dialect) -> Select[Any]:
    is_of_tree = events.c.tree_id == bindparam("tree_id")
    is_numbered = dialect.is_among(events.c.seq, "ids")
    if dialect.reads_past_ranges:
        body, crc = case((is_of_tree, events.c.body)), case((is_of_tree, events.c.crc))
        behind = tuple_(events.c.tree_id, events.c.seq) >= tuple_(bindparam("tree_id"), bindparam("first"))
        found = select(events.c.tree_id, events.c.seq, body, crc).where(behind, or_(is_numbered, ~is_of_tree))
    else:
        found = select(*EVENT_COLUMNS).where(is_of_tree, is_numbered)
    return found.order_by(events.c.tree_id, events.c.seq).limit(bindparam("limit"))


def _make_page(dialect: Dialect, until: bool, task: bool, kinds: int | None) -> Statement:
    statement = select(*EVENT_COLUMNS)
    statement = statement.where(events.c.tree_id == bindparam("tree_id"), events.c.seq > bindparam("after"))
    if until:
        statement = statement.where(events.c.seq <= bindparam("until"))
    if task:
        statement = statement.where(events.c.task_id == bindparam("task_id"))
    if kinds is not None:
        statement = statement.where(one_of(events.c.kind, "kind", kinds))
    return compiled(statement.order_by(events.c.seq).limit(bindparam("limit")), dialect)


def _make_places(dialect: Dialect, task: bool, kinds: int | None) -> Statement:
    statement = select(events.c.tree_id, events.c.seq, events.c.kind, events.c.task_id, func.length(events.c.body))
    first = tuple_(bindparam("tree_id"), bindparam("until"))
    statement = statement.where(tuple_(events.c.tree_id, events.c.seq) <= first, _matching(dialect, task, kinds))
    return compiled(statement.order_by(events.c.tree_id.desc(), events.c.seq.desc()).limit(bindparam("limit")), dialect)


def _matching(dialect: Dialect, task: bool, kinds: int | None) -> ColumnElement[bool]:
    """Events of the tree that match; where a range's end costs, any of the next tree: the reader ends there."""
    is_of_tree = events.c.tree_id == bindparam("tree_id")
    matching: ColumnElement[bool] = true()
    if task:
        matching = and_(matching, events.c.task_id == bindparam("task_id"))
    if kinds is not None:
        matching = and_(matching, one_of(events.c.kind, "kind", kinds))
    return or_(matching, ~is_of_tree) if dialect.reads_past_ranges else and_(matching, is_of_tree)


def _make_short(dialect: Dialect, task: bool, kinds: int | None) -> Statement:
    is_short = func.length(events.c.body) <= bindparam("longest")
    statement = select(
        events.c.tree_id,
        events.c.seq,
        case((is_short, events.c.body)).label("body"),
        case((is_short, events.c.crc)).label("crc"),
    ).where(events.c.tree_id == bindparam("tree_id"), events.c.seq <= bindparam("until"))
    if task:
        statement = statement.where(events.c.task_id == bindparam("task_id"))
    if kinds is not None:
        statement = statement.where(one_of(events.c.kind, "kind", kinds))
    return compiled(statement.order_by(events.c.seq).limit(bindparam("limit")), dialect)
