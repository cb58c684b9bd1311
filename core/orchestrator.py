"""The only way a tree changes: decide, append, apply, and tell those who follow once it is durable.

A tree that runs is kept in memory. Deciding and applying are synchronous, so a command may be decided while the appends
of earlier ones are still on their way; appends of a tree are durable in their order. When one fails, everything decided
on top of it is void: the tree is dropped from memory and loaded again.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from core.clock import Clock
from core.commands import Command, Execute
from core.decide import decide
from core.errors import CoreError, StorageUnavailable, TaskNotFound, TreeIsRunning, VersionConflict
from core.events import Event, MessageReceived, Recorded, TreeCreated
from core.feed import Feed
from core.plan import Plan
from core.storage.base import Append, Document, Storage
from core.task import TreeHead
from core.tree import TaskTree

MAX_CONFLICTS = 20


class Decision(Struct, frozen=True):
    """What a command led to: the tree after it, the events, and the moment when they are durable."""

    tree: TaskTree
    events: Sequence[Recorded]
    stored: asyncio.Future[None]


class Observer(Protocol):
    """Who obeys the log: the runner."""

    def loaded(self, tree: TaskTree) -> None:
        """A live tree was taken from storage; nobody in this process has it in hand yet."""
        ...

    def applied(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        """Events were decided; they are not durable yet."""
        ...

    def committed(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        """The same events are durable."""
        ...

    def voided(self, tree_id: str, events: Sequence[Recorded]) -> None:
        """The same events could not be stored and never happened; the tree is to be loaded again."""
        ...


class Orchestrator:
    """Keeps the trees of one process and lets commands happen to them."""

    def __init__(self, storage: Storage, feed: Feed, clock: Clock) -> None:
        self._storage = storage
        self._feed = feed
        self._clock = clock
        self._trees: dict[str, TaskTree] = {}
        self._loading: dict[str, asyncio.Task[TaskTree]] = {}
        self._appends: dict[str, dict[asyncio.Future[None], None]] = {}  # by tree, those not answered, oldest first
        self.observer: Observer | None = None

    def cached(self, tree_id: str) -> TaskTree | None:
        """The tree, if it is in memory."""
        return self._trees.get(tree_id)

    async def create(
        self,
        head: TreeHead,
        plan: Plan,
        message: dict[str, Any] | None,
        *,
        execute: bool,
        documents: tuple[Document, ...] = (),
    ) -> TaskTree:
        """Store a new tree with its documents, and with `execute` start its first run, in one transaction.

        Raises TreeIsRunning when it runs already, StorageError when it cannot be stored; then nothing of it is.
        """
        tree = TaskTree(head, plan.tasks)
        events: list[Event] = [TreeCreated(len(plan.tasks), head.id)]
        if message is not None:
            events.append(MessageReceived(head.id, message))
        if execute:
            events += decide(Execute(), tree, self._clock.now())
        if head.id in self._trees:
            raise TreeIsRunning(head.id, f"Tree {head.id} is already running")
        # Shielded: a caller that goes away does not take the tree with it.
        await asyncio.shield(self._append(tree, events, documents, is_new=True).stored)
        return tree

    async def handle(self, tree_id: str, command: Command, documents: tuple[Document, ...] = ()) -> Decision:
        """Let the command happen, durably, and store new documents with what it leads to.

        Raises TaskNotFound, the refusals of `decide`, StorageUnavailable, or VersionConflict when a document is there
        already.
        """
        for _ in range(MAX_CONFLICTS):
            tree = await self.load(tree_id)
            try:
                decision = self.decide_now(tree, command, documents)
            except VersionConflict:
                continue
            except CoreError:
                # A refusal is an answer too: it must not rest on something that is not durable yet.
                if (latest := self.latest(tree_id)) is not None:
                    await asyncio.wait([latest])
                    if latest.exception() is not None:
                        continue
                raise
            try:
                await asyncio.shield(decision.stored)
            except VersionConflict:
                if any([await self._storage.document(each.kind, each.id) for each in documents]):
                    raise  # one of them is there already: deciding again would not help
                continue
            return decision
        raise StorageUnavailable(f"Tree {tree_id} is changed by too many writers at once")

    async def submit(self, tree_id: str, command: Command) -> asyncio.Future[None]:
        """Let the command happen without waiting: the future says when it is durable, or that it never will be.

        Raises what `handle` raises.
        """
        tree = await self.load(tree_id)
        try:
            return self.decide_now(tree, command).stored
        except CoreError:
            await self.handle(tree_id, command)  # knows whether the refusal rests on what is durable
            stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            stored.set_result(None)
            return stored

    def decide_now(self, tree: TaskTree, command: Command, documents: tuple[Document, ...] = ()) -> Decision:
        """Decide and apply at once, on a tree in memory; the decision's `stored` says when it is durable."""
        events = decide(command, tree, self._clock.now())
        if not events:
            stored = self.latest(tree.id)
            if stored is None:
                stored = asyncio.get_running_loop().create_future()
                stored.set_result(None)
            return Decision(tree, (), stored)
        return self._append(tree, events, documents)

    def latest(self, tree_id: str) -> asyncio.Future[None] | None:
        """The tree's last append, if it has not been answered yet."""
        return next(reversed(self._appends.get(tree_id, {})), None)

    def _append(
        self, tree: TaskTree, events: Sequence[Event], documents: tuple[Document, ...], *, is_new: bool = False
    ) -> Decision:
        if self._trees.setdefault(tree.id, tree) is not tree:
            raise VersionConflict(tree.id)  # it was loaded again since; nothing has been applied
        now = self._clock.now()
        recorded = []
        for event in events:
            tree.apply(event, now)
            recorded.append(
                Recorded(
                    tree_id=tree.id,
                    seq=tree.version,
                    at=now,
                    name=tree.name_of(event.task_id),
                    tree_status=tree.status,
                    event=event,
                )
            )
        head = tree.head
        append = Append(
            head=head, events=tuple(recorded), tasks=tree.take_changed(), is_new=is_new, documents=documents
        )
        stored = self._storage.append(append)
        self._appends.setdefault(tree.id, {})[stored] = None

        def done(future: asyncio.Future[None]) -> None:
            self._done(future, tree, head, recorded)

        stored.add_done_callback(done)
        if self.observer is not None:
            self.observer.applied(tree, recorded)
        return Decision(tree, recorded, stored)

    def _done(self, future: asyncio.Future[None], tree: TaskTree, head: TreeHead, recorded: Sequence[Recorded]) -> None:
        waiting = self._appends[tree.id]
        del waiting[future]
        if not waiting:
            del self._appends[tree.id]
        if future.exception() is not None:
            if self._trees.get(tree.id) is tree:
                del self._trees[tree.id]
            if self.observer is not None:
                self.observer.voided(tree.id, recorded)
            return
        self._feed.publish(head, recorded)
        if self.observer is not None:
            self.observer.committed(tree, recorded)
        if not waiting and not tree.is_live and self._trees.get(tree.id) is tree:
            del self._trees[tree.id]

    async def load(self, tree_id: str) -> TaskTree:
        """The tree, from memory or from storage; a live one is kept in memory and goes on from here.

        Raises TaskNotFound when there is none, StorageError when it cannot be read.
        """
        tree = self._trees.get(tree_id)
        if tree is not None:
            return tree
        loading = self._loading.get(tree_id)
        if loading is None:
            loading = asyncio.create_task(self._load(tree_id))
            self._loading[tree_id] = loading
            loading.add_done_callback(lambda done: self._end_loading(tree_id, done))
        return await asyncio.shield(loading)

    async def load_live(self, tree_ids: Sequence[str]) -> None:
        """Have those of the trees in memory that are live, read together; what cannot be read is left to `load`."""
        for head, tasks in await self._storage.load_many(tree_ids):
            # Should one have been loaded, changed and ended meanwhile, its next append is refused and it is read again.
            if head.is_live and head.id not in self._trees and head.id not in self._loading:
                self._take_up(TaskTree(head, tasks))

    def _end_loading(self, tree_id: str, loading: asyncio.Task[TaskTree]) -> None:
        self._loading.pop(tree_id, None)
        if not loading.cancelled():
            loading.exception()  # seen, also when everybody who waited has gone away

    async def _load(self, tree_id: str) -> TaskTree:
        while (latest := self.latest(tree_id)) is not None:  # what is on its way belongs to the tree
            await asyncio.wait([latest])
        stored = await self._storage.load(tree_id)
        if stored is None:
            raise TaskNotFound(tree_id)
        tree = self._trees.get(tree_id)
        if tree is None:
            tree = TaskTree(*stored)
            if tree.is_live:
                self._take_up(tree)
        return tree

    def _take_up(self, tree: TaskTree) -> None:
        self._trees[tree.id] = tree
        if self.observer is not None:
            self.observer.loaded(tree)
