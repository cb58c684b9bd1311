"""How a process goes on with the trees that an earlier one, or a failed append, left in the middle of their runs.

Attempts of which this process has none are lost. What ran beside what when the process crashed is known only when all
trees are loaded, so a start decides on all of them together; the suspects among them go into quarantine.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from core.executors.base import ExecutorSpec
from core.executors.registry import ExecutorRegistry
from core.model.commands import LoseAttempt
from core.model.errors import CallerError, StorageError, StorageUnavailable
from core.model.quarantine import LONGEST_HOLD
from core.model.task import Task
from core.model.tree import TaskTree
from core.run.attempt import Attempt
from core.run.books import Books
from core.run.dispatcher import Dispatcher
from core.run.orchestrator import Orchestrator

logger = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds between two tries to load a tree


class Recovery:
    """Collects what is loaded, and lets it go on."""

    def __init__(
        self, books: Books, dispatcher: Dispatcher, orchestrator: Orchestrator, registry: ExecutorRegistry
    ) -> None:
        self._books = books
        self._dispatcher = dispatcher
        self._orchestrator = orchestrator
        self._registry = registry
        self._found: list[TaskTree] | None = None  # what the start has loaded so far

    def add(self, tree: TaskTree) -> None:
        """A live tree was loaded."""
        if self._found is None:
            self._recover([tree])
        else:
            self._found.append(tree)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """What is loaded within is decided on at its end, together."""
        self._found = []
        try:
            yield
        finally:
            found, self._found = self._found, None
            loop = asyncio.get_running_loop()
            quarantine = self._dispatcher.quarantine
            quarantine.hold(loop.time())
            self._recover([tree for tree in found if self._orchestrator.trees.by_id.get(tree.id) is tree])
            if quarantine.is_open:
                loop.call_later(LONGEST_HOLD, self._dispatcher.fill)

    async def load_again(self, tree_id: str, stop: Callable[[Attempt], None]) -> None:
        """Load the tree, as soon as the storage can, unless the process ends before.

        Where another member runs it now, or it has ended, its attempts here are of no use to anybody: they are stopped.
        """
        books, trees, delay = self._books, self._orchestrator.trees, SHORTEST_PAUSE
        while not books.is_closing:
            try:
                await trees.load(tree_id)
                break
            except CallerError:
                break
            except StorageUnavailable:
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_PAUSE)
            except StorageError:
                logger.exception("tree %s cannot be loaded again", tree_id)
                return
        if tree_id not in trees.by_id and not books.is_closing:
            for (of, _), attempt in list(books.attempts.items()):
                if of == tree_id:
                    stop(attempt)

    @property
    def is_under_way(self) -> bool:
        """Whether trees are still being loaded that are decided on together."""
        return self._found is not None

    def _recover(self, trees: Sequence[TaskTree]) -> None:
        """Record the attempts as lost that are stored as running and are none of this process; then go on."""
        books = self._books
        ours = books.attempts.keys() | books.starting.keys()
        losses = [(tree, tree.tasks[i]) for tree in trees for i in sorted(tree.running) if (tree.id, i) not in ours]
        with self._dispatcher.gathering():
            for tree, task in losses:
                begun = books.never_begun.get((tree.id, task.id)) != task.attempt
                spec = self._registry.get(task.executor or "")
                loss = lost(task, spec, crash=begun, begun=begun, alone=len(losses) == 1)
                self._orchestrator.decide_now(tree, loss)
            for tree in trees:
                for task in tree.startable():
                    self._dispatcher.offer(tree, task)


def lost(task: Task, spec: ExecutorSpec | None, *, crash: bool, begun: bool = True, alone: bool = True) -> LoseAttempt:
    """The task's attempt is lost. `alone`: no other one was lost with it."""
    return LoseAttempt(task.id, task.attempt, crash, begun and spec is not None and spec.at_most_once, alone)
