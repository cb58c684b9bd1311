"""What the orchestrator asks of a storage. Every implementation passes `tests/storage/conformance.py`.

The contract in one sentence: an append is all or nothing, durable when its future resolves, refused when the tree's
version is not the expected one, and appends of one owner resolve in the order in which they were made.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct
from msgspec.structs import replace

from core.model.errors import TreeIsRunning
from core.model.events import Recorded
from core.model.task import Task, TaskStatus, TreeHead

OF_NOBODY = ""  # the lease of trees that no member runs
LIST_BYTES = 24 * 1024 * 1024  # of JSON, that a page of a list may have: more than one task's inputs and result
READS_PER_CALLER = 2  # at the same time: fewer than there are connections for them
TRANSACTION_ROWS = 2_048  # of one transaction, unless its first write alone has more: about 50 ms
LIST_SECONDS = 1.0  # that one read of a list may take
COUNTED = 10_000  # rows that a list counts: what it finds beyond them does not change its total
LOG_BYTES = 1024 * 1024  # of JSON, that a page of a log has, or of its only event


class Document(Struct, frozen=True, kw_only=True):
    """A record that a storage's user keeps beside the trees, in the same file and, if need be, transaction."""

    kind: str
    id: str  # unique within its kind
    owner: str = ""
    tree_id: str = ""  # the tree that it belongs to and is deleted with; empty for none
    at: float = 0.0  # seconds since 1970: documents of a kind are ordered and found by it
    body: bytes  # JSON, in its user's own shape


class DocumentQuery(Struct, frozen=True, kw_only=True):
    """Which documents to list, by (at, id) ascending. None means: any."""

    kind: str
    owner: str | None = None
    tree_id: str | None = None
    tree_ids: Sequence[str] | None = None  # some hundreds: any of these
    ids: Sequence[str] | None = None  # some hundreds: any of these
    prefix: str | None = None  # of the id; it ends with a slash, and few documents have it
    until: float | None = None  # inclusive
    after: tuple[float, str] | None = None  # (at, id) of the last one of the page before
    limit: int = 100

    def following(self, page: Sequence[Document]) -> "DocumentQuery":
        """The query for what comes after this page, which is not empty."""
        return replace(self, after=(page[-1].at, page[-1].id))


class Append(Struct, frozen=True, kw_only=True):
    """One command's consequences: events, and the rows as they are after them.

    `head.version` is the sequence number of the last event; the stored tree must be at `head.version - len(events)`.
    """

    head: TreeHead
    events: tuple[Recorded, ...]
    tasks: tuple[Task, ...]  # the changed ones; with `is_new` all of them
    is_new: bool = False  # the tree does not exist yet; rows of drafts with the same ids are replaced
    documents: tuple[Document, ...] = ()  # new ones; when one of them is there already, the append is refused
    lease: str = ""  # whose the stored tree must be, where several members share a database; empty: nobody's


class Node(NamedTuple):
    """Where a task is in its tree, and how it is, without what may be large in it."""

    id: str
    name: str
    status: TaskStatus
    parent_id: str | None


class TaskQuery(Struct, frozen=True, kw_only=True):
    """Which tasks to list, newest first (ties: highest id first), by keyset pages. None means: any."""

    owner: str | None
    tenant: str | None = None
    root_only: bool = True
    statuses: frozenset[TaskStatus] | None = None  # of the task itself
    user_id: str | None = None
    name: str | None = None
    context_id: str | None = None
    since: float | None = None  # created then or later
    before: tuple[float, str] | None = None  # (created_at, id) of the last row of the page before
    limit: int = 100


class TreeQuery(Struct, frozen=True, kw_only=True):
    """Which trees to list, latest change of status first (ties: highest id first), by keyset pages. None means: any."""

    owner: str | None
    origin: str | None = None
    statuses: frozenset[TaskStatus] | None = None  # the tree's roll-up
    context_id: str | None = None
    updated_since: float | None = None  # inclusive
    before: tuple[float, str] | None = None  # (updated_at, id) of the last row of the page before
    limit: int = 50


class TreePage(Struct, frozen=True, kw_only=True):
    """One page of trees, as bare heads, and how many match without `before` and `limit`; `total` ends at COUNTED."""

    heads: tuple[TreeHead, ...]
    total: int
    has_more: bool


class EndedQuery(Struct, frozen=True, kw_only=True):
    """Which trees at rest to list whose tasks have all ended, by (end, id) ascending."""

    until: float  # inclusive: when they ended, that is, their `updated_at`
    after: tuple[float, str] | None = None  # (end, id) of the last one of the page before
    limit: int = 100


class EndedTree(Struct, frozen=True):
    """A tree at rest, by its bare head, and the number up to which its log is compacted (0: not at all)."""

    head: TreeHead
    compacted: int

    @property
    def key(self) -> tuple[float, str]:
        """Its place among the ended."""
        return self.head.updated_at, self.head.id


class EventQuery(Struct, frozen=True, kw_only=True):
    """Which events of a tree's log are wanted: those with `after < seq <= until` that match. None means: any."""

    tree_id: str
    after: int = 0
    until: int | None = None
    task_id: str | None = None
    kinds: Collection[str] | None = None  # tags
    limit: int = 500
    max_bytes: int | None = None  # of JSON, of a page


class EventPlace(NamedTuple):
    """An event as far as it is known without reading what it carries."""

    seq: int
    kind: str  # its tag
    task_id: str
    size: int  # bytes of its JSON


class LogPart(Struct, frozen=True):
    """The events of a tree at rest, which has that version, with `after < seq <= until`. Those before are compacted."""

    tree_id: str
    version: int
    after: int
    until: int


def running_tree(tree_id: str) -> TreeIsRunning:
    """Why a live tree is not deleted."""
    return TreeIsRunning(tree_id, f"Task {tree_id} cannot be deleted while its tree is running; cancel it first")


class Upkeep(Protocol):
    """What a database is while it is open."""

    @property
    def identity(self) -> str:
        """What tells this database from every other one of the machine while it is open; empty: it lasts no longer."""
        ...

    @property
    def is_exclusive(self) -> bool:
        """Whether no other process changes what is stored while it is open."""
        ...

    async def time(self) -> float:
        """Seconds since 1970 by the clock of the machine that has the database."""
        ...

    def refusal(self) -> str | None:
        """Why new work cannot be stored at this moment, or what of it is damaged; None: all is well."""
        ...

    def written(self, owner: str) -> int:
        """Bytes of JSON that were appended for the owner since it was opened; 0 where nothing lasts."""
        ...

    async def stored(self, owner: str) -> int:
        """Bytes of JSON that the owner's trees have: events and what callers wrote. It reads all of their keys."""
        ...

    async def open(self) -> None:
        """Make it ready. Raises DatabaseInUse when another process holds it, StorageError when it cannot be used."""
        ...

    def abandon(self) -> None:
        """Close without the event loop that opened it, which is gone: writes without an answer are dropped. Blocks."""
        ...

    async def close(self) -> None:
        """Finish what was appended and release everything. May be called twice."""
        ...


class Sharing(Protocol):
    """Several members may share a database. Each live tree is of one of them, whose lease it carries."""

    @property
    def address(self) -> str:
        """The URL by which other processes may use the same database; empty: it is one process's own."""
        ...

    @property
    def lease(self) -> str:
        """This member's right to run trees, new at each opening; empty where the database is its own."""
        ...

    @property
    def is_fenced(self) -> bool:
        """Whether this member's trees were given to another one: what it has in memory is not the truth any more."""
        ...

    async def lapsed(self) -> str | None:
        """A lease whose member is gone or handed it back: its trees are this member's to adopt; None: there is none.

        The first one after the opening is the empty lease: trees that belong to nobody.
        """
        ...

    async def adopt(self, lease: str) -> list[str]:
        """Give this member the live trees of a lapsed lease; their ids, oldest first."""
        ...

    async def settle(self, lease: str) -> None:
        """The trees of the lapsed lease are adopted, and go on: nobody else need do it."""
        ...

    async def owner_of(self, tree_id: str) -> str:
        """The lease of a live tree; empty for one at rest, or none."""
        ...

    async def versions(self, tree_ids: Sequence[str]) -> dict[str, int]:
        """How far the logs of these trees go, as one read sees it; those that are not there are left out."""
        ...


class Log(Protocol):
    """The log of each tree. It is what is stored; the rows of trees and tasks are derived from it."""

    def append(self, append: Append) -> asyncio.Future[None]:
        """Queue the append at once; the future resolves when it is durable.

        Raises (from the future) VersionConflict or StorageUnavailable; then nothing of it is stored.
        """
        ...

    def flush(self) -> None:
        """Nothing more is appended in this turn of the event loop: a single append need not wait for its end."""
        ...

    async def events(self, query: EventQuery) -> Sequence[Recorded]:
        """One page of events, in order; of what is compacted, those that remain.

        It ends early, but never empty, before the event with which it would have more than `max_bytes`; where the log
        is held in memory anyway, it need not.
        """
        ...

    async def few_events(self, query: EventQuery) -> Sequence[Recorded] | None:
        """All events of the query, in order; None where they are more than its `limit`, or larger than `max_bytes`."""
        ...

    async def event_places(self, query: EventQuery) -> list[EventPlace]:
        """The query's latest events, the latest first. It has `until`. What they carry is not read."""
        ...

    async def events_at(self, tree_id: str, seqs: Collection[int]) -> list[Recorded]:
        """The tree's events of these numbers that are there, in order; decoded beside the event loop."""
        ...

    async def compacted(self, tree_id: str) -> int:
        """The number up to which the tree's log is compacted: only events after it can be followed."""
        ...

    async def delete(self, tree_id: str) -> bool:
        """Remove a tree, its tasks, its log and its documents, or a draft. False when there is neither.

        Raises TreeIsRunning for a live tree, as it is when its turn comes: a run that was appended before counts.
        """
        ...


class Trees(Protocol):
    """The rows of trees and tasks, as their latest events have left them."""

    async def load(self, tree_id: str, *, most: int | None = None) -> tuple[TreeHead, list[Task]] | None:
        """The tree's head and all its tasks by position, read at one moment; None when there is no such tree.

        Raises AnswerTooLarge when the tasks have more than `most` bytes of JSON and are not in memory anyway.
        """
        ...

    async def load_many(self, tree_ids: Sequence[str]) -> list[tuple[TreeHead, list[Task]]]:
        """Some tens or hundreds of trees at once, read at one moment, as `load` reads each.

        In any order; those that are not there or cannot be read are left out.
        """
        ...

    async def head(self, tree_id: str, *, owner: str | None = None, tenant: str | None = None) -> TreeHead | None:
        """The tree's bare head (`TreeHead.bare`), alone; with `owner` or `tenant` only if it is theirs.

        Another owner's row is not read at all, so that it takes as long as one that does not exist.
        """
        ...

    async def task(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> Task | None:
        """One task, draft or not; with `owner` or `tenant` only if it is theirs, as for `head`."""
        ...

    async def tree_of(self, task_id: str, *, owner: str | None = None, tenant: str | None = None) -> str | None:
        """The id of the tree that the task is in, empty for a draft; nothing large of its row is read.

        None where `task` finds none.
        """
        ...

    async def children(self, parent_id: str) -> list[Task]:
        """The direct children of a task, by position. Raises AnswerTooLarge and QueryTooLong as `tasks` does."""
        ...

    async def nodes(self, tree_id: str, limit: int) -> list[Node]:
        """The first tasks of a tree by position, at most `limit`."""
        ...

    async def node(self, task_id: str) -> Node | None:
        """One task."""
        ...

    async def tasks(self, query: TaskQuery) -> list[Task]:
        """The tasks that match, newest first; a page has fewer than its limit where a corrupt row is left out.

        Raises AnswerTooLarge for a page that is not held in memory anyway and has more than LIST_BYTES, and
        QueryTooLong where too many rows were looked at to find those that match.
        """
        ...

    async def count(self, query: TaskQuery, most: int = COUNTED) -> int:
        """How many tasks match, whatever the query's limit and place; at most `most`, where counting ends."""
        ...

    async def trees(self, query: TreeQuery) -> TreePage:
        """One keyset page of trees: a full one if there are that many readable ones. `total` counts corrupt rows.

        It ends early behind LIST_BYTES, unless it is held in memory anyway. Raises QueryTooLong as `tasks` does.
        """
        ...

    async def live_trees(self) -> list[str]:
        """The ids of the trees with a run that has not ended, oldest first."""
        ...


class Drafts(Protocol):
    """Tasks that belong to no tree yet."""

    async def put_draft(self, task: Task) -> None:
        """Store a task that belongs to no tree yet (`tree_id` is empty). Raises InvalidPlan when its id is taken.

        Like `delete` it waits while the storage is behind; only an append is refused then.
        """
        ...

    async def cancel_draft(self, task: Task) -> bool:
        """Put the cancelled task in the place of its draft. False when it is a draft no more."""
        ...

    async def cancelled_drafts(self, task_ids: Sequence[str]) -> list[Task]:
        """Those of these tasks that belong to no tree and were cancelled, in any order."""
        ...


class Documents(Protocol):
    """What else is to be stored, by kind and id; some of it belongs to a tree and goes with it."""

    async def document(self, kind: str, document_id: str) -> Document | None:
        """One document."""
        ...

    async def documents(self, query: DocumentQuery) -> list[Document]:
        """One page of documents; a corrupt one is left out, as in the other lists."""
        ...

    async def put_documents(self, *documents: Document) -> None:
        """Store them, each in the place of the one with its kind and id. All or nothing.

        Raises TaskNotFound when one belongs to a tree that is not there (any more).
        """
        ...

    async def put_new(self, document: Document) -> Document:
        """Store it where none has its kind and id; what is there then, its own or another's.

        Raises TaskNotFound as `put_documents` does.
        """
        ...

    async def swap(self, document: Document, expected: Document | None, *others: Document) -> bool:
        """Store it, and the others with it, where the stored one is as expected, None being none; whether it was.

        Both are of one kind, id and tree. Raises TaskNotFound as `put_documents` does.
        """
        ...

    async def delete_documents(self, *names: tuple[str, str], expected: Document | None = None) -> int:
        """Remove those of these kinds and ids that are there; how many there were. All or nothing.

        With `expected` nothing is removed unless this document is stored, just as it is.
        """
        ...


class Retirement(Protocol):
    """What becomes of trees that have ended."""

    async def ended(self, query: EndedQuery) -> list[EndedTree]:
        """One page of trees that have ended; a corrupt one is left out, as in the other lists."""
        ...

    async def compact(self, parts: Sequence[LogPart]) -> None:
        """Compact these parts of logs, of different trees, all in one transaction.

        A tree that is not as its part says any more is left alone, as is one whose log cannot be read.
        """
        ...

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        """Remove those trees that are still as these heads say, as `delete` does; the ids of those that were removed.

        Their logs may be left to `sweep`. They are no longer visible.
        """
        ...

    async def sweep(self, limit: int) -> bool:
        """Remove at most so many events of dropped trees. Whether any may be left."""
        ...


class Storage(Upkeep, Sharing, Log, Trees, Drafts, Documents, Retirement, Protocol):
    """A durable log of trees with the rows derived from it. All times are seconds since 1970.

    Every read raises StorageUnavailable when the database cannot be read at this moment, and a plain StorageError for
    what is stored but corrupt. `tasks` and `trees` leave a corrupt row out, with an error in the log: one row must not
    keep everybody from the rest. What needs a part of it only asks for that part.
    """


async def document_pages(storage: Documents, query: DocumentQuery) -> AsyncIterator[list[Document]]:
    """Everything the query finds, `query.limit` documents at a time. Raises what `documents` raises."""
    while page := await storage.documents(query):
        yield page
        query = query.following(page)
