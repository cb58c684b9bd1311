"""The storage in PostgreSQL: one writing connection with group commit, a few that read."""

import asyncio
import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import asyncpg
from msgspec.structs import replace

from core.loop.origin import CALLER
from core.loop.pieces import in_pieces
from core.model.errors import AnswerTooLarge, InvalidPlan, Problem, StorageError, StorageUnavailable, TaskNotFound
from core.model.events import Recorded
from core.model.task import Task, TreeHead
from core.storage import codec, retire
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
from core.storage.postgres import retirement, statements, texts
from core.storage.postgres.connect import Connection, Place
from core.storage.postgres.dialect import EVENT_QUERIES, QUERIES
from core.storage.postgres.holder import PATIENCE, Holder
from core.storage.postgres.migrate import migrate
from core.storage.postgres.reader import HEAD_SIZE, TASK_SIZE, Reader
from core.storage.postgres.writer import BatchWriter
from core.storage.queries import TENANTS, is_of_all
from core.storage.write_queue import CLOSED, WriteQueue
from core.storage.writes import Job

MAX_BIGINT = 2**62  # bytes: no bound
LARGE = 64 * 1024  # bytes of JSON from which on it is decoded beside the event loop

Given = TypeVar("Given")
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class PostgresStorage:
    """Storage in a database of PostgreSQL, held by one process at a time. Bound to the event loop that opens it.

    `patience`: seconds without a connection after which writes and reads are refused. Raises ConfigurationError for
    what is no URL of a database.
    """

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self.place = Place(url)
        self._patience = patience
        self._process = 0  # that opened it
        self._abandoning = threading.Lock()
        self._holder: Holder | None = None
        self._writer: WriteQueue | None = None
        self._reader: Reader | None = None

    async def open(self) -> None:
        holder = Holder(self.place, uuid.uuid4().hex, patience=self._patience)
        await holder.open(lambda connection: migrate(self.place, connection))
        self._process = os.getpid()
        writer = WriteQueue(BatchWriter(holder))
        await writer.start()
        self._holder, self._writer = holder, writer
        self._reader = Reader(self.place, lambda: holder.gives_up_at)

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.pool.close()
        if self._writer is not None:
            await self._writer.close()
        if self._holder is not None:
            await self._holder.close()

    def abandon(self) -> None:
        with self._abandoning:
            holder, self._holder = self._holder, None
            writer, self._writer = self._writer, None
            reader, self._reader = self._reader, None
            if holder is None or writer is None or reader is None:
                return
            connections = [
                connection for connection in (holder.abandon(), *reader.pool.abandon()) if connection is not None
            ]
            writer.abandon()
            if self._process == os.getpid():  # a forked child's parent goes on with them
                for connection in connections:
                    _cut(connection)

    @property
    def identity(self) -> str:
        return "" if self._holder is None else self._holder.identity

    def refusal(self) -> str | None:
        return None if self._holder is None else self._holder.refusal()

    def written(self, owner: str) -> int:
        return 0 if self._writer is None else self._writer.written.get(owner, 0)

    async def stored(self, owner: str) -> int:
        rows = await self._reading().rows(QUERIES.stored_bytes(owner))
        return int(rows[0][0])

    def append(self, append: Append) -> asyncio.Future[None]:
        if self._writer is None:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageUnavailable(CLOSED))
            return future
        return self._writer.submit(append)

    def flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()

    async def put_draft(self, task: Task) -> None:
        await self._run(lambda connection: _insert_draft(connection, task), task.id)

    async def cancel_draft(self, task: Task) -> bool:
        was_draft: bool = await self._run(lambda connection: _change_draft(connection, task), task.id)
        return was_draft

    async def cancelled_drafts(self, task_ids: Sequence[str]) -> list[Task]:
        drafts = QUERIES.cancelled_drafts
        rows = await self._reading().rows((drafts.sql, drafts.parameters({"ids": list(task_ids)})))
        return await _readable(rows, codec.read_task)

    async def load(self, tree_id: str, *, most: int | None = None) -> tuple[TreeHead, list[Task]] | None:
        found = await self._reading().tree(tree_id, most)
        return None if found is None else (codec.read_head(found[0]), await in_pieces(found[1], codec.read_task))

    async def load_many(self, tree_ids: Sequence[str]) -> list[tuple[TreeHead, list[Task]]]:
        ids = {"ids": list(tree_ids)}
        heads = QUERIES.heads.sql, QUERIES.heads.parameters(ids)
        members = QUERIES.trees_tasks.sql, QUERIES.trees_tasks.parameters(ids)
        found, rows = await self._reading().two(heads, members)
        rows_of: dict[str, list[Any]] = {}
        for row in rows:
            rows_of.setdefault(row[0], []).append(row[1:])
        return await _readable(
            found, lambda row: (codec.read_head(row), [codec.read_task(each) for each in rows_of[row[0]]])
        )

    async def head(self, tree_id: str, *, owner: str | None = None, tenant: str | None = None) -> TreeHead | None:
        rows = await self._reading().rows(QUERIES.one_head(tree_id, owner, tenant))
        return codec.read_bare_head(rows[0], tenant) if rows else None

    async def task(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> Task | None:
        rows = await self._reading().rows(QUERIES.one_task(task_id, owner, tenant))
        return codec.read_task(rows[0], tenant) if rows else None

    async def children(self, parent_id: str) -> list[Task]:
        page = await self._reading().list_page((QUERIES.children.sql, (parent_id,)), LIST_BYTES, TASK_SIZE)
        if page.is_cut:
            raise AnswerTooLarge(LIST_BYTES)
        return await in_pieces(page.rows, codec.read_task)

    async def nodes(self, tree_id: str, limit: int) -> list[Node]:
        parameters = QUERIES.nodes.parameters({"id": tree_id, "limit": limit})
        return await _readable(await self._reading().rows((QUERIES.nodes.sql, parameters)), _read_node)

    async def node(self, task_id: str) -> Node | None:
        rows = await self._reading().rows((QUERIES.node.sql, (task_id,)))
        return _read_node(rows[0]) if rows else None

    async def tasks(self, query: TaskQuery) -> list[Task]:
        query = _written(query)
        if not is_of_all(query):
            return await self._tasks(query)
        found: list[Task] = []
        for (tenant,) in await self._reading().list_rows((TENANTS, ())):
            found += await self._tasks(replace(query, tenant=tenant))
            found = sorted(found, key=lambda task: (task.created_at, task.id), reverse=True)[: query.limit]
        return found

    async def _tasks(self, query: TaskQuery) -> list[Task]:
        page = await self._reading().list_page(QUERIES.task_list(query), LIST_BYTES, TASK_SIZE)
        if page.is_cut:
            raise AnswerTooLarge(LIST_BYTES)
        return await _readable(page.rows, lambda row: codec.read_task(row, query.tenant))

    async def count(self, query: TaskQuery, most: int = COUNTED) -> int:
        rows = await self._reading().rows(QUERIES.task_count(_written(query), most))
        return int(rows[0][0]) if rows else 0

    async def trees(self, query: TreeQuery) -> TreePage:
        query = replace(query, context_id=texts.written(query.context_id))
        wider = query
        while True:
            total, page = await self._reading().count_and_page(
                QUERIES.tree_count(query, COUNTED), QUERIES.tree_list(wider), LIST_BYTES, HEAD_SIZE
            )
            heads = await _readable(page.rows, codec.read_bare_head)
            if len(heads) > query.limit or page.is_cut or len(page.rows) <= wider.limit:
                has_more = len(heads) > query.limit or (page.is_cut and bool(heads))
                return TreePage(heads=tuple(heads[: query.limit]), total=total, has_more=has_more)
            wider = replace(wider, limit=wider.limit * 2)  # corrupt rows took the place of others

    async def live_trees(self) -> list[str]:
        return [str(tree_id) for (tree_id,) in await self._reading().rows((QUERIES.live_trees.sql, ()))]

    async def events(self, query: EventQuery) -> Sequence[Recorded]:
        page = await self._reading().page(EVENT_QUERIES.page(query), query.max_bytes)
        if page.size > LARGE:
            return await asyncio.to_thread(list, map(codec.read_event, page.rows))
        return await in_pieces(page.rows, codec.read_event)

    async def few_events(self, query: EventQuery) -> Sequence[Recorded] | None:
        longest = MAX_BIGINT if query.max_bytes is None else query.max_bytes
        rows = await self._reading().short_rows(EVENT_QUERIES.short(query, longest), query.limit, longest)
        return None if rows is None else await in_pieces(rows, codec.read_event)

    async def event_places(self, query: EventQuery) -> list[EventPlace]:
        rows = await self._reading().rows(EVENT_QUERIES.places(query))
        return [EventPlace._make(row[1:]) for row in rows]

    async def events_at(self, tree_id: str, seqs: Collection[int]) -> list[Recorded]:
        rows = await self._reading().rows(EVENT_QUERIES.at(tree_id, seqs))
        return await asyncio.to_thread(list, map(codec.read_event, rows))

    async def compacted(self, tree_id: str) -> int:
        rows = await self._reading().rows(QUERIES.compaction_of(tree_id))
        return retire.read_compaction(rows[0]).seq if rows else 0

    async def document(self, kind: str, document_id: str) -> Document | None:
        parameters = QUERIES.document.parameters({"kind": kind, "id": document_id})
        rows = await self._reading().rows((QUERIES.document.sql, parameters))
        return codec.read_document(rows[0]) if rows else None

    async def documents(self, query: DocumentQuery) -> list[Document]:
        return await _readable(await self._reading().rows(QUERIES.document_list(query)), codec.read_document)

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
        return await _readable(await self._reading().rows(QUERIES.ended_list(query)), retire.read_ended)

    async def compact(self, parts: Sequence[LogPart]) -> None:
        if not parts:
            return
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

    async def _compact(self, parts: Sequence[LogPart], rows: Iterable[Any]) -> None:
        rows_of: dict[str, list[Any]] = {part.tree_id: [] for part in parts}
        for row in rows:
            rows_of[row[0]].append(row)
        compacted = await _readable(parts, lambda part: retire.compact_part(part, rows_of[part.tree_id]))
        if compacted:
            await self._run(lambda connection: retirement.write_compactions(connection, compacted))

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        dropped: list[str] = await self._run(lambda connection: retirement.drop_trees(connection, heads))
        return dropped

    async def sweep(self, limit: int) -> bool:
        if not await self._reading().rows(QUERIES.any_dropped()):
            return False  # the usual case, which costs no commit
        is_more: bool = await self._run(lambda connection: retirement.sweep_logs(connection, limit))
        return is_more

    async def _run(self, job: Job, *names: str) -> Any:
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


def _written(query: TaskQuery) -> TaskQuery:
    """With its texts as they stand in columns."""
    return replace(
        query,
        user_id=texts.written(query.user_id),
        name=texts.written(query.name),
        context_id=texts.written(query.context_id),
    )


def _read_node(row: Any) -> Node:
    task_id, name, status, parent_id = row
    return codec.read_node((task_id, texts.read(name), status, parent_id))


def _cut(connection: Connection) -> None:
    """End a connection whose event loop is gone: the server sees its end, and lets go of its locks."""
    transport: Any = connection._transport
    with suppress(OSError):
        transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
    with suppress(RuntimeError):  # the loop is closed, and calls nothing any more
        transport.abort()
    if (finish := getattr(transport, "_call_connection_lost", None)) is not None:
        with suppress(RuntimeError):
            finish(None)  # closes the socket


async def _insert_draft(connection: Connection, task: Task) -> None:
    rows = statements.columns_of([statements.task_row(codec.task_row(task))])
    try:
        await connection.fetch(statements.alone(statements.INSERT_DRAFTS), *rows)
    except asyncpg.UniqueViolationError as error:
        raise InvalidPlan([Problem("id", f"{task.id} is taken by another task")]) from error


async def _change_draft(connection: Connection, task: Task) -> bool:
    is_draft = "SELECT 1 FROM tasks WHERE id = $1 AND tree_id = '' FOR UPDATE"
    if await connection.fetchval(is_draft, task.id) is None:
        return False
    rows = statements.columns_of([statements.task_row(codec.task_row(task))])
    await connection.fetch(statements.alone(statements.PUT_TASKS), *rows)
    return True


async def _put_documents(connection: Connection, documents: Sequence[Document]) -> None:
    wanted = {document.tree_id for document in documents if document.tree_id}
    if wanted:
        there = await connection.fetch("SELECT id FROM trees WHERE id = ANY ($1::text[])", list(wanted))
        if missing := wanted - {row["id"] for row in there}:
            raise TaskNotFound(min(missing))
    latest = {(document.kind, document.id): codec.document_row(document) for document in documents}
    if latest:
        rows = statements.columns_of(list(latest.values()))
        await connection.fetch(statements.alone(statements.PUT_DOCUMENTS), *rows)


async def _delete_documents(connection: Connection, names: Sequence[tuple[str, str]]) -> int:
    if not names:
        return 0
    gone = await connection.fetch(
        "DELETE FROM documents AS d USING unnest($1::text[], $2::text[]) AS n(kind, id) "
        "WHERE d.kind = n.kind AND d.id = n.id RETURNING 1",
        *statements.columns_of(names),
    )
    return len(gone)


async def _delete(connection: Connection, tree_id: str) -> bool:
    # Here, in the order of the writes, it cannot start between the look and the delete.
    is_live = await connection.fetchval("SELECT is_live FROM trees WHERE id = $1 FOR UPDATE", tree_id)
    if is_live is not None:
        if is_live:
            raise running_tree(tree_id)
        await retirement.delete_trees(connection, [tree_id], logs_of=[tree_id])
        return True
    gone = await connection.fetchval("DELETE FROM tasks WHERE id = $1 AND tree_id = '' RETURNING 1", tree_id)
    return gone is not None
