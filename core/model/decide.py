"""What a command means for a tree: the events that follow, or a refusal. Pure; nothing is changed here.

`decide` is total over the commands. One command's events are stored together, so whatever follows from a task's end
(its dependents that can never run, the groups and the run that end with it) is part of the same decision.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from core.model import commands as c
from core.model import events as e
from core.model.errors import (
    IllegalCommand,
    InvalidPlan,
    NothingToRun,
    Problem,
    StaleAttempt,
    TaskNotCancelable,
    TaskNotFound,
    TreeIsRunning,
)
from core.model.graph import check_graph
from core.model.settling import Settling, shortened
from core.model.task import Cause, On, Task, TaskStatus, changed_task
from core.model.times import Limit, deadline_of, of_group, passed
from core.model.tree import TaskTree

MAX_CRASHES = 5  # while one task ran alone, in one run; then it is taken for the cause (semantics §9, "poison")


def decide(command: c.Command, tree: TaskTree, now: float) -> list[e.Event]:
    """The events that the command causes, in order; none when there is nothing left to do.

    Raises TaskNotFound, IllegalCommand (or a subtype), StaleAttempt or InvalidPlan when the command is refused.
    """
    return _DECIDE[type(command)](command, tree, now)


def _find(tree: TaskTree, task_id: str) -> Task:
    if (task := tree.tasks.get(task_id)) is None:
        raise TaskNotFound(task_id)
    return task


def _owned(tree: TaskTree, task_id: str, attempt: int) -> Task:
    """The task, if that attempt still owns it."""
    task = _find(tree, task_id)
    if not task.is_running or task.attempt != attempt:
        raise StaleAttempt(task_id, attempt)
    return task


# Runs


def _execute(command: c.Execute, tree: TaskTree, now: float) -> list[e.Event]:
    target = _find(tree, command.task_id or tree.id)
    if tree.is_live:
        raise TreeIsRunning(target.id, f"Tree {tree.id} is already running")
    if command.task_id is None or (target.id == tree.id and target.is_group):
        scope = [task.id for task in tree.tasks.values() if command.force or task.status is not TaskStatus.COMPLETED]
    else:
        scope = _scope_of(tree, target, command.force)
    if not scope:
        raise NothingToRun(target.id, f"Task {target.id} is already completed; use force to run it again")
    is_whole = len(scope) == len(tree.tasks)
    started = e.RunStarted(tree.id, tree.run + 1, None if is_whole else tuple(scope), command.force, command.by)
    if is_whole:
        return [started]
    # A group whose children are all completed ends at once, and what the run finds unmet is skipped: worked out on a
    # copy, as the run will find the tree.
    ahead = tree.fork()
    ahead.apply(started, now)
    settling = Settling(ahead)
    for task_id in [i for i, waiting in ahead.waiting.items() if not waiting]:
        settling.go_on(task_id)
    return [started, *settling.settle()]


def _scope_of(tree: TaskTree, target: Task, force: bool) -> list[str]:
    """The target (with its subtree, if it is a group), its unfinished dependencies, and what depends on it."""
    core = tree.subtree(target.id) if target.is_group else [target.id]
    scope = {i for i in core if force or tree.tasks[i].status is not TaskStatus.COMPLETED}
    stack = list(scope)
    while stack:
        for i in tree.edges(tree.tasks[stack.pop()]):
            if i not in scope and tree.tasks[i].status is not TaskStatus.COMPLETED:
                scope.add(i)
                stack.append(i)
    if not scope:
        return []
    _let_dependents_join(tree, core, scope, force)
    return [i for i in tree.tasks if i in scope]


def _let_dependents_join(tree: TaskTree, core: Iterable[str], scope: set[str], force: bool) -> None:
    """Add to the scope what depends on it and would wait for nothing outside the run."""
    settled = set(scope)
    unmet: dict[str, int] = {}  # of a waiter: its edges to what is neither over nor settled
    candidates = deque(core)
    seen = set(core) | scope
    while candidates:
        ended = candidates.popleft()
        is_news = ended not in settled
        settled.add(ended)
        for waiter, on in _waiters(tree, ended):
            if waiter in seen:
                continue
            if waiter not in unmet:
                edges = _edges(tree, tree.tasks[waiter])
                unmet[waiter] = sum(i not in settled and not _is_over(tree, i, kind) for i, kind in edges)
            elif is_news and not _is_over(tree, ended, on):
                unmet[waiter] -= 1
            if unmet[waiter]:
                continue
            seen.add(waiter)
            if force or tree.tasks[waiter].status is not TaskStatus.COMPLETED:
                scope.add(waiter)
                candidates.append(waiter)


def _is_over(tree: TaskTree, task_id: str, on: On) -> bool:
    """Whether nobody who depends on the task would wait for it, were it left as it is."""
    status = tree.tasks[task_id].status
    return status is TaskStatus.COMPLETED if on is On.SUCCESS else status.is_terminal


def _edges(tree: TaskTree, task: Task) -> Iterator[tuple[str, On]]:
    """What the task waits for, and for which end of it: a group's children need only have ended."""
    yield from ((dependency.id, dependency.on) for dependency in task.dependencies)
    if task.is_group:
        yield from ((child, On.ANY) for child in tree.children.get(task.id, ()))


def _waiters(tree: TaskTree, task_id: str) -> Iterator[tuple[str, On]]:
    """The other way round: those that wait for the task."""
    yield from tree.dependents.get(task_id, ())
    parent = tree.tasks[task_id].parent_id
    if parent is not None and tree.tasks[parent].is_group:
        yield parent, On.ANY


# Attempts


def _start(command: c.StartTask, tree: TaskTree, now: float) -> list[e.Event]:
    task = _find(tree, command.task_id)
    if not tree.is_startable(task) or task.runnable_at > now:
        raise IllegalCommand(task.id, f"Task {task.id} cannot be started now")
    if task.deadline is not None and task.deadline <= now:
        return _fail(tree, task, "the deadline passed before the task could start", Cause.DEADLINE)
    if tree.has_times:
        late = passed(tree, task, now) or deadline_of(tree, task)
        if late is not None and late.at <= now:
            return _fail(tree, task, late.text, late.cause)
    groups = [group for group in tree.ancestors(task.id) if group.is_group and group.status is TaskStatus.PENDING]
    absent = tuple(d.id for d in task.dependencies if not tree.tasks[d.id].has_result)
    started = [e.GroupStarted(group.id) for group in groups if tree.is_open(group.id)]
    return [*started, e.TaskStarted(task.id, task.attempt + 1, absent, command.inputs_from)]


def _progress(command: c.ReportProgress, tree: TaskTree, now: float) -> list[e.Event]:
    _owned(tree, command.task_id, command.attempt)
    return [e.TaskProgressed(command.task_id, command.attempt, command.fraction, command.message)]


def _say(command: c.SendMessage, tree: TaskTree, now: float) -> list[e.Event]:
    _owned(tree, command.task_id, command.attempt)
    return [e.MessageSent(command.task_id, command.attempt, command.message, command.is_reply)]


def _add_artifact(command: c.AddArtifact, tree: TaskTree, now: float) -> list[e.Event]:
    _owned(tree, command.task_id, command.attempt)
    return [e.ArtifactAdded(command.task_id, command.attempt, command.artifact, command.append, command.last_chunk)]


def _request_input(command: c.RequestInput, tree: TaskTree, now: float) -> list[e.Event]:
    task = _owned(tree, command.task_id, command.attempt)
    if tree.cancelled is not None:
        return _obey_cancel(tree, task)
    asked = (command.parts, command.auth, command.metadata, command.extensions, command.keys, command.told)
    return [e.InputRequested(command.task_id, command.attempt, *asked)]


def _provide_input(command: c.ProvideInput, tree: TaskTree, now: float) -> list[e.Event]:
    task = _find(tree, command.task_id)
    if task.question is None and task.id == tree.id and tree.questions:
        task = tree.tasks[min(tree.questions, key=lambda i: (tree.questions[i].asked_at, tree.tasks[i].position))]
    if task.question is None:
        raise IllegalCommand(task.id, f"Task {task.id} does not wait for an answer")
    received = [e.MessageReceived(command.task_id, command.message)] if command.message is not None else []
    asked = max(1, len(task.question.keys))
    if command.is_exact and asked != len(command.each):
        what = "asks 1 question" if asked == 1 else f"asks {asked} questions"
        raise InvalidPlan([Problem("answers", f"task {task.id} {what}, so give {asked}, not {len(command.each)}")])
    answers = command.each if asked == len(command.each) and (asked > 1 or command.is_exact) else (command.answer,)
    given = (answers[0], command.message, command.by, answers[1:], command.extensions)
    return [*received, e.InputProvided(task.id, *given)]


def _receive(command: c.ReceiveMessage, tree: TaskTree, now: float) -> list[e.Event]:
    task = _find(tree, command.task_id)
    status = tree.status if task.id == tree.id else task.status
    if status.is_terminal:
        raise IllegalCommand(task.id, f"Task {task.id} is already {status} and accepts no more messages")
    return [e.MessageReceived(task.id, command.message)]


def _complete(command: c.CompleteTask, tree: TaskTree, now: float) -> list[e.Event]:
    task = _owned(tree, command.task_id, command.attempt)
    settling = Settling(tree)
    settling.end(e.TaskCompleted(task.id, command.attempt, command.result), TaskStatus.COMPLETED)
    return settling.settle()


def _fail_attempt(command: c.FailAttempt, tree: TaskTree, now: float) -> list[e.Event]:
    task = _owned(tree, command.task_id, command.attempt)
    failures = task.failures + 1
    retry_at = now + task.retry.delay(failures, command.chance)
    deadline = task.deadline
    if tree.has_times:
        limit = deadline_of(tree, task)
        deadline = None if limit is None else limit.at
    too_late = deadline is not None and retry_at >= deadline
    if command.final or failures >= task.max_attempts or too_late or tree.cancelled is not None:
        return _fail(tree, task, command.error, command.cause, command.detail)
    detail = None if command.detail is None else shortened(command.detail)
    return [e.AttemptFailed(task.id, command.attempt, shortened(command.error), command.cause, retry_at, detail)]


def _reject(command: c.RejectTask, tree: TaskTree, now: float) -> list[e.Event]:
    task = _owned(tree, command.task_id, command.attempt)
    settling = Settling(tree)
    reason = shortened(command.reason)
    settling.end(e.TaskRejected(task.id, command.attempt, reason), TaskStatus.REJECTED, reason)
    return settling.settle()


def _lose_attempt(command: c.LoseAttempt, tree: TaskTree, now: float) -> list[e.Event]:
    task = _owned(tree, command.task_id, command.attempt)
    if command.at_most_once:
        text = "the server stopped while the task ran; it may have taken effect, so it is not run again"
        return _fail(tree, task, text, Cause.OUTCOME_UNKNOWN)
    if tree.cancelled is not None:
        return _obey_cancel(tree, task)
    if command.crash and command.alone and task.lone_crashes + 1 >= MAX_CRASHES:
        text = f"the server stopped {MAX_CRASHES} times while it ran this task and no other"
        return _fail(tree, task, text, Cause.POISON)
    return [e.AttemptLost(task.id, command.attempt, command.crash, command.alone)]


def _obey_cancel(tree: TaskTree, task: Task) -> list[e.Event]:
    """A task that could not be interrupted when its tree was cancelled has come to a stop by itself."""
    settling = Settling(tree)
    settling.cancel(task.id, tree.cancelled or "", Cause.REQUESTED)
    return settling.settle()


def _expire(command: c.ExpireTask, tree: TaskTree, now: float) -> list[e.Event]:
    task = _find(tree, command.task_id)
    if not tree.is_live or not tree.is_open(task.id) or (limit := passed(tree, task, now)) is None:
        return []
    return _expire_group(tree, task, limit) if task.is_group else _fail(tree, task, limit.text, limit.cause)


def _expire_group(tree: TaskTree, group: Task, limit: Limit) -> list[e.Event]:
    """The time of a group is over: all below it that has not ended fails, and so does what waits for others yet."""
    settling = Settling(tree)
    below = tree.subtree(group.id)
    text = shortened(of_group(group, limit))
    for i in below:
        task = tree.tasks[i]
        if not task.is_group and settling.after.is_open(i):
            settling.end(e.TaskFailed(i, task.attempt, text, limit.cause), TaskStatus.FAILED, text)
    settling.follow()
    for i in reversed(below):
        if settling.after.is_open(i):  # a group that waits for a task elsewhere
            why = limit.text if i == group.id else text
            settling.end(e.GroupEnded(i, TaskStatus.FAILED, why, limit.cause), TaskStatus.FAILED, why)
            settling.follow()
    return settling.settle()


def _fail(tree: TaskTree, task: Task, error: str, cause: Cause, detail: str | None = None) -> list[e.Event]:
    settling = Settling(tree)
    error = shortened(error)
    detail = None if detail is None else shortened(detail)
    settling.end(e.TaskFailed(task.id, task.attempt, error, cause, detail), TaskStatus.FAILED, error)
    return settling.settle()


# Cancellation and changes


def _cancel(command: c.Cancel, tree: TaskTree, now: float) -> list[e.Event]:
    task = _find(tree, command.task_id)
    if command.attempt is not None:
        _owned(tree, command.task_id, command.attempt)
    settling = Settling(tree)
    # Also what the present run leaves alone: a cancelled task is not to be found pending afterwards.
    targets = [i for i in _requiring(tree, tree.subtree(task.id)) if not tree.tasks[i].status.is_terminal]
    status = tree.status if task.id == tree.id else task.status
    if not targets:
        if TaskStatus.CANCELLED in (status, task.status):
            return []
        raise TaskNotCancelable.already(task.id, status)
    reason = shortened(command.reason or "cancelled by request")
    if task.id == tree.id and tree.cancelled is None:
        settling.cancel_tree(reason, command.by)
    left = frozenset() if command.force else command.uninterruptible & tree.running
    for i in targets:
        if i not in left and not tree.tasks[i].is_group and not settling.after.status(i).is_terminal:
            settling.cancel(i, reason, Cause.REQUESTED, command.by)
    settling.follow()
    # A group that waits for something outside is cancelled too, unless one of its own tasks still runs.
    busy = {group.id for i in left for group in tree.ancestors(i)}
    for i in reversed(targets):
        if i not in left and i not in busy and not settling.after.status(i).is_terminal:
            settling.cancel(i, reason, Cause.REQUESTED, command.by)
            settling.follow()
    return settling.settle()


def _requiring(tree: TaskTree, task_ids: Iterable[str]) -> list[str]:
    """These tasks and all that require one of them, directly or not."""
    found = dict.fromkeys(task_ids)
    stack = list(found)
    while stack:
        for dependent, on in tree.dependents.get(stack.pop(), ()):
            if on is On.SUCCESS and dependent not in found:
                found[dependent] = None
                stack.append(dependent)
    return list(found)


def _update(command: c.UpdateTask, tree: TaskTree, now: float) -> list[e.Event]:
    task = _find(tree, command.task_id)
    if tree.is_live or task.status is not TaskStatus.PENDING:
        status = tree.status if tree.is_live else task.status
        text = f"Task {task.id} is {status}; it can be changed only while pending, in a tree that does not run"
        raise TreeIsRunning(task.id, text)
    changed = changed_task(task, command.changes, now)
    if problems := check_graph([changed if i == task.id else each for i, each in tree.tasks.items()]):
        raise InvalidPlan(problems)
    return [e.TaskUpdated(task.id, msgspec.to_builtins(command.changes), command.by)]


_DECIDE: dict[type, Callable[[Any, TaskTree, float], list[e.Event]]] = {
    c.Execute: _execute,
    c.StartTask: _start,
    c.ReportProgress: _progress,
    c.SendMessage: _say,
    c.AddArtifact: _add_artifact,
    c.RequestInput: _request_input,
    c.ProvideInput: _provide_input,
    c.CompleteTask: _complete,
    c.FailAttempt: _fail_attempt,
    c.RejectTask: _reject,
    c.LoseAttempt: _lose_attempt,
    c.ExpireTask: _expire,
    c.Cancel: _cancel,
    c.UpdateTask: _update,
    c.ReceiveMessage: _receive,
}
