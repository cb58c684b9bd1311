"""What a webhook is told of an event, in the version under which it was registered.

By default the changes of the task's status, and its artifacts as they are when it has ended; with `nodes` the same of
every node of a root's tree, with `chunks` every piece of an artifact, message and progress as it comes.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec.structs import replace

from a2a_server.protocol import types as wire
from a2a_server.protocol.codec import encode
from a2a_server.push.configs import PushConfig
from a2a_server.streams import read_events, snapshot_events
from a2a_server.translate import OUTPUT, artifacts, context_of, snapshot, updates
from core import events as e
from core.events import Recorded
from core.node_status import ENDS, node_status
from core.session import Session
from core.streaming import stream_event
from core.task import TaskStatus, TreeHead

TASKS = "tasks"  # the version of webhooks that `tasks.*` registers
PIECES = e.ArtifactAdded | e.TaskProgressed | e.MessageSent
TaskBody = Callable[[wire.Task], bytes]


class Told(NamedTuple):
    """The bodies to be sent for one event, in their order, and the status that the receiver has seen then."""

    bodies: tuple[bytes, ...]
    shown: str


class Teller:
    """Makes the bodies. `task_bodies`: versions of A2A whose webhooks get the whole task -> how they write it."""

    def __init__(self, session: Session, task_bodies: Mapping[str, TaskBody]) -> None:
        self._session = session
        self._task_bodies = task_bodies

    async def tell(self, config: PushConfig, head: TreeHead, recorded: Recorded, shown: str) -> Told:
        """What this webhook gets of the event, after it has seen the status `shown`."""
        status = _status(config, recorded)
        is_change = status is not None and status.value != shown
        is_wanted = self._is_wanted(config, recorded, is_change=is_change)
        if config.wire_version == TASKS:
            bodies = await self._task_event(recorded) if is_wanted else []
        elif (task_body := self._task_bodies.get(config.wire_version)) is not None:
            bodies = [task_body(await self._task(config, head, recorded))] if is_wanted else []
        else:
            bodies = [encode(each) for each in await self._updates(config, head, recorded, with_status=is_wanted)]
        is_told = is_wanted and bodies and status is not None
        return Told(tuple(bodies), status.value if is_told and status is not None else shown)

    async def _task_event(self, recorded: Recorded) -> list[bytes]:
        ended = None
        if isinstance(recorded.event, e.TreeFinished):
            ends = await read_events(
                self._session.storage, recorded.tree_id, 0, until=recorded.seq, task_id=recorded.tree_id, kinds=ENDS
            )
            ended = ends[-1] if ends else None
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
        return (await self._task(config, head, recorded)).status.message

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
        events = await read_events(
            self._session.storage, head.id, 0, until=recorded.seq, task_id=recorded.task_id, kinds=OUTPUT
        )
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

    async def _task(self, config: PushConfig, head: TreeHead, recorded: Recorded) -> wire.Task:
        """The task as it was at that event."""
        then = replace(head, version=recorded.seq, status=recorded.tree_status, updated_at=recorded.at)
        task = snapshot(then, config.task_id, await snapshot_events(self._session.storage, then, config.task_id))
        is_root = config.task_id == head.id
        return replace(task, metadata={"seq": recorded.seq}) if is_root else task  # a root's progress is that of now


def _concerns(config: PushConfig, recorded: Recorded) -> bool:
    """Whether it happened to the task itself, or to a node that the receiver wants to hear of."""
    is_node = config.task_id == recorded.tree_id and "nodes" in config.events
    return recorded.task_id == config.task_id or is_node


def _status(config: PushConfig, recorded: Recorded) -> TaskStatus | None:
    """The status that the receiver would see: of a root its tree's."""
    if config.task_id == recorded.tree_id:
        return recorded.tree_status
    return node_status(recorded.event) if recorded.task_id == config.task_id else None
