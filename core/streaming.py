"""The log as clients of `tasks.*` and Python callbacks see it: one flat object for each event (semantics §7). Pure."""

from typing import Any

from core import events as e
from core.events import Recorded
from core.task import TaskStatus
from core.timestamps import to_timestamp

_ENDS = {
    TaskStatus.COMPLETED: "task_completed",
    TaskStatus.FAILED: "task_failed",
    TaskStatus.REJECTED: "task_failed",
    TaskStatus.CANCELLED: "task_cancelled",
}


def stream_event(recorded: Recorded) -> dict[str, Any] | None:
    """What a follower of the tree is told about this event; None for bookkeeping that concerns nobody outside."""
    told = _tell(recorded.event)
    if told is None:
        return None
    kind, status, extra = told
    return {
        "type": kind,
        "task_id": recorded.task_id,
        "root_task_id": recorded.tree_id,
        "name": recorded.name,
        "status": status,
        "progress": 1.0 if status is TaskStatus.COMPLETED else 0.0,
        "result": None,
        "error": None,
        **extra,
        "seq": recorded.seq,
        "timestamp": to_timestamp(recorded.at),
    }


def _tell(event: e.Event) -> tuple[str, TaskStatus, dict[str, Any]] | None:
    """The event's type, the task's status after it, and the fields that are its own."""
    working = TaskStatus.IN_PROGRESS
    match event:
        case e.TaskStarted(attempt=attempt):
            return "task_start", working, {"attempt": attempt}
        case e.GroupStarted():
            return "task_start", working, {}
        case e.TaskProgressed(fraction=fraction, message=message):
            return "progress", working, {"progress": fraction, "message": message}
        case e.MessageSent(message=message):
            return "progress", working, {"progress": None, "message": message}
        case e.InputProvided():
            return "progress", working, {"progress": None, "message": "input received"}
        case e.AttemptFailed(error=error, retry_at=retry_at):
            return "progress", working, {"progress": None, "error": error, "retry_at": to_timestamp(retry_at)}
        case e.AttemptLost():
            return "progress", working, {"progress": None, "message": "the attempt was lost; another one follows"}
        case e.ArtifactAdded(artifact=artifact, append=append, last_chunk=last_chunk):
            return "artifact", working, {
                "progress": None, "artifact": artifact, "append": append, "last_chunk": last_chunk,
            }  # fmt: skip
        case e.InputRequested(parts=parts, auth=auth):
            status = TaskStatus.AUTH_REQUIRED if auth else TaskStatus.INPUT_REQUIRED
            return "input_required", status, {"progress": None, "question": list(parts)}
        case e.TaskCompleted(result=result):
            return "task_completed", TaskStatus.COMPLETED, {"result": result}
        case e.TaskFailed(error=error) | e.TaskCancelled(error=error):
            status = TaskStatus.FAILED if isinstance(event, e.TaskFailed) else TaskStatus.CANCELLED
            return _ENDS[status], status, {"progress": None, "error": error}
        case e.TaskRejected(reason=reason):
            return "task_failed", TaskStatus.REJECTED, {"progress": None, "error": reason}
        case e.GroupEnded(status=status, error=error):
            return _ENDS[status], status, {"error": error}
        case e.TreeFinished(status=status):
            return "final", status, {}
    return None
