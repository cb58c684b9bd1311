"""The statements of retention: which trees have ended, compacting their logs, and removing them.

Each job is for many trees and a bounded number of rows, and each of its statements steps once, whatever it does
(see `statements`).
"""

from collections.abc import Iterable, Sequence
from typing import Any
from zlib import crc32

import msgspec
from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Select,
    bindparam,
    delete,
    false,
    func,
    literal_column,
    select,
    true,
    tuple_,
)

from core.model.compaction import compact
from core.model.errors import StorageError
from core.model.events import Recorded
from core.model.task import TreeHead
from core.storage import codec
from core.storage.base import EndedQuery, EndedTree, EventQuery, LogPart
from core.storage.codec import Row
from core.storage.queries import EVENT_COLUMNS, HEAD_COLUMNS, Bound, compiled, event_list
from core.storage.statements import INSERT_EVENTS, put
from core.storage.tables import compactions, documents, events, has_ended, tasks, trees

MAX_EVENTS = 2_000  # of a dropped tree that go with it; those of a longer log are swept

_encode = msgspec.json.Encoder().encode


class Compaction(Struct, frozen=True):
    """How far a log is compacted. Of a dropped tree: what is left of its log."""

    tree_id: str
    seq: int = 0
    kept: int = 0
    is_dropped: bool = False


class Compacted(Struct, frozen=True):
    """A part of a log, and what becomes of it."""

    part: LogPart
    gone: tuple[int, ...]
    changed: tuple[Recorded, ...]
    kept: int


def compaction_row(state: Compaction) -> Row:
    """For PUT_COMPACTIONS."""
    values = state.tree_id, state.seq, state.kept, int(state.is_dropped)
    return *values, _crc(values)


def read_compaction(row: Sequence[Any]) -> Compaction:
    """From all columns. Raises StorageError when the row is corrupt."""
    *values, crc = row
    if _crc(values) != crc:
        raise StorageError(f"The stored compaction of tree {row[0]} is corrupt")
    tree_id, seq, kept, is_dropped = values
    return Compaction(tree_id, seq, kept, bool(is_dropped))


def _crc(values: Sequence[Any]) -> int:
    """Of the columns as SQLite gives them: in a damaged row each may be of any type."""
    return crc32(_encode(tuple(values)))


# What readers ask


def compaction_of(tree_id: str) -> Bound:
    """The tree's row in `compactions`."""
    return COMPACTION.sql, COMPACTION.parameters({"id": tree_id})


def ended_list(query: EndedQuery) -> Bound:
    """The query's page, for `read_ended`."""
    after_at, after_id = query.after or (None, None)
    values = {"until": query.until, "after_at": after_at, "after_id": after_id, "limit": query.limit}
    statement = FIRST_ENDED if query.after is None else MORE_ENDED
    return statement.sql, statement.parameters(values)


def read_ended(row: Sequence[Any]) -> EndedTree:
    """From a row of `ended_list`. Raises StorageError when it is corrupt."""
    width = len(HEAD_COLUMNS)
    head = codec.read_head(row[:width])
    return EndedTree(head, 0 if row[width] is None else read_compaction(row[width:]).seq)


def log_parts(parts: Sequence[LogPart]) -> Bound:
    """The events of the parts, in no order: to sort them, all would have to be in memory."""
    asked = _encode([(part.tree_id, part.after, part.until) for part in parts]).decode()
    return LOG_PARTS.sql, LOG_PARTS.parameters({"parts": asked})


def log_part(part: LogPart) -> Bound:
    """The events of one part, in order."""
    limit = part.until - part.after
    return event_list(EventQuery(tree_id=part.tree_id, after=part.after, until=part.until, limit=limit))


def compact_part(part: LogPart, rows: Sequence[Sequence[Any]]) -> Compacted:
    """What becomes of these events. Raises StorageError when one of them is corrupt."""
    log = sorted((codec.read_event(row) for row in rows), key=lambda recorded: recorded.seq)
    before = {recorded.seq: recorded for recorded in log}
    after = {recorded.seq: recorded for recorded in compact(log)}
    changed = tuple([recorded for seq, recorded in after.items() if recorded is not before[seq]])
    return Compacted(part, tuple([seq for seq in before if seq not in after]), changed, len(after))


def any_dropped() -> Bound:
    """A row where there is something to be swept."""
    return DROPPED.sql, DROPPED.parameters({})


# What the writer does


def write_compactions(connection: Connection, compacted: Sequence[Compacted]) -> None:
    """Write those whose trees are as their parts say."""
    present = _present(connection, [(each.part.tree_id, each.part.version) for each in compacted])
    gone: list[tuple[str, int]] = []
    changed: list[Row] = []
    states: list[Row] = []
    for each in compacted:
        part, state = each.part, present.get(each.part.tree_id)
        if state is None or state.seq != part.after:
            continue
        gone += [(part.tree_id, seq) for seq in each.gone]
        gone += [(part.tree_id, recorded.seq) for recorded in each.changed]
        changed += [codec.event_row(recorded) for recorded in each.changed]
        states.append(compaction_row(Compaction(part.tree_id, part.until, state.kept + each.kept)))
    _run(connection, DELETE_EVENTS, gone)
    INSERT_EVENTS.run(connection.exec_driver_sql, changed)
    PUT_COMPACTIONS.run(connection.exec_driver_sql, states)


def drop_trees(connection: Connection, heads: Sequence[TreeHead]) -> list[str]:
    """Remove those trees that are as the heads say, and their logs where these are short."""
    present = _present(connection, [(head.id, head.version) for head in heads])
    left: list[Row] = []
    whole: list[str] = []
    for head in heads:
        if (state := present.get(head.id)) is None:
            continue
        events_left = head.version - state.seq + state.kept
        if events_left > MAX_EVENTS:
            left.append(compaction_row(Compaction(head.id, head.version, events_left, is_dropped=True)))
        else:
            whole.append(head.id)
    delete_trees(connection, list(present), logs_of=whole)
    PUT_COMPACTIONS.run(connection.exec_driver_sql, left)
    return list(present)


def delete_trees(connection: Connection, ids: Sequence[str], *, logs_of: Sequence[str]) -> None:
    """Remove the trees, and the logs of some of them."""
    for statement, those in (
        (DELETE_DOCUMENTS, ids),
        (DELETE_LOGS, logs_of),
        (DELETE_COMPACTIONS, logs_of),
        (DELETE_TASKS, ids),
        (DELETE_TREES, ids),
    ):
        _run(connection, statement, those)


def sweep_logs(connection: Connection, limit: int) -> bool:
    """Remove so many events of the first dropped tree. Whether any may be left, also of others."""
    row = connection.exec_driver_sql(*any_dropped()).first()  # as SQLite gives it, by which its CRC was made
    if row is None:
        return False
    state = read_compaction(row)
    first = select(events.c.seq).where(events.c.tree_id == state.tree_id).order_by(events.c.seq).limit(limit)
    last = select(func.max(first.subquery().c.seq)).scalar_subquery()
    removed = connection.execute(delete(events).where(events.c.tree_id == state.tree_id, events.c.seq <= last)).rowcount
    if removed < limit:
        connection.execute(delete(compactions).where(compactions.c.tree_id == state.tree_id))
    else:
        PUT_COMPACTIONS.run(
            connection.exec_driver_sql,
            [compaction_row(Compaction(state.tree_id, state.seq, state.kept - removed, is_dropped=True))],
        )
    return True


def _present(connection: Connection, wanted: Sequence[tuple[str, int]]) -> dict[str, Compaction]:
    """Those trees, at rest in that version, each with how far its log is compacted."""
    asked = _encode(wanted).decode()
    found = connection.exec_driver_sql(PRESENT.sql, PRESENT.parameters({"wanted": asked})).scalar_one()
    states = [Compaction(row[0]) if row[1] is None else read_compaction(row) for row in msgspec.json.decode(found)]
    return {state.tree_id: state for state in states}


def _run(connection: Connection, statement: Delete, given: Iterable[Any]) -> None:
    if values := list(given):
        connection.execute(statement, {"given": _encode(values).decode()})


def _item(value: ColumnElement[Any], place: int) -> ColumnElement[Any]:
    return func.json_extract(value, literal_column(f"'$[{place}]'"))


def _ended(more: bool) -> Select[Any]:
    page = select(*HEAD_COLUMNS, *compactions.c).outerjoin_from(trees, compactions, compactions.c.tree_id == trees.c.id)
    page = page.where(has_ended, trees.c.updated_at <= bindparam("until"))
    if more:
        after = tuple_(bindparam("after_at"), bindparam("after_id"))
        page = page.where(tuple_(trees.c.updated_at, trees.c.id) > after)
    return page.order_by(trees.c.updated_at, trees.c.id).limit(bindparam("limit"))


def _log_parts() -> Select[Any]:
    part = func.json_each(bindparam("parts")).table_valued("value", name="part")
    rows = select(*EVENT_COLUMNS).select_from(part)
    return rows.join(
        events,
        (events.c.tree_id == _item(part.c.value, 0))
        & (events.c.seq > _item(part.c.value, 1))
        & (events.c.seq <= _item(part.c.value, 2)),
    )


def _present_trees() -> Select[Any]:
    wanted = func.json_each(bindparam("wanted")).table_valued("value", name="wanted")
    state = func.json_array(
        trees.c.id, compactions.c.seq, compactions.c.kept, compactions.c.is_dropped, compactions.c.crc
    )
    found = select(func.json_group_array(state)).select_from(wanted)
    is_wanted = (trees.c.id == _item(wanted.c.value, 0)) & (trees.c.version == _item(wanted.c.value, 1))
    found = found.join(trees, is_wanted).outerjoin(compactions, compactions.c.tree_id == trees.c.id)
    return found.where(trees.c.is_live == false())


_given = func.json_each(bindparam("given")).table_valued("value", name="given")
_ids = select(_given.c.value)
_keys = select(_item(_given.c.value, 0), _item(_given.c.value, 1))

COMPACTION = compiled(select(*compactions.c).where(compactions.c.tree_id == bindparam("id")))
DROPPED = compiled(select(*compactions.c).where(compactions.c.is_dropped == true()).limit(1))
FIRST_ENDED, MORE_ENDED = compiled(_ended(False)), compiled(_ended(True))
LOG_PARTS = compiled(_log_parts())
PRESENT = compiled(_present_trees())
PUT_COMPACTIONS = put(compactions)
DELETE_EVENTS = delete(events).where(tuple_(events.c.tree_id, events.c.seq).in_(_keys))
DELETE_DOCUMENTS = delete(documents).where(documents.c.tree_id.in_(_ids), documents.c.tree_id != literal_column("''"))
DELETE_LOGS = delete(events).where(events.c.tree_id.in_(_ids))
DELETE_COMPACTIONS = delete(compactions).where(compactions.c.tree_id.in_(_ids))
DELETE_TASKS = delete(tasks).where(tasks.c.tree_id.in_(_ids))
DELETE_TREES = delete(trees).where(trees.c.id.in_(_ids))
