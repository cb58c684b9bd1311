"""From the core's log to the values of A2A v1.0. Pure.

Whatever a client sees of a task is made of its tree's head and events alone, so that a snapshot "at n" and the stream
"after n" fit together without a gap. A root shows the whole tree, any other node itself only (semantics §8).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from a2a_server.protocol import types as wire
from a2a_server.protocol.codec import decode
from a2a_server.protocol.errors import InvalidParams
from a2a_server.protocol.states import STATES
from a2a_server.protocol.types import Role, StreamResponse
from core.model import events as e
from core.model.content import Artifact, Part, Said
from core.model.content_json import part_object, part_of, parts_of
from core.model.events import Recorded
from core.model.jsonvalue import PARTS
from core.model.node_status import FAILURES, error_of, node_status, tree_error
from core.model.task import TaskStatus, TreeHead
from core.model.timestamps import to_timestamp

NO_PARTS: Mapping[str, Any] = {PARTS: []}  # a result that is nothing, like None
CONVERSATION = ("message_received", "message_sent", "input_requested", "input_provided", *FAILURES)
OUTPUT = ("artifact_added", "task_completed")


class Shown(NamedTuple):
    """What a selection of a log shows: the numbers of the events from which on it is looked at for these."""

    history: int = 0
    question: int = 0  # the one that waits for its answer
    word: int = 0  # what an executor said last
    cut: tuple[str, ...] = ()  # "artifacts", "history", "message": what is not all there


WHOLE = Shown()


def event_kinds(
    head: TreeHead, task_id: str, *, with_artifacts: bool, with_history: bool = True
) -> tuple[str, ...] | None:
    """The kinds of events that `snapshot` needs; None: all (of a node, whose own status is told by every one).

    What callers wrote may be large, and is read for the history alone.
    """
    if task_id != head.id:
        return None
    said = CONVERSATION if with_history else CONVERSATION[1:]
    return (*said, *OUTPUT) if with_artifacts else said


def snapshot(
    head: TreeHead,
    task_id: str,
    events: Sequence[Recorded],
    *,
    history_length: int | None = None,
    with_artifacts: bool = True,
    shown: Shown = WHOLE,
) -> wire.Task:
    """The task at `head.version`, from its events up to there, in order.

    `history_length` keeps that many of the latest messages, None all. Without artifacts their key is absent. A message
    stands in the status or in the history, never in both. Where `events` are a selection, `shown` says what it shows.
    """
    is_root = task_id == head.id
    status, changed_at = (head.status, head.updated_at) if is_root else _own_status(head, events)
    context_id = context_of(head)
    said, told = _status_message(head, task_id, context_id, status, events, shown)
    history = _history(_since(events, shown.history), context_id, task_id, told)
    if history_length is not None:
        history = history[len(history) - min(history_length, len(history)) :]
    about: dict[str, Any] = {"progress": head.progress} if is_root else {"rootTaskId": head.id}
    return wire.Task(
        id=task_id,
        context_id=context_id,
        status=wire.TaskStatus(state=STATES[status], message=said, timestamp=to_timestamp(changed_at)),
        artifacts=(artifacts(task_id, events) or None) if with_artifacts else None,
        history=history,
        metadata=about | {"seq": head.version} | ({"cut": [*shown.cut]} if shown.cut else {}),
    )


def updates(
    recorded: Recorded, task_id: str, context_id: str, *, ending: wire.Message | None = None
) -> list[StreamResponse]:
    """What the stream of this task says about an event: nothing, or one update, or an artifact and the status after it.

    `ending` is the status message of the task's end, where its last event does not carry it.
    """
    event = recorded.event
    event_task = event.task_id
    is_root = task_id == recorded.tree_id
    if isinstance(event, e.TreeFinished):
        return [_status_update(recorded, task_id, context_id, event.status, ending, {})] if is_root else []
    status = node_status(event)
    if status is None or isinstance(event, e.AttemptLost) or not (is_root or event_task == task_id):
        return []
    node = {"nodeId": event_task, "nodeName": recorded.name, "nodeStatus": status.value} if is_root else {}
    if isinstance(event, e.ArtifactAdded):
        artifact = _given_artifact(event.artifact, event_task, task_id)
        return [] if artifact is None else [_artifact_update(recorded, task_id, context_id, artifact, node, event)]
    shown = recorded.tree_status if is_root else status
    message = ending or _spoken(recorded, task_id, context_id, is_root=is_root)
    update = _status_update(recorded, task_id, context_id, shown, message, node | _details(event))
    result = result_artifact(recorded)
    return [update] if result is None else [_artifact_update(recorded, task_id, context_id, result, node, None), update]


def reply_message(recorded: Recorded, context_id: str) -> wire.Message | None:
    """The direct Message that an executor gave in place of a Task. It names no task: for its caller there is none."""
    if isinstance(recorded.event, e.MessageSent) and recorded.event.is_reply:
        return _said(recorded, context_id, "")
    return None


def tree_error_message(
    tree_id: str, status: TaskStatus, events: Sequence[Recorded], context_id: str
) -> wire.Message | None:
    """Why the tree ended as it did, as a message; None for a completed one."""
    error = None if status is TaskStatus.COMPLETED else tree_error(tree_id, status, events)
    return _message(parts_of(error), f"{tree_id}.error", context_id, tree_id) if error else None


def last_word(events: Sequence[Recorded], *, is_over: bool) -> Recorded | None:
    """What an executor said last, if that still is what its task's status says.

    It is not once something was asked, and of a task that is over not where output came after it: that is the answer.
    """
    for recorded in reversed(events):
        event = recorded.event
        if isinstance(event, e.MessageSent):
            return recorded
        if isinstance(event, e.InputRequested) or (is_over and is_output(event)):
            return None
    return None


def is_output(event: e.Event) -> bool:
    """Whether the event gives or ends with a piece of the task's output."""
    if isinstance(event, e.ArtifactAdded):
        return bool(event.artifact.parts)
    return isinstance(event, e.TaskCompleted) and event.result is not None and event.result != NO_PARTS


def result_artifact(recorded: Recorded) -> wire.Artifact | None:
    """The result of a completed node as an artifact with the node's id and name; None for a result of nothing.

    It replaces what the node streamed under the same id, so an executor that streams returns None or the whole.
    """
    event = recorded.event
    if not isinstance(event, e.TaskCompleted) or event.result is None:
        return None
    parts = wire_parts(result_parts(event.result))
    return wire.Artifact(artifact_id=recorded.task_id, name=recorded.name, parts=parts) if parts else None


def result_parts(result: Any) -> tuple[Part, ...]:
    """A kept result as parts (semantics §9)."""
    if type(result) is dict and len(result) == 1 and isinstance(result.get(PARTS), list):
        return tuple(map(part_of, result[PARTS]))
    return parts_of(result)


def wire_parts(parts: Iterable[Part]) -> list[wire.Part]:
    """Parts as A2A has them. One that is none by A2A's rules is passed on as data, so that nothing of it is lost."""
    return [_wire_part(part) for part in parts]


def answer_value(message: wire.Message) -> Any:
    """What an executor's `ask` returns: the text, the one data part's data, else the list of parts."""
    if all(part.text is not None for part in message.parts):
        return "\n".join(part.text or "" for part in message.parts)
    as_json = part_values(message)
    if len(as_json) == 1 and "data" in as_json[0]:
        return as_json[0]["data"]
    return as_json


def answer_values(message: wire.Message) -> tuple[Any, ...]:
    """What its parts are one by one, where each of them may answer a question of its own."""
    return tuple(answer_value(replace(message, parts=[part])) for part in message.parts)


def part_values(message: wire.Message) -> list[dict[str, Any]]:
    """The message's parts as JSON values."""
    values: list[dict[str, Any]] = message_value(message)["parts"]
    return values


def message_value(message: wire.Message) -> dict[str, Any]:
    """The message as a JSON value, as executors see it."""
    value: dict[str, Any] = msgspec.to_builtins(message)
    return value


def context_of(head: TreeHead) -> str:
    """The tree's context; a tree that came without one is its own."""
    return head.context_id or head.id


def _since(events: Sequence[Recorded], first: int) -> Sequence[Recorded]:
    return [recorded for recorded in events if recorded.seq >= first] if first else events


def _own_status(head: TreeHead, events: Sequence[Recorded]) -> tuple[TaskStatus, float]:
    for recorded in reversed(events):
        if (status := node_status(recorded.event)) is not None:
            return status, recorded.at
    return TaskStatus.PENDING, head.created_at


def _status_message(
    head: TreeHead, task_id: str, context_id: str, status: TaskStatus, events: Sequence[Recorded], shown: Shown
) -> tuple[wire.Message | None, int]:
    """What the status says, and the number of the event that brought it, which the history leaves out; 0: none."""
    if status.is_interrupted and (asked := _oldest_question(_since(events, shown.question))) is not None:
        return _question(asked, context_id, task_id), asked.seq
    is_over = status.is_terminal
    is_failure = is_over and status is not TaskStatus.COMPLETED
    if is_failure and (error := _end_error(head, task_id, status, events)) is not None:
        return error, 0
    said = last_word(_since(events, shown.word), is_over=is_over)
    return (None, 0) if said is None else (_said(said, context_id, task_id), said.seq)


def _end_error(head: TreeHead, task_id: str, status: TaskStatus, events: Sequence[Recorded]) -> wire.Message | None:
    if task_id == head.id:
        return tree_error_message(task_id, status, events, context_of(head))
    ends = [recorded for recorded in events if error_of(recorded.event)]
    return _error(ends[-1], context_of(head), task_id) if ends else None


def _oldest_question(events: Sequence[Recorded]) -> Recorded | None:
    waiting: dict[str, Recorded] = {}
    for recorded in events:
        if isinstance(recorded.event, e.InputRequested):
            waiting[recorded.task_id] = recorded
        elif node_status(recorded.event) is not None and not isinstance(recorded.event, e.MessageSent):
            waiting.pop(recorded.task_id, None)
    return next(iter(waiting.values()), None)


def _history(events: Sequence[Recorded], context_id: str, task_id: str, told: int) -> list[wire.Message]:
    """The conversation, oldest first, never de-duplicated: clients repeat their message ids.

    `told`: the number of the event that the status tells, so that nobody reads it twice.
    """
    history: list[wire.Message] = []
    for recorded in events:
        event = recorded.event
        if recorded.seq == told:
            continue
        if isinstance(event, e.MessageReceived):
            history.append(_received(event.message))
        elif isinstance(event, e.MessageSent):
            said = _said(recorded, context_id, task_id)
            history += [said] if said else []
        elif isinstance(event, e.InputRequested):
            asked = _question(recorded, context_id, task_id)
            history += [asked] if asked else []
    return history


def artifacts(task_id: str, events: Sequence[Recorded]) -> list[wire.Artifact]:
    """The artifacts that the events amount to, by first appearance."""
    made: dict[str, list[wire.Artifact]] = {}  # the pieces of each
    for recorded in events:
        event = recorded.event
        if (result := result_artifact(recorded)) is not None:
            made[result.artifact_id] = [result]
        elif isinstance(event, e.ArtifactAdded):
            piece = _given_artifact(event.artifact, recorded.task_id, task_id)
            if piece is None:
                continue
            if event.append and piece.artifact_id in made:
                made[piece.artifact_id].append(piece)
            else:
                made[piece.artifact_id] = [piece]
    return [_joined(pieces) for pieces in made.values()]


def _joined(pieces: Sequence[wire.Artifact]) -> wire.Artifact:
    """One artifact of its pieces, put together in one go: there may be thousands."""
    if len(pieces) == 1:
        return pieces[0]
    metadata: dict[str, Any] = {}
    for piece in pieces:
        metadata.update(piece.metadata)
    return wire.Artifact(
        artifact_id=pieces[0].artifact_id,
        name=next((piece.name for piece in reversed(pieces) if piece.name), ""),
        description=next((piece.description for piece in reversed(pieces) if piece.description), ""),
        parts=[part for piece in pieces for part in piece.parts],
        metadata=metadata,
        extensions=list(dict.fromkeys(uri for piece in pieces for uri in piece.extensions)),
    )


def _received(said: Said) -> wire.Message:
    """A caller's message."""
    return wire.Message(
        message_id=said.message_id or "",
        role=Role.USER,
        parts=wire_parts(said.parts),
        context_id=said.context_id or "",
        task_id=said.task_id or "",
        metadata=said.metadata or {},
        extensions=list(said.extensions),
        reference_task_ids=list(said.reference_task_ids),
    )


def _given_artifact(artifact: Artifact, node_id: str, task_id: str) -> wire.Artifact | None:
    """An executor's artifact. Two nodes may choose the same id, so in the root's view a node's own ids carry its id."""
    parts = wire_parts(artifact.parts)
    if not parts:
        return None
    artifact_id = artifact.artifact_id
    if node_id not in (task_id, artifact_id):
        artifact_id = f"{node_id}.{artifact_id}"
    return wire.Artifact(
        artifact_id=artifact_id,
        name=artifact.name or "",
        description=artifact.description or "",
        parts=parts,
        metadata=artifact.metadata or {},
        extensions=list(artifact.extensions),
    )


def _wire_part(part: Part) -> wire.Part:
    if part.raw is not None or part.extra:  # which A2A may read in its own ways
        return _read_part(part_object(part))
    try:
        return wire.Part(
            text=part.text,
            url=part.url,
            data=part.data,
            metadata=part.metadata or {},
            filename=part.filename or "",
            media_type=part.media_type or "",
        )
    except ValueError:  # not exactly one of them is given
        return wire.Part(data=part_object(part))


def _read_part(written: dict[str, Any]) -> wire.Part:
    try:
        return decode(written, wire.Part)
    except InvalidParams:
        return wire.Part(data=written)


def _spoken(recorded: Recorded, task_id: str, context_id: str, *, is_root: bool) -> wire.Message | None:
    """The status message that an event brings. In a root's stream a node's error is a detail of the node."""
    match recorded.event:
        case e.MessageSent():
            return _said(recorded, context_id, task_id)
        case e.InputRequested():
            return _question(recorded, context_id, task_id)
        case event if error_of(event) and not is_root:
            return _error(recorded, context_id, task_id)
    return None


def _details(event: e.Event) -> dict[str, Any]:
    match event:
        case e.TaskProgressed():
            told = {"progressMessage": event.message} if event.message is not None else {}
            return {"progress": event.fraction} | told
        case e.AttemptFailed():
            return {"error": event.error, "retryAt": to_timestamp(event.retry_at)}
        case e.TaskSkipped():
            return {"cause": "skipped", "reason": event.reason}
        case _:
            return {"error": error} if (error := error_of(event)) else {}


def _question(recorded: Recorded, context_id: str, task_id: str) -> wire.Message | None:
    event = recorded.event
    assert isinstance(event, e.InputRequested)
    message_id = f"{recorded.task_id}.{event.attempt}.question"
    return _message(event.parts, message_id, context_id, task_id, event.metadata, event.extensions)


def _error(recorded: Recorded, context_id: str, task_id: str) -> wire.Message | None:
    return _message(parts_of(error_of(recorded.event)), f"{recorded.task_id}.error", context_id, task_id)


def _said(recorded: Recorded, context_id: str, task_id: str) -> wire.Message | None:
    event = recorded.event
    assert isinstance(event, e.MessageSent)
    said, message_id = event.message, f"{recorded.tree_id}.{recorded.seq}"
    return _message(said.parts, message_id, context_id, task_id, said.metadata, said.extensions)


def _message(
    parts: Iterable[Part],
    message_id: str,
    context_id: str,
    task_id: str,
    metadata: dict[str, Any] | None = None,
    extensions: Iterable[str] = (),
) -> wire.Message | None:
    """Something the agent says; None for nothing, since a message has at least one part."""
    said = wire_parts(parts)
    if not said:
        return None
    return wire.Message(
        message_id=message_id,
        role=Role.AGENT,
        parts=said,
        context_id=context_id,
        task_id=task_id,
        metadata=metadata or {},
        extensions=list(extensions),
    )


def _status_update(
    recorded: Recorded,
    task_id: str,
    context_id: str,
    status: TaskStatus,
    message: wire.Message | None,
    metadata: dict[str, Any],
) -> StreamResponse:
    shown = wire.TaskStatus(state=STATES[status], message=message, timestamp=to_timestamp(recorded.at))
    update = wire.TaskStatusUpdateEvent(
        task_id=task_id, context_id=context_id, status=shown, metadata=metadata | {"seq": recorded.seq}
    )
    return StreamResponse(status_update=update)


def _artifact_update(
    recorded: Recorded,
    task_id: str,
    context_id: str,
    artifact: wire.Artifact,
    metadata: dict[str, Any],
    piece: e.ArtifactAdded | None,
) -> StreamResponse:
    """`piece`: the chunk that brought it; None for a result, which is whole."""
    update = wire.TaskArtifactUpdateEvent(
        task_id=task_id,
        context_id=context_id,
        artifact=artifact,
        append=piece is not None and piece.append,
        last_chunk=piece is None or piece.last_chunk,
        metadata=metadata | {"seq": recorded.seq},
    )
    return StreamResponse(artifact_update=update)
