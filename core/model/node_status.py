"""What an event says about the status of its task. Every API reads the log through it. Pure."""

from collections.abc import Iterable, Mapping

from core.model import events as e
from core.model.events import Event, Recorded
from core.model.task import TaskStatus

# The status of the task after an event of this type. None: the event itself says it. Types that are absent say nothing.
_STATUS: Mapping[type, TaskStatus | None] = {
    e.TaskStarted: TaskStatus.IN_PROGRESS,
    e.GroupStarted: TaskStatus.IN_PROGRESS,
    e.TaskProgressed: TaskStatus.IN_PROGRESS,
    e.MessageSent: TaskStatus.IN_PROGRESS,
    e.ArtifactAdded: TaskStatus.IN_PROGRESS,
    e.InputRequested: None,
    e.InputProvided: TaskStatus.IN_PROGRESS,
    e.AttemptFailed: TaskStatus.IN_PROGRESS,
    e.AttemptLost: TaskStatus.IN_PROGRESS,
    e.TaskCompleted: TaskStatus.COMPLETED,
    e.TaskSkipped: TaskStatus.COMPLETED,
    e.TaskFailed: TaskStatus.FAILED,
    e.TaskRejected: TaskStatus.REJECTED,
    e.TaskCancelled: TaskStatus.CANCELLED,
    e.GroupEnded: None,
}

TELLING = frozenset(_STATUS)  # the types of events that say a status
ENDS = ("task_completed", "task_skipped", "task_failed", "task_rejected", "task_cancelled", "group_ended")
FAILURES = ("task_failed", "task_rejected", "task_cancelled", "group_ended", "tree_cancelled")


def node_status(event: Event) -> TaskStatus | None:
    """The status of the event's task after it; None when the event is about something else."""
    if isinstance(event, e.InputRequested):
        return TaskStatus.AUTH_REQUIRED if event.auth else TaskStatus.INPUT_REQUIRED
    if isinstance(event, e.GroupEnded):
        return event.status
    return _STATUS.get(type(event))


def error_of(event: Event) -> str | None:
    """Why the task ended as it did, for people."""
    match event:
        case e.TaskFailed() | e.TaskCancelled() | e.GroupEnded() | e.TreeCancelled():
            return event.error
        case e.TaskRejected():
            return event.reason
        case _:
            return None


def tree_error(tree_id: str, status: TaskStatus, events: Iterable[Recorded]) -> str | None:
    """Why the tree ended with this status: the root's own error, else that of the first task that ended so.

    `events` are those of the tree, in order; others than `FAILURES` do no harm.
    """
    first: str | None = None
    roots: str | None = None
    for recorded in events:
        event = recorded.event
        if (error := error_of(event)) is None:
            continue
        if isinstance(event, e.TreeCancelled):
            if status is TaskStatus.CANCELLED:
                return error
        elif recorded.task_id == tree_id:
            roots = error
        elif first is None and node_status(event) is status:
            first = f"{recorded.name!r} {status.value}: {error}"
    return roots or first
