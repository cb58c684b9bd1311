"""The `tasks.*` methods (semantics §7). They see every tree of their caller, whichever endpoint it came in through."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from a2a_server.auth.principal import Principal
from a2a_server.bindings.aside import MANY
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Large, Method
from a2a_server.bindings.keyed import HEADER
from a2a_server.edge.overload import Kind
from a2a_server.methods.access import OpenTasks, readable, seen_head, seen_task
from a2a_server.methods.cancels import Cancels
from a2a_server.methods.idempotency import Documents, Idempotency
from a2a_server.methods.large_tasks import as_told
from a2a_server.methods.reading import check_resume
from a2a_server.methods.task_pages import FIELD, place_of, token_of
from a2a_server.methods.task_params import (
    AnswerParams,
    CancelParams,
    ChildrenParams,
    CopyParams,
    CreateParams,
    EventsParams,
    ExecuteParams,
    ListParams,
    RunningParams,
    RunningStatusParams,
    TaskParams,
    TreeParams,
    UpdateParams,
    ids_of,
)
from a2a_server.protocol.codec import decode
from a2a_server.protocol.errors import InvalidParams, PushNotificationNotSupported
from a2a_server.protocol.types import TaskPushNotificationConfig
from a2a_server.push.bodies import TASKS
from a2a_server.push.configs import DeliveryState
from a2a_server.push.webhooks import Caller, Webhooks
from a2a_server.views.frames import View
from a2a_server.views.streams import Streams
from a2a_server.views.task_view import nested, task_object, tree_node
from core.loop.large_values import is_small
from core.loop.pieces import in_pieces
from core.model.commands import ProvideInput
from core.model.errors import Problem, TaskNotFound
from core.model.plan import Limits
from core.model.streaming import compacted_event, stream_event
from core.model.submission import Submission
from core.model.task import ANONYMOUS, Task, TaskStatus, TreeHead
from core.session import Session, needs_caller
from core.storage.base import LIST_BYTES, LOG_BYTES, EventQuery, TaskQuery

logger = logging.getLogger(__name__)

A2A, OURS = "a2a", "tasks"  # where a tree comes from: A2A clients see the first ones only


class Run(NamedTuple):
    """A run as a call meets it."""

    head: TreeHead
    task_id: str  # that was asked for
    after: int  # the number after which the events come that its caller has not seen


class TasksMethods:
    """The methods, over one session."""

    def __init__(
        self,
        session: Session,
        streams: Streams,
        open_tasks: OpenTasks,
        idempotency: Idempotency,
        *,
        limits: Limits,
        webhooks: Webhooks | None,
    ) -> None:
        self._session = session
        self._streams = streams
        self._open_tasks = open_tasks
        self._idempotency = idempotency
        self._limits = limits
        self._webhooks = webhooks
        self._cancels = Cancels(session)

    def table(self) -> list[Method]:
        """The methods, for the bindings."""
        array, one = list[dict[str, Any]], dict[str, Any]
        stream = _wants_stream
        free, other, work = Kind.SPARED, Kind.OTHER, Kind.WORK
        return [
            _method("create", self.create, work, CreateParams, one, "Store a tree of tasks, all or nothing.", raw=True),
            _method(
                "execute", self.execute, work, ExecuteParams, one, "Run a stored tree, or a new one.", stream=stream
            ),
            _method(
                "cancel", self._cancels.cancel, free, CancelParams, array, "Cancel tasks and everything below them."
            ),
            _method("answer", self.answer, other, AnswerParams, one, "Answer the open questions of a task."),
            _method("get", self.get, other, TaskParams, one, "Get a task."),
            _method("detail", self.get, other, TaskParams, one, "Get a task; the same as tasks.get."),
            _method("tree", self.tree, other, TreeParams, one, "Get the whole tree of a task."),
            _method("children", self.children, other, ChildrenParams, array, "List the direct children of a task."),
            _method("list", self.list_tasks, other, ListParams, array, "List matching tasks, newest first."),
            _method("update", self.update, other, UpdateParams, one, "Change fields of a pending task.", raw=True),
            _method("delete", self.delete, other, TaskParams, one, "Delete a tree that is not running."),
            _method(
                "copy", self.copy, work, CopyParams, one, "Copy a task and everything below it to a new pending tree."
            ),
            _method("running.list", self.running_list, other, RunningParams, array, "List the tasks in progress."),
            _method(
                "running.status", self.running_status, other, RunningStatusParams, array, "Get the status of tasks."
            ),
            _method("running.count", self.running_count, other, RunningParams, one, "Count the tasks in progress."),
            _method(
                "events",
                self.events,
                other,
                EventsParams,
                array,
                "List the stored events after a sequence number; an empty page means there are no more.",
            ),
        ]

    # Making and running

    async def create(self, context: RequestContext, params: Any) -> Any:
        """Raises InvalidPlan with everything that is wrong; then nothing is stored."""
        items = params
        if isinstance(params, dict):
            if "tasks" not in params:
                items = [params]
            elif unknown := [name for name in params if name != "tasks"]:
                raise InvalidParams.of([Problem(name[:80], "unknown field beside tasks") for name in unknown[:100]])
            else:
                items = params["tasks"]
        made = await self._make(context, "tasks.create", items, items, execute=False)
        return await self._tree(context, made.head.id)

    async def execute(self, context: RequestContext, params: ExecuteParams) -> Any:
        """At once, or with `wait` when the tree has ended or asks; with `use_streaming` the frames of the run."""
        _check_execute(params, context)
        webhook = self._webhook(params)
        resumes = params.use_streaming and context.last_event_id is not None
        if params.tasks is not None:
            origin = A2A if params.a2a else OURS
            run = await self._make(
                context, "tasks.execute", params, params.tasks, execute=True, webhook=webhook, origin=origin
            )
        elif resumes:
            task_id = params.task_id or ""
            head = await seen_head(self._session, context.principal.scope, task_id)
            run = Run(head, task_id, check_resume(head, context.last_event_id))
        else:
            run = await self._execute_stored(context, params, webhook)
        if params.use_streaming:
            return await self._stream(run)
        if params.wait:
            context.permit.park()
            await self._session.wait(run.head.id, lambda head: head.version >= run.head.version and needs_caller(head))
            return await self._tree(context, run.head.id)
        return await self._started(run.head.id, run.task_id)

    def _webhook(self, params: ExecuteParams) -> TaskPushNotificationConfig | None:
        """The request's webhook, checked. Raises InvalidParams, PushNotificationNotSupported."""
        if params.webhook_config is None:
            return None
        if self._webhooks is None:
            raise PushNotificationNotSupported
        webhook = decode(msgspec.to_builtins(params.webhook_config), TaskPushNotificationConfig)
        self._webhooks.check(webhook, "webhook_config.")
        # The same address again is the same webhook: it gets the run's events once.
        return replace(webhook, id=sha256(webhook.url.encode()).hexdigest()[:32])

    async def _make(
        self,
        context: RequestContext,
        operation: str,
        params: Any,
        items: Any,
        *,
        execute: bool,
        webhook: TaskPushNotificationConfig | None = None,
        origin: str = OURS,
    ) -> Run:
        """The tree of these tasks: stored now, or found where the request came before under its key."""
        claim = await self._idempotency.claim(context, operation, params)

        async def make() -> Run:
            planned = partial(self._session.plan, items, owner=context.owner, limits=self._limits)
            plan = planned() if context.aside is None else await context.aside.run(context.owner, planned)
            await self._open_tasks.admit(context.owner, len(plan.tasks))
            root_id = plan.root_id
            documents: Documents = () if claim is None else (claim.document(root_id, root_id),)
            enrolled = None
            if webhook is not None and self._webhooks is not None:
                caller, begin = Caller(context.owner, TASKS), DeliveryState(shown=TaskStatus.PENDING.value)
                enrolled = self._webhooks.prepare(caller, webhook, task_id=root_id, tree_id=root_id, delivery=begin)
                documents += enrolled.documents
            given = Submission(origin=origin, context_id=self._session.clock.new_id() if origin == A2A else None)
            is_large = context.aside is not None
            started = await self._session.create(plan, given, execute=execute, documents=documents, is_large=is_large)
            if enrolled is not None and self._webhooks is not None:
                self._webhooks.enroll(enrolled)
            return Run(started.head, root_id, started.before)

        async def again(task_id: str) -> Run:
            return Run(await seen_head(self._session, context.principal.scope, task_id), task_id, 0)

        return await self._idempotency.once(claim, make, again)

    async def _execute_stored(
        self, context: RequestContext, params: ExecuteParams, webhook: TaskPushNotificationConfig | None
    ) -> Run:
        """Start a run."""
        task_id, force = params.task_id or "", params.force
        before = await seen_head(self._session, context.principal.scope, task_id)
        if before.origin == A2A and not before.is_live:
            before, task_id = await self._copy_of_ended(context, before, task_id, force=force)
        if webhook is not None and self._webhooks is not None:
            await self._session.would_execute(task_id, force=force)  # a run that is refused brings no webhook
            await self._webhooks.add(Caller(context.owner, TASKS), webhook, before, before.id, before.status)
        started = await self._session.execute(task_id, force=force, by=context.acts_for(before.owner))
        return Run(started.head, task_id, started.before)

    async def _copy_of_ended(
        self, context: RequestContext, head: TreeHead, task_id: str, *, force: bool
    ) -> tuple[TreeHead, str]:
        """A2A's terminal states are final: a new tree takes over what is completed (semantics §3).

        Raises NothingToRun, judged by the tree itself, so that no copy is made in vain.
        """
        await self._session.would_execute(task_id, force=force)
        await self._open_tasks.admit(head.owner, head.size)
        submission = Submission(context_id=head.context_id, by=context.acts_for(head.owner))
        copy = (await self._session.copy(head.id, submission, keep_results=True)).head
        if task_id == head.id:
            return copy, copy.id
        _, tasks = await self._load(copy.id)
        return copy, next(task.id for task in tasks if task.original_task_id == task_id)

    async def _stream(self, run: Run) -> AsyncGenerator[Any, None]:
        tree_id = run.head.id
        first = await self._started(tree_id, run.task_id)
        # The run is the tree's, so its stream is too, whichever task was asked for.
        return self._streams.tasks(run.head, View(tree_id, tree_id, ""), run.after, first=first)

    async def _started(self, tree_id: str, task_id: str) -> dict[str, Any]:
        head = await self._session.storage.head(tree_id)
        if head is None:
            raise TaskNotFound(tree_id)
        return {
            "success": True,
            "root_task_id": tree_id,
            "task_id": task_id,
            "status": head.status,
            "message": f"Run {head.run} of task {tree_id} has started",
        }

    async def answer(self, context: RequestContext, params: AnswerParams) -> Any:
        """The task, which goes on with the answer.

        Raises IllegalCommand when it asks nothing, InvalidPlan for `answers` that are not as many as its questions.
        """
        if (params.answer is UNSET) is (params.answers is UNSET):
            raise InvalidParams.of([Problem("answer", "is required; for several questions give answers, one for each")])
        head = await seen_head(self._session, context.principal.scope, params.task_id)
        by = context.acts_for(head.owner)
        if params.answers is UNSET:
            given = ProvideInput(params.task_id, params.answer, by=by)
        else:
            each = tuple(params.answers)
            given = ProvideInput(params.task_id, params.answers, by=by, each=each, is_exact=True)
        await self._session.provide_input(given)
        return await self.get(context, TaskParams(task_id=params.task_id))

    async def update(self, context: RequestContext, params: Any) -> Any:
        """Raises InvalidPlan with every field that is wrong, TreeIsRunning when the task cannot be changed any more."""
        changes = dict(params) if isinstance(params, dict) else {}
        task_id = changes.pop("task_id", None)
        if not isinstance(task_id, str) or not task_id:
            raise InvalidParams.of([Problem("task_id", "is required and must be a string")])
        if not changes:
            raise InvalidParams.of([Problem("params", "name at least one field to change")])
        head = await seen_head(self._session, context.principal.scope, task_id)
        task = await self._session.update(task_id, changes, by=context.acts_for(head.owner))
        return as_told(task_object(task, head, with_detail=_sees_details(context.principal)), (task,))

    async def delete(self, context: RequestContext, params: TaskParams) -> dict[str, Any]:
        """Raises TreeIsRunning while anything in the tree runs, and for a task that is not a root."""
        task = await seen_task(self._session, context.principal.scope, params.task_id)
        await self._session.delete(params.task_id)
        if (by := context.acts_for(task.owner)) is not None:  # the log of its events is gone with it
            logger.info("tree %s of %s was deleted by %s", task.id, task.owner, by)
        return {"success": True, "task_id": params.task_id, "message": f"Task {params.task_id} was deleted"}

    async def copy(self, context: RequestContext, params: CopyParams) -> Any:
        """A pending tree; `original_task_id` says where each task comes from."""
        head = await seen_head(self._session, context.principal.scope, params.task_id)
        await self._open_tasks.admit(head.owner, head.size if params.children else 1)
        submission = Submission(context_id=head.context_id, by=context.acts_for(head.owner))
        copy = await self._session.copy(params.task_id, submission, children=params.children)
        return await self._tree(context, copy.head.id)

    # Reading

    async def get(self, context: RequestContext, params: TaskParams) -> Any:
        """The task's own status, and its tree's as `tree_status`."""
        task = await seen_task(self._session, context.principal.scope, params.task_id)
        head = await self._session.storage.head(task.tree_id) if task.tree_id else None
        return as_told(task_object(task, head, with_detail=_sees_details(context.principal)), (task,))

    async def tree(self, context: RequestContext, params: TreeParams) -> Any:
        """The root with its `children` and theirs."""
        given = [value for value in (params.task_id, params.root_id) if value is not None]
        if len(given) != 1:
            raise InvalidParams.of([Problem("task_id", "give either task_id or root_id")])
        head = await seen_head(self._session, context.principal.scope, given[0])
        return await self._tree(context, head.id)

    async def children(self, context: RequestContext, params: ChildrenParams) -> Any:
        await seen_task(self._session, context.principal.scope, params.parent_id)
        shown = partial(task_object, with_detail=_sees_details(context.principal))
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
        row = partial(_row, with_detail=_sees_details(context.principal))
        return as_told(await in_pieces(zip(tasks, heads, strict=True), lambda shown: row(*shown)), tasks)

    async def running_list(self, context: RequestContext, params: RunningParams) -> Any:
        query = replace(_running(context, params), before=place_of(params.page_token), limit=params.limit)
        row = partial(_row, with_detail=_sees_details(context.principal))
        tasks = await self._session.storage.tasks(query)
        return as_told(await in_pieces(tasks, row), tasks)

    async def running_count(self, context: RequestContext, params: RunningParams) -> dict[str, Any]:
        return {"count": await self._session.storage.count(_running(context, params))}

    async def running_status(self, context: RequestContext, params: RunningStatusParams) -> list[dict[str, Any]]:
        """One answer for each id, in their order; an unknown one has the status "not_found"."""
        answers: list[dict[str, Any]] = []
        for task_id in ids_of(params.task_ids):
            try:
                answers.append(_standing(await seen_task(self._session, context.principal.scope, task_id)))
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

    async def _tree(self, context: RequestContext, tree_id: str) -> Any:
        head, tasks = await self._load(tree_id, LIST_BYTES)
        node = partial(tree_node, head=head, with_detail=_sees_details(context.principal))
        nodes = await in_pieces(tasks, node)
        made = nested(head.id, nodes) if len(nodes) < MANY else await asyncio.to_thread(nested, head.id, nodes)
        return as_told(made | {"root_task_id": head.id}, tasks)

    async def _load(self, tree_id: str, most: int | None = None) -> tuple[TreeHead, list[Task]]:
        stored = await self._session.storage.load(tree_id, most=most)
        if stored is None:
            raise TaskNotFound(tree_id)
        return stored


def _check_execute(params: ExecuteParams, context: RequestContext) -> None:
    problems: list[Problem] = []
    if context.idempotency_key is not None and params.tasks is None:
        problems.append(Problem(HEADER, "only for new tasks: running a stored tree creates none"))
    if (params.task_id is None) == (params.tasks is None):
        problems.append(Problem("task_id", "give either task_id or tasks"))
    if params.use_streaming and params.wait:
        problems.append(Problem("wait", "use_streaming and wait cannot be combined"))
    if params.a2a and params.tasks is None:
        problems.append(Problem("a2a", "is only for new tasks: a stored tree cannot be changed"))
    if params.tasks is not None and params.use_streaming and context.last_event_id is not None:
        problems.append(Problem("Last-Event-ID", "tasks are not created twice; resume the stream with task_id"))
    if problems:
        raise InvalidParams.of(problems)


def _method(
    name: str,
    handler: Any,
    load: Kind,
    params: Any,
    result: Any,
    summary: str,
    *,
    raw: bool = False,
    stream: Any = False,
) -> Method:
    return Method(
        name=f"tasks.{name}",
        handler=handler,
        load=load,
        params_type=params,
        result_type=result,
        summary=summary,
        is_raw=raw,
        is_stream=stream,
    )


def _sees_details(caller: Principal) -> bool:
    """Whether the caller sees the details of errors: operators do, but nobody without authentication."""
    return caller.is_operator and caller.owner != ANONYMOUS


def _wants_stream(params: ExecuteParams) -> bool:
    return params.use_streaming


def _running(context: RequestContext, params: RunningParams) -> TaskQuery:
    in_progress = frozenset({TaskStatus.IN_PROGRESS})
    scope = context.principal.scope
    return TaskQuery(
        owner=scope.owner, tenant=scope.tenant, root_only=False, statuses=in_progress, user_id=params.user_id
    )


def _row(task: Task, head: TreeHead | None = None, *, with_detail: bool = False) -> dict[str, Any]:
    """A task in a list, with where the page behind it begins."""
    return task_object(task, head, with_detail=with_detail) | {FIELD: token_of(task)}


def _standing(task: Task) -> dict[str, Any]:
    shown = ("status", "progress", "error", "started_at", "updated_at", "root_task_id", "name")
    fields = task_object(task)
    return {"task_id": task.id, "is_running": task.is_running} | {name: fields[name] for name in shown}
