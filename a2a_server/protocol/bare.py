"""What is told of an answer for which there is no room, when what it tells of has been done. Pure."""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from a2a_server.protocol import types as wire

CUT = ("artifacts", "history", "message")  # what a bare task is without
KEPT = ("progress", "rootTaskId", "parentTaskId", "seq")  # of its metadata
NO_ROOM = "There is no room for this answer at the moment: send the message again under the same key"


def bare_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What a bare task keeps of its metadata, and that the rest of it was cut."""
    return {name: metadata[name] for name in KEPT if name in metadata} | {"cut": [*CUT]}


def bare_task(task: wire.Task) -> wire.Task:
    """The task in a few bytes: what an end or a cancel is answered with where there is no room for more."""
    status = replace(task.status, message=None)
    return replace(task, status=status, artifacts=None, history=[], metadata=bare_metadata(task.metadata))


def bare_answer(answer: Any) -> Any:
    """The same of what a method answers; of a direct message its envelope."""
    match answer:
        case wire.Task():
            return bare_task(answer)
        case wire.SendMessageResponse(task=wire.Task() as task):
            return wire.SendMessageResponse(task=bare_task(task))
        case wire.SendMessageResponse(message=wire.Message() as message):
            part = wire.Part(text=NO_ROOM)
            short = replace(message, parts=[part], metadata={"cut": ["parts"]})
            return wire.SendMessageResponse(message=short)
    return answer


def bare_object(answer: Any) -> Any:
    """The same of a task or a tree as `tasks.*` tells it."""
    if not isinstance(answer, dict):
        return answer
    told = ("id", "root_task_id", "task_id", "status", "success", "progress", "tree_status", "tree_progress")
    cut = sorted(set(answer) - set(told))
    return {name: answer[name] for name in told if name in answer} | {"cut": cut}
