"""Runs attempts: begins them, stores what came of each, and gives back what it took."""

import asyncio
import logging
from typing import Any

from core.executors.base import TaskContext
from core.loop.jobs import Jobs
from core.loop.origin import ORIGIN, Origin
from core.model.commands import Command, FailAttempt
from core.model.inputs import results_of
from core.model.replay import Replay
from core.model.task import Cause, Task
from core.model.times import deadline_of
from core.model.tree import TaskTree
from core.run.attempt import Attempt, Job, Means, broken_off, overdue, perform
from core.run.books import Books
from core.run.dispatcher import Dispatcher
from core.run.orchestrator import Orchestrator
from core.run.recovery import lost
from core.run.reports import Reports
from core.run.runner_limits import RunnerLimits
from core.run.time_limits import TimeLimits

logger = logging.getLogger(__name__)

ABANDON_AFTER = 30.0  # seconds after its interruption from which on an attempt that goes on is not waited for


class Attempts:
    """The attempts of one process. They begin when the dispatcher says so, or once their start is durable."""

    def __init__(
        self, books: Books, dispatcher: Dispatcher, orchestrator: Orchestrator, limits: RunnerLimits, means: Means
    ) -> None:
        self._books = books
        self._dispatcher = dispatcher
        self._limits = limits
        self._means = means
        self._reports = Reports(orchestrator)
        self._times = TimeLimits(books.attempts, limits.seconds, self._time_out)
        self._jobs = Jobs()  # reports on attempts that do not report themselves
        # Bound once: each access to a method makes an object, of which every attempt would keep two.
        self._report_to, self._submit_to, self._make_room = orchestrator.handle, orchestrator.submit, means.rooms.room
        dispatcher.begin = self.begin

    def begin(self, tree: TaskTree, task_id: str, number: int) -> None:
        """Run the attempt that has started, unless its task has ended since."""
        key = (tree.id, task_id)
        books = self._books
        claim = books.starting.pop(key)  # there is one start of a task at a time
        task = tree.tasks[task_id]
        if books.is_closing or not task.is_running or task.attempt != number:
            # It ended between its start and this moment, or is left to the next process.
            books.release(claim)
            books.never_begun[key] = number  # until the event that ended it is stored too
            if tree.is_startable(task):
                self._dispatcher.offer(tree, task)
            return
        spec = self._means.registry.get(claim.lane)
        results, absent = results_of(tree.tasks, task) if task.dependencies else ({}, ())
        context = TaskContext(
            stored_task=task,
            stored_results=results,
            stored_request=tree.head.metadata,
            run=tree.run,
            absent=absent,
            context_id=tree.head.context_id,
            due_at=_due_at(tree, task) if tree.has_times else task.deadline,
            report=self._report_to,
            submit=self._submit_to,
            at_most_once=spec is not None and spec.at_most_once,
            max_artifact=self._limits.artifact,
            max_output=self._limits.output,
            egress=self._means.egress,
            family=self._means.family,
            beside=self._means.beside,
            make_room=self._make_room,
            is_full=self._means.is_full,
            replay=None if task.told is None else Replay(task.told),
        )
        attempt = Attempt(tree.id, task, spec, context, claim)
        books.attempts[key] = attempt
        self._times.begin(attempt)
        attempt.job = Job(self._run(attempt), loop=asyncio.get_running_loop())

    async def _run(self, attempt: Attempt) -> None:
        books, dispatcher = self._books, self._dispatcher
        task = attempt.task
        attempt.has_begun = True
        ORIGIN.set(Origin(attempt.tree_id, task.id, task.attempt, attempt.claim.lane))
        try:
            command = await self._outcome(attempt)
        except GeneratorExit as error:  # by what its executor waited for; Python closed the coroutines in between
            if attempt.job is None or not attempt.job.is_stepping():
                raise
            command = broken_off(attempt, error, self._means)
        attempt.end()
        if attempt.is_abandoned:
            attempt.context.leave_room()
            return
        key = (attempt.tree_id, task.id)
        if attempt.is_late and command is not None and not attempt.is_shutdown:
            command = overdue(attempt, self._means.clock.chance())
        if not attempt.holds:
            dispatcher.lending.end(attempt)
        if attempt.context.left is None:
            books.release_attempt(attempt)
        else:
            self._leave(attempt, attempt.context.left)
        quarantine = dispatcher.quarantine
        try:
            if command is not None:
                await self._reports.deliver(attempt, command)
            if quarantine.is_open and (command is not None or attempt.context.stopping):
                quarantine.release(key)  # else it ends with the process, which may be its doing
        finally:
            del books.attempts[key]
            attempt.context.leave_room()
        dispatcher.offer_again(key)

    async def _outcome(self, attempt: Attempt) -> Command | None:
        """Run the executor, and say what came of it: None where the log knows already."""
        task = attempt.task
        try:
            if attempt.context.stopping:
                raise asyncio.CancelledError
            command = await perform(attempt, self._means)
        except asyncio.CancelledError:
            return lost(task, attempt.spec, crash=False) if attempt.is_shutdown else None
        except Exception:  # a bug of ours must not leave the task running for ever
            logger.exception("attempt %d of task %s failed inside the runner", task.attempt, task.id)
            text = "internal error; see the server's log"
            return FailAttempt(task.id, task.attempt, text, Cause.EXECUTOR_ERROR, final=True)
        is_failure = isinstance(command, FailAttempt) and not command.final
        if is_failure and attempt.is_shutdown and attempt.context.stopping:
            return lost(task, attempt.spec, crash=False)  # that is how it took its interruption
        return command

    def stop(self, attempt: Attempt) -> None:
        """Interrupt it; should it go on all the same, it is not waited for for ever."""
        attempt.stop()
        if attempt.patience is None and not attempt.is_over:
            loop = asyncio.get_running_loop()
            attempt.patience = loop.call_later(ABANDON_AFTER, self._abandon, attempt)

    def _abandon(self, attempt: Attempt) -> None:
        """Wait no more for an attempt that was interrupted and goes on: its task may be tried again."""
        key = (attempt.tree_id, attempt.task.id)
        books = self._books
        if books.is_closing or attempt.is_over or attempt.job is None or books.attempts.get(key) is not attempt:
            return
        attempt.is_abandoned = True
        del books.attempts[key]
        if not attempt.holds:
            self._dispatcher.lending.end(attempt)
        self._leave(attempt, attempt.job)
        self._dispatcher.offer_again(key)

    def _leave(self, attempt: Attempt, work: "asyncio.Future[Any]") -> None:
        """The attempt is over, and something of it goes on."""
        attempt.holds = False
        self._books.leftovers.keep(attempt.claim, attempt.task, work, self._dispatcher.freed)
        self._books.queue.released(attempt.claim.caller, attempt.tree_id)

    def _time_out(self, attempt: Attempt) -> None:
        """Fail the attempt, whatever its executor makes of being interrupted."""
        attempt.is_overdue = True
        self._jobs.start(self._reports.store(attempt, overdue(attempt, self._means.clock.chance())))

    def break_off(self, origin: Origin, error: BaseException) -> bool:
        """Fail the attempt in whose context the uncaught error was raised. Whether it still runs."""
        attempt = self._books.attempts.get((origin.tree_id, origin.task_id))
        if attempt is None or attempt.task.attempt != origin.attempt:
            return False
        self._jobs.start(self._reports.store(attempt, broken_off(attempt, error, self._means)))
        return True

    def interrupt_all(self) -> list[Attempt]:
        """Stop all of them, so that another process can resume their tasks; what cannot be stored now is left to it."""
        self._reports.is_closing = True
        self._times.close()
        interrupted = list(self._books.attempts.values())
        for attempt in interrupted:
            attempt.is_shutdown = True
            attempt.stop()
        return interrupted

    async def end_reports(self) -> None:
        """Give up what is still being reported for attempts."""
        await self._jobs.cancel()

    def check(self) -> None:
        """Raise AssertionError when a clock of an attempt does not run."""
        self._times.check()


def _due_at(tree: TaskTree, task: Task) -> float | None:
    limit = deadline_of(tree, task)
    return None if limit is None else limit.at
