"""Whose is it: the one check that every method passes before it tells or changes anything. Foreign means missing."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from a2a_server.auth.principal import Principal, Scope
from a2a_server.bindings.context import RequestContext
from a2a_server.protocol import errors as wire_errors
from a2a_server.protocol.errors import RateLimited
from a2a_server.push.webhooks import Caller
from core.loop.keyed_locks import KeyedLocks
from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from core.model.task import TERMINAL, Task, TaskStatus, TreeHead
from core.session import Session
from core.storage.base import TaskQuery

Value = TypeVar("Value")

logger = logging.getLogger(__name__)

OPEN = frozenset(TaskStatus) - TERMINAL
RECOUNT = 1.0  # seconds that a count of open tasks may be old


async def owned_head(session: Session, owner: str, task_id: str, *, origin: str | None = None) -> TreeHead:
    """The head of the tree that the task is in. Raises TaskNotFound; also for a tree of another `origin`."""
    head = await session.storage.head(task_id, owner=owner)
    if head is None:
        tree_id = await session.storage.tree_of(task_id, owner=owner)
        head = await session.storage.head(tree_id, owner=owner) if tree_id else None
    if head is None or origin not in (None, head.origin):
        raise TaskNotFound(task_id)
    return head


async def seen_task(session: Session, scope: Scope, task_id: str) -> Task:
    """The task, a draft too, for a caller of `tasks.*`. Raises TaskNotFound when it is not in the caller's scope."""
    task = await session.storage.task(task_id, owner=scope.owner, tenant=scope.tenant)
    if task is None:
        raise TaskNotFound(task_id)
    return task


async def seen_head(session: Session, scope: Scope, task_id: str) -> TreeHead:
    """The head of the tree that the task is in, for a caller of `tasks.*`. Raises TaskNotFound as `seen_task`."""
    owner, tenant = scope.owner, scope.tenant
    head = await session.storage.head(task_id, owner=owner, tenant=tenant)
    if head is None:
        tree_id = await session.storage.tree_of(task_id, owner=owner, tenant=tenant)
        head = await session.storage.head(tree_id, owner=owner, tenant=tenant) if tree_id else None
    if head is None:
        raise TaskNotFound(task_id)
    return head


def caller_of(context: RequestContext) -> Caller:
    """Who registers a webhook through a method of A2A."""
    return Caller(context.owner, context.dialect.version)


async def readable(reading: Awaitable[Value]) -> Value | None:
    """What is read for one item of a list; None, with an error in the log, when it is corrupt.

    One broken row must not keep its owner from all the others. Raises StorageUnavailable.
    """
    try:
        return await reading
    except StorageUnavailable:
        raise
    except StorageError as error:
        logger.error("%s; the list omits it", error)
        return None


def check_tenant(principal: Principal, params: Any) -> None:
    """The credential says whose tasks a caller sees; in any other tenant there is nothing for it (A2A §13.1).

    Raises the same error as for a task that does not exist.
    """
    if params.tenant not in ("", principal.tenant):
        named = params.message.task_id if hasattr(params, "message") else getattr(params, "task_id", None)
        task_id = named or getattr(params, "id", "")
        raise wire_errors.TaskNotFound(metadata={"taskId": task_id} if task_id else None)


class OpenTasks:
    """Holds each owner to a number of tasks that have not ended.

    The count is read at most once a second; what was created since is added, so that it costs busy owners nothing.
    """

    def __init__(self, session: Session, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._limit = limit
        self._now = now
        self._counts: dict[str, tuple[float, int]] = {}  # owner -> when it was read, the count
        # One at a time for each owner: the calls of a batch must not all add to the same old count.
        self._locks = KeyedLocks()

    async def admit(self, owner: str, size: int) -> None:
        """Make room for a tree of that size. Raises RateLimited or QuotaExceeded when there is none."""
        await self._session.stored.require_room(owner)
        async with self._locks.of(owner):
            await self._admit(owner, size)

    async def _admit(self, owner: str, size: int) -> None:
        read_at, count = self._counts.get(owner, (float("-inf"), 0))
        if self._now() - read_at > RECOUNT:
            query = TaskQuery(owner=owner, root_only=False, statuses=OPEN)
            read_at, count = self._now(), await self._session.storage.count(query, self._limit)
            self._counts = {each: entry for each, entry in self._counts.items() if read_at - entry[0] <= RECOUNT}
        if count + size > self._limit:
            raise RateLimited(f"{count} of your tasks are unfinished, and {self._limit} is the limit", retry_after=5)
        self._counts[owner] = (read_at, count + size)
