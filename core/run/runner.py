"""Starts ready tasks in their order and under the limits, holds their attempts, and stops them.

The runner obeys the log: an attempt begins when its TaskStarted is durable and is stopped when the log says that its
task has ended without it. Only those of executors without effects begin at once (decision 0002). It changes no state
itself; it only sends commands.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any

from core.executors.base import TaskContext
from core.executors.registry import ExecutorRegistry
from core.loop.origin import ORIGIN, Origin
from core.model import events as e
from core.model.commands import Cancel, Command, FailAttempt, LoseAttempt, StartTask
from core.model.errors import CoreError
from core.model.events import Recorded
from core.model.inputs import results_of
from core.model.quarantine import is_suspect
from core.model.queue import ReadyQueue
from core.model.replay import Replay
from core.model.room import Claim, Room
from core.model.task import Cause, Task
from core.model.times import deadline_of
from core.model.tree import TaskTree
from core.outside.clock import Clock
from core.outside.egress import Egress
from core.run.attempt import Attempt, Job, Means, broken_off, overdue, perform, start_of, wait_until_ended
from core.run.cancelling import STOP_LIMIT, Cancelling, wait_until_stopped
from core.run.due import Due
from core.run.leftovers import Leftovers
from core.run.lending import Lending
from core.run.orchestrator import Decision, Orchestrator
from core.run.recovery import Recovery, load_again
from core.run.reports import Reports
from core.run.runner_limits import RunnerLimits
from core.run.time_limits import TimeLimits

logger = logging.getLogger(__name__)

ABANDON_AFTER = 30.0  # seconds after its interruption from which on an attempt that goes on is not waited for
MAX_VOID = 200  # tasks in line which ended before their start and are passed over in one turn of the event loop
MAX_UNSTORED = 1_000  # starts and reports on their way to the disk; more would only wait there


class Runner:
    """The attempts of one process."""

    def __init__(
        self,
        orchestrator: Orchestrator,
        registry: ExecutorRegistry,
        clock: Clock,
        limits: RunnerLimits,
        egress: Egress,
        means: Means,
    ) -> None:
        self._orchestrator = orchestrator
        self._registry = registry
        self._clock = clock
        self._limits = limits
        self._egress = egress
        self._means = means
        self._room = Room(limits.room(), registry.get)
        self._queue = ReadyQueue(self._room, limits.weigh)
        self.recovery = Recovery(orchestrator, self._recover, self._fill)
        self._quarantine = self.recovery.quarantine
        self._starting: dict[tuple[str, str], Claim] = {}  # (tree, task) whose TaskStarted is not durable
        self._attempts: dict[tuple[str, str], Attempt] = {}  # by (tree, task), until their report is stored
        self._ahead: set[tuple[str, str, int]] = set()  # (tree, task, attempt) begun before the start was durable
        self._careful: set[str] = set()  # trees taken from storage in the middle of a run: there none begins so
        self._never_begun: dict[tuple[str, str], int] = {}  # (tree, task) whose stored attempt has not run anything
        self._reports = Reports(orchestrator)
        self._times = TimeLimits(self._attempts, limits.seconds, self._time_out)
        self._leftovers = Leftovers(self._room, self._free)
        self._cancelling = Cancelling(orchestrator, self._attempts)
        self.lending = Lending(self._attempts, self._room, self._lend)
        self._due = Due(orchestrator, clock, self._offer, self._fill)
        self._tree_hooks: set[asyncio.Task[Any]] = set()
        self._side_jobs: set[asyncio.Task[Any]] = set()
        self._filling = False
        self._closing = False
        # Bound once: each access to a method makes an object, of which every attempt would keep two.
        self._report_to, self._submit_to, self._make_room = orchestrator.handle, orchestrator.submit, means.rooms.room
        orchestrator.observer = self

    @property
    def running(self) -> int:
        """How many attempts run."""
        return self._room.slots.used - len(self._starting)

    def problem(self) -> str | None:
        """Why some tasks cannot start for want of threads, for the operator; None when they can."""
        return self._leftovers.problem()

    def running_of(self, counts: Callable[[str], bool]) -> int:
        """How many attempts run of the owners that count."""
        return sum(counts(each.task.owner) for each in self._attempts.values() if not each.is_over)

    # The log, obeyed

    def applied(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        """Put what became ready in line, and start what may start."""
        for recorded in events:
            if isinstance(recorded.event, e.RunStarted):
                self._due.watch(tree)
            elif isinstance(recorded.event, e.TreeFinished):
                self._queue.discard(tree.id)
            elif tree.has_times and isinstance(recorded.event, e.GroupStarted):
                self._due.group_began(tree, tree.tasks[recorded.event.task_id])
        for task in tree.take_ready():
            self._offer(tree, task)
        self._fill()

    def committed(self, tree: TaskTree, events: Sequence[Recorded]) -> None:
        """Begin the attempts that are durable now; stop those whose task went on without them."""
        for recorded in events:
            event = recorded.event
            if isinstance(event, e.TaskStarted):
                if (ahead := (tree.id, event.task_id, event.attempt)) in self._ahead:
                    self._ahead.remove(ahead)
                else:
                    self._begin(tree, event.task_id, event.attempt)
            elif isinstance(event, e.TaskCancelled | e.TaskFailed | e.AttemptFailed | e.AttemptLost):
                self._never_begun.pop((tree.id, event.task_id), None)
                attempt = self._attempts.get((tree.id, event.task_id))
                if attempt is not None:
                    attempt.stop()
                    asyncio.get_running_loop().call_later(ABANDON_AFTER, self._abandon, attempt)
            elif isinstance(event, e.TreeFinished):
                self._careful.discard(tree.id)
                if self.lending.depths:
                    self.lending.depths.pop(tree.id, None)
                if self._registry.hooks.wants_tree_ends:
                    self._hold(self._registry.hooks.after_tree(tree.head), self._tree_hooks)
        self._fill()

    def voided(self, tree_id: str, events: Sequence[Recorded]) -> None:
        """Give back what was taken for starts that never happened, and take the tree up again from what is stored."""
        self._queue.discard(tree_id)
        for recorded in events:
            key = (tree_id, recorded.task_id)
            if isinstance(recorded.event, e.TaskStarted):
                ahead = (*key, recorded.event.attempt)
                if key in self._starting:
                    self._release(self._starting.pop(key))
                elif ahead in self._ahead:
                    self._ahead.remove(ahead)
                    if key in self._attempts:
                        self._attempts[key].stop()
        if not self._closing and self._orchestrator.cached(tree_id) is None:
            self._hold(load_again(self._orchestrator, tree_id, lambda: self._closing), self._side_jobs)

    def loaded(self, tree: TaskTree) -> None:
        """Resume a live tree: attempts without an attempt in this process are lost."""
        if self._closing:
            return
        self._careful.add(tree.id)
        self._due.watch(tree)
        self.recovery.add(tree)

    def _recover(self, trees: Sequence[TaskTree]) -> None:
        self._filling = True  # nothing starts before all are in line
        for tree, task, alone in self.recovery.losses(trees, self._attempts.keys() | self._starting.keys()):
            begun = self._never_begun.get((tree.id, task.id)) != task.attempt
            self._orchestrator.decide_now(tree, self._loss(task, crash=begun, begun=begun, alone=alone))
        for tree in trees:
            for task in tree.startable():
                self._offer(tree, task)
        self._filling = False
        self._fill()

    def is_parked(self, tree_id: str, version: int) -> bool:
        """Whether the tree, which has come to this version, can only go on when somebody answers one of its questions.

        One that is further already says nothing of this version, and what it says is not durable yet.
        """
        tree = self._orchestrator.cached(tree_id)
        if tree is None or tree.version != version:
            return False
        return bool(tree.questions) and not tree.running and not tree.startable()

    def _loss(self, task: Task, *, crash: bool, begun: bool = True, alone: bool = True) -> LoseAttempt:
        spec = self._registry.get(task.executor or "")
        return LoseAttempt(task.id, task.attempt, crash, begun and spec is not None and spec.at_most_once, alone)

    # Starting

    def _offer(self, tree: TaskTree, task: Task) -> None:
        if self._due.is_later(tree, task):
            return
        if tree.has_times:
            self._due.ready(tree, task)
        if task.crashes and is_suspect(task):
            self._quarantine.offer(tree.id, task)
        else:
            lane = task.executor or ""
            self._queue.offer(tree.head.owner, lane, tree.id, task.priority, task.position, task.id)

    def _fill(self) -> None:
        """Start as many ready tasks as there is room for; those that go on are served before them."""
        if self.lending.waiting:
            self.lending.serve()
        if self._filling or self._closing or not (self._queue.waiting or self._quarantine.is_open):
            return
        self._filling = True
        void = 0
        try:
            while self._room.slots.fit and self._unstored < MAX_UNSTORED:
                if self._quarantine.is_open and self._start_suspect():
                    continue
                is_held = self._quarantine.is_open and self.recovery.is_holding()
                found = None if is_held else self._queue.pop()
                if found is None:
                    return
                used = self._room.slots.used
                self._start(*found)
                void += self._room.slots.used == used
                if void >= MAX_VOID:
                    self._queue.passed_over(found[0])
                    asyncio.get_running_loop().call_soon(self._fill_on)
                    return
        finally:
            self._filling = void >= MAX_VOID  # until it goes on, no other start passes over so many more

    def _fill_on(self) -> None:
        self._filling = False
        self._fill()

    def _start_suspect(self) -> bool:
        """Start the suspect whose turn it is; whether it was anybody's."""
        found = self.recovery.next_suspect(
            lambda task: self._room.has_room(task.owner, task.tree_id, task.executor or "")
        )
        if found is not None:
            self._start(*found)
            if found not in self._starting and found not in self._attempts:
                self._quarantine.release(found)
        return found is not None

    @property
    def _unstored(self) -> int:
        """How many starts and reports are on their way to the disk, about."""
        return len(self._attempts) + 2 * len(self._starting) - self._room.slots.used

    def _start(self, tree_id: str, task_id: str) -> None:
        tree = self._orchestrator.cached(tree_id)
        task = tree.tasks.get(task_id) if tree is not None else None
        if tree is None or task is None or not tree.is_startable(task) or task.runnable_at > self._clock.now():
            return
        if (tree_id, task_id) in self._attempts or (tree_id, task_id) in self._starting:
            return  # an earlier attempt is still coming to its beginning or its end, which offers the task again
        start = start_of(tree.tasks, task, self._registry) if task.dependencies else StartTask(task_id)
        self._orchestrator.decide_now(tree, start)
        task = tree.tasks[task_id]
        if task.is_running:
            caller, lane = tree.head.owner, task.executor or ""
            self._starting[tree_id, task_id] = self._room.take(caller, tree_id, lane)
            self._queue.started(caller)
            if self._may_begin(tree_id, lane):
                self._ahead.add((tree_id, task_id, task.attempt))
                self._begin(tree, task_id, task.attempt)

    def _may_begin(self, tree_id: str, lane: str) -> bool:
        """Whether the start need not be durable first.

        Never while a crash of the process may have been its task's doing, which only a stored start can tell.
        """
        spec = self._registry.get(lane)
        if spec is None or spec.has_effects or self._registry.hooks.sees_tasks:
            return False
        return tree_id not in self._careful

    def _release(self, claim: Claim) -> None:
        """Give everything back that the attempt took."""
        self._room.give(claim)
        self._queue.released(claim.caller, claim.tree_id)

    def _lend(self, claim: Claim) -> None:
        """An attempt waits for a tree of its own."""
        self._release(claim)
        self._fill()

    def _free(self, claim: Claim) -> None:
        """What went on without its attempt has ended."""
        self._queue.released(claim.caller, claim.tree_id)
        self._fill()

    # Attempts

    def _begin(self, tree: TaskTree, task_id: str, number: int) -> None:
        key = (tree.id, task_id)
        claim = self._starting.pop(key)  # there is one start of a task at a time
        task = tree.tasks[task_id]
        if self._closing or not task.is_running or task.attempt != number:
            # It ended between its start and this moment, or is left to the next process.
            self._release(claim)
            self._never_begun[key] = number  # until the event that ended it is stored too
            if tree.is_startable(task):
                self._offer(tree, task)
            return
        spec = self._registry.get(claim.lane)
        results, absent = results_of(tree.tasks, task)
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
            egress=self._egress,
            family=self._means.family,
            make_room=self._make_room,
            is_full=self._means.is_full,
            replay=None if task.told is None else Replay(task.told),
        )
        attempt = Attempt(tree.id, task, spec, context, claim)
        self._attempts[key] = attempt
        self._times.begin(attempt)
        attempt.job = Job(self._run(attempt), loop=asyncio.get_running_loop())

    def _time_out(self, attempt: Attempt) -> None:
        """Fail the attempt, whatever its executor makes of being interrupted."""
        attempt.is_overdue = True
        self._hold(self._reports.store(attempt, overdue(attempt, self._clock.chance())), self._side_jobs)

    def break_off(self, origin: Origin, error: BaseException) -> bool:
        """Fail the attempt in whose context the uncaught error was raised. Whether it still runs."""
        attempt = self._attempts.get((origin.tree_id, origin.task_id))
        if attempt is None or attempt.task.attempt != origin.attempt:
            return False
        self._hold(self._reports.store(attempt, broken_off(attempt, error, self._clock, self._means)), self._side_jobs)
        return True

    def _abandon(self, attempt: Attempt) -> None:
        """Wait no more for an attempt that was interrupted and goes on: its task may be tried again."""
        key = (attempt.tree_id, attempt.task.id)
        if self._closing or attempt.is_over or attempt.job is None or self._attempts.get(key) is not attempt:
            return
        attempt.is_abandoned = True
        del self._attempts[key]
        self._leftovers.keep(attempt.claim, attempt.task, attempt.job)
        self._queue.released(attempt.claim.caller, attempt.tree_id)
        self._offer_again(key)

    async def _run(self, attempt: Attempt) -> None:
        command: Command | None = None
        attempt.has_begun = True
        task = attempt.task
        ORIGIN.set(Origin(attempt.tree_id, task.id, task.attempt, attempt.claim.lane))
        try:
            if attempt.context.stopping:
                raise asyncio.CancelledError
            command = await perform(attempt, self._registry.ids, self._registry.hooks, self._clock, self._means)
            if (
                attempt.is_shutdown
                and attempt.context.stopping
                and isinstance(command, FailAttempt)
                and not command.final
            ):
                command = self._loss(attempt.task, crash=False)  # that is how it took its interruption
        except asyncio.CancelledError:
            if attempt.is_shutdown:
                command = self._loss(attempt.task, crash=False)
        except GeneratorExit as error:  # by what its executor waited for; Python closed the coroutines in between
            if attempt.job is None or not attempt.job.is_stepping():
                raise
            command = broken_off(attempt, error, self._clock, self._means)
        except Exception:  # a bug of ours must not leave the task running for ever
            logger.exception("attempt %d of task %s failed inside the runner", attempt.task.attempt, attempt.task.id)
            text = "internal error; see the server's log"
            command = FailAttempt(attempt.task.id, attempt.task.attempt, text, Cause.EXECUTOR_ERROR, final=True)
        attempt.end()
        if attempt.is_abandoned:
            return
        key = (attempt.tree_id, task.id)
        if attempt.is_late and command is not None and not attempt.is_shutdown:
            command = overdue(attempt, self._clock.chance())
        if attempt.lends:
            self.lending.end(attempt)
        if attempt.context.left is None:
            self._release(attempt.claim)
        else:
            self._leftovers.keep(attempt.claim, task, attempt.context.left)
            self._queue.released(attempt.claim.caller, attempt.tree_id)
        try:
            if command is not None:
                await self._reports.deliver(attempt, command)
            if self._quarantine.is_open and (command is not None or attempt.context.stopping):
                self._quarantine.release(key)  # else it ends with the process, which may be its doing
        finally:
            del self._attempts[key]
            attempt.context.leave_room()
        self._offer_again(key)

    def _offer_again(self, key: tuple[str, str]) -> None:
        """An attempt has left: its task may be ready for another one, and others may have its place."""
        tree_id, task_id = key
        tree = self._orchestrator.cached(tree_id)
        task = tree.tasks.get(task_id) if tree is not None else None
        if tree is not None and task is not None and tree.is_startable(task):
            self._offer(tree, task)
        self._fill()

    # Stopping

    async def cancel(
        self,
        tree_id: str,
        task_id: str,
        reason: str | None,
        *,
        force: bool,
        metadata: Mapping[str, Any],
        by: str | None = None,
    ) -> tuple[Decision, tuple[str, ...]]:
        """See Cancelling.cancel."""
        tree = await self._orchestrator.load(tree_id)
        command = Cancel(task_id, reason, force, self._cancelling.uninterruptible(tree), by)
        return await self._cancelling.cancel(tree, command, metadata)

    async def drain(self, grace: float, going_on: Callable[[frozenset[str]], None]) -> None:
        """Start nothing more, and let attempts and the hooks of ended trees end within `grace` seconds.

        `going_on` is told the trees of those that still run, each time one ends.
        """
        self._closing = True
        ends_at = asyncio.get_running_loop().time() + grace
        await wait_until_ended(self._attempts, grace, going_on)
        await self.hooks_done(max(0.0, ends_at - asyncio.get_running_loop().time()))

    async def close(self, limit: float) -> None:
        """Interrupt what runs, so that another process can take it up (G8), and wait `limit` seconds for its end."""
        self._closing = self._reports.is_closing = True
        self._due.timers.close()
        self._times.close()
        for attempt in list(self._attempts.values()):
            attempt.is_shutdown = True
            attempt.stop()
        await wait_until_stopped(list(self._attempts.values()), limit)
        await self._starts_answered()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_LIMIT):
                await self._report_never_begun()
        jobs = self._side_jobs | self._tree_hooks
        for job in jobs:
            job.cancel()
        if jobs:
            await asyncio.wait(jobs)

    async def _starts_answered(self) -> None:
        """Wait until no start is on its way to the disk any more."""
        while self._starting:
            tree_id, _ = next(iter(self._starting))
            latest = self._orchestrator.latest(tree_id)
            if latest is None:
                return
            _, late = await asyncio.wait([latest], timeout=STOP_LIMIT)
            if late:
                return

    async def _report_never_begun(self) -> None:
        """Attempts whose executor was not run at all, so that the next process knows that nothing came of them."""
        while self._never_begun:
            (tree_id, task_id), attempt = self._never_begun.popitem()
            with suppress(CoreError):
                await self._orchestrator.handle(tree_id, LoseAttempt(task_id, attempt, crash=False))

    async def hooks_done(self, limit: float | None = None) -> None:
        """Wait until the hooks of trees that have ended are through."""
        if self._tree_hooks:
            await asyncio.wait(self._tree_hooks, timeout=limit)

    def _hold(self, work: Coroutine[Any, Any, None], jobs: set[asyncio.Task[Any]]) -> None:
        job = asyncio.create_task(work)
        jobs.add(job)
        job.add_done_callback(jobs.discard)


def _due_at(tree: TaskTree, task: Task) -> float | None:
    limit = deadline_of(tree, task)
    return None if limit is None else limit.at
