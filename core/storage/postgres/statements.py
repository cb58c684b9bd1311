"""The writer's statements: an append, or a batch of them, is one statement over arrays, however many rows it has.

Each step of a batch is a part of the statement (a CTE) and gives back its rows; `a2a_expect` raises when they are fewer
than they should be. So a commit is one round trip, and is stored as a whole or not at all. A statement's text depends
on which steps have rows, and is made once for each such set. No two steps change one row: what a head has in two
places, or a task, is written in one step.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from core.storage.batch import Steps
from core.storage.codec import Row
from core.storage.postgres import texts
from core.storage.tables import events, tasks, trees

IS_LIVE = 5  # its place in a tree's row, and in that of a tree's change
CONTEXT = 7  # its place in a tree's row
NAME, USER = 5, 6  # their places in a task's row

COLUMN_TYPES = {
    "expected": "bigint",
    "fence": "text",
    "body": "bytea",
    "bulk": "bytea",
    "spec": "bytea",
    "state": "bytea",
    **dict.fromkeys(("version", "seq", "body_crc", "bulk_crc", "spec_crc", "state_crc", "crc", "kept"), "bigint"),
    **dict.fromkeys(("run", "position"), "integer"),
    **dict.fromkeys(("is_live", "is_dropped"), "boolean"),
    **dict.fromkeys(("created_at", "updated_at", "at"), "float8"),
}  # all others are text

TREE = tuple(column.name for column in trees.c)
TASK = tuple(column.name for column in tasks.c)
EVENT = tuple(column.name for column in events.c)
DOCUMENT = ("kind", "id", "owner", "tree_id", "at", "body", "crc")


class Step(NamedTuple):
    """A part of the statement: the columns of its rows, and what is done with them, as `n`."""

    columns: tuple[str, ...]
    sql: str


def _update(table: str, *changed: str, fenced: bool = False) -> Step:
    fence = ("expected", "fence") if fenced else ()
    values = ", ".join(f"{name} = n.{name}" for name in changed)
    where = " AND t.version = n.expected AND t.lease = n.fence" if fenced else ""
    columns = ("id", *fence, *changed)
    return Step(columns, f"UPDATE {table} AS t SET {values} FROM {{n}} WHERE t.id = n.id{where} RETURNING 1")


def _insert(table: str, columns: tuple[str, ...], conflict: str = "") -> Step:
    names = ", ".join(columns)
    return Step(columns, f"INSERT INTO {table} ({names}) SELECT {names} FROM {{n}} {conflict} RETURNING 1")


def _put(table: str, columns: tuple[str, ...], keys: Sequence[str], where: str = "") -> Step:
    changed = ", ".join(f"{name} = excluded.{name}" for name in columns if name not in keys)
    return _insert(table, columns, f"ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {changed} {where}")


KEYS = ("status", "run", "is_live", "updated_at")
STEPS = (
    _update("trees", "version", *KEYS, "body", "body_crc", "lease", fenced=True),
    _update("trees", "version", "body", "body_crc", fenced=True),
    _update("trees", "version", *KEYS, "body", "body_crc", "lease", "bulk", "bulk_crc", fenced=True),
    _update("trees", "version", "body", "body_crc", "bulk", "bulk_crc", fenced=True),
    _insert("trees", TREE),
    _insert("events", EVENT),
    # A task of a new tree takes the place of a draft with its id, and of nothing else.
    _put("tasks", TASK, ("id",), "WHERE tasks.tree_id = ''"),
    _update("tasks", "status", "state", "state_crc"),
    _update("tasks", "status", "state", "state_crc", "name", "user_id", "spec", "spec_crc"),
    _insert("documents", DOCUMENT),
)
PUT_DOCUMENTS = _put("documents", DOCUMENT, ("kind", "id"))
PUT_NEW_DOCUMENTS = _insert("documents", DOCUMENT, "ON CONFLICT (kind, id) DO NOTHING")
PUT_TASKS = _put("tasks", TASK, ("id",), "WHERE tasks.tree_id = ''")
INSERT_DRAFTS = _insert("tasks", TASK)
INSERT_EVENTS = _insert("events", EVENT)
PUT_COMPACTIONS = _put("compactions", ("tree_id", "seq", "kept", "is_dropped", "crc"), ("tree_id",))


def append(steps: Steps, fences: Mapping[str, str], lease: str) -> tuple[str, list[Any]]:
    """The statement of a batch, and its parameters.

    `fences`: whose the stored trees must be; those that live from now on are of `lease`.
    """
    bulks = {row[0]: row[1:] for row in steps.bulks}
    specs = {row[0]: row for row in steps.specs}
    changed: list[Row] = []
    whole: list[Row] = []
    for row in steps.changed:
        fenced = (*row[:2], fences[row[0]], *row[2:], lease if row[IS_LIVE] else "")
        if row[0] in bulks:
            whole.append((*fenced, *bulks[row[0]]))
        else:
            changed.append(fenced)
    counted: list[Row] = []
    counted_whole: list[Row] = []
    for row in steps.counted:
        fenced = (*row[:2], fences[row[0]], *row[2:])
        if row[0] in bulks:
            counted_whole.append((*fenced, *bulks[row[0]]))
        else:
            counted.append(fenced)
    rows = (
        changed,
        counted,
        whole,
        counted_whole,
        [_tree_row(row, lease) for row in steps.created],
        steps.events,
        [task_row(row) for row in steps.new],
        [row for row in steps.states if row[0] not in specs] if specs else steps.states,
        [_whole_task(row, specs[row[0]]) for row in steps.states if row[0] in specs] if specs else [],
        steps.documents,
    )
    sql = _sql(tuple([bool(each) for each in rows]))
    parameters: list[Any] = [list(column) for each in rows if each for column in zip(*each, strict=True)]
    return sql, [*parameters, sum(map(len, rows))]


def task_row(row: Row) -> Row:
    """As its columns are."""
    name, user = texts.written(row[NAME]), texts.written(row[USER])
    return row if name is row[NAME] and user is row[USER] else (*row[:NAME], name, user, *row[USER + 1 :])


def _tree_row(row: Row, lease: str) -> Row:
    context = texts.written(row[CONTEXT])
    return (*row[:CONTEXT], context, *row[CONTEXT + 1 :], lease if row[IS_LIVE] else "")


def _whole_task(state: Row, spec: Row) -> Row:
    _, name, user_id, body, crc = spec
    return (*state, texts.written(name), texts.written(user_id), body, crc)


@lru_cache(512)
def _sql(has_rows: tuple[bool, ...]) -> str:
    parts, counts, number = [], [], 1
    for place, (step, is_there) in enumerate(zip(STEPS, has_rows, strict=True)):
        if is_there:
            parts.append(f"s{place} AS ({step.sql.format(n=_rows(step.columns, number))})")
            counts.append(f"(SELECT count(*) FROM s{place})")
            number += len(step.columns)
    return f"WITH {', '.join(parts)} SELECT a2a_expect({' + '.join(counts)}, ${number}::bigint)"


def _rows(columns: tuple[str, ...], number: int) -> str:
    arrays = ", ".join(f"${n}::{COLUMN_TYPES.get(name, 'text')}[]" for n, name in enumerate(columns, number))
    return f"unnest({arrays}) AS n({', '.join(columns)})"


@lru_cache
def alone(step: Step) -> str:
    """The statement of this step alone, which gives back a row for each row written."""
    return step.sql.format(n=_rows(step.columns, 1))


def columns_of(rows: Sequence[Row]) -> list[list[Any]]:
    """The parameters of such a statement."""
    return [list(column) for column in zip(*rows, strict=True)]
