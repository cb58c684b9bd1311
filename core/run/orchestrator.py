"""The only way a tree changes: decide, append, apply, and tell those who follow once it is durable.

A tree that runs is kept in memory. Deciding and applying are synchronous, so a command may be decided while the appends
of earlier ones are still on their way. What one turn of the event loop decides on a tree is one append, so it is stored
together or not at all: a task's end, and the starts that follow from it. Appends of a tree are durable in their order.
When one fails, everything decided on top of it is void: the tree is dropped from memory and loaded again.

A command that reaches much of a large tree is worked out in a thread, on a fork, which the tree then adopts at once.
Other commands wait meanwhile. What does not wait (a start, a time that is over) makes it void, and it is worked out
again; at last on the event loop, so that it comes to an end.
"""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from msgspec import Struct

from core.loop.beside import Beside
from core.model.commands import Cancel, Command, Execute
from core.model.decide import decide
from core.model.errors import CoreError, StorageUnavailable, TreeIsRunning, VersionConflict
from core.model.events import Event, MessageReceived, Recorded, TreeCreated
from core.model.in_flight import Holdings, memory_of_tasks
from core.model.plan import Plan
from core.model.submission import BARE, Submission
from core.model.task import Task, TreeHead
from core.model.tree import TaskTree
from core.outside.clock import Clock
from core.run.appends import Appends, Turn
from core.run.decisions import LARGE_TREE, elsewhere, happened, is_large, worked_out
from core.run.feed import Feed
from core.run.live_trees import LiveTrees
from core.run.started import Started
from core.storage.base import Document, Storage

MAX_CONFLICTS = 20
TRIES_BESIDE = 5  # of a large command; the next one is on the event loop


class Decision(Struct, frozen=True):
    """What a command led to: the tree, the events, and the turn with which they become durable."""

    tree: TaskTree
    events: Sequence[Recorded]
    turn: Turn
    head: TreeHead  # right after them


class Observer(Protocol):
    """Who obeys the log: the runner."""

    def loaded(self, tree: TaskTree) -> None:
        """A live tree was taken from storage; it has no work in this process yet."""
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
    """Lets commands happen to the trees of one process."""

    def __init__(self, storage: Storage, feed: Feed, clock: Clock, holdings: Holdings, beside: Beside) -> None:
        self._storage = storage
        self._feed = feed
        self._clock = clock
        self._beside = beside
        self._held: dict[str, asyncio.Future[None]] = {}  # by tree, until its large command is worked out
        self._appends = Appends(storage, self._answered)
        self.trees = LiveTrees(storage, self._appends, holdings, self._loaded)
        self.observer: Observer | None = None

    async def create(
        self,
        head: TreeHead,
        plan: Plan,
        submission: Submission = BARE,
        *,
        execute: bool,
        documents: tuple[Document, ...] = (),
    ) -> Started:
        """Store a new tree with its documents, and with `execute` start its first run, in one transaction.

        Raises TreeIsRunning when it runs already, StorageError when it cannot be stored; then nothing of it is.
        """
        made = partial(new_tree, head, plan, submission, self._clock.now(), execute=execute)
        tree, recorded = await self._beside.run(head.owner, made) if len(plan.tasks) > LARGE_TREE else made()
        if head.id in self.trees.by_id:
            raise TreeIsRunning(head.id, f"Tree {head.id} is already running")
        self.trees.by_id[head.id] = tree
        started = Started(tree.head, recorded)
        await self._record(tree, recorded, documents, is_new=True).turn.waiter()
        return started

    async def handle(self, tree_id: str, command: Command, documents: tuple[Document, ...] = ()) -> Decision:
        """Let the command happen, durably, and store new documents with what it leads to.

        Raises TaskNotFound, the refusals of `decide`, RunElsewhere where another member runs the tree,
        StorageUnavailable, or VersionConflict when a document is there already.
        """
        for tried in range(MAX_CONFLICTS):
            tree = await self.trees.load(tree_id)
            while tree_id in self._held:
                tree = await self._load_released(tree_id)
            if self._storage.lease and self.trees.is_elsewhere(tree):
                raise elsewhere(tree, command, self._clock.now())
            try:
                if tree.head.size > LARGE_TREE and tried < TRIES_BESIDE and is_large(tree, command):
                    decision = await self._decide_beside(tree, command, documents)
                else:
                    decision = self.decide_now(tree, command, documents)
            except VersionConflict:
                continue
            except CoreError:
                # A refusal is an answer too: it must not rest on something that is not durable yet.
                latest = self.latest(tree_id)
                if latest is None:
                    raise
                await asyncio.wait([latest])
                if latest.exception() is None:
                    raise
                continue
            try:
                await decision.turn.waiter()
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
        tree = await self.trees.load(tree_id)
        while tree_id in self._held:
            tree = await self._load_released(tree_id)
        if self._storage.lease and self.trees.is_elsewhere(tree):
            raise elsewhere(tree, command, self._clock.now())
        try:
            return self.decide_now(tree, command).turn.stored
        except CoreError:
            decision = await self.handle(tree_id, command)  # knows whether the refusal rests on what is durable
            return decision.turn.stored

    def decide_now(self, tree: TaskTree, command: Command, documents: tuple[Document, ...] = ()) -> Decision:
        """Decide and apply at once, on a tree in memory; the decision's turn says when it is durable."""
        events = decide(command, tree, self._clock.now())
        if not events:
            return Decision(tree, (), self._appends.last_turn(tree), tree.head)
        if self.trees.by_id.setdefault(tree.id, tree) is not tree:
            raise VersionConflict(tree.id)  # it was loaded again since; nothing has been applied
        return self._record(tree, happened(tree, events, self._clock.now()), documents)

    async def _decide_beside(self, tree: TaskTree, command: Command, documents: tuple[Document, ...]) -> Decision:
        """Decide on a fork of the tree, in a thread, and apply at once. Raises VersionConflict if it was changed."""
        version, kept, fork = tree.version, self.trees.by_id.get(tree.id), tree.fork()
        held = self._held[tree.id] = asyncio.get_running_loop().create_future()
        try:
            owner = tree.head.owner
            recorded = await self._beside.run(owner, worked_out, command, fork, self._clock.now())
        except CoreError:
            if tree.version != version:
                raise VersionConflict(tree.id) from None  # what was refused may be right now
            raise
        finally:
            del self._held[tree.id]
            held.set_result(None)
        if tree.version != version or self.trees.by_id.get(tree.id) is not kept:
            raise VersionConflict(tree.id)
        if not recorded:
            return Decision(tree, (), self._appends.last_turn(tree), tree.head)
        self.trees.by_id[tree.id] = tree
        tree.adopt(fork)
        return self._record(tree, recorded, documents)

    async def _load_released(self, tree_id: str) -> TaskTree:
        """The tree, once the large command that holds it is worked out."""
        await asyncio.wait([self._held[tree_id]])
        return await self.trees.load(tree_id)

    def latest(self, tree_id: str) -> asyncio.Future[None] | None:
        """The tree's last append, if it has not been answered yet."""
        turn = self._appends.latest(tree_id)
        return None if turn is None else turn.stored

    def _record(
        self, tree: TaskTree, recorded: list[Recorded], documents: tuple[Document, ...], *, is_new: bool = False
    ) -> Decision:
        head = tree.head
        turn = self._appends.add(tree, recorded, documents, is_new=is_new)
        if self.observer is not None:
            self.observer.applied(tree, recorded)
        return Decision(tree, recorded, turn, head)

    def _answered(self, turn: Turn, head: TreeHead, error: BaseException | None) -> None:
        """The turn is durable, or was refused."""
        tree = turn.tree
        if error is not None:
            self._void(turn, error)
            if (after := self._appends.take_open(tree.id)) is not None:
                self._void(after, VersionConflict(tree.id))
            return
        self._appends.leave(turn)
        self._feed.publish(head, turn.events)
        if self.observer is not None:
            self.observer.committed(tree, turn.events)
        if not tree.is_live and self.trees.by_id.get(tree.id) is tree and self._appends.latest(tree.id) is None:
            self.trees.drop(tree.id)
            self._appends.apart.discard(tree.id)
        turn.settle()

    def _void(self, turn: Turn, error: BaseException) -> None:
        """What it decided never happened."""
        tree = turn.tree
        self._appends.leave(turn)
        if self.trees.by_id.get(tree.id) is tree:
            self.trees.drop(tree.id)
        if turn.decisions > 1 and not isinstance(error, VersionConflict | StorageUnavailable):
            # One of the decisions cannot be stored: each is made again by itself, so that only its own caller is told.
            self._appends.apart.add(tree.id)
            error = VersionConflict(tree.id)
        turn.settle(error)
        if self.observer is not None:
            self.observer.voided(tree.id, turn.events)

    def _loaded(self, tree: TaskTree) -> None:
        if self.observer is not None:
            self.observer.loaded(tree)


async def memory_needed(tasks: Sequence[Task], head: TreeHead, *, is_large: bool = False) -> int:
    """About how much memory they take; counted beside the event loop where they are many, or may have megabytes."""
    counted = partial(memory_of_tasks, tasks, head.metadata)
    return await asyncio.to_thread(counted) if is_large or len(tasks) > LARGE_TREE else counted()


def new_tree(
    head: TreeHead, plan: Plan, submission: Submission, now: float, *, execute: bool
) -> tuple[TaskTree, list[Recorded]]:
    """The tree, and its first events, which have happened to it."""
    tree = TaskTree(head, plan.tasks)
    events: list[Event] = [TreeCreated(len(plan.tasks), head.id, submission.by)]
    if submission.message is not None:
        events.append(MessageReceived(head.id, submission.message))
    if execute:
        events += decide(Execute(), tree, now)
    recorded = happened(tree, events, now)
    for task_id, reason in plan.cancelled:
        if not tree.tasks[task_id].status.is_terminal:  # as what follows from the one before
            recorded += happened(tree, decide(Cancel(task_id, reason), tree, now), now)
    return tree, recorded
