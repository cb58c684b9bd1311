"""The methods `tasks.*` that make and run trees."""

from collections.abc import AsyncGenerator
from functools import partial
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method
from a2a_server.bindings.keyed import HEADER
from a2a_server.edge.overload import CallKind
from a2a_server.methods.access import seen_head
from a2a_server.methods.idempotency import Acceptance, Documents
from a2a_server.methods.reading import check_resume
from a2a_server.methods.task_params import (
    CreateParams,
    ExecuteParams,
)
from a2a_server.methods.task_reads import load, shown_tree
from a2a_server.protocol.codec import decode
from a2a_server.protocol.errors import InvalidParams, PushNotificationNotSupported
from a2a_server.protocol.types import TaskPushNotificationConfig
from a2a_server.push.bodies import TASKS
from a2a_server.push.configs import DeliveryState
from a2a_server.push.webhooks import Caller, Subject, Webhooks, from_now_on
from a2a_server.views.frames import View
from a2a_server.views.streams import Streams
from a2a_server.views.task_objects import EventObject, StartedRun, StreamEnd, TreeObject
from core.model.errors import Problem, TaskNotFound
from core.model.plan import Limits
from core.model.submission import Submission
from core.model.task import TaskStatus, TreeHead
from core.session import Session, needs_caller

A2A, OURS = "a2a", "tasks"  # where a tree comes from: A2A clients see the first ones only


class Run(NamedTuple):
    """A run as a call meets it."""

    head: TreeHead
    task_id: str  # that was asked for
    after: int  # the number after which the events come that its caller has not seen


class Creation(NamedTuple):
    """What a call wants made: the method and the params that it is known by when it comes again, and the tasks."""

    operation: str
    params: Any
    items: Any
    execute: bool = False
    webhook: TaskPushNotificationConfig | None = None
    origin: str = OURS


class TaskRuns:
    """They make trees within `limits`; `webhooks` is None where there are none."""

    def __init__(
        self, session: Session, streams: Streams, acceptance: Acceptance, limits: Limits, webhooks: Webhooks | None
    ) -> None:
        self._session = session
        self._streams = streams
        self._open_tasks = acceptance.open_tasks
        self._idempotency = acceptance.idempotency
        self._limits = limits
        self._webhooks = webhooks

    def table(self) -> list[Method]:
        """The methods, for the bindings."""
        work, stream = CallKind.WORK, _wants_stream
        run = (StartedRun, TreeObject, EventObject, StreamEnd)  # begun, ended (`wait`), followed (`use_streaming`)
        create, execute = "Store a tree of tasks, all or nothing.", "Run a stored tree, or a new one."
        return [
            Method("tasks.create", self.create, work, CreateParams, TreeObject, create, is_raw=True),
            Method("tasks.execute", self.execute, work, ExecuteParams, run, execute, is_stream=stream),
        ]

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
        made = await self._make(context, Creation("tasks.create", items, items))
        return await shown_tree(self._session, context, made.head.id)

    async def execute(self, context: RequestContext, params: ExecuteParams) -> Any:
        """At once, or with `wait` when the tree has ended or asks; with `use_streaming` the frames of the run."""
        _check_execute(params, context)
        webhook = self._webhook(params)
        resumes = params.use_streaming and context.last_event_id is not None
        if params.tasks is not None:
            origin = A2A if params.a2a else OURS
            creation = Creation("tasks.execute", params, params.tasks, execute=True, webhook=webhook, origin=origin)
            run = await self._make(context, creation)
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
            return await shown_tree(self._session, context, run.head.id)
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

    async def _make(self, context: RequestContext, wanted: Creation) -> Run:
        """The tree of these tasks: stored now, or found where the request came before under its key."""
        claim = await self._idempotency.claim(context, wanted.operation, wanted.params)
        webhook, origin = wanted.webhook, wanted.origin

        async def make() -> Run:
            planned = partial(self._session.plan, wanted.items, owner=context.owner, limits=self._limits)
            plan = planned() if context.aside is None else await context.aside.run(context.owner, planned)
            await self._open_tasks.admit(context.owner, len(plan.tasks))
            root_id = plan.root_id
            documents: Documents = () if claim is None else (claim.document(root_id, root_id),)
            enrolled = None
            if webhook is not None and self._webhooks is not None:
                caller, begin = Caller(context.owner, TASKS), DeliveryState(shown=TaskStatus.PENDING.value)
                enrolled = self._webhooks.prepare(caller, webhook, Subject(root_id, root_id, begin))
                documents += enrolled.documents
            given = Submission(origin=origin, context_id=self._session.clock.new_id() if origin == A2A else None)
            is_large = context.aside is not None
            started = await self._session.create(
                plan, given, execute=wanted.execute, documents=documents, is_large=is_large
            )
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
            subject = from_now_on(before, before.id, before.status)
            await self._webhooks.add(Caller(context.owner, TASKS), webhook, subject)
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
        _, tasks = await load(self._session, copy.id)
        return copy, next(task.id for task in tasks if task.original_task_id == task_id)

    async def _stream(self, run: Run) -> AsyncGenerator[Any, None]:
        tree_id = run.head.id
        first = await self._started(tree_id, run.task_id)
        # The run is the tree's, so its stream is too, whichever task was asked for.
        return self._streams.tasks(run.head, View(tree_id, tree_id, ""), run.after, first=first)

    async def _started(self, tree_id: str, task_id: str) -> StartedRun:
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


def _wants_stream(params: ExecuteParams) -> bool:
    return params.use_streaming
