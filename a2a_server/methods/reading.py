"""What an A2A client sees of a task: found by its id, in its status, as a snapshot."""

from collections.abc import Sequence

from msgspec.structs import replace

from a2a_server.methods.access import owned_head
from a2a_server.protocol import types as wire
from a2a_server.streams import snapshot_events
from a2a_server.translate import kinds, snapshot
from core.events import KINDS, Recorded
from core.session import Session
from core.task import TaskStatus, TreeHead

MOST_NODES = 100  # of a tree that its root's metadata tells
ORIGIN = "a2a"  # of the trees that A2A methods make, and see


class TaskReader:
    """Reads the trees that came in through A2A."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def find(self, owner: str, task_id: str) -> TreeHead:
        """The head of the task's tree. Raises TaskNotFound."""
        return await owned_head(self._session, owner, task_id, origin=ORIGIN)

    async def status(self, head: TreeHead, task_id: str) -> TaskStatus:
        """The status that an A2A client sees: of the root its tree's."""
        if task_id == head.id:
            return head.status
        task = await self._session.storage.task(task_id)
        return head.status if task is None else task.status

    async def snapshot(
        self, head: TreeHead, task_id: str, history_length: int | None, *, with_artifacts: bool = True
    ) -> wire.Task:
        """The task at the head's version."""
        has_history = history_length != 0
        events = await self.events(head, task_id, with_artifacts=with_artifacts, with_history=has_history)
        told = snapshot(head, task_id, events, history_length=history_length, with_artifacts=with_artifacts)
        return told if task_id == head.id else await self.placed(told)

    async def placed(self, told: wire.Task) -> wire.Task:
        """The node, with its parent's id in its metadata."""
        task = await self._session.storage.task(told.id)
        parent = {} if task is None else {"parentTaskId": task.parent_id}
        return replace(told, metadata=told.metadata | parent)

    async def with_nodes(self, head: TreeHead, told: wire.Task) -> wire.Task:
        """The root, with the first nodes of its tree in its metadata, and how many more there are."""
        tasks = await self._session.storage.nodes(head.id, MOST_NODES + 1)
        below = [task for task in tasks if task.id != head.id][:MOST_NODES]
        nodes = [{"id": task.id, "name": task.name, "status": task.status.value} for task in below]
        left_out = head.size - 1 - len(nodes)
        return replace(
            told, metadata=told.metadata | {"nodes": nodes} | ({"nodesLeftOut": left_out} if left_out else {})
        )

    async def events(
        self, head: TreeHead, task_id: str, *, with_artifacts: bool = True, with_history: bool = True
    ) -> Sequence[Recorded]:
        """What a snapshot at the head's version is made of."""
        wanted = kinds(head, task_id, with_artifacts=True, with_history=with_history)
        if wanted is not None and (told := self._session.feed.told(head.id, head.version)) is not None:
            return [recorded for recorded in told if KINDS[type(recorded.event)] in wanted]
        storage = self._session.storage
        return await snapshot_events(storage, head, task_id, with_artifacts=with_artifacts, with_history=with_history)
