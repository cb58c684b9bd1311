"""The task-tree state machine. Pure: no clock, no I/O, no asyncio, no randomness.

A tree changes in one way only: `apply(event)`. What may happen is worked out beforehand, without changing anything,
by `core.model.decide`. Beside the tasks the tree keeps what can be derived from them, so that an event costs O(edges
it touches).
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from core.model import events as e
from core.model.task import (
    TERMINAL,
    TRANSITIONS,
    Cause,
    Dependency,
    On,
    Question,
    Task,
    TaskStatus,
    TreeHead,
    changed_task,
    is_met,
    reset,
)
from core.model.tolerance import tolerated


class _End(Struct, frozen=True, gc=False):
    """How a task ends."""

    status: TaskStatus
    result: Any = None
    error: str | None = None
    detail: str | None = None
    cause: Cause | None = None
    message: str | None = None


class TaskTree:
    """One tree in memory: its head, its tasks, and their dependencies."""

    def __init__(self, head: TreeHead, tasks: Iterable[Task]) -> None:
        self.head = head
        self.id = head.id
        self.tasks: dict[str, Task] = {task.id: task for task in tasks}
        self._changed: dict[str, None] = {}  # in order, each once
        self._ready: list[str] = []
        self.changed_at = max([head.updated_at, *(task.updated_at for task in self.tasks.values())])
        self._rebuild()

    def fork(self) -> "TaskTree":
        """A tree that is as this one is; what happens to it does not happen to this one."""
        fork = copy(self)
        fork.tasks, fork.waiting = dict(self.tasks), dict(self.waiting)
        fork.running, fork.questions = set(self.running), dict(self.questions)
        fork._changed, fork._ready = {}, []
        return fork

    def adopt(self, fork: "TaskTree") -> None:
        """Let what has happened to the fork have happened to this tree, to which nothing has happened since."""
        fork._changed, fork._ready = self._changed | fork._changed, self._ready + fork._ready
        self.__dict__.update(fork.__dict__)

    # What can be derived

    def _rebuild(self) -> None:
        """Work out every derived value from the tasks and the head, in O(V + E)."""
        self._link()
        self._count()

    def _link(self) -> None:
        """Work out what the shape of the tree gives, which no run changes."""
        self.children: dict[str, list[str]] = {}
        self.dependents: dict[str, list[tuple[str, On]]] = {}
        self.has_alternatives = False  # whether any task runs on a failure only, so that tasks may be skipped
        self.has_times = False  # whether a group has a deadline or a timeout, or a task a queue_timeout
        self._executable = 0
        for task in self.tasks.values():
            if task.parent_id is not None:
                self.children.setdefault(task.parent_id, []).append(task.id)
            for dependency in task.dependencies:
                self.dependents.setdefault(dependency.id, []).append((task.id, dependency.on))
                if dependency.on is On.FAILURE:
                    self.has_alternatives = True
            if not task.is_group:
                self._executable += 1
                self.has_times |= task.queue_timeout is not None
            else:
                self.has_times |= task.deadline is not None or task.timeout is not None
        self._tolerated: dict[str, bool] | None = None

    def _count(self) -> None:
        """Work out what the state of the tasks gives."""
        self.running: set[str] = set()
        self.questions: dict[str, Question] = {}
        self._progress = 0.0
        for task in self.tasks.values():
            if task.is_running:
                self.running.add(task.id)
            if task.question is not None:
                self.questions[task.id] = task.question
            if not task.is_group:
                self._progress += task.progress
        self._enter_scope()

    def _enter_scope(self) -> None:
        """Count, for the tasks of the run, the edges to tasks of the run that have not ended."""
        head = self.head
        self.scope = frozenset(head.scope) if head.scope is not None and head.is_live else None
        self.waiting = {task_id: 0 for task_id in self.tasks if self.is_open(task_id)}
        self.open = len(self.waiting)
        for task_id in self.waiting:
            task = self.tasks[task_id]
            if task.dependencies or task.is_group:
                self.waiting[task_id] = sum(target in self.waiting for target in self.edges(task))

    def edges(self, task: Task) -> Iterator[str]:
        """The tasks that must end before this one can start or, if it is a group, end."""
        for dependency in task.dependencies:
            yield dependency.id
        if task.is_group:
            yield from self.children.get(task.id, ())

    def is_open(self, task_id: str) -> bool:
        """Whether the present run has the task still to end."""
        return self.tasks[task_id].status not in TERMINAL and (self.scope is None or task_id in self.scope)

    def is_startable(self, task: Task) -> bool:
        """Whether an attempt may take the task, as soon as its `runnable_at` has come."""
        return (
            self.head.is_live
            and not task.is_group
            and not task.is_running
            and task.question is None
            and self.is_open(task.id)
            and not self.waiting[task.id]
        )

    def unmet(self, task: Task) -> Dependency | None:
        """Of a task whose dependencies have all ended, the first one that keeps it from running."""
        ends = ((d, self.tasks[d.id]) for d in task.dependencies)
        return next((d for d, end in ends if not is_met(d.on, end.status, is_skipped=end.is_skipped)), None)

    def is_tolerated(self, task_id: str) -> bool:
        """Whether the tree can be completed without this task (semantics §3, roll-up).

        It has dependents, and all of them run on any end or on a failure, or are tolerated themselves. In the eyes of
        the tree a task without dependents shares the fate of its group.
        """
        if self._tolerated is None:
            self._tolerated = tolerated(self.tasks, self.dependents)
        return self._tolerated[task_id]

    def roll_up(self, status_of: Callable[[str], TaskStatus], group_id: str | None = None) -> TaskStatus:
        """The one status that stands for all tasks of the tree, or for the children of the group; all have ended."""
        missed = set()
        for task_id in self.tasks if group_id is None else self.children.get(group_id, ()):
            status = status_of(task_id)
            if status is TaskStatus.COMPLETED:
                continue
            # Its own group misses a child that nothing depends on, whatever becomes of the group.
            is_loose = group_id is not None and task_id not in self.dependents
            if is_loose or not self.is_tolerated(task_id):
                missed.add(status)
        for status in (TaskStatus.FAILED, TaskStatus.REJECTED, TaskStatus.CANCELLED):
            if status in missed:
                return status
        return TaskStatus.COMPLETED

    def subtree(self, task_id: str) -> list[str]:
        """The task and all below it, parents before children."""
        found = [task_id]
        for each in found:
            found.extend(self.children.get(each, ()))
        return found

    def ancestors(self, task_id: str) -> Iterator[Task]:
        """The task's parent, its parent's parent, and so on."""
        task = self.tasks[task_id]
        while task.parent_id is not None:
            yield (task := self.tasks[task.parent_id])

    @property
    def version(self) -> int:
        return self.head.version

    @property
    def run(self) -> int:
        return self.head.run

    @property
    def is_live(self) -> bool:
        return self.head.is_live

    @property
    def cancelled(self) -> str | None:
        """Why the present run was cancelled as a whole, if it was."""
        return self.head.cancelled

    @property
    def status(self) -> TaskStatus:
        return self.head.status

    def name_of(self, task_id: str) -> str:
        return self.tasks[task_id].name

    # What happens

    def apply(self, event: e.Event, at: float) -> None:
        """Let the event have happened at that time. Raises ValueError for one that cannot have: that is a bug."""
        before = self.head.status
        self.changed_at = at
        change = _APPLY[type(event)]
        if change is None:
            self.head = replace(self.head, version=self.head.version + 1)
            return
        change(self, event, at)
        head = self.head
        status = self._present_status()
        self.head = replace(
            head,
            version=head.version + 1,
            status=status,
            progress=self._fraction(status),
            updated_at=head.updated_at if status is before and not isinstance(event, e.RunStarted) else at,
        )

    def _fraction(self, status: TaskStatus) -> float:
        """The tree's progress, 0 to 1. A completed tree is done, whatever became of what it could be without."""
        if status is TaskStatus.COMPLETED or not self._executable:
            return float(status.is_terminal)
        return self._progress / self._executable

    def _present_status(self) -> TaskStatus:
        if not self.head.is_live or self.head.status is TaskStatus.PENDING:
            return self.head.status
        if self.questions:
            only_auth = all(question.auth for question in self.questions.values())
            return TaskStatus.AUTH_REQUIRED if only_auth else TaskStatus.INPUT_REQUIRED
        return TaskStatus.IN_PROGRESS

    def take_ready(self) -> list[Task]:
        """The tasks that became startable since the last call (some may have to wait for their `runnable_at`)."""
        ready = [task for task_id in self._ready if self.is_startable(task := self.tasks[task_id])]
        self._ready.clear()
        return ready

    def startable(self) -> list[Task]:
        """Every task that an attempt may take, now or at its `runnable_at`."""
        return [task for task_id in self.waiting if self.is_startable(task := self.tasks[task_id])]

    def take_changed(self) -> tuple[Task, ...]:
        """The tasks that changed since the last call."""
        changed = tuple(self.tasks[task_id] for task_id in self._changed)
        self._changed.clear()
        return changed

    def _put(self, task: Task) -> None:
        self.tasks[task.id] = task
        self._changed[task.id] = None

    def _offer(self, task_id: str) -> None:
        if not self.waiting[task_id] and not self.tasks[task_id].is_group:
            self._ready.append(task_id)

    def _created(self, event: e.TreeCreated, at: float) -> None:
        self._changed.update(dict.fromkeys(self.tasks))

    def _run_started(self, event: e.RunStarted, at: float) -> None:
        self.head = replace(
            self.head,
            run=event.run,
            run_at=at,
            is_live=True,
            scope=event.scope,
            cancelled=None,
            status=TaskStatus.PENDING,
        )
        is_fresh = True
        for task_id in self.tasks if event.scope is None else event.scope:
            task = self.tasks[task_id]
            if task.status is not TaskStatus.PENDING:
                is_fresh = False
                self._put(reset(task, at))
        if is_fresh:
            self._enter_scope()
        else:
            self._count()
        self._ready.extend(task.id for task in self.startable())

    def _task_started(self, event: e.TaskStarted, at: float) -> None:
        task = self.tasks[event.task_id]
        if task.status is not TaskStatus.IN_PROGRESS:
            _check_move(task, TaskStatus.IN_PROGRESS)
        self._put(
            replace(
                task,
                status=TaskStatus.IN_PROGRESS,
                attempt=event.attempt,
                is_running=True,
                started_at=task.started_at or at,
                updated_at=at,
            )
        )
        self.running.add(task.id)
        self._begin()

    def _begin(self) -> None:
        if self.head.status is TaskStatus.PENDING:
            self.head = replace(self.head, status=TaskStatus.IN_PROGRESS)

    def _progressed(self, event: e.TaskProgressed, at: float) -> None:
        task = self.tasks[event.task_id]
        self._progress += event.fraction - task.progress
        message = event.message if event.message is not None else task.message
        self._put(replace(task, progress=event.fraction, message=message, updated_at=at))

    def _input_requested(self, event: e.InputRequested, at: float) -> None:
        status = TaskStatus.AUTH_REQUIRED if event.auth else TaskStatus.INPUT_REQUIRED
        question = Question(content=event.parts, auth=event.auth, keys=event.keys, asked_at=at)
        task = _check_move(self.tasks[event.task_id], status)
        told = event.told
        self._put(replace(task, status=status, is_running=False, question=question, told=told, updated_at=at))
        self.running.discard(task.id)
        self.questions[task.id] = question

    def _input_provided(self, event: e.InputProvided, at: float) -> None:
        task = _check_move(self.tasks[event.task_id], TaskStatus.IN_PROGRESS)
        count = 1 + len(event.rest)
        keys = task.question.keys if task.question is not None else ()
        answers = {
            "answers": (*task.answers, event.answer, *event.rest),
            "answer_messages": (*task.answer_messages, *(event.message,) * count),
            "asked": (*task.asked, *(keys[:count] or ("",))),
            "extensions": task.extensions if event.extensions is None else event.extensions,
        }
        self._put(replace(task, status=TaskStatus.IN_PROGRESS, question=None, **answers, updated_at=at))
        del self.questions[task.id]
        self._offer(task.id)

    def _attempt_failed(self, event: e.AttemptFailed, at: float) -> None:
        task = self.tasks[event.task_id]
        self._put(
            replace(
                task,
                is_running=False,
                failures=task.failures + 1,
                runnable_at=event.retry_at,
                error=event.error,
                error_detail=event.detail,
                cause=event.cause,
                updated_at=at,
            )
        )
        self.running.discard(task.id)
        self._offer(task.id)

    def _attempt_lost(self, event: e.AttemptLost, at: float) -> None:
        task = self.tasks[event.task_id]
        lone = task.lone_crashes + (event.crash and event.alone)
        crashes = task.crashes + event.crash
        self._put(replace(task, is_running=False, crashes=crashes, lone_crashes=lone, updated_at=at))
        self.running.discard(task.id)
        self._offer(task.id)

    def _completed(self, event: e.TaskCompleted, at: float) -> None:
        if event.task_id not in self.running:
            raise ValueError(f"task {event.task_id} cannot have completed without having run")
        self._end(event.task_id, _End(TaskStatus.COMPLETED, result=event.result), at)

    def _skipped(self, event: e.TaskSkipped, at: float) -> None:
        self._end(event.task_id, _End(TaskStatus.COMPLETED, cause=Cause.SKIPPED, message=event.reason), at)

    def _failed(self, event: e.TaskFailed, at: float) -> None:
        end = _End(TaskStatus.FAILED, error=event.error, detail=event.detail, cause=event.cause)
        self._end(event.task_id, end, at)

    def _rejected(self, event: e.TaskRejected, at: float) -> None:
        self._end(event.task_id, _End(TaskStatus.REJECTED, error=event.reason), at)

    def _task_cancelled(self, event: e.TaskCancelled, at: float) -> None:
        self._end(event.task_id, _End(TaskStatus.CANCELLED, error=event.error, cause=event.cause), at)

    def _group_ended(self, event: e.GroupEnded, at: float) -> None:
        self._end(event.task_id, _End(event.status, error=event.error, cause=event.cause), at)

    def _group_started(self, event: e.GroupStarted, at: float) -> None:
        group = _check_move(self.tasks[event.task_id], TaskStatus.IN_PROGRESS)
        self._put(replace(group, status=TaskStatus.IN_PROGRESS, started_at=at, updated_at=at))

    def _end(self, task_id: str, end: _End, at: float) -> None:
        task, status = self.tasks[task_id], end.status
        if not (task.is_group and task.status is TaskStatus.PENDING):  # a group may end before anything in it started
            _check_move(task, status)
        progress = 1.0 if status is TaskStatus.COMPLETED else task.progress
        if not task.is_group:
            self._progress += progress - task.progress
        was_open = self.is_open(task_id)
        self._put(
            replace(
                task,
                status=status,
                is_running=False,
                question=None,
                progress=progress,
                result=end.result,
                error=end.error,
                error_detail=end.detail,
                cause=end.cause,
                message=task.message if end.message is None else end.message,
                finished_at=at,
                updated_at=at,
            )
        )
        self.running.discard(task_id)
        self.questions.pop(task_id, None)
        if was_open:
            self._release(task_id)

    def _release(self, task_id: str) -> None:
        """Let those that waited for an ended task wait for one less."""
        self.open -= 1
        del self.waiting[task_id]
        waiters = [dependent for dependent, _ in self.dependents.get(task_id, ())]
        parent = self.tasks[task_id].parent_id
        if parent is not None and self.tasks[parent].is_group:
            waiters.append(parent)
        for waiter in waiters:
            if waiter in self.waiting:
                self.waiting[waiter] -= 1
                self._offer(waiter)

    def _task_updated(self, event: e.TaskUpdated, at: float) -> None:
        self._put(changed_task(self.tasks[event.task_id], event.changes, at))
        self._rebuild()

    def _tree_cancelled(self, event: e.TreeCancelled, at: float) -> None:
        self.head = replace(self.head, cancelled=event.error)

    def _finished(self, event: e.TreeFinished, at: float) -> None:
        self.head = replace(self.head, is_live=False, status=event.status)
        if self.scope is not None:
            self._enter_scope()

    def check(self) -> None:
        """Raise AssertionError when a derived value is not what the tasks say. For tests and simulations."""
        fresh = TaskTree(self.head, self.tasks.values())
        derived = [name for name in vars(fresh) if not name.startswith("_") and name != "changed_at"]
        for name in derived:
            assert getattr(self, name) == getattr(fresh, name), f"{name} differs from the tasks"
        assert abs(self._progress - fresh._progress) < 1e-6 * (1 + len(self.tasks)), "progress differs from the tasks"
        for task in self.tasks.values():
            assert not task.is_running or task.status is TaskStatus.IN_PROGRESS, f"{task.id} runs and is {task.status}"
            assert (task.question is not None) == task.status.is_interrupted, f"{task.id} has a stray question"
        for task in self.startable():
            assert self.unmet(task) is None, f"{task.id} was to be skipped"
        assert not self.head.is_live or self.open, "the tree is live with nothing left to end"
        assert self.head.is_live or not self.running, "something runs in a tree at rest"


def _check_move(task: Task, status: TaskStatus) -> Task:
    if status not in TRANSITIONS[task.status]:
        raise ValueError(f"task {task.id} cannot go from {task.status} to {status}")
    return task


# What an event changes; None where nothing but the log remembers it.
_APPLY: dict[type, Callable[[TaskTree, Any, float], None] | None] = {
    e.TreeCreated: TaskTree._created,
    e.MessageReceived: None,
    e.RunStarted: TaskTree._run_started,
    e.TaskStarted: TaskTree._task_started,
    e.TaskProgressed: TaskTree._progressed,
    e.MessageSent: None,
    e.ArtifactAdded: None,
    e.InputRequested: TaskTree._input_requested,
    e.InputProvided: TaskTree._input_provided,
    e.AttemptFailed: TaskTree._attempt_failed,
    e.AttemptLost: TaskTree._attempt_lost,
    e.TaskCompleted: TaskTree._completed,
    e.TaskSkipped: TaskTree._skipped,
    e.TaskFailed: TaskTree._failed,
    e.TaskRejected: TaskTree._rejected,
    e.TaskCancelled: TaskTree._task_cancelled,
    e.GroupStarted: TaskTree._group_started,
    e.GroupEnded: TaskTree._group_ended,
    e.TaskUpdated: TaskTree._task_updated,
    e.TreeCancelled: TaskTree._tree_cancelled,
    e.TreeFinished: TaskTree._finished,
}
