"""Starts ready tasks, in their order and under the limits; suspects of a crash one by one (core.model.quarantine)."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.executors.registry import ExecutorRegistry
from core.model.commands import StartTask
from core.model.quarantine import Quarantine, is_suspect
from core.model.queue import is_in_line
from core.model.room import Claim
from core.model.task import Task
from core.model.tree import TaskTree
from core.outside.clock import Clock
from core.run.attempt import Attempt, start_of
from core.run.books import Books, Key
from core.run.due import Due
from core.run.lending import Lending
from core.run.orchestrator import Orchestrator

MAX_VOID = 200  # tasks in line which ended before their start and are passed over in one turn of the event loop
MAX_UNSTORED = 1_000  # starts and reports on their way to the disk; more would only wait there


class Dispatcher:
    """The ready tasks of one process. `begin` runs an attempt; it is set by whoever runs them."""

    begin: Callable[[TaskTree, str, int], None]  # tree, task, attempt

    def __init__(self, books: Books, orchestrator: Orchestrator, registry: ExecutorRegistry, clock: Clock) -> None:
        self._books = books
        self._room, self._queue = books.room, books.queue
        self._orchestrator = orchestrator
        self._registry = registry
        self._clock = clock
        self.quarantine = Quarantine()
        self.lending = Lending(books.attempts, books.room, self._lend)
        self.due = Due(orchestrator, clock, self.offer, self.fill)
        self._filling = False
        self._resuming: asyncio.Handle | None = None  # the next turn goes on; until then nothing starts

    def offer(self, tree: TaskTree, task: Task) -> None:
        """Put a task in line that is startable, or will be when its moment has come."""
        if self.due.is_later(tree, task):
            return
        if tree.has_times:
            self.due.ready(tree, task)
        if task.crashes and is_suspect(task):
            self.quarantine.offer(tree.id, task)
        else:
            lane = task.executor or ""
            self._queue.offer(tree.head.owner, lane, tree.id, task.priority, task.position, task.id)

    def offer_again(self, key: Key) -> None:
        """An attempt has left: its task may be ready for another one, and others may have its place."""
        tree_id, task_id = key
        tree = self._orchestrator.trees.by_id.get(tree_id)
        task = tree.tasks.get(task_id) if tree is not None else None
        if tree is not None and task is not None and tree.is_startable(task):
            self.offer(tree, task)
        self.fill()

    @contextmanager
    def gathering(self) -> Iterator[None]:
        """Nothing starts within: what is offered there starts at its end, in the order of all of it."""
        self._filling = True
        try:
            yield
        finally:
            self._filling = False
        self.fill()

    def fill(self) -> None:
        """Start as many ready tasks as there is room for; those that go on are served before them."""
        books, room, queue, quarantine = self._books, self._room, self._queue, self.quarantine
        if self.lending.waiting:
            self.lending.serve()
        if self._filling or self._resuming is not None or books.is_closing:
            return
        if not (queue.waiting or quarantine.is_open):
            return
        self._filling = True
        void = 0
        try:
            # What is on its way to the disk, about: the starts, and the reports of those that have given their slots.
            while room.slots.fit and len(books.attempts) + 2 * len(books.starting) - room.slots.used < MAX_UNSTORED:
                if quarantine.is_open and self._start_suspect():
                    continue
                is_held = quarantine.is_open and quarantine.is_holding(asyncio.get_running_loop().time())
                found = None if is_held else queue.pop()
                if found is None:
                    return
                used = room.slots.used
                self._start(*found)
                void += room.slots.used == used
                if void >= MAX_VOID:
                    queue.passed_over(found[0])
                    self._resuming = asyncio.get_running_loop().call_soon(self._fill_on)
                    return
        finally:
            self._filling = False

    def _fill_on(self) -> None:
        self._resuming = None
        self.fill()

    def _start_suspect(self) -> bool:
        """Start the suspect whose turn it is; whether it was anybody's. When its watch is over, others may start."""
        loop, room = asyncio.get_running_loop(), self._room
        found = self.quarantine.take(
            loop.time(), lambda task: room.has_room(task.owner, task.tree_id, task.executor or "")
        )
        if found is None:
            return False
        tree_id, task_id, seconds = found
        loop.call_later(seconds, self.fill)
        self._start(tree_id, task_id)
        key = (tree_id, task_id)
        if key not in self._books.starting and key not in self._books.attempts:
            self.quarantine.release(key)
        return True

    def _start(self, tree_id: str, task_id: str) -> None:
        books = self._books
        tree = self._orchestrator.trees.by_id.get(tree_id)
        task = tree.tasks.get(task_id) if tree is not None else None
        if tree is None or task is None or not tree.is_startable(task) or task.runnable_at > self._clock.now():
            return
        key = (tree_id, task_id)
        if key in books.attempts or key in books.starting:
            return  # an earlier attempt is still coming to its beginning or its end, which offers the task again
        start = start_of(tree.tasks, task, self._registry) if task.dependencies else StartTask(task_id)
        self._orchestrator.decide_now(tree, start)
        task = tree.tasks[task_id]
        if task.is_running:
            caller, lane = tree.head.owner, task.executor or ""
            books.starting[key] = self._room.take(caller, tree_id, lane)
            self._queue.started(caller)
            if self._may_begin(tree_id, lane):
                books.ahead.add((tree_id, task_id, task.attempt))
                self.begin(tree, task_id, task.attempt)

    def _may_begin(self, tree_id: str, lane: str) -> bool:
        """Whether the start need not be durable first.

        Never while a crash of the process may have been its task's doing, which only a stored start can tell.
        """
        spec = self._registry.get(lane)
        if spec is None or spec.has_effects or self._registry.hooks.sees_tasks:
            return False
        return tree_id not in self._books.careful

    def _lend(self, attempt: Attempt) -> None:
        """An attempt waits for a tree of its own."""
        self._books.release_attempt(attempt)
        self.fill()

    def freed(self, claim: Claim) -> None:
        """What went on without its attempt has ended."""
        self._queue.released(claim.caller, claim.tree_id)
        self.fill()

    def check(self) -> None:
        """Raise AssertionError when a task that may start is in no line. For tests and simulations."""
        books, now = self._books, self._clock.now()
        assert not self._filling, "starting has not come to its end"
        self.lending.check()
        if books.is_closing:
            return
        for tree in self._orchestrator.trees.by_id.values():
            tree.check()
            self.due.check(tree)
            for task in tree.startable():
                key = (tree.id, task.id)
                in_line = is_in_line(self._queue, *key) or self.quarantine.has(key)
                is_known = in_line or task.runnable_at > now or key in books.attempts or key in books.starting
                assert is_known, f"task {task.id} may start and is in no line"
                must_wait = self._resuming is not None or self.quarantine.is_open or books.is_changing
                if is_in_line(self._queue, *key) and not must_wait and task.runnable_at <= now:
                    has_room = self._room.has_room(tree.head.owner, tree.id, task.executor or "")
                    assert not has_room, f"there is room for task {task.id}, and it has not started"
