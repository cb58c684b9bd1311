"""A storage in a relational database, whichever it is: rows by their statements, writes through one queue.

A database's own room says how it is opened, held and read, and has the jobs of its writer.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from core.loop.origin import CALLER
from core.loop.pieces import in_pieces
from core.model.errors import AnswerTooLarge, StorageError, StorageUnavailable
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
    EventQuery,
    LogPart,
    Node,
    TaskQuery,
    TreePage,
    TreeQuery,
)
from core.storage.dialect import Dialect
from core.storage.event_queries import EventQueries
from core.storage.queries import TENANTS, Bound, Queries, is_of_all
from core.storage.write_queue import CLOSED, WriteQueue
from core.storage.writes import Job

LARGE = 64 * 1024  # bytes of JSON from which on it is decoded beside the event loop

Given = TypeVar("Given")
Value = TypeVar("Value")

logger = logging.getLogger(__name__)


class Page(NamedTuple):
    """Rows, and whether the statement has more of them."""

    rows: list[Any]
    is_cut: bool
    size: int = 0  # bytes of their JSON, where these are bounded


class RowReader(Protocol):
    """Reads of one statement, or of two at one moment. Raises StorageUnavailable and StorageError."""

    async def rows(self, query: Bound) -> list[Any]:
        """All rows; the statement's limit keeps them few."""
        ...

    async def page(self, query: Bound, most: int | None) -> Page:
        """The first rows: those that have `most` bytes of JSON together, and one at least."""
        ...

    async def short_rows(self, query: Bound, most: int, size: int) -> list[Any] | None:
        """All rows; None where they are more than `most`, or have more than `size` bytes of JSON."""
        ...

    async def list_page(self, query: Bound, most: int) -> Page:
        """The first tasks, up to the one with which they have `most` bytes of JSON. Raises QueryTooLong."""
        ...

    async def count_and_page(self, count: Bound, query: Bound, most: int) -> tuple[int, Page]:
        """A number and a page of bare heads, read at one moment. Raises QueryTooLong."""
        ...

    async def two(self, first: Bound, second: Bound) -> tuple[list[Any], list[Any]]:
        """All rows of two statements, read at one moment."""
        ...


class Jobs(NamedTuple):
    """What the writer of one database is given to do, each with its connection first; and the read of parts of logs."""

    put_documents: Callable[[Any, Sequence[Document]], Any]
    put_new: Callable[[Any, Document], Any]
    swap: Callable[[Any, Document, Document | None, Sequence[Document]], Any]
    delete_documents: Callable[[Any, Sequence[tuple[str, str]], Document | None], Any]
    delete: Callable[[Any, str], Any]
    write_compactions: Callable[[Any, Sequence[retire.Compacted]], Any]
    drop_trees: Callable[[Any, Sequence[TreeHead]], Any]
    sweep_logs: Callable[[Any, int], Any]
    log_parts: Callable[[Sequence[LogPart]], Bound]


ReaderT = TypeVar("ReaderT", bound=RowReader)


class RelationalStorage(Generic[ReaderT]):
    """What storages in relational databases have in common. It is open while it has a writer and a reader."""

    dialect: ClassVar[Dialect]
    queries: ClassVar[Queries]
    event_queries: ClassVar[EventQueries]
    jobs: ClassVar[Jobs]
    most_bytes: ClassVar[int]  # stands for no bound in a statement

    _writer: WriteQueue | None = None
    _reader: ReaderT | None = None

    def written(self, owner: str) -> int:
        return 0 if self._writer is None else self._writer.written.get(owner, 0)

    async def stored(self, owner: str) -> int:
        rows = await self._reading().rows(self.queries.stored_bytes(owner))
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

    async def cancelled_drafts(self, task_ids: Sequence[str]) -> list[Task]:
        drafts = self.queries.cancelled_drafts
        parameters = drafts.parameters({"ids": self.dialect.listed(task_ids)})
        return await readable(await self._reading().rows((drafts.sql, parameters)), codec.read_task)

    async def load_many(self, tree_ids: Sequence[str]) -> list[tuple[TreeHead, list[Task]]]:
        ids = {"ids": self.dialect.listed(tree_ids)}
        heads = self.queries.heads.sql, self.queries.heads.parameters(ids)
        members = self.queries.trees_tasks.sql, self.queries.trees_tasks.parameters(ids)
        found, rows = await self._reading().two(heads, members)
        rows_of: dict[str, list[Any]] = {}
        for row in rows:
            rows_of.setdefault(row[0], []).append(row[1:])
        return await readable(
            found, lambda row: (codec.read_head(row), [codec.read_task(each) for each in rows_of[row[0]]])
        )

    async def head(self, tree_id: str, *, owner: str | None = None, tenant: str | None = None) -> TreeHead | None:
        rows = await self._reading().rows(self.queries.one_head(tree_id, owner, tenant))
        return codec.read_bare_head(rows[0], tenant) if rows else None

    async def task(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> Task | None:
        rows = await self._reading().rows(self.queries.one_task(task_id, owner, tenant))
        return codec.read_task(rows[0], tenant) if rows else None

    async def tree_of(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> str | None:
        rows = await self._reading().rows(self.queries.one_tree_of(task_id, owner, tenant))
        return rows[0][0] if rows else None

    async def children(self, parent_id: str) -> list[Task]:
        page = await self._reading().list_page((self.queries.children.sql, (parent_id,)), LIST_BYTES)
        if page.is_cut:
            raise AnswerTooLarge(LIST_BYTES)
        return await in_pieces(page.rows, codec.read_task)

    async def nodes(self, tree_id: str, limit: int) -> list[Node]:
        parameters = self.queries.nodes.parameters({"id": tree_id, "limit": limit})
        return await readable(await self._reading().rows((self.queries.nodes.sql, parameters)), self._node_of)

    async def node(self, task_id: str) -> Node | None:
        rows = await self._reading().rows((self.queries.node.sql, (task_id,)))
        return self._node_of(rows[0]) if rows else None

    async def tasks(self, query: TaskQuery) -> list[Task]:
        if not is_of_all(query):
            return await self._tasks(query)
        found: list[Task] = []
        for (tenant,) in await self._tenants():
            found += await self._tasks(replace(query, tenant=tenant))
            found = sorted(found, key=lambda task: (task.created_at, task.id), reverse=True)[: query.limit]
        return found

    async def _tasks(self, query: TaskQuery) -> list[Task]:
        page = await self._reading().list_page(self.queries.task_list(query), LIST_BYTES)
        if page.is_cut:
            raise AnswerTooLarge(LIST_BYTES)
        return await readable(page.rows, lambda row: codec.read_task(row, query.tenant))

    async def count(self, query: TaskQuery, most: int = COUNTED) -> int:
        rows = await self._reading().rows(self.queries.task_count(query, most))
        return int(rows[0][0]) if rows else 0  # no row where nothing can have what is asked for

    async def trees(self, query: TreeQuery) -> TreePage:
        wider = query
        while True:
            total, page = await self._reading().count_and_page(
                self.queries.tree_count(query, COUNTED), self.queries.tree_list(wider), LIST_BYTES
            )
            heads = await readable(page.rows, codec.read_bare_head)
            if len(heads) > query.limit or page.is_cut or len(page.rows) <= wider.limit:
                has_more = len(heads) > query.limit or (page.is_cut and bool(heads))
                return TreePage(heads=tuple(heads[: query.limit]), total=total, has_more=has_more)
            wider = replace(wider, limit=wider.limit * 2)  # corrupt rows took the place of others

    async def versions(self, tree_ids: Sequence[str]) -> dict[str, int]:
        versions = self.queries.versions
        parameters = versions.parameters({"ids": self.dialect.listed(tree_ids)})
        return {row[0]: row[1] for row in await self._reading().rows((versions.sql, parameters))}

    async def live_trees(self) -> list[str]:
        return [str(tree_id) for (tree_id,) in await self._reading().rows((self.queries.live_trees.sql, ()))]

    async def events(self, query: EventQuery) -> Sequence[Recorded]:
        page = await self._reading().page(self.event_queries.page(query), query.max_bytes)
        if page.size > LARGE:
            return await asyncio.to_thread(list, map(codec.read_event, page.rows))
        return await in_pieces(page.rows, codec.read_event)

    async def few_events(self, query: EventQuery) -> Sequence[Recorded] | None:
        longest = self.most_bytes if query.max_bytes is None else query.max_bytes
        rows = await self._reading().short_rows(self.event_queries.short(query, longest), query.limit, longest)
        return None if rows is None else await in_pieces(rows, codec.read_event)

    async def compacted(self, tree_id: str) -> int:
        rows = await self._reading().rows(self.queries.compaction_of(tree_id))
        return retire.read_compaction(rows[0]).seq if rows else 0

    async def document(self, kind: str, document_id: str) -> Document | None:
        query = self.queries.document
        rows = await self._reading().rows((query.sql, query.parameters({"kind": kind, "id": document_id})))
        return codec.read_document(rows[0]) if rows else None

    async def documents(self, query: DocumentQuery) -> list[Document]:
        return await readable(await self._reading().rows(self.queries.document_list(query)), codec.read_document)

    async def put_documents(self, *documents: Document) -> None:
        await self._run(lambda connection: self.jobs.put_documents(connection, documents), *map(_name, documents))

    async def put_new(self, document: Document) -> Document:
        stored: Document = await self._run(lambda connection: self.jobs.put_new(connection, document), _name(document))
        return stored

    async def swap(self, document: Document, expected: Document | None, *others: Document) -> bool:
        is_swapped: bool = await self._run(
            lambda connection: self.jobs.swap(connection, document, expected, others), *map(_name, (document, *others))
        )
        return is_swapped

    async def delete_documents(self, *names: tuple[str, str], expected: Document | None = None) -> int:
        keys = map(" ".join, names)
        deleted: int = await self._run(
            lambda connection: self.jobs.delete_documents(connection, names, expected), *keys
        )
        return deleted

    async def delete(self, tree_id: str) -> bool:
        deleted: bool = await self._run(lambda connection: self.jobs.delete(connection, tree_id), tree_id)
        return deleted

    async def ended(self, query: EndedQuery) -> list[EndedTree]:
        return await readable(await self._reading().rows(self.queries.ended_list(query)), retire.read_ended)

    async def compact(self, parts: Sequence[LogPart]) -> None:
        if not parts:
            return
        page = await self._reading().page(self.jobs.log_parts(parts), LOG_BYTES)
        if not page.is_cut:
            await self._compact(parts, page.rows)
            return
        for whole in parts:
            part = whole
            while rows := (await self._reading().page(self._events_of(part), LOG_BYTES)).rows:
                reached = rows[-1][1]
                await self._compact([replace(part, until=reached)], rows)
                part = replace(part, after=reached)

    def _events_of(self, part: LogPart) -> Bound:
        """The events of one part, in order."""
        limit = part.until - part.after
        query = EventQuery(tree_id=part.tree_id, after=part.after, until=part.until, limit=limit)
        return self.event_queries.page(query)

    async def _compact(self, parts: Sequence[LogPart], rows: Iterable[Any]) -> None:
        rows_of: dict[str, list[Any]] = {part.tree_id: [] for part in parts}
        for row in rows:
            rows_of[row[0]].append(row)
        compacted = await readable(parts, lambda part: retire.compact_part(part, rows_of[part.tree_id]))
        if compacted:
            await self._run(lambda connection: self.jobs.write_compactions(connection, compacted))

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        dropped: list[str] = await self._run(lambda connection: self.jobs.drop_trees(connection, heads))
        return dropped

    async def sweep(self, limit: int) -> bool:
        if not await self._reading().rows(self.queries.any_dropped):
            return False  # the usual case, which costs no commit
        is_more: bool = await self._run(lambda connection: self.jobs.sweep_logs(connection, limit))
        return is_more

    async def _run(self, job: Job, *names: str) -> Any:
        """`names`: what the job concerns, whose writes keep their order."""
        if self._writer is None:
            raise StorageUnavailable(CLOSED)
        return await self._writer.submit(job, CALLER.get(), names)

    def _reading(self) -> ReaderT:
        if self._reader is None:
            raise StorageUnavailable(CLOSED)
        return self._reader

    async def _tenants(self) -> list[Any]:
        """A row for each tenant, found in one step."""
        return await self._reading().rows((TENANTS, ()))

    @staticmethod
    def _node_of(row: Any) -> Node:
        return codec.read_node(row)


def _name(document: Document) -> str:
    return f"{document.kind} {document.id}"


async def readable(rows: Iterable[Given], read: Callable[[Given], Value]) -> list[Value]:
    """The values of a list's rows. A corrupt one is left out: it must not keep everybody from the others."""

    def read_if_whole(row: Given) -> Value | None:
        try:
            return read(row)
        except StorageError as error:
            logger.error("%s; it is left out", error)
            return None

    return [value for value in await in_pieces(rows, read_if_whole) if value is not None]
