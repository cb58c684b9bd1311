"""Whose is it: the one check that every method passes before it tells or changes anything. Foreign means missing."""

import time
from collections.abc import Callable

from a2a_server.protocol.errors import RateLimited
from core.errors import TaskNotFound
from core.session import Session
from core.storage.base import TaskQuery
from core.task import TERMINAL, Task, TaskStatus, TreeHead

OPEN = frozenset(TaskStatus) - TERMINAL
RECOUNT = 1.0  # seconds that a count of open tasks may be old


async def owned_task(session: Session, owner: str, task_id: str) -> Task:
    """The task, a draft too. Raises TaskNotFound when there is none or it is somebody else's."""
    task = await session.storage.task(task_id)
    if task is None or task.owner != owner:
        raise TaskNotFound(task_id)
    return task


async def owned_head(session: Session, owner: str, task_id: str, *, origin: str | None = None) -> TreeHead:
    """The head of the tree that the task is in. Raises TaskNotFound; also for a tree of another `origin`."""
    head = await session.storage.head(task_id)
    if head is None:
        task = await session.storage.task(task_id)
        head = await session.storage.head(task.tree_id) if task is not None and task.tree_id else None
    if head is None or head.owner != owner or origin not in (None, head.origin):
        raise TaskNotFound(task_id)
    return head


class OpenTasks:
    """Holds each owner to a number of tasks that have not ended.

    The count is read at most once a second; what was created since is added, so that it costs busy owners nothing.
    """

    def __init__(self, session: Session, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._limit = limit
        self._now = now
        self._counts: dict[str, tuple[float, int]] = {}  # owner -> when it was read, the count

    async def admit(self, owner: str, size: int) -> None:
        """Make room for a tree of that size. Raises RateLimited when there is none."""
        read_at, count = self._counts.get(owner, (float("-inf"), 0))
        if self._now() - read_at > RECOUNT:
            query = TaskQuery(owner=owner, root_only=False, statuses=OPEN)
            read_at, count = self._now(), await self._session.storage.count(query)
            self._counts = {each: entry for each, entry in self._counts.items() if read_at - entry[0] <= RECOUNT}
        if count + size > self._limit:
            raise RateLimited(f"{count} of your tasks have not ended, and {self._limit} is the limit", retry_after=5)
        self._counts[owner] = (read_at, count + size)
