"""The log as clients of `tasks.*` and Python callbacks see it: one flat object for each event (semantics §7). Pure."""

from collections.abc import Mapping
from typing import Any

from core.model import events as e
from core.model.content_json import artifact_object, part_object
from core.model.events import Recorded
from core.model.jsonvalue import plain
from core.model.node_status import error_of, node_status
from core.model.owners import principal_of, tenant_of
from core.model.task import Cause, TaskStatus, TreeHead
from core.model.timestamps import to_timestamp

# Events that are absent are internal.
_TYPES: Mapping[type, str] = {
    e.TaskStarted: "task_start",
    e.GroupStarted: "task_start",
    e.TaskProgressed: "progress",
    e.MessageSent: "progress",
    e.InputProvided: "progress",
    e.AttemptFailed: "progress",
    e.AttemptLost: "progress",
    e.ArtifactAdded: "artifact",
    e.InputRequested: "input_required",
    e.TaskCompleted: "task_completed",
    e.TaskSkipped: "task_completed",
    e.TaskFailed: "task_failed",
    e.TaskRejected: "task_failed",
    e.TaskCancelled: "task_cancelled",
    e.TreeFinished: "final",
}
# What concerns somebody only where another than the tree's owner did it.
_TYPES_OF_OTHERS: Mapping[type, str] = {
    e.TreeCreated: "progress",
    e.RunStarted: "progress",
    e.TaskUpdated: "progress",
    e.TreeCancelled: "progress",
}
_GROUP_TYPES: Mapping[TaskStatus, str] = {
    TaskStatus.COMPLETED: "task_completed",
    TaskStatus.FAILED: "task_failed",
    TaskStatus.REJECTED: "task_failed",
    TaskStatus.CANCELLED: "task_cancelled",
}


def stream_event(recorded: Recorded, *, ended: Recorded | None = None) -> dict[str, Any] | None:
    """What a follower is told about the event, None when nothing. `ended`: the root's own end, told with the tree's."""
    event = recorded.event
    kind = _GROUP_TYPES[event.status] if isinstance(event, e.GroupEnded) else _TYPES.get(type(event))
    by = getattr(event, "by", None)
    if kind is None and by is not None:
        kind = _TYPES_OF_OTHERS.get(type(event))
    if kind is None:
        return None
    told: dict[str, Any] = {
        "type": kind,
        "task_id": recorded.task_id,
        "root_task_id": recorded.tree_id,
        "name": recorded.name,
        "status": node_status(event) or recorded.tree_status,
        "progress": None,
        "result": None,
        "error": error_of(event),
        "seq": recorded.seq,
        "timestamp": to_timestamp(recorded.at),
    }
    told |= _details(event, ended)
    if by is not None:
        told["by"] = {"tenant": tenant_of(by), "principal": principal_of(by)}
    return told


def compacted_event(head: TreeHead, until: int) -> dict[str, Any]:
    """What a follower gets in place of events that were compacted; the next one comes after `until`."""
    return {
        "type": "compacted",
        "task_id": head.id,
        "root_task_id": head.id,
        "name": "",
        "status": head.status,
        "progress": head.progress,
        "result": None,
        "error": None,
        "seq": until,
        "timestamp": to_timestamp(head.updated_at),
        "message": f"events up to number {until} are compacted into the task: read it with tasks.tree",
    }


def _details(event: e.Event, ended: Recorded | None) -> dict[str, Any]:
    match event:
        case e.TaskStarted():
            given = {"inputs_from": event.inputs_from} if event.inputs_from else {}
            return {"progress": 0.0, "attempt": event.attempt} | given
        case e.TaskProgressed():
            return {"progress": event.fraction, "message": event.message}
        case e.MessageSent():
            return {"message": [part_object(part) for part in event.message.parts]}
        case e.TreeCreated():
            return {"message": "the tree was created"}
        case e.RunStarted():
            return {"message": f"run {event.run} was started"}
        case e.TaskUpdated():
            return {"message": f"{', '.join(event.changes)} changed"}
        case e.TreeCancelled():
            return {"message": "the tree was cancelled"}
        case e.InputProvided():
            return {"message": "the question was answered"}
        case e.AttemptFailed():
            return {"error": event.error, "attempt": event.attempt, "retry_at": to_timestamp(event.retry_at)}
        case e.AttemptLost():
            return {"message": "the attempt was lost with its process and will be retried", "attempt": event.attempt}
        case e.ArtifactAdded():
            return {"artifact": artifact_object(event.artifact), "append": event.append, "last_chunk": event.last_chunk}
        case e.InputRequested():
            return {"question": [part_object(part) for part in event.parts]}
        case e.TaskCompleted():
            return {"progress": 1.0, "result": plain(event.result)}
        case e.TaskSkipped():
            return {"progress": 1.0, "cause": Cause.SKIPPED, "message": event.reason}
        case e.GroupEnded(status=TaskStatus.COMPLETED):
            return {"progress": 1.0} | ({"cause": event.cause} if event.cause else {})
        case e.TreeFinished():
            done = {"progress": 1.0} if event.status is TaskStatus.COMPLETED else {}
            return {"status": event.status} | done | _end_of_root(ended)
    return {}


def _end_of_root(ended: Recorded | None) -> dict[str, Any]:
    if ended is None:
        return {}
    result = ended.event.result if isinstance(ended.event, e.TaskCompleted) else None
    return {"result": plain(result), "error": error_of(ended.event)}
