"""The storage in PostgreSQL: one writing connection with group commit, a few that read."""

import asyncio
import os
import threading
from collections.abc import Collection
from typing import Any

import asyncpg
from msgspec.structs import replace

from core.loop.pieces import in_pieces
from core.model.errors import InvalidPlan, Problem, StorageUnavailable
from core.model.events import Recorded
from core.model.task import Task, TreeHead
from core.storage import codec
from core.storage.base import (
    COUNTED,
    OF_NOBODY,
    EventPlace,
    EventQuery,
    Node,
    TaskQuery,
    TreePage,
    TreeQuery,
    running_tree,
)
from core.storage.postgres import documents, retirement, statements, texts
from core.storage.postgres.claim import Claim
from core.storage.postgres.connect import ERRORS, Connection, Place, code_of, cut
from core.storage.postgres.dialect import EVENT_QUERIES, POSTGRES, QUERIES
from core.storage.postgres.holder import PATIENCE, Holder
from core.storage.postgres.lease import LASTS, Lease
from core.storage.postgres.migrate import migrate
from core.storage.postgres.reader import Reader
from core.storage.postgres.writer import BatchWriter
from core.storage.queries import TENANTS
from core.storage.relational.storage import Jobs, RelationalStorage
from core.storage.write_queue import CLOSED, WriteQueue

ADOPTED = 1_000  # trees of a lapsed lease in one transaction


class PostgresStorage(RelationalStorage[Reader]):
    """Storage in a database of PostgreSQL. Bound to the event loop that opens it.

    `patience`: seconds without a connection after which writes and reads are refused. `lease_lasts`: seconds without a
    sign of life after which another member adopts this one's trees. `is_shared`: other members may have the database
    at the same time. Raises ConfigurationError for what is no URL of a database.
    """

    dialect = POSTGRES
    queries = QUERIES
    event_queries = EVENT_QUERIES
    most_bytes = 2**62
    is_exclusive = False

    def __init__(
        self, url: str, *, patience: float = PATIENCE, lease_lasts: float = LASTS, is_shared: bool = False
    ) -> None:
        self.place = Place(url)
        self._patience = patience
        self._lease_lasts = lease_lasts
        self._is_shared = is_shared
        self._process = 0  # that opened it
        self._abandoning = threading.Lock()
        self._holder: Holder | None = None
        self._lease: Lease | None = None
        self.lease = OF_NOBODY

    async def open(self) -> None:
        lease = Lease(self.place, self._fence, lasts=self._lease_lasts, is_alone=not self._is_shared)
        claim = Claim(self.place, lease.id, is_shared=self._is_shared)
        holder = Holder(self.place, claim, patience=self._patience)
        await holder.open(lambda connection: migrate(self.place, connection))
        self._holder, self._lease = holder, lease
        try:
            await lease.take()
        except BaseException as error:
            await self.close()
            if isinstance(error, ERRORS):
                raise self.place.refusal(error) from error
            raise
        self._process = os.getpid()
        writer = WriteQueue(BatchWriter(holder, lease=lease.id))
        await writer.start()
        self.lease, self._writer = lease.id, writer
        self._reader = Reader(self.place, lambda: holder.gives_up_at)

    def _fence(self, reason: str) -> None:
        if self._holder is not None:
            self._holder.fence.close(reason)

    async def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.pool.close()
        if self._writer is not None:
            await self._writer.close()
        if self._lease is not None:
            await self._lease.hand_back()
        if self._holder is not None:
            await self._holder.close()

    def abandon(self) -> None:
        with self._abandoning:
            lease, self._lease = self._lease, None
            holder, self._holder = self._holder, None
            writer, self._writer = self._writer, None
            reader, self._reader = self._reader, None
            if lease is None or holder is None or writer is None or reader is None:
                return
            left = (lease.abandon(), holder.abandon(), *reader.pool.abandon())
            connections = [connection for connection in left if connection is not None]
            writer.abandon()
            if self._process == os.getpid():  # a forked child's parent goes on with them
                for connection in connections:
                    cut(connection)

    @property
    def address(self) -> str:
        return self.place.url

    @property
    def identity(self) -> str:
        return "" if self._holder is None else self._holder.identity

    async def time(self) -> float:
        ((now,),) = await self._reading().rows(("SELECT extract(epoch FROM clock_timestamp())::float8", ()))
        return float(now)

    def refusal(self) -> str | None:
        return None if self._holder is None else self._holder.refusal()

    @property
    def is_fenced(self) -> bool:
        return self._holder is not None and self._holder.fence.reason is not None

    async def lapsed(self) -> str | None:
        if self._lease is None:
            raise StorageUnavailable(CLOSED)
        try:
            return await self._lease.lapsed()
        except ERRORS as error:
            raise StorageUnavailable(f"The leases cannot be read ({code_of(error)})") from error

    async def adopt(self, lease: str) -> list[str]:
        found: list[tuple[float, str]] = []
        while some := await self._run(lambda connection: _adopt(connection, lease, self.lease)):
            found += some
        return [tree_id for _, tree_id in sorted(found)]

    async def settle(self, lease: str) -> None:
        if self._lease is None:
            raise StorageUnavailable(CLOSED)
        try:
            await self._lease.settle(lease)
        except ERRORS as error:
            raise StorageUnavailable(f"The leases cannot be written ({code_of(error)})") from error

    async def owner_of(self, tree_id: str) -> str:
        rows = await self._reading().rows(("SELECT lease FROM trees WHERE id = $1", (tree_id,)))
        return str(rows[0][0]) if rows else OF_NOBODY

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


async def _adopt(connection: Connection, lease: str, heir: str) -> list[tuple[float, str]]:
    rows = await connection.fetch(
        "UPDATE trees SET lease = $2 WHERE id IN (SELECT id FROM trees WHERE lease = $1 AND is_live ORDER BY id LIMIT "
        f"{ADOPTED} FOR UPDATE) RETURNING created_at, id",
        lease,
        heir,
    )
    return [(row["created_at"], row["id"]) for row in rows]


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
    put_documents=documents.put,
    put_new=documents.put_new,
    swap=documents.swap,
    delete_documents=documents.delete,
    delete=_delete,
    write_compactions=retirement.write_compactions,
    drop_trees=retirement.drop_trees,
    sweep_logs=retirement.sweep_logs,
    log_parts=retirement.log_parts,
)
