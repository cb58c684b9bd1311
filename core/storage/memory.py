"""Storage that lasts as long as the process, for tests and for trees that are not needed afterwards."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from typing import Any

from msgspec.structs import replace

from core.model.compaction import compact
from core.model.errors import (
    CoreError,
    InvalidPlan,
    Problem,
    StorageUnavailable,
    TaskNotFound,
    TreeIsRunning,
    VersionConflict,
)
from core.model.events import KINDS, Recorded
from core.model.jsonvalue import json_size
from core.model.owners import is_of
from core.model.task import Task, TaskStatus, TreeHead
from core.storage.base import (
    COUNTED,
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
from core.storage.unshared import Unshared


class MemoryStorage(Unshared):
    """The same answers as SqlStorage, from dictionaries. Writes take effect in a later turn of the loop, in order."""

    def __init__(self) -> None:
        self._is_open = False
        self._heads: dict[str, TreeHead] = {}
        self._tasks: dict[str, Task] = {}
        self._members: dict[str, list[str]] = {}  # tree -> its tasks by position
        self._events: dict[str, list[Recorded]] = {}
        self._compacted: dict[str, int] = {}  # tree -> how far its log is compacted
        self._documents: dict[tuple[str, str], Document] = {}
        self._failures = 0
        self._failed: dict[str, int] = {}  # tree -> number of its latest failed append
        self._last: asyncio.Future[Any] | None = None

    @property
    def identity(self) -> str:
        return ""

    async def time(self) -> float:
        return time.time()

    def refusal(self) -> str | None:
        return None

    def written(self, owner: str) -> int:
        return 0

    async def stored(self, owner: str) -> int:
        return 0

    async def open(self) -> None:
        self._begin()
        self._is_open = True

    def abandon(self) -> None:
        self._is_open = False
        self._last = None

    async def close(self) -> None:
        self._is_open = False
        if self._last is not None:
            await asyncio.wait([self._last])

    def append(self, append: Append) -> asyncio.Future[None]:
        failures_known = self._failures
        return self._submit(lambda: self._append(append, failures_known))

    def flush(self) -> None:
        """Nothing waits here for company."""

    async def put_draft(self, task: Task) -> None:
        await self._submit(lambda: self._put_draft(task))

    async def cancel_draft(self, task: Task) -> bool:
        was_draft: bool = await self._submit(lambda: self._cancel_draft(task))
        return was_draft

    async def cancelled_drafts(self, task_ids: Sequence[str]) -> list[Task]:
        found = [self._tasks[task_id] for task_id in task_ids if task_id in self._tasks]
        return [task for task in found if task.tree_id == "" and task.status is TaskStatus.CANCELLED]

    async def load(self, tree_id: str, *, most: int | None = None) -> tuple[TreeHead, list[Task]] | None:
        head = self._heads.get(tree_id)
        return None if head is None else (head, [self._tasks[task_id] for task_id in self._members[tree_id]])

    async def load_many(self, tree_ids: Sequence[str]) -> list[tuple[TreeHead, list[Task]]]:
        loaded = [await self.load(tree_id) for tree_id in tree_ids]
        return [tree for tree in loaded if tree is not None]

    async def head(self, tree_id: str, *, owner: str | None = None, tenant: str | None = None) -> TreeHead | None:
        head = self._heads.get(tree_id)
        return head.bare() if head is not None and is_of(head.owner, owner, tenant) else None

    async def task(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> Task | None:
        task = self._tasks.get(task_id)
        return task if task is not None and is_of(task.owner, owner, tenant) else None

    async def tree_of(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> str | None:
        task = self._tasks.get(task_id)
        return task.tree_id if task is not None and is_of(task.owner, owner, tenant) else None

    async def children(self, parent_id: str) -> list[Task]:
        found = [task for task in self._tasks.values() if task.parent_id == parent_id]
        return sorted(found, key=lambda task: (task.position, task.id))

    async def nodes(self, tree_id: str, limit: int) -> list[Node]:
        return [_node(self._tasks[task_id]) for task_id in self._members.get(tree_id, ())[:limit]]

    async def node(self, task_id: str) -> Node | None:
        task = self._tasks.get(task_id)
        return None if task is None else _node(task)

    async def tasks(self, query: TaskQuery) -> list[Task]:
        found = sorted(self._matching(query), key=lambda task: (task.created_at, task.id), reverse=True)
        before = query.before
        return [task for task in found if before is None or (task.created_at, task.id) < before][: query.limit]

    async def count(self, query: TaskQuery, most: int = COUNTED) -> int:
        return min(most, len(self._matching(query)))

    async def trees(self, query: TreeQuery) -> TreePage:
        found = [
            head
            for head in self._heads.values()
            if query.owner in (None, head.owner)
            and query.origin in (None, head.origin)
            and query.context_id in (None, head.context_id)
            and (query.statuses is None or head.status in query.statuses)
            and (query.updated_since is None or head.updated_at >= query.updated_since)
        ]
        found.sort(key=lambda head: (head.updated_at, head.id), reverse=True)
        page = [head for head in found if query.before is None or (head.updated_at, head.id) < query.before]
        heads = tuple(head.bare() for head in page[: query.limit])
        return TreePage(heads=heads, total=min(COUNTED, len(found)), has_more=len(page) > query.limit)

    async def versions(self, tree_ids: Sequence[str]) -> dict[str, int]:
        return {each: self._heads[each].version for each in tree_ids if each in self._heads}

    async def live_trees(self) -> list[str]:
        live = [head for head in self._heads.values() if head.is_live]
        return [head.id for head in sorted(live, key=lambda head: (head.created_at, head.id))]

    async def events(self, query: EventQuery) -> Sequence[Recorded]:
        found: list[Recorded] = []
        log = self._events.get(query.tree_id, [])
        first, last = _place(log, query.after), len(log) if query.until is None else _place(log, query.until)
        for recorded in log[first:last]:
            if query.task_id not in (None, recorded.task_id) or (
                query.kinds is not None and KINDS[type(recorded.event)] not in query.kinds
            ):
                continue
            if len(found) == query.limit:
                break
            found.append(recorded)
        return found

    async def few_events(self, query: EventQuery) -> Sequence[Recorded] | None:
        found = await self.events(replace(query, limit=query.limit + 1))
        is_large = query.max_bytes is not None and sum(map(json_size, found)) > query.max_bytes
        return None if len(found) > query.limit or is_large else found

    async def event_places(self, query: EventQuery) -> list[EventPlace]:
        found = await self.events(replace(query, limit=len(self._events.get(query.tree_id, []))))
        return [
            EventPlace(each.seq, KINDS[type(each.event)], each.task_id, json_size(each))
            for each in found[-1 : -query.limit - 1 : -1]
        ]

    async def events_at(self, tree_id: str, seqs: Collection[int]) -> list[Recorded]:
        wanted = set(seqs)
        return [recorded for recorded in self._events.get(tree_id, []) if recorded.seq in wanted]

    async def compacted(self, tree_id: str) -> int:
        return self._compacted.get(tree_id, 0)

    async def document(self, kind: str, document_id: str) -> Document | None:
        return self._documents.get((kind, document_id))

    async def documents(self, query: DocumentQuery) -> list[Document]:
        found = [
            document
            for document in self._documents.values()
            if document.kind == query.kind
            and query.owner in (None, document.owner)
            and query.tree_id in (None, document.tree_id)
            and (query.tree_ids is None or document.tree_id in query.tree_ids)
            and (query.ids is None or document.id in query.ids)
            and (query.prefix is None or document.id.startswith(query.prefix))
            and (query.until is None or document.at <= query.until)
            and (query.after is None or (document.at, document.id) > query.after)
        ]
        return sorted(found, key=lambda document: (document.at, document.id))[: query.limit]

    async def put_documents(self, *documents: Document) -> None:
        await self._submit(lambda: self._put_documents(documents))

    async def put_new(self, document: Document) -> Document:
        stored: Document = await self._submit(lambda: self._put_new(document))
        return stored

    async def swap(self, document: Document, expected: Document | None, *others: Document) -> bool:
        is_swapped: bool = await self._submit(lambda: self._swap(document, expected, others))
        return is_swapped

    async def delete_documents(self, *names: tuple[str, str], expected: Document | None = None) -> int:
        deleted: int = await self._submit(lambda: self._delete_documents(names, expected))
        return deleted

    async def delete(self, tree_id: str) -> bool:
        deleted: bool = await self._submit(lambda: self._delete(tree_id))
        return deleted

    async def ended(self, query: EndedQuery) -> list[EndedTree]:
        found = [
            EndedTree(head.bare(), self._compacted.get(head.id, 0))
            for head in self._heads.values()
            if not head.is_live and head.status.is_terminal and head.updated_at <= query.until
        ]
        found.sort(key=lambda ended: ended.key)
        return [ended for ended in found if query.after is None or ended.key > query.after][: query.limit]

    async def compact(self, parts: Sequence[LogPart]) -> None:
        await self._submit(lambda: self._compact(parts))

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        dropped: list[str] = await self._submit(lambda: self._drop(heads))
        return dropped

    async def sweep(self, limit: int) -> bool:
        return False

    def _submit(self, write: Callable[[], Any]) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._is_open:
            self._last = future
            loop.call_soon(self._apply, future, write)
        else:
            future.set_exception(StorageUnavailable("The storage is closed"))
        return future

    def _apply(self, future: asyncio.Future[Any], write: Callable[[], Any]) -> None:
        result: Any = None
        # Of what is not caught here, which the event loop's handler logs: no caller must wait for ever.
        failure: CoreError | None = StorageUnavailable("The storage cannot be written")
        try:
            result, failure = write(), None
        except (VersionConflict, InvalidPlan, TaskNotFound, TreeIsRunning) as error:
            failure = error
        finally:
            if not future.done():
                future.set_result(result) if failure is None else future.set_exception(failure)

    def _append(self, append: Append, failures_known: int) -> None:
        head = append.head
        expected = head.version - len(append.events)
        stored = self._heads.get(head.id)
        # Made before its maker knew that an earlier append of the tree had failed: decided on what is not so.
        fits = failures_known >= self._failed.get(head.id, 0)
        if append.is_new:
            fits = fits and stored is None and expected == 0 and all(self._is_free(task) for task in append.tasks)
        else:
            members = {task.id: self._tasks.get(task.id) for task in append.tasks}
            fits = fits and stored is not None and stored.version == expected and None not in members.values()
        fits = fits and not any((each.kind, each.id) in self._documents for each in append.documents)
        if not fits:
            self._failures += 1
            self._failed[head.id] = self._failures
            raise VersionConflict(head.id)
        if failures_known == self._failures:
            self._failed.clear()  # whatever comes from now on knows of all of them
        self._heads[head.id] = head
        self._tasks.update({task.id: task for task in append.tasks})
        if append.is_new:
            by_position = sorted(append.tasks, key=lambda task: task.position)
            self._members[head.id] = [task.id for task in by_position]
        self._events.setdefault(head.id, []).extend(append.events)
        self._documents.update({(each.kind, each.id): each for each in append.documents})

    def _is_free(self, task: Task) -> bool:
        stored = self._tasks.get(task.id)
        return stored is None or stored.tree_id == ""

    def _put_draft(self, task: Task) -> None:
        if task.id in self._tasks:
            raise InvalidPlan([Problem("id", f"{task.id} is taken by another task")])
        self._tasks[task.id] = task

    def _cancel_draft(self, task: Task) -> bool:
        stored = self._tasks.get(task.id)
        if stored is None or stored.tree_id != "":
            return False
        self._tasks[task.id] = task
        return True

    def _put_documents(self, documents: Sequence[Document]) -> None:
        for document in documents:
            if document.tree_id and document.tree_id not in self._heads:
                raise TaskNotFound(document.tree_id)
        self._documents.update({(document.kind, document.id): document for document in documents})

    def _put_new(self, document: Document) -> Document:
        key = document.kind, document.id
        if key not in self._documents:
            self._put_documents([document])
        return self._documents[key]

    def _swap(self, document: Document, expected: Document | None, others: Sequence[Document]) -> bool:
        if self._documents.get((document.kind, document.id)) != expected:
            return False
        self._put_documents([document, *others])
        return True

    def _delete_documents(self, names: Sequence[tuple[str, str]], expected: Document | None) -> int:
        if expected is not None and self._documents.get((expected.kind, expected.id)) != expected:
            return 0
        return sum(self._documents.pop(name, None) is not None for name in names)

    def _compact(self, parts: Sequence[LogPart]) -> None:
        for part in parts:
            tree_id = part.tree_id
            if self._is_at_rest(tree_id, part.version) and self._compacted.get(tree_id, 0) == part.after:
                log = self._events[tree_id]
                first, last = _place(log, part.after), _place(log, part.until)
                log[first:last] = compact(log[first:last])
                self._compacted[tree_id] = part.until

    def _drop(self, heads: Sequence[TreeHead]) -> list[str]:
        return [head.id for head in heads if self._is_at_rest(head.id, head.version) and self._delete(head.id)]

    def _is_at_rest(self, tree_id: str, version: int) -> bool:
        head = self._heads.get(tree_id)
        return head is not None and not head.is_live and head.version == version

    def _delete(self, tree_id: str) -> bool:
        if (head := self._heads.get(tree_id)) is not None:
            if head.is_live:
                raise running_tree(tree_id)
            del self._heads[tree_id]
            for task_id in self._members.pop(tree_id):
                del self._tasks[task_id]
            del self._events[tree_id]
            self._compacted.pop(tree_id, None)
            self._documents = {key: each for key, each in self._documents.items() if each.tree_id != tree_id}
            return True
        if tree_id in self._tasks and self._tasks[tree_id].tree_id == "":
            del self._tasks[tree_id]
            return True
        return False

    def _matching(self, query: TaskQuery) -> list[Task]:
        return [
            task
            for task in self._tasks.values()
            if is_of(task.owner, query.owner, query.tenant)
            and (not query.root_only or task.parent_id is None)
            and (query.statuses is None or task.status in query.statuses)
            and query.user_id in (None, task.user_id)
            and query.name in (None, task.name)
            and (query.since is None or task.created_at >= query.since)
            and (query.context_id is None or self._context_of(task) == query.context_id)
        ]

    def _context_of(self, task: Task) -> str | None:
        head = self._heads.get(task.tree_id)
        return None if head is None else head.context_id


def _place(log: Sequence[Recorded], seq: int) -> int:
    """Where the first event after that number stands."""
    return bisect_right(log, seq, key=lambda recorded: recorded.seq)


def _node(task: Task) -> Node:
    return Node(task.id, task.name, task.status, task.parent_id)
