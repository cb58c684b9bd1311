"""The methods `tasks.*` that read: tasks, trees, lists and events."""

import asyncio
from functools import partial
from typing import Any

from msgspec.structs import replace

from a2a_server.auth.principal import Principal
from a2a_server.bindings.aside import MANY
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Large, Method
from a2a_server.edge.overload import CallKind
from a2a_server.methods.access import readable, seen_head, seen_task
from a2a_server.methods.large_tasks import as_told
from a2a_server.methods.task_pages import place_of, token_of
from a2a_server.methods.task_params import (
    MOST_IDS,
    ChildrenParams,
    EventsParams,
    ListParams,
    RunningParams,
    RunningStatusParams,
    TaskParams,
    TreeParams,
)
from a2a_server.protocol.errors import InvalidParams
from a2a_server.views.task_objects import (
    EventObject,
    ListedTask,
    TaskCount,
    TaskObject,
    TaskStatusObject,
    TreeObject,
)
from a2a_server.views.task_view import nested, task_object, tree_node
from core.loop.large_values import is_small
from core.loop.pieces import in_pieces
from core.model.errors import Problem, TaskNotFound
from core.model.streaming import compacted_event, stream_event
from core.model.task import ANONYMOUS, Task, TaskStatus, TreeHead
from core.session import Session
from core.storage.base import LIST_BYTES, LOG_BYTES, EventQuery, TaskQuery


class TaskReads:
    """They see every tree of their caller, and store nothing."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def table(self) -> list[Method]:
        """The methods, for the bindings."""
        other, many = CallKind.OTHER, list[ListedTask]
        events = "List the stored events after a sequence number; an empty page means there are no more."
        children, count = "List the direct children of a task.", "Count the tasks in progress."
        status, statuses = "Get the status of tasks.", list[TaskStatusObject]
        return [
            Method("tasks.get", self.get, other, TaskParams, TaskObject, "Get a task."),
            Method("tasks.detail", self.get, other, TaskParams, TaskObject, "Get a task; the same as tasks.get."),
            Method("tasks.tree", self.tree, other, TreeParams, TreeObject, "Get the whole tree of a task."),
            Method("tasks.children", self.children, other, ChildrenParams, list[TaskObject], children),
            Method("tasks.list", self.list_tasks, other, ListParams, many, "List matching tasks, newest first."),
            Method("tasks.running.list", self.running_list, other, RunningParams, many, "List the tasks in progress."),
            Method("tasks.running.status", self.running_status, other, RunningStatusParams, statuses, status),
            Method("tasks.running.count", self.running_count, other, RunningParams, TaskCount, count),
            Method("tasks.events", self.events, other, EventsParams, list[EventObject], events),
        ]

    async def get(self, context: RequestContext, params: TaskParams) -> Any:
        """The task's own status, and its tree's as `tree_status`."""
        task = await seen_task(self._session, context.principal.scope, params.task_id)
        head = await self._session.storage.head(task.tree_id) if task.tree_id else None
        return as_told(task_object(task, head, for_operator=is_for_operator(context.principal)), (task,))

    async def tree(self, context: RequestContext, params: TreeParams) -> Any:
        """The root with its `children` and theirs."""
        given = [value for value in (params.task_id, params.root_id) if value is not None]
        if len(given) != 1:
            raise InvalidParams.of([Problem("task_id", "give either task_id or root_id")])
        head = await seen_head(self._session, context.principal.scope, given[0])
        return await shown_tree(self._session, context, head.id)

    async def children(self, context: RequestContext, params: ChildrenParams) -> Any:
        await seen_task(self._session, context.principal.scope, params.parent_id)
        shown = partial(task_object, for_operator=is_for_operator(context.principal))
        tasks = await self._session.storage.children(params.parent_id)
        return as_told(await in_pieces(tasks, shown), tasks)

    async def list_tasks(self, context: RequestContext, params: ListParams) -> Any:
        """Roots come with their tree's status."""
        scope = context.principal.scope
        query = TaskQuery(
            owner=scope.owner,
            tenant=scope.tenant,
            root_only=params.root_only,
            statuses=None if params.status is None else frozenset({params.status}),
            user_id=params.user_id,
            name=params.name,
            context_id=params.context_id,
            since=None if params.since is None else params.since.timestamp(),
            before=place_of(params.page_token),
            limit=params.limit,
        )
        storage = self._session.storage
        tasks = await storage.tasks(query)
        heads = [await readable(storage.head(task.id)) if task.tree_id == task.id else None for task in tasks]
        row = partial(_row, for_operator=is_for_operator(context.principal))
        return as_told(await in_pieces(zip(tasks, heads, strict=True), lambda shown: row(*shown)), tasks)

    async def running_list(self, context: RequestContext, params: RunningParams) -> Any:
        query = replace(_running(context, params), before=place_of(params.page_token), limit=params.limit)
        row = partial(_row, for_operator=is_for_operator(context.principal))
        tasks = await self._session.storage.tasks(query)
        return as_told(await in_pieces(tasks, row), tasks)

    async def running_count(self, context: RequestContext, params: RunningParams) -> TaskCount:
        return {"count": await self._session.storage.count(_running(context, params))}

    async def running_status(self, context: RequestContext, params: RunningStatusParams) -> list[TaskStatusObject]:
        """One answer for each id, in their order; an unknown one has the status "not_found"."""
        answers: list[TaskStatusObject] = []
        for task_id in ids_of(params.task_ids):
            try:
                answers.append(_status_row(await seen_task(self._session, context.principal.scope, task_id)))
            except TaskNotFound:
                answers.append({"task_id": task_id, "status": "not_found", "is_running": False})
        return answers

    async def events(self, context: RequestContext, params: EventsParams) -> Any:
        """As the streams tell them, a root's for its whole tree; at most `limit`, and none only behind the last one.

        What is compacted is told as one.
        """
        head = await seen_head(self._session, context.principal.scope, params.task_id)
        storage = self._session.storage
        only = None if params.task_id == head.id else params.task_id
        told: list[dict[str, Any]] = []
        after = params.after
        if after < (compacted := await storage.compacted(head.id)):
            told.append(compacted_event(head, compacted))
            after = compacted
        room = params.limit - len(told)
        frames: list[dict[str, Any]] = []
        while room and not frames:
            page = await storage.events(
                EventQuery(tree_id=head.id, after=after, task_id=only, limit=room, max_bytes=LOG_BYTES)
            )
            if not page:
                break
            after = page[-1].seq
            frames = [frame for recorded in page if (frame := stream_event(recorded)) is not None]
        # A page has LOG_BYTES, unless of one event: all others are quickly encoded.
        return Large(told + frames) if len(frames) == 1 and not is_small(frames) else told + frames


async def shown_tree(session: Session, context: RequestContext, tree_id: str) -> Any:
    """The root with its `children` and theirs, as its caller sees them. Raises TaskNotFound."""
    head, tasks = await load(session, tree_id, LIST_BYTES)
    node = partial(tree_node, head=head, for_operator=is_for_operator(context.principal))
    nodes = await in_pieces(tasks, node)
    made = nested(head.id, nodes) if len(nodes) < MANY else await asyncio.to_thread(nested, head.id, nodes)
    return as_told(made | {"root_task_id": head.id}, tasks)


async def load(session: Session, tree_id: str, most: int | None = None) -> tuple[TreeHead, list[Task]]:
    stored = await session.storage.load(tree_id, most=most)
    if stored is None:
        raise TaskNotFound(tree_id)
    return stored


def is_for_operator(caller: Principal) -> bool:
    """Whether the caller sees whose a task is and details of errors: operators do, without authentication nobody."""
    return caller.is_operator and caller.owner != ANONYMOUS


def ids_of(given: "str | list[str]") -> "list[str]":
    ids = [part.strip() for part in given.split(",")] if isinstance(given, str) else given
    if not all(ids) or len(ids) > MOST_IDS:
        raise InvalidParams.of([Problem("task_ids", f"must be 1 to {MOST_IDS} ids")])
    return ids


def _running(context: RequestContext, params: RunningParams) -> TaskQuery:
    in_progress = frozenset({TaskStatus.IN_PROGRESS})
    scope = context.principal.scope
    return TaskQuery(
        owner=scope.owner, tenant=scope.tenant, root_only=False, statuses=in_progress, user_id=params.user_id
    )


def _row(task: Task, head: TreeHead | None = None, *, for_operator: bool = False) -> ListedTask:
    """A task in a list, with where the page behind it begins."""
    return {**task_object(task, head, for_operator=for_operator), "page_token": token_of(task)}


def _status_row(task: Task) -> TaskStatusObject:
    fields = task_object(task)
    return {
        "task_id": task.id,
        "is_running": task.is_running,
        "status": fields["status"],
        "progress": fields["progress"],
        "error": fields["error"],
        "started_at": fields["started_at"],
        "updated_at": fields["updated_at"],
        "root_task_id": fields["root_task_id"],
        "name": fields["name"],
    }
