"""The durable storage: one SQLite file, one writer with group commit, a few readers."""

import asyncio
import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.exc import IntegrityError

from core.model.errors import (
    ConfigurationError,
    InvalidPlan,
    Problem,
    StorageError,
    TaskNotFound,
)
from core.model.events import Recorded
from core.model.task import Task, TreeHead
from core.storage import codec, tables
from core.storage.base import (
    Document,
    EventPlace,
    EventQuery,
    running_tree,
)
from core.storage.relational.storage import Jobs, RelationalStorage
from core.storage.sqlite import retirement, statements
from core.storage.sqlite.dialect import EVENT_QUERIES, QUERIES, SQLITE
from core.storage.sqlite.guard import RESERVE, Guard
from core.storage.sqlite.inspection import Inspection
from core.storage.sqlite.integrity import require_commits, require_whole
from core.storage.sqlite.lock import DatabaseLock
from core.storage.sqlite.migrate import migrate
from core.storage.sqlite.reader import Reader
from core.storage.sqlite.writer_thread import WriterThread
from core.storage.unshared import Unshared
from core.storage.write_queue import WriteQueue

CHECK_SECONDS = 5.0  # how long a start looks for damage in a small file
SMALL_FILE = 8 * 1024 * 1024  # bytes; a larger one is checked beside the work

_QUERY = re.compile(r"\?[^?=/]+=[^/]*$")  # `?mode=ro` at the end of a URL; another question mark belongs to the path


def database_path(url_or_path: str) -> Path:
    """The file that a SQLite URL or a plain path names; all behind `sqlite:///` is the path, as it is written.

    Raises ConfigurationError for anything else.
    """
    name = url_or_path
    if "://" in url_or_path:
        scheme, _, rest = url_or_path.partition("://")
        backend = scheme.partition("+")[0]
        if backend in ("postgresql", "postgres"):
            raise ConfigurationError("This needs a SQLite file; give a URL such as sqlite:///tasks.db")
        if not backend:
            raise ConfigurationError("The database URL cannot be read; write sqlite:///path/to/file.db")
        if backend != "sqlite":
            raise ConfigurationError(
                f"{backend} databases are not supported; give a SQLite URL such as sqlite:///tasks.db"
            )
        if rest and (not rest.startswith("/") or _QUERY.search(rest)):
            raise ConfigurationError(
                "A SQLite URL has a path only, such as sqlite:///tasks.db or sqlite:////var/tasks.db"
            )
        name = rest[1:]
    if not name or name == ":memory:" or name.startswith("file:"):
        raise ConfigurationError(
            "The database must be a file, such as sqlite:///tasks.db; for memory use MemoryStorage"
        )
    return Path(name).expanduser().absolute()


class SqlStorage(RelationalStorage[Reader], Unshared):
    """Storage in a SQLite file, held by one process at a time. Bound to the event loop that opens it.

    `exit_process` ends the process after an I/O error of a COMMIT, since it is unknown what is stored then.
    `reserve`: bytes of the disk that are kept for ends, cancels and deletes (`guard`).
    """

    dialect = SQLITE
    queries = QUERIES
    event_queries = EVENT_QUERIES
    most_bytes = sys.maxsize

    def __init__(
        self, url_or_path: str, *, exit_process: Callable[[int], None] = os._exit, reserve: int = RESERVE
    ) -> None:
        self.path = database_path(url_or_path)
        self._exit_process = exit_process
        self._lock = DatabaseLock(self.path, creates=True)
        self._guard = Guard(self.path, reserve=reserve, loss=self._lock.file.loss)
        self.inspection = Inspection(self.path)
        self._abandoning = threading.Lock()
        self._process = 0  # that opened it

    async def open(self) -> None:
        self._begin()
        self._lock.acquire()
        self._process = os.getpid()
        writer = WriteQueue(WriterThread(self.path, exit_process=self._exit_process, guard=self._guard))
        reader = Reader(self.path)
        try:
            is_checked = await asyncio.to_thread(_prepare, self.path)
            await writer.start()
            self._lock.file.watch_logs()
        except BaseException:
            self._lock.release()
            raise
        self._writer, self._reader = writer, reader
        try:
            await reader.open()
        except sqlite3.Error as error:
            await self.close()
            raise StorageError(f"The database {self.path} cannot be opened: {error}") from error
        except BaseException:  # nothing else would close what is open already
            await self.close()
            raise
        self.inspection = Inspection(self.path)
        if not is_checked:
            self.inspection.begin()

    async def close(self) -> None:
        await asyncio.to_thread(self.inspection.stop)
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.close()
        if self._writer is not None:
            await self._writer.close()
            self._lock.release()

    def abandon(self) -> None:
        if self._process != os.getpid():  # in a forked child; its parent goes on with them
            self._reader = self._writer = None
            return
        with self._abandoning:
            reader, self._reader = self._reader, None
            writer, self._writer = self._writer, None
            self.inspection.stop()
            if reader is not None:
                reader.abandon()
            if writer is not None:
                writer.abandon()
                self._lock.release()

    @property
    def identity(self) -> str:
        return self._lock.file.identity

    async def time(self) -> float:
        return time.time()

    def refusal(self) -> str | None:
        return self._guard.refusal() or self.inspection.damage

    async def put_draft(self, task: Task) -> None:
        def insert(connection: Connection) -> None:
            self._guard.require_room(0, is_new=True)
            _insert_draft(connection, task)

        await self._run(insert, task.id)

    async def cancel_draft(self, task: Task) -> bool:
        def change(connection: Connection) -> bool:
            draft = select(tables.tasks.c.id).where(tables.tasks.c.id == task.id, tables.tasks.c.tree_id == "")
            if connection.execute(draft).first() is None:
                return False
            statements.PUT_TASKS.run(connection.exec_driver_sql, [codec.task_row(task)])
            return True

        was_draft: bool = await self._run(change, task.id)
        return was_draft

    async def load(self, tree_id: str, *, most: int | None = None) -> tuple[TreeHead, list[Task]] | None:
        by_id = {"id": tree_id}
        head = QUERIES.head.sql, QUERIES.head.parameters(by_id)
        tasks = QUERIES.tree_tasks.sql, QUERIES.tree_tasks.parameters(by_id)
        found = await self._reading().first_and_rest(head, tasks, codec.read_task, most)
        return None if found is None else (codec.read_head(found[0]), found[1])

    async def event_places(self, query: EventQuery) -> list[EventPlace]:
        bound = EVENT_QUERIES.places(query)
        return await self._reading().decoded(bound, lambda row: EventPlace._make(row[1:]), query.tree_id)

    async def events_at(self, tree_id: str, seqs: Collection[int]) -> list[Recorded]:
        return await self._reading().decoded(EVENT_QUERIES.at(tree_id, seqs), codec.read_event, tree_id)


def _prepare(path: Path) -> bool:
    """Make it ready, in a time that does not grow with the file; whether all of it was checked."""
    log = path.with_name(path.name + "-wal")
    is_small = path.stat().st_size + (log.stat().st_size if log.exists() else 0) <= SMALL_FILE
    if not is_small:
        require_commits(path)
    is_checked = is_small and require_whole(path, CHECK_SECONDS)
    migrate(path)
    return is_checked


def _insert_draft(connection: Connection, task: Task) -> None:
    try:
        statements.INSERT_DRAFTS.run(connection.exec_driver_sql, [codec.task_row(task)])
    except IntegrityError as error:
        raise InvalidPlan([Problem("id", f"{task.id} is taken by another task")]) from error


def _put_documents(connection: Connection, documents: Sequence[Document]) -> None:
    for tree_id in {document.tree_id for document in documents if document.tree_id}:
        if connection.execute(select(tables.trees.c.id).where(tables.trees.c.id == tree_id)).first() is None:
            raise TaskNotFound(tree_id)
    statements.PUT_DOCUMENTS.run(connection.exec_driver_sql, [codec.document_row(document) for document in documents])


def _put_new(connection: Connection, document: Document) -> Document:
    if (stored := _stored(connection, document)) is not None:
        return stored
    _put_documents(connection, [document])
    return document


def _swap(connection: Connection, document: Document, expected: Document | None, others: Sequence[Document]) -> bool:
    if _stored(connection, document) != expected:
        return False
    _put_documents(connection, [document, *others])
    return True


def _stored(connection: Connection, document: Document) -> Document | None:
    """The one with its kind and id. Read as SQLite gives it, by which its CRC was made."""
    query = QUERIES.document
    found = connection.exec_driver_sql(query.sql, query.parameters({"kind": document.kind, "id": document.id})).first()
    return None if found is None else codec.read_document(found)


def _delete_documents(connection: Connection, names: Sequence[tuple[str, str]], expected: Document | None) -> int:
    if expected is not None and _stored(connection, expected) != expected:
        return 0
    documents = tables.documents
    by_name = delete(documents).where(
        documents.c.kind == bindparam("document_kind"), documents.c.id == bindparam("document_id")
    )
    each = [{"document_kind": kind, "document_id": document_id} for kind, document_id in names]
    return sum(connection.execute(by_name, name).rowcount for name in each)


def _delete(connection: Connection, tree_id: str) -> bool:
    trees, tasks = tables.trees, tables.tasks
    # Here, in the order of the writes, it cannot start between the look and the delete.
    found = connection.execute(select(trees.c.is_live).where(trees.c.id == tree_id)).first()
    if found is not None:
        if found.is_live:
            raise running_tree(tree_id)
        retirement.delete_trees(connection, [tree_id], logs_of=[tree_id])
        return True
    draft = delete(tasks).where(tasks.c.id == tree_id, tasks.c.tree_id == "")
    return connection.execute(draft).rowcount > 0


SqlStorage.jobs = Jobs(
    put_documents=_put_documents,
    put_new=_put_new,
    swap=_swap,
    delete_documents=_delete_documents,
    delete=_delete,
    write_compactions=retirement.write_compactions,
    drop_trees=retirement.drop_trees,
    sweep_logs=retirement.sweep_logs,
    log_parts=retirement.log_parts,
)
