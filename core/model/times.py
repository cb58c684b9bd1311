"""When the time of a task is over: by its deadline, by those of its groups, or while it waits for a slot. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from core.model.task import Cause, Task
from core.model.tree import TaskTree


class Limit(NamedTuple):
    """A moment (seconds since 1970) from which on the task has failed, why, and the error that is shown."""

    at: float
    cause: Cause
    text: str


def limits_of(tree: TaskTree, task: Task) -> Iterator[Limit]:
    """Every moment at which the time of the task itself, or of all below it if it is a group, is over."""
    if task.deadline is not None:
        yield Limit(task.deadline, Cause.DEADLINE, "the deadline passed before the task ended")
    if task.is_group:
        if task.timeout is not None and task.started_at is not None:
            text = f"the group did not end within {task.timeout:g} s of its start"
            yield Limit(task.started_at + task.timeout, Cause.TIMEOUT, text)
    elif task.queue_timeout is not None and tree.is_startable(task):
        text = f"the task waited longer than {task.queue_timeout:g} s for a free slot"
        yield Limit(ready_at(tree, task) + task.queue_timeout, Cause.QUEUE_TIMEOUT, text)


def passed(tree: TaskTree, task: Task, now: float) -> Limit | None:
    """The first one of its own limits that has passed."""
    return min((limit for limit in limits_of(tree, task) if limit.at <= now), default=None)


def deadline_of(tree: TaskTree, task: Task) -> Limit | None:
    """The earliest moment by which the task must have ended: by its own deadline, or by the times of its groups."""
    own = [limit for limit in limits_of(tree, task) if limit.cause is not Cause.QUEUE_TIMEOUT]
    inherited = [
        Limit(limit.at, limit.cause, of_group(group, limit))
        for group in tree.ancestors(task.id)
        if group.is_group
        for limit in limits_of(tree, group)
    ]
    return min((*own, *inherited), default=None)


def of_group(group: Task, limit: Limit) -> str:
    """The error of the tasks below a group that timed out."""
    who = f"its group {group.name!r} ({group.key})"
    return f"the deadline of {who} passed" if limit.cause is Cause.DEADLINE else f"{who}: {limit.text}"


def ready_at(tree: TaskTree, task: Task) -> float:
    """Since when the task, which is startable, has had nothing to wait for but a slot."""
    ends = (tree.tasks[dependency.id].finished_at or 0.0 for dependency in task.dependencies)
    return max(tree.head.run_at, task.runnable_at, task.updated_at, *ends)
