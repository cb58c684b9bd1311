"""Retention in SQLite: the statements that compact logs, drop trees and sweep what they left.

Each job is for many trees and a bounded number of rows, and each of its statements steps once, whatever it does
(see `statements`).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
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
    tuple_,
)

from core.model.task import TreeHead
from core.storage.base import LogPart
from core.storage.dialect import compiled
from core.storage.queries import EVENT_COLUMNS, Bound
from core.storage.retire import Compacted, Compaction, changes_of, read_compaction, short_and_long, swept
from core.storage.sqlite.dialect import QUERIES, SQLITE
from core.storage.sqlite.statements import INSERT_EVENTS, put
from core.storage.tables import compactions, documents, events, tasks, trees

_encode = msgspec.json.Encoder().encode


def log_parts(parts: Sequence[LogPart]) -> Bound:
    """The events of the parts, in no order: to sort them, all would have to be in memory."""
    asked = _encode([(part.tree_id, part.after, part.until) for part in parts]).decode()
    return LOG_PARTS.sql, LOG_PARTS.parameters({"parts": asked})


# What the writer does


def write_compactions(connection: Connection, compacted: Sequence[Compacted]) -> None:
    """Write those whose trees are as their parts say."""
    present = _present(connection, [(each.part.tree_id, each.part.version) for each in compacted])
    changes = changes_of(compacted, present)
    _run(connection, DELETE_EVENTS, changes.gone)
    INSERT_EVENTS.run(connection.exec_driver_sql, list(changes.changed))
    PUT_COMPACTIONS.run(connection.exec_driver_sql, list(changes.states))


def drop_trees(connection: Connection, heads: Sequence[TreeHead]) -> list[str]:
    """Remove those trees that are as the heads say, and their logs where these are short."""
    present = _present(connection, [(head.id, head.version) for head in heads])
    short, left = short_and_long(heads, present)
    delete_trees(connection, list(present), logs_of=short)
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
    row = connection.exec_driver_sql(*QUERIES.any_dropped).first()  # as SQLite gives it, by which its CRC was made
    if row is None:
        return False
    state = read_compaction(row)
    first = select(events.c.seq).where(events.c.tree_id == state.tree_id).order_by(events.c.seq).limit(limit)
    last = select(func.max(first.subquery().c.seq)).scalar_subquery()
    removed = connection.execute(delete(events).where(events.c.tree_id == state.tree_id, events.c.seq <= last)).rowcount
    if removed < limit:
        connection.execute(delete(compactions).where(compactions.c.tree_id == state.tree_id))
    else:
        PUT_COMPACTIONS.run(connection.exec_driver_sql, [swept(state, removed)])
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

LOG_PARTS = compiled(_log_parts(), SQLITE)
PRESENT = compiled(_present_trees(), SQLITE)
PUT_COMPACTIONS = put(compactions)
DELETE_EVENTS = delete(events).where(tuple_(events.c.tree_id, events.c.seq).in_(_keys))
DELETE_DOCUMENTS = delete(documents).where(documents.c.tree_id.in_(_ids), documents.c.tree_id != literal_column("''"))
DELETE_LOGS = delete(events).where(events.c.tree_id.in_(_ids))
DELETE_COMPACTIONS = delete(compactions).where(compactions.c.tree_id.in_(_ids))
DELETE_TASKS = delete(tasks).where(tasks.c.tree_id.in_(_ids))
DELETE_TREES = delete(trees).where(trees.c.id.in_(_ids))
