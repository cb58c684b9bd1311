"""Obeys the log: an attempt begins when its TaskStarted is durable, and stops when the log says that its task ended.

Only attempts of executors without effects begin at once (decision 0002). The runner changes no state itself; its parts
send commands: the dispatcher starts what is ready, the attempts report what came of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.loop.jobs import Jobs
from core.model import events as e
from core.model.commands import Cancel
from core.model.events import Recorded
from core.model.queue import ReadyQueue
from core.model.room import Room
from core.model.tree import TaskTree
from core.run.attempt import Means, wait_until_ended
from core.run.attempts import Attempts
from core.run.books import Books
from core.run.cancelling import Cancelling, wait_until_stopped
from core.run.dispatcher import Dispatcher
from core.run.orchestrator import Decision, Orchestrator
from core.run.recovery import Recovery
from core.run.runner_limits import RunnerLimits
from core.run.shutdown import report_never_begun, starts_answered


class Runner:
    """The work of one process. It is the orchestrator's observer."""

    def __init__(self, orchestrator: Orchestrator, limits: RunnerLimits, means: Means) -> None:
        self._orchestrator = orchestrator
        self._hooks = means.registry.hooks
        room = Room(limits.room(), means.registry.get)
        self.books = Books(room, ReadyQueue(room, limits.weigh))
        self._dispatcher = Dispatcher(self.books, orchestrator, means.registry, means.clock)
        self.lending = self._dispatcher.lending
        self.attempts = Attempts(self.books, self._dispatcher, orchestrator, limits, means)
        self.recovery = Recovery(self.books, self._dispatcher, orchestrator, means.registry)
        self._cancelling = Cancelling(orchestrator, self.books.attempts)
        self._tree_hooks = Jobs()
        self._loading = Jobs()

    def problem(self) -> str | None:
        """Why some tasks cannot start for want of threads, for the operator; None when they can."""
        return self.books.leftovers.problem()

    # The log, obeyed

    def applied(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        """Put what became ready in line, and start what may start."""
        dispatcher = self._dispatcher
        for recorded in events:
            if isinstance(recorded.event, e.RunStarted):
                dispatcher.due.watch(tree)
            elif isinstance(recorded.event, e.TreeFinished):
                self.books.queue.discard(tree.id)
            elif tree.has_times and isinstance(recorded.event, e.GroupStarted):
                dispatcher.due.group_began(tree, tree.tasks[recorded.event.task_id])
        for task in tree.take_ready():
            dispatcher.offer(tree, task)
        dispatcher.fill()

    def committed(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        """Begin the attempts that are durable now; stop those whose task went on without them."""
        books = self.books
        for recorded in events:
            event = recorded.event
            if isinstance(event, e.TaskStarted):
                if (ahead := (tree.id, event.task_id, event.attempt)) in books.ahead:
                    books.ahead.remove(ahead)
                else:
                    self.attempts.begin(tree, event.task_id, event.attempt)
            elif isinstance(event, e.TaskCancelled | e.TaskFailed | e.AttemptFailed | e.AttemptLost):
                books.never_begun.pop((tree.id, event.task_id), None)
                attempt = books.attempts.get((tree.id, event.task_id))
                if attempt is not None:
                    self.attempts.stop(attempt)
            elif isinstance(event, e.TreeFinished):
                books.careful.discard(tree.id)
                if self.lending.depths:
                    self.lending.depths.pop(tree.id, None)
                if self._hooks.wants_tree_ends:
                    self._tree_hooks.start(self._hooks.after_tree(tree.head))
        self._dispatcher.fill()

    def voided(self, tree_id: str, events: Sequence[Recorded]) -> None:
        """Give back what was taken for starts that never happened, and resume the tree from what is stored."""
        books = self.books
        books.queue.discard(tree_id)
        for recorded in events:
            if isinstance(recorded.event, e.TaskStarted):
                books.void_start((tree_id, recorded.event.task_id), recorded.event.attempt)
        if tree_id not in self._orchestrator.trees.by_id:
            books.careful.discard(tree_id)  # it is again when it is loaded
            if not books.is_closing:
                self._loading.start(self.recovery.load_again(tree_id, self.attempts.stop))

    def loaded(self, tree: TaskTree) -> None:
        """Resume a live tree: attempts without an attempt in this process are lost."""
        if self.books.is_closing:
            return
        self.books.careful.add(tree.id)
        self._dispatcher.due.watch(tree)
        self.recovery.add(tree)

    # Stopping

    async def cancel(
        self, tree_id: str, command: Cancel, metadata: Mapping[str, Any]
    ) -> tuple[Decision, tuple[str, ...]]:
        """See Cancelling.cancel."""
        return await self._cancelling.cancel(tree_id, command, metadata)

    def abandon(self) -> None:
        """Interrupt what runs, without a report: another member goes on with all of it. Nothing starts any more."""
        self.books.is_closing = True
        self._dispatcher.due.close()
        self.attempts.interrupt_all()

    async def drain(self, grace: float, going_on: Callable[[frozenset[str]], None]) -> None:
        """Start nothing more, and let attempts and the hooks of ended trees end within `grace` seconds.

        `going_on` is told the trees of those that still run, each time one ends.
        """
        self.books.is_closing = True
        left = await wait_until_ended(self.books.attempts, grace, going_on)
        await self.hooks_done(left)

    async def close(self, limit: float) -> None:
        """Interrupt what runs, so that another process can take it up, and wait `limit` seconds for its end."""
        self.books.is_closing = True
        self._dispatcher.due.close()
        await wait_until_stopped(self.attempts.interrupt_all(), limit)
        await starts_answered(self.books, self._orchestrator)
        await report_never_begun(self.books, self._orchestrator)
        for jobs in (self._loading, self._tree_hooks):
            await jobs.cancel()
        await self.attempts.end_reports()

    async def hooks_done(self, limit: float | None = None) -> None:
        """Wait until the hooks of trees that have ended are through."""
        await self._tree_hooks.wait(limit)

    def check(self) -> None:
        """Raise AssertionError when what the parts keep disagrees. For tests and simulations, between two callbacks."""
        self.books.check(self._orchestrator)
        self.attempts.check()
        if not self.recovery.is_under_way:
            self._dispatcher.check()
