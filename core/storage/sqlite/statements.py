"""The writer's statements: made by SQLAlchemy Core for SQLite, compiled once, each for many rows at a time.

sqlite3 lets go of the GIL at every step of a statement and then waits for it, up to 5 ms each time while the event loop
is busy. `executemany` steps once a row; a statement over many rows steps once. Beside a busy loop that was 26 times the
speed of `executemany` (6,537 against 254 pairs of rows a second, batches of 512), alone 0.8 times (92,000 and 115,000).
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

from sqlalchemy import ColumnElement, Executable, LargeBinary, Table, bindparam, literal_column, update, values
from sqlalchemy.dialects import sqlite

from core.storage.batch import RowsMissed, Steps
from core.storage.codec import Row
from core.storage.sqlite.dialect import DIALECT
from core.storage.tables import documents, events, tasks, trees

MAX_ROWS = 256  # of one statement: at most 15 parameters a row, of SQLite's 32,766
MAX_BYTES = 1024 * 1024  # of several rows: sqlite3 keeps a copy of what each prepared statement was last given

Execute = Callable[[str, tuple[Any, ...]], object]  # one statement with its parameters


class RowsStatement:
    """A statement over any number of rows of one width, run in pieces whose sizes are powers of two.

    So there are few different texts, and sqlite3's statement cache holds each one prepared. `blobs` are the positions
    of the values that may be large.
    """

    def __init__(self, one_row: Executable, width: int, blobs: Sequence[int] = ()) -> None:
        self._one_row = str(one_row.compile(dialect=DIALECT))  # type: ignore[attr-defined]
        self._group = f"({', '.join('?' * width)})"
        if self._one_row.count(self._group) != 1 or self._one_row.count("?") != width:
            raise AssertionError(f"not a statement over rows of {width} values: {self._one_row}")
        self._blobs = tuple(blobs)
        self.sql = cache(self._widened)

    def _widened(self, rows: int) -> str:
        return self._one_row.replace(self._group, ", ".join([self._group] * rows))

    def run(self, execute: Execute, rows: list[Row]) -> None:
        """Execute it for all the rows, in order."""
        start, left = 0, len(rows)
        while left:
            size = min(MAX_ROWS, 1 << (left.bit_length() - 1))
            piece = rows[start : start + size]
            while size > 1 and sum(map(len, [row[n] for row in piece for n in self._blobs])) > MAX_BYTES:
                size //= 2
                piece = piece[:size]
            execute(self.sql(size), tuple(chain.from_iterable(piece)))
            start += size
            left -= size


def _blobs(columns: Iterable[ColumnElement[Any]]) -> list[int]:
    return [n for n, column in enumerate(columns) if isinstance(column.type, LargeBinary)]


def _insert(table: Table) -> RowsStatement:
    columns = [column for column in table.c if column.name != "lease"]  # nobody but its one process runs a tree
    insert = table.insert().values([{column: bindparam(column.name) for column in columns}])
    return RowsStatement(insert, len(columns), _blobs(columns))


def _update(table: Table, *changed: str, expected: str | None = None) -> RowsStatement:
    """Rows of (id, [the value that the `expected` column must have,] the new values)."""
    names = ["id", *(["expected"] if expected else []), *changed]
    columns = [
        literal_column(name, table.c[expected if name == "expected" and expected else name].type) for name in names
    ]
    new = values(*columns, name="new").data([tuple(bindparam(f"p_{name}") for name in names)]).cte("new")
    statement = update(table).values({name: new.c[name] for name in changed}).where(table.c.id == new.c.id)
    if expected is not None:
        statement = statement.where(table.c[expected] == new.c.expected)
    return RowsStatement(statement, len(names), _blobs(columns))


def _put_tasks() -> RowsStatement:
    """A task of a new tree takes the place of a draft with its id, and of nothing else."""
    insert = sqlite.insert(tasks).values([{c: bindparam(c.name) for c in tasks.c}])
    put = insert.on_conflict_do_update(
        index_elements=[tasks.c.id],
        set_={c.name: insert.excluded[c.name] for c in tasks.c if c is not tasks.c.id},
        where=tasks.c.tree_id == literal_column("''"),
    )
    return RowsStatement(put, len(tasks.c), _blobs(tasks.c))


def put(table: Table) -> RowsStatement:
    """Rows of all columns, in the place of those with the same keys."""
    insert = sqlite.insert(table).values([{c: bindparam(c.name) for c in table.c}])
    upsert = insert.on_conflict_do_update(
        index_elements=list(table.primary_key),
        set_={c.name: insert.excluded[c.name] for c in table.c if not c.primary_key},
    )
    return RowsStatement(upsert, len(table.c), _blobs(table.c))


INSERT_EVENTS = _insert(events)
INSERT_TREES = _insert(trees)
PUT_TASKS = _put_tasks()
INSERT_DRAFTS = _insert(tasks)
INSERT_DOCUMENTS = _insert(documents)
PUT_DOCUMENTS = put(documents)
UPDATE_TREES = _update(
    trees, "version", "status", "run", "is_live", "updated_at", "body", "body_crc", expected="version"
)
# The most frequent one leaves the columns of the indexes alone, so it costs two pages less.
UPDATE_TREE_VERSIONS = _update(trees, "version", "body", "body_crc", expected="version")
UPDATE_TREE_BULKS = _update(trees, "bulk", "bulk_crc")
UPDATE_TASK_STATES = _update(tasks, "status", "state", "state_crc")
UPDATE_TASK_SPECS = _update(tasks, "name", "user_id", "spec", "spec_crc")

# In the order of `Steps`.
STEPS = (
    UPDATE_TREES,
    UPDATE_TREE_VERSIONS,
    INSERT_TREES,
    UPDATE_TREE_BULKS,
    INSERT_EVENTS,
    PUT_TASKS,
    UPDATE_TASK_STATES,
    UPDATE_TASK_SPECS,
    INSERT_DOCUMENTS,
)


def write(steps: Steps, execute: Execute, changes: Callable[[], int]) -> int:
    """Execute them within the open transaction and return the number of rows.

    `changes` counts the rows that the connection has changed so far. Raises RowsMissed or IntegrityError when any row
    is not in the expected state; the caller must roll back then.
    """
    before = changes()
    written = 0
    for statement, rows in zip(STEPS, steps, strict=True):
        if rows:
            statement.run(execute, rows)
            written += len(rows)
    if changes() - before != written:
        raise RowsMissed
    return written
