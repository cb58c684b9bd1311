"""The storage in PostgreSQL: one writing connection with group commit, a few that read."""

import asyncio
import os
import socket
import threading
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Any

import asyncpg
from msgspec.structs import replace

from core.loop.pieces import in_pieces
from core.model.errors import InvalidPlan, Problem, TaskNotFound
from core.model.events import Recorded
from core.model.task import Task, TreeHead
from core.storage import codec
from core.storage.base import (
    COUNTED,
    Document,
    EventPlace,
    EventQuery,
    Node,
    TaskQuery,
    TreePage,
    TreeQuery,
    running_tree,
)
from core.storage.postgres import retirement, statements, texts
from core.storage.postgres.connect import Connection, Place
from core.storage.postgres.dialect import EVENT_QUERIES, POSTGRES, QUERIES
from core.storage.postgres.holder import PATIENCE, Holder
from core.storage.postgres.migrate import migrate
from core.storage.postgres.reader import Reader
from core.storage.postgres.writer import BatchWriter
from core.storage.queries import TENANTS
from core.storage.relational.storage import Jobs, RelationalStorage
from core.storage.write_queue import WriteQueue


class PostgresStorage(RelationalStorage[Reader]):
    """Storage in a database of PostgreSQL, held by one process at a time. Bound to the event loop that opens it.

    `patience`: seconds without a connection after which writes and reads are refused. Raises ConfigurationError for
    what is no URL of a database.
    """

    dialect = POSTGRES
    queries = QUERIES
    event_queries = EVENT_QUERIES
    most_bytes = 2**62

    def __init__(self, url: str, *, patience: float = PATIENCE) -> None:
        self.place = Place(url)
        self._patience = patience
        self._process = 0  # that opened it
        self._abandoning = threading.Lock()
        self._holder: Holder | None = None

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

    async def put_draft(self, task: Task) -> None:
        await self._run(lambda connection: _insert_draft(connection, task), task.id)

    async def cancel_draft(self, task: Task) -> bool:
        was_draft: bool = await self._run(lambda connection: _change_draft(connection, task), task.id)
        return was_draft

    async def load(self, tree_id: str, *, most: int | None = None) -> tuple[TreeHead, list[Task]] | None:
        found = await self._reading().tree(tree_id, most)
        return None if found is None else (codec.read_head(found[0]), await in_pieces(found[1], codec.read_task))

    async def tasks(self, query: TaskQuery) -> list[Task]:
        return await super().tasks(_written(query))

    async def count(self, query: TaskQuery, most: int = COUNTED) -> int:
        return await super().count(_written(query), most)

    async def trees(self, query: TreeQuery) -> TreePage:
        return await super().trees(replace(query, context_id=texts.written(query.context_id)))

    async def _tenants(self) -> list[Any]:
        return await self._reading().list_rows((TENANTS, ()))

    @staticmethod
    def _node_of(row: Any) -> Node:
        task_id, name, status, parent_id = row
        return codec.read_node((task_id, texts.read(name), status, parent_id))

    async def event_places(self, query: EventQuery) -> list[EventPlace]:
        rows = await self._reading().rows(EVENT_QUERIES.places(query))
        return [EventPlace._make(row[1:]) for row in rows]

    async def events_at(self, tree_id: str, seqs: Collection[int]) -> list[Recorded]:
        rows = await self._reading().rows(EVENT_QUERIES.at(tree_id, seqs))
        return await asyncio.to_thread(list, map(codec.read_event, rows))


def _written(query: TaskQuery) -> TaskQuery:
    """With its texts as they stand in columns."""
    return replace(
        query,
        user_id=texts.written(query.user_id),
        name=texts.written(query.name),
        context_id=texts.written(query.context_id),
    )


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


PostgresStorage.jobs = Jobs(
    put_documents=_put_documents,
    delete_documents=_delete_documents,
    delete=_delete,
    write_compactions=retirement.write_compactions,
    drop_trees=retirement.drop_trees,
    sweep_logs=retirement.sweep_logs,
    log_parts=retirement.log_parts,
)
