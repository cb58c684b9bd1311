"""Whether a database file is whole: its pages, each row against its checksum and columns, and that no commit is lost.

Main pages of SQLite have no checksums, so a flipped bit may leave a sound file that says something else. Each row has a
CRC-32 of what is served; here the columns by which rows are found and owned are compared with it as well.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import closing
from itertools import islice
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import Any

from msgspec import Struct
from sqlalchemy import Column, MetaData, Select, Table, func, literal_column, select, true

from core.model.errors import StorageError
from core.model.events import KINDS, Recorded
from core.model.owners import tenant_of
from core.storage import codec, former_content
from core.storage.dialect import compiled
from core.storage.queries import EVENT_COLUMNS, HEAD_COLUMNS, TASK_COLUMNS
from core.storage.retire import read_compaction
from core.storage.sqlite.commit_marker import Note, marker_path, noted_commit
from core.storage.sqlite.dialect import SQLITE
from core.storage.sqlite.read_pool import readable_text
from core.storage.sqlite.uri import read_only
from core.storage.tables import compactions, documents, events, tasks, trees

MAX_PROBLEMS = 20  # of one report
STEPS = 20_000  # of SQLite's machine between two looks at the clock


class Verdict(Struct, frozen=True, kw_only=True):
    """What was found. `is_complete`: everything was looked at in the time that there was."""

    problems: tuple[str, ...]
    is_complete: bool
    schema: str | None = None  # its revision; None where it is no database of ours


def examine(path: Path, seconds: float | None = None, *, goes_on: Callable[[], bool] | None = None) -> Verdict:
    """Look at the file, read only, for so many seconds at most, or while it `goes_on`. A server may use it."""
    found: list[str] = []
    schema = None
    try:
        with closing(_connect(path)) as connection:
            if seconds is not None:
                deadline = monotonic() + seconds
                connection.set_progress_handler(lambda: monotonic() > deadline, STEPS)
            elif goes_on is not None:
                connection.set_progress_handler(lambda: not goes_on(), STEPS)
            noted = noted_commit(path)
            connection.execute("BEGIN")  # one moment for all that follows
            schema = _schema(connection)
            for problem in islice(_problems(connection, path, noted, schema), MAX_PROBLEMS):
                found.append(problem)  # one by one: those before an interrupt count
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            return Verdict(problems=tuple(found), is_complete=False)
        found.append(f"the file cannot be read: {error}")
    return Verdict(problems=tuple(found), is_complete=True, schema=schema)


def require_whole(path: Path, seconds: float | None = None) -> bool:
    """Whether all was looked at in that time. Raises StorageError when something is wrong."""
    verdict = examine(path, seconds)
    if verdict.problems:
        raise StorageError(_damaged(path, first_of(verdict.problems)))
    return verdict.is_complete


def first_of(problems: Sequence[str]) -> str:
    """The first problem, and how many more there are."""
    return problems[0] + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")


def require_commits(path: Path) -> None:
    """Whether it has its last commits, which the next commit would make impossible to tell; in constant time.

    Raises StorageError when it lacks them, or cannot be read.
    """
    try:
        with closing(_connect(path)) as connection:
            noted = noted_commit(path)
            missed = noted is not None and _schema(connection) is not None and noted.is_missed_in(connection)
    except sqlite3.Error as error:
        raise StorageError(_damaged(path, f"the file cannot be read: {error}")) from error
    if missed:
        raise StorageError(_damaged(path, _missing(path)))


def _damaged(path: Path, problem: str) -> str:
    return (
        f"The database {path} is damaged: {problem}; run `a2a-server db check`, restore a backup with "
        "`a2a-server db restore`"
    )


def _missing(path: Path) -> str:
    return (
        "its last commits are missing: its log is damaged, or it is an older copy (to go on without them, remove "
        f"{marker_path(path).name})"
    )


def _connect(path: Path) -> sqlite3.Connection:
    # Not `immutable`: after a crash what was committed is still in the log.
    connection = sqlite3.connect(read_only(path), uri=True, isolation_level=None)
    connection.text_factory = readable_text
    return connection


def _schema(connection: sqlite3.Connection) -> str | None:
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone():
        return None
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _problems(connection: sqlite3.Connection, path: Path, noted: Note | None, schema: str | None) -> Iterator[str]:
    pages = [text for (text,) in connection.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})")]
    if pages != ["ok"]:
        yield from (" ".join(text.split()) for text in pages)
        return
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if noted is not None and trees.name in present and noted.is_missed_in(connection):
        yield _missing(path)
    former = _FORMER_ROWS if former_content.is_former(schema) else {}
    for table, columns, read in _TABLES:
        if table.name in present:
            yield from _wrong_rows(connection, table, columns, former.get(table.name, read))
    if {trees.name, tasks.name, events.name} <= present:
        yield from _wrong_trees(connection, _compactions_in(present))


def _wrong_rows(
    connection: sqlite3.Connection, table: Table, columns: Sequence[Column[Any]], read: Callable[[Any], Any]
) -> Iterator[str]:
    """Rows that do not match their checksums, or whose columns are not what their bodies say."""
    names, told = _FIELDS[table.name]
    if _has_column(connection, table, "tenant"):  # a database of an earlier schema has none
        names, told = (*names, "tenant"), _with_tenant(told)
    size = len(columns)
    for row in connection.execute(compiled(select(*columns, *(table.c[name] for name in names)), SQLITE).sql):
        try:
            value = read(row[:size])
        except StorageError as error:
            yield str(error)
            continue
        if (said := told(value)) != row[size:]:
            wrong = [name for name, one, other in zip(names, said, row[size:], strict=True) if one != other]
            yield f"the {', '.join(wrong)} of {' '.join(map(str, row[:2]))} in {table.name} is not what the row says"


def _has_column(connection: sqlite3.Connection, table: Table, name: str) -> bool:
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table.name,))
    return name in table.c and (name,) in columns.fetchall()


def _with_tenant(told: Callable[[Any], tuple[Any, ...]]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda value: (*told(value), tenant_of(value.owner))


def _wrong_trees(connection: sqlite3.Connection, compacted: Table | None) -> Iterator[str]:
    """Trees of which rows are missing, and rows that belong to no tree."""
    written: Any = select(func.count()).where(events.c.tree_id == trees.c.id).scalar_subquery()
    if compacted is not None:
        left_out = select(compacted.c.seq - compacted.c.kept).where(compacted.c.tree_id == trees.c.id).scalar_subquery()
        written = written + func.coalesce(left_out, literal_column("0"))
    for (tree_id,) in _rows(connection, select(trees.c.id).where(trees.c.version != written)):
        yield f"the log of tree {tree_id} has gaps"
    present = select(func.count()).where(tasks.c.tree_id == trees.c.id).scalar_subquery()
    for row in _rows(connection, select(*HEAD_COLUMNS, present)):
        try:
            head = codec.read_head(row[:-1])
        except StorageError:
            continue  # told already
        if head.size != row[-1]:
            yield f"the tree {head.id} has {row[-1]} tasks of {head.size}"
    if compacted is not None:
        left = select(func.count()).where(events.c.tree_id == compacted.c.tree_id).scalar_subquery()
        wrong = select(compacted.c.tree_id).where(compacted.c.is_dropped == true(), compacted.c.kept != left)
        for (tree_id,) in _rows(connection, wrong):
            yield f"what is left of the log of the dropped tree {tree_id} has gaps"
    for table in (tasks, events, *([compacted] if compacted is not None else [])):
        lone = select(func.count()).select_from(table)
        lone = lone.where(table.c.tree_id != "", table.c.tree_id.not_in(select(trees.c.id)))
        if compacted is not None and table is not tasks:
            dropped = select(compacted.c.tree_id).where(compacted.c.is_dropped == true())
            lone = lone.where(table.c.tree_id.not_in(dropped))
        ((count,),) = _rows(connection, lone)
        if count:
            yield f"{count} rows of {table.name} belong to no tree"


def _compactions_in(present: Collection[str]) -> Table | None:
    """The table under the name that it has in the file. None in the first schemas, which compacted nothing."""
    return next((table for table in (compactions, _FORMER) if table.name in present), None)


def _rows(connection: sqlite3.Connection, statement: Select[Any]) -> sqlite3.Cursor:
    bound = compiled(statement, SQLITE)
    return connection.execute(bound.sql, bound.parameters({}))


def _same(*names: str) -> tuple[Sequence[str], Callable[[Any], tuple[Any, ...]]]:
    return names, attrgetter(*names)


def _of_event(recorded: Recorded) -> tuple[Any, ...]:
    return recorded.tree_id, recorded.seq, recorded.task_id, recorded.at, KINDS[type(recorded.event)]


_FORMER = compactions.to_metadata(MetaData(), name="folds")  # its name in the schemas 0003 to 0005
# What each column must be, by the row's own body. A document's and a compaction's columns are in their checksums.
_FIELDS: dict[str, tuple[Sequence[str], Callable[[Any], tuple[Any, ...]]]] = {
    "trees": _same(
        "id", "owner", "version", "status", "run", "is_live", "origin", "context_id", "created_at", "updated_at"
    ),
    "tasks": _same(
        "id", "tree_id", "parent_id", "position", "owner", "name", "user_id", "status", "created_at"
    ),
    "events": (("tree_id", "seq", "task_id", "at", "kind"), _of_event),
    "documents": ((), lambda document: ()),
    "compactions": ((), lambda compaction: ()),
    "folds": ((), lambda compaction: ()),
}  # fmt: skip
_TABLES: tuple[tuple[Table, Sequence[Column[Any]], Callable[[Any], Any]], ...] = (
    (trees, HEAD_COLUMNS, codec.read_head),
    (tasks, TASK_COLUMNS, codec.read_task),
    (events, EVENT_COLUMNS, codec.read_event),
    (documents, tuple(documents.c), codec.read_document),
    *((table, tuple(table.c), read_compaction) for table in (compactions, _FORMER)),
)
# How rows are read whose content is in its former form.
_FORMER_ROWS: dict[str, Callable[[Any], Any]] = {
    "tasks": lambda row: codec.read_task(former_content.task_row(row)),
    "events": lambda row: codec.read_event(former_content.event_row(row)),
}
