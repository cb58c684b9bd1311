"""The body of a delivery, in the A2A version under which its webhook was registered.

By default the changes of the task's status, and its artifacts as they are when it has ended; with `nodes` the same of
every node of a root's tree, with `chunks` every piece of an artifact, message and progress as it comes.
"""

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Raw
from msgspec.structs import replace

from a2a_server.edge.limits import Permit
from a2a_server.protocol import types as wire
from a2a_server.protocol.codec import encode
from a2a_server.protocol.dialect import A2ADialect
from a2a_server.push.configs import PushConfig
from a2a_server.views.snapshots import Reading, Snapshots, latest, output_events
from a2a_server.views.translate import artifacts, context_of, updates
from core.model import events as e
from core.model.events import Recorded
from core.model.node_status import ENDS, node_status
from core.model.streaming import stream_event
from core.model.task import TaskStatus, TreeHead
from core.session import Session

TASKS = "tasks"  # the version of webhooks that `tasks.*` registers
PIECES = e.ArtifactAdded | e.TaskProgressed | e.MessageSent


class Payload(NamedTuple):
    """The bodies to be sent for one event, in their order, and the status that the receiver has seen then."""

    bodies: tuple[bytes, ...]
    shown: str


class Payloads:
    """Makes the bodies. `whole`: versions of A2A whose webhooks get the whole task -> the dialects that write it."""

    def __init__(self, session: Session, whole: Mapping[str, A2ADialect]) -> None:
        self._session = session
        self._snapshots = Snapshots(session)
        self._whole = whole

    async def tell(self, config: PushConfig, head: TreeHead, recorded: Recorded, shown: str) -> Payload:
        """What this webhook gets of the event, after it has seen the status `shown`."""
        status = _status(config, recorded)
        is_change = status is not None and status.value != shown
        is_wanted = self._is_wanted(config, recorded, is_change=is_change)
        if config.wire_version == TASKS:
            bodies = await self._task_event(recorded) if is_wanted else []
        elif (dialect := self._whole.get(config.wire_version)) is not None:
            bodies = [await self._task(config, head, recorded, dialect)] if is_wanted else []
        else:
            bodies = [encode(each) for each in await self._updates(config, head, recorded, with_status=is_wanted)]
        is_told = is_wanted and bodies and status is not None
        return Payload(tuple(bodies), status.value if is_told and status is not None else shown)

    async def _task_event(self, recorded: Recorded) -> list[bytes]:
        ended = None
        if isinstance(recorded.event, e.TreeFinished):
            ended = await latest(self._session.storage, recorded.tree_id, recorded.seq, recorded.tree_id, ENDS)
        event = stream_event(recorded, ended=ended)
        return [] if event is None else [encode(event)]

    def _is_wanted(self, config: PushConfig, recorded: Recorded, *, is_change: bool) -> bool:
        """Whether the event's status is to be told."""
        if node_status(recorded.event) is None and not isinstance(recorded.event, e.TreeFinished):
            return False
        if is_change:
            return True
        if isinstance(recorded.event, e.TreeFinished) or not _concerns(config, recorded):
            return False
        if isinstance(recorded.event, PIECES):
            return "chunks" in config.events
        return "nodes" in config.events or config.wire_version == TASKS

    async def _updates(
        self, config: PushConfig, head: TreeHead, recorded: Recorded, *, with_status: bool
    ) -> list[wire.StreamResponse]:
        """Artifacts, then the status as a stream of the task tells it, with the last word of a tree that has ended."""
        told = await self._artifacts(config, head, recorded)
        if with_status:
            ending = await self._ending(config, head, recorded)
            seen = updates(recorded, config.task_id, context_of(head), ending=ending)
            told += [each for each in seen if each.status_update is not None]
        return told

    async def _ending(self, config: PushConfig, head: TreeHead, recorded: Recorded) -> wire.Message | None:
        """The status message of the task's end; with `chunks` the receiver has what was said, and gets errors only."""
        status = _status(config, recorded)
        is_node = config.task_id != recorded.tree_id
        is_end = is_node or isinstance(recorded.event, e.TreeFinished)
        if not is_end or status is None or not status.is_terminal:
            return None
        has_heard = "chunks" in config.events and (is_node or head.size == 1 or "nodes" in config.events)
        if status is TaskStatus.COMPLETED and has_heard:
            return None
        return await self._snapshots.said(_then(head, recorded), config.task_id, Reading(config.owner, Permit()))

    async def _artifacts(self, config: PushConfig, head: TreeHead, recorded: Recorded) -> list[wire.StreamResponse]:
        """Pieces as they come, or of a node that has ended what they amount to."""
        if isinstance(recorded.event, e.TreeFinished) or not _concerns(config, recorded):
            return []
        if "chunks" in config.events:
            told = updates(recorded, config.task_id, context_of(head))
            return [each for each in told if each.artifact_update is not None]
        status = node_status(recorded.event)
        if status is None or not status.is_terminal:
            return []
        events = await output_events(self._session.storage, head.id, recorded.seq, recorded.task_id)
        return [
            wire.StreamResponse(
                artifact_update=wire.TaskArtifactUpdateEvent(
                    task_id=config.task_id,
                    context_id=context_of(head),
                    artifact=artifact,
                    last_chunk=True,
                    metadata={"seq": recorded.seq},
                )
            )
            for artifact in artifacts(config.task_id, events)
        ]

    async def _task(self, config: PushConfig, head: TreeHead, recorded: Recorded, dialect: A2ADialect) -> bytes:
        """The task as it was at that event."""
        then = _then(head, recorded)
        reading = Reading(config.owner, Permit(), dialect)
        task = await self._snapshots.tell(then, config.task_id, reading, lambda task, _: _as_then(task))
        return bytes(task) if isinstance(task, Raw) else encode(dialect.shape(task))


def _then(head: TreeHead, recorded: Recorded) -> TreeHead:
    """The tree as it was after that event."""
    return replace(head, version=recorded.seq, status=recorded.tree_status, updated_at=recorded.at)


def _as_then(task: wire.Task) -> wire.Task:
    """Without a root's progress, which is that of now."""
    return replace(task, metadata={name: value for name, value in task.metadata.items() if name != "progress"})


def _concerns(config: PushConfig, recorded: Recorded) -> bool:
    """Whether it happened to the task itself, or to a node whose events the receiver asked for."""
    is_node = config.task_id == recorded.tree_id and "nodes" in config.events
    return recorded.task_id == config.task_id or is_node


def _status(config: PushConfig, recorded: Recorded) -> TaskStatus | None:
    """The status that the receiver would see: of a root its tree's."""
    if config.task_id == recorded.tree_id:
        return recorded.tree_status
    return node_status(recorded.event) if recorded.task_id == config.task_id else None
