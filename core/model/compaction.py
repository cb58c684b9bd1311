"""What remains of a log without followers. Pure.

The rows of a tree at rest say how everything ended; its log says what was said and made on the way. Compaction leaves
out the steps in between, and puts the pieces of an artifact together. A task, its history, its artifacts and its errors
are the same before and after.
"""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from core.model import events as e
from core.model.content import Artifact
from core.model.events import Recorded

# What is said of a task that has ended is made of these; all other events are steps on the way to them.
KEPT = (
    e.MessageReceived
    | e.MessageSent
    | e.ArtifactAdded
    | e.InputRequested
    | e.TaskCompleted
    | e.TaskSkipped
    | e.TaskFailed
    | e.TaskRejected
    | e.TaskCancelled
    | e.GroupEnded
    | e.TreeCancelled
)


def compact(events: Sequence[Recorded]) -> list[Recorded]:
    """What remains of these events of one tree, which follow each other.

    The pieces of an artifact take the place of the first one, so that artifacts keep their order; none goes past what
    was said between them.
    """
    kept: list[Recorded] = []
    nodes = {recorded.task_id for recorded in events}
    pieces: dict[tuple[str, str], list[Recorded]] = {}  # of each artifact, those that are put together
    together: dict[int, list[Recorded]] = {}  # by the number of the first one
    for recorded in events:
        event = recorded.event
        if not isinstance(event, KEPT):
            continue
        if isinstance(event, e.ArtifactAdded):
            artifact_id = event.artifact.artifact_id
            key = event.task_id, artifact_id
            if not event.artifact.parts:
                continue  # says nothing
            if event.append and key in pieces:
                pieces[key].append(recorded)
                continue
            pieces[key] = together[recorded.seq] = [recorded]
            # The root's view has other nodes' artifacts under their ids: nothing must go past such a namesake.
            if artifact_id != event.task_id and artifact_id.partition(".")[0] in nodes:
                pieces.clear()
        elif isinstance(event, e.MessageSent):
            pieces.clear()  # whether output came after what was said last is told (the status then says nothing)
        elif isinstance(event, e.TaskCompleted):
            # The result takes the place of what was given under the task's own id.
            pieces.pop((event.task_id, event.task_id), None)
        kept.append(recorded)
    return [_joined(together[each.seq]) if len(together.get(each.seq, ())) > 1 else each for each in kept]


def _joined(pieces: Sequence[Recorded]) -> Recorded:
    """The first one, with all that the pieces have: the latest name and description, and all that can be added up."""
    first, last = pieces[0].event, pieces[-1].event
    assert isinstance(first, e.ArtifactAdded) and isinstance(last, e.ArtifactAdded)
    artifacts = [each.event.artifact for each in pieces if isinstance(each.event, e.ArtifactAdded)]
    metadata: dict[str, Any] = {}
    for piece in artifacts:
        metadata |= piece.metadata or {}
    artifact = Artifact(
        artifact_id=first.artifact.artifact_id,
        parts=tuple(part for piece in artifacts for part in piece.parts),
        name=next((piece.name for piece in reversed(artifacts) if piece.name), None),
        description=next((piece.description for piece in reversed(artifacts) if piece.description), None),
        metadata=metadata or None,
        extensions=tuple(dict.fromkeys(uri for piece in artifacts for uri in piece.extensions)),
    )
    return replace(pieces[0], event=replace(first, artifact=artifact, last_chunk=last.last_chunk))
