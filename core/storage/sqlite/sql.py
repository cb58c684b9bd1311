"""The durable storage: one SQLite file, one writer with group commit, a few readers."""

import asyncio
import logging
import os
import re
import sqlite3
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.exc import IntegrityError

from core.loop.origin import CALLER
from core.loop.pieces import in_pieces
from core.model.errors import (
    AnswerTooLarge,
    ConfigurationError,
    InvalidPlan,
    Problem,
    StorageError,
    StorageUnavailable,
    TaskNotFound,
)
from core.model.events import Recorded
from core.model.task import Task, TreeHead
from core.storage import codec, retire, tables
from core.storage.base import (
    COUNTED,
    LIST_BYTES,
    LOG_BYTES,
    Append,
    Document,
    DocumentQuery,
    EndedQuery,
    EndedTree,
    EventPlace,
    EventQuery,
    LogPart,
    Node,
    TaskQuery,
    TreePage,
    TreeQuery,
    running_tree,
)
from core.storage.queries import TENANTS, is_of_all
from core.storage.sqlite import retirement, statements
from core.storage.sqlite.dialect import EVENT_QUERIES
from core.storage.sqlite.dialect import QUERIES as queries
from core.storage.sqlite.guard import RESERVE, Guard
from core.storage.sqlite.inspection import Inspection
from core.storage.sqlite.integrity import require_commits, require_whole
from core.storage.sqlite.lock import DatabaseLock
from core.storage.sqlite.migrate import migrate
from core.storage.sqlite.reader import Reader, Row
from core.storage.sqlite.writer_thread import WriterThread
from core.storage.write_queue import CLOSED, WriteQueue

LARGE = 64 * 1024  # bytes of JSON from which on it is decoded beside the event loop
CHECK_SECONDS = 5.0  # how long a start looks for damage in a small file
SMALL_FILE = 8 * 1024 * 1024  # bytes; a larger one is checked beside the work

_QUERY = re.compile(r"\?[^?=/]+=[^/]*$")  # `?mode=ro` at the end of a URL; another question mark belongs to the path

Given = TypeVar("Given")
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


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


class SqlStorage:
    """Storage in a SQLite file, held by one process at a time. Bound to the event loop that opens it.

    `exit_process` ends the process after an I/O error of a COMMIT, since it is unknown what is stored then.
    `reserve`: bytes of the disk that are kept for ends, cancels and deletes (`guard`).
    """

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
        self._writer: WriteQueue | None = None
        self._reader: Reader | None = None

    async def open(self) -> None:
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

    def refusal(self) -> str | None:
        return self._guard.refusal() or self.inspection.damage

    def written(self, owner: str) -> int:
        return 0 if self._writer is None else self._writer.written.get(owner, 0)

    async def stored(self, owner: str) -> int:
        rows = await self._reading().rows(queries.stored_bytes(owner))
        return int(rows[0][0])

    def append(self, append: Append) -> asyncio.Future[None]:
        if self._writer is None:
            return _refused()
        return self._writer.submit(append)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

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

    async def cancelled_drafts(self, task_ids: Sequence[str]) -> list[Task]:
        ids = {"ids": msgspec.json.encode(list(task_ids)).decode()}
        rows = await self._reading().rows((queries.cancelled_drafts.sql, queries.cancelled_drafts.parameters(ids)))
        return await _readable(rows, codec.read_task)

    async def load(self, tree_id: str, *, most: int | None = None) -> tuple[TreeHead, list[Task]] | None:
        by_id = {"id": tree_id}
        head = queries.head.sql, queries.head.parameters(by_id)
        tasks = queries.tree_tasks.sql, queries.tree_tasks.parameters(by_id)
        found = await self._reading().first_and_rest(head, tasks, codec.read_task, most)
        return None if found is None else (codec.read_head(found[0]), found[1])

    async def load_many(self, tree_ids: Sequence[str]) -> list[tuple[TreeHead, list[Task]]]:
        ids = {"ids": msgspec.json.encode(list(tree_ids)).decode()}
        heads = queries.heads.sql, queries.heads.parameters(ids)
        members = queries.trees_tasks.sql, queries.trees_tasks.parameters(ids)
        found, rows = await self._reading().two(heads, members)
        rows_of: dict[str, list[Row]] = {}
        for row in rows:
            rows_of.setdefault(row[0], []).append(row[1:])
        return await _readable(
            found, lambda row: (codec.read_head(row), [codec.read_task(each) for each in rows_of[row[0]]])
        )

    async def head(self, tree_id: str, *, owner: str | None = None, tenant: str | None = None) -> TreeHead | None:
        rows = await self._reading().rows(queries.one_head(tree_id, owner, tenant))
        return codec.read_bare_head(rows[0], tenant) if rows else None

    async def task(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> Task | None:
        rows = await self._reading().rows(queries.one_task(task_id, owner, tenant))
        return codec.read_task(rows[0], tenant) if rows else None

    async def children(self, parent_id: str) -> list[Task]:
        page = await self._reading().list_page((queries.children.sql, (parent_id,)), LIST_BYTES)
        if page.is_cut:
            raise AnswerTooLarge(LIST_BYTES)
        return await in_pieces(page.rows, codec.read_task)

    async def nodes(self, tree_id: str, limit: int) -> list[Node]:
        rows = await self._reading().rows(
            (queries.nodes.sql, queries.nodes.parameters({"id": tree_id, "limit": limit}))
        )
        return await _readable(rows, codec.read_node)

    async def node(self, task_id: str) -> Node | None:
        rows = await self._reading().rows((queries.node.sql, (task_id,)))
        return codec.read_node(rows[0]) if rows else None

    async def tasks(self, query: TaskQuery) -> list[Task]:
        if not is_of_all(query):
            return await self._tasks(query)
        found: list[Task] = []
        for (tenant,) in await self._reading().rows((TENANTS, ())):
            found += await self._tasks(replace(query, tenant=tenant))
            found = sorted(found, key=lambda task: (task.created_at, task.id), reverse=True)[: query.limit]
        return found

    async def _tasks(self, query: TaskQuery) -> list[Task]:
        page = await self._reading().list_page(queries.task_list(query), LIST_BYTES)
        if page.is_cut:
            raise AnswerTooLarge(LIST_BYTES)
        return await _readable(page.rows, lambda row: codec.read_task(row, query.tenant))

    async def count(self, query: TaskQuery, most: int = COUNTED) -> int:
        rows = await self._reading().rows(queries.task_count(query, most))
        return int(rows[0][0])

    async def trees(self, query: TreeQuery) -> TreePage:
        wider = query
        while True:
            total, page = await self._reading().count_and_page(
                queries.tree_count(query, COUNTED), queries.tree_list(wider), LIST_BYTES
            )
            heads = await _readable(page.rows, codec.read_bare_head)
            if len(heads) > query.limit or page.is_cut or len(page.rows) <= wider.limit:
                has_more = len(heads) > query.limit or (page.is_cut and bool(heads))
                return TreePage(heads=tuple(heads[: query.limit]), total=total, has_more=has_more)
            wider = replace(wider, limit=wider.limit * 2)  # corrupt rows took the place of others

    async def live_trees(self) -> list[str]:
        return [str(tree_id) for (tree_id,) in await self._reading().rows((queries.live_trees.sql, ()))]

    async def events(self, query: EventQuery) -> Sequence[Recorded]:
        page = await self._reading().page(EVENT_QUERIES.page(query), query.max_bytes)
        if page.size > LARGE:
            return await asyncio.to_thread(list, map(codec.read_event, page.rows))
        return await in_pieces(page.rows, codec.read_event)

    async def few_events(self, query: EventQuery) -> Sequence[Recorded] | None:
        longest = sys.maxsize if query.max_bytes is None else query.max_bytes
        rows = await self._reading().short_rows(EVENT_QUERIES.short(query, longest), query.limit, longest)
        return None if rows is None else await in_pieces(rows, codec.read_event)

    async def event_places(self, query: EventQuery) -> list[EventPlace]:
        bound = EVENT_QUERIES.places(query)
        return await self._reading().decoded(bound, lambda row: EventPlace._make(row[1:]), query.tree_id)

    async def events_at(self, tree_id: str, seqs: Collection[int]) -> list[Recorded]:
        return await self._reading().decoded(EVENT_QUERIES.at(tree_id, seqs), codec.read_event, tree_id)

    async def compacted(self, tree_id: str) -> int:
        rows = await self._reading().rows(queries.compaction_of(tree_id))
        return retire.read_compaction(rows[0]).seq if rows else 0

    async def document(self, kind: str, document_id: str) -> Document | None:
        query = queries.document.sql, queries.document.parameters({"kind": kind, "id": document_id})
        rows = await self._reading().rows(query)
        return codec.read_document(rows[0]) if rows else None

    async def documents(self, query: DocumentQuery) -> list[Document]:
        return await _readable(await self._reading().rows(queries.document_list(query)), codec.read_document)

    async def put_documents(self, *documents: Document) -> None:
        names = [f"{document.kind} {document.id}" for document in documents]
        await self._run(lambda connection: _put_documents(connection, documents), *names)

    async def delete_documents(self, *names: tuple[str, str]) -> int:
        deleted: int = await self._run(lambda connection: _delete_documents(connection, names), *map(" ".join, names))
        return deleted

    async def delete(self, tree_id: str) -> bool:
        deleted: bool = await self._run(lambda connection: _delete(connection, tree_id), tree_id)
        return deleted

    async def ended(self, query: EndedQuery) -> list[EndedTree]:
        return await _readable(await self._reading().rows(queries.ended_list(query)), retire.read_ended)

    async def compact(self, parts: Sequence[LogPart]) -> None:
        page = await self._reading().page(retirement.log_parts(parts), LOG_BYTES)
        if not page.is_cut:
            await self._compact(parts, page.rows)
            return
        for whole in parts:
            part = whole
            while rows := (await self._reading().page(retirement.log_part(part), LOG_BYTES)).rows:
                reached = rows[-1][1]
                await self._compact([replace(part, until=reached)], rows)
                part = replace(part, after=reached)

    async def _compact(self, parts: Sequence[LogPart], rows: Iterable[Row]) -> None:
        rows_of: dict[str, list[Row]] = {part.tree_id: [] for part in parts}
        for row in rows:
            rows_of[row[0]].append(row)
        compacted = await _readable(parts, lambda part: retire.compact_part(part, rows_of[part.tree_id]))
        if compacted:
            await self._run(lambda connection: retirement.write_compactions(connection, compacted))

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        dropped: list[str] = await self._run(lambda connection: retirement.drop_trees(connection, heads))
        return dropped

    async def sweep(self, limit: int) -> bool:
        if not await self._reading().rows(queries.any_dropped()):
            return False  # the usual case, which costs no commit
        is_more: bool = await self._run(lambda connection: retirement.sweep_logs(connection, limit))
        return is_more

    async def _run(self, job: Callable[[Connection], Any], *names: str) -> Any:
        """`names`: what the job concerns, whose writes keep their order."""
        if self._writer is None:
            raise StorageUnavailable(CLOSED)
        return await self._writer.submit(job, CALLER.get(), names)

    def _reading(self) -> Reader:
        if self._reader is None:
            raise StorageUnavailable(CLOSED)
        return self._reader


async def _readable(rows: Iterable[Given], read: Callable[[Given], Value]) -> list[Value]:
    """The values of a list's rows. A corrupt one is left out: it must not keep everybody from the others."""

    def read_if_whole(row: Given) -> Value | None:
        try:
            return read(row)
        except StorageError as error:
            logger.error("%s; it is left out", error)
            return None

    return [value for value in await in_pieces(rows, read_if_whole) if value is not None]


def _refused() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(StorageUnavailable(CLOSED))
    return future


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


def _delete_documents(connection: Connection, names: Sequence[tuple[str, str]]) -> int:
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
