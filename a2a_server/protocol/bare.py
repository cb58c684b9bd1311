"""The short answer that replaces one that does not fit in memory after the call has taken effect. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from a2a_server.protocol import types as wire

CUT = ("artifacts", "history", "message")  # what a bare task is without; a short message of its status is kept
MOST_SAID = 1_000  # characters of text of such a message
MOST_PARTS = 10  # of it
KEPT = ("progress", "rootTaskId", "parentTaskId", "seq")  # of its metadata
NO_ROOM = "The server has no memory for this answer now; send the message again with the same Idempotency-Key"


def bare_metadata(metadata: Mapping[str, Any], *, keeps_message: bool) -> dict[str, Any]:
    """What a bare task keeps of its metadata, and that the rest of it was cut."""
    cut = [what for what in CUT if what != "message" or not keeps_message]
    return {name: metadata[name] for name in KEPT if name in metadata} | {"cut": cut}


def is_short(parts: Sequence[Any], metadata: Mapping[str, Any] | None) -> bool:
    """Whether a message of these parts, in any version of A2A, is a few words of text and nothing else."""
    if metadata or len(parts) > MOST_PARTS:
        return False
    texts = [getattr(part, "text", None) for part in parts if not part.metadata]
    return None not in texts and len(texts) == len(parts) and sum(map(len, filter(None, texts))) <= MOST_SAID


def bare_task(task: wire.Task) -> wire.Task:
    """The task in a few bytes: what an end or a cancel is answered with where there is no room for more."""
    said = task.status.message
    kept = said if said is not None and is_short(said.parts, said.metadata) else None
    about = bare_metadata(task.metadata, keeps_message=kept is not None)
    return replace(task, status=replace(task.status, message=kept), artifacts=None, history=[], metadata=about)


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
