"""What an A2A client sees of a task: found by its id, in its status."""

from typing import NamedTuple

from a2a_server.bindings.context import RequestContext
from a2a_server.methods.access import owned_head
from a2a_server.protocol.errors import InvalidParams
from core.model.errors import Problem
from core.model.task import TaskStatus, TreeHead
from core.session import Session

ORIGIN = "a2a"  # of the trees that A2A methods make, and see


class Run(NamedTuple):
    """A run as a call meets it."""

    head: TreeHead
    task_id: str  # that was asked for
    after: int  # the number after which the events come that its caller has not seen


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

    async def status_for(self, context: RequestContext, task_id: str) -> TaskStatus:
        """That of a task of the caller's. Raises TaskNotFound."""
        return await self.status(await self.find(context.owner, task_id), task_id)


def check_resume(head: TreeHead, last_event_id: int | None) -> int:
    """The number after which a stream resumes. Raises InvalidParams for one that the tree has not reached."""
    if last_event_id is not None and last_event_id > head.version:
        raise InvalidParams.of([Problem("Last-Event-ID", f"this task has only {head.version} events")])
    return last_event_id or 0
