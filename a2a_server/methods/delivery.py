"""A message on its way to its task: checked, stored once, as a new tree or with the task that it names."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import NamedTuple

from msgspec.structs import replace

from a2a_server.auth.principal import Principal
from a2a_server.bindings.context import RequestContext
from a2a_server.methods.access import caller_of
from a2a_server.methods.content import check_message
from a2a_server.methods.idempotency import Acceptance, Claim, Documents
from a2a_server.methods.intake import Intake, check_input_modes, read, said_of, tree_modes, usable
from a2a_server.methods.reading import ORIGIN, TaskReader
from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import InvalidParams, PushNotificationNotSupported, UnsupportedOperation
from a2a_server.protocol.states import STATES
from a2a_server.push.configs import DeliveryState
from a2a_server.push.webhooks import Enrolled, Subject, Webhooks, from_now_on
from a2a_server.views.translate import (
    answer_value,
    answer_values,
    context_of,
    message_value,
)
from core.model import events as e
from core.model.commands import ProvideInput
from core.model.errors import IllegalCommand, Problem, TaskNotFound
from core.model.events import Recorded
from core.model.plan import Limits, Plan
from core.model.submission import Submission
from core.model.task import TaskStatus, TreeHead
from core.session import Session
from core.storage.base import TreeQuery


class MessageRules(NamedTuple):
    """What the operator decided about messages."""

    limits: Limits
    default_skill: str | None  # for messages that name none
    max_file: int  # bytes of a `raw` part
    takes_context_ids: bool  # whether clients may mint contexts (A2A §3.4.1)
    extensions: frozenset[str] = frozenset()  # those in the card


class Addressed(NamedTuple):
    """The task that a message made or went to, and of a new one what was said: that is all there is of it then."""

    head: TreeHead
    task_id: str
    said: Recorded | None = None


class MessageDelivery:
    """Delivers messages to the trees of one session."""

    def __init__(
        self, session: Session, acceptance: Acceptance, rules: MessageRules, webhooks: Webhooks | None
    ) -> None:
        self._session = session
        self._open_tasks = acceptance.open_tasks
        self._idempotency = acceptance.idempotency
        self._rules = rules
        self._webhooks = webhooks
        self._reader = TaskReader(session)

    def check(self, params: wire.SendMessageRequest) -> None:
        """Raise the error for a message that cannot be delivered whatever there is."""
        if params.message.role is not wire.Role.USER:
            text = f"must be {wire.Role.USER}: clients send messages as the user"
            raise InvalidParams.of([Problem("message.role", text)])
        check_message(params.message, max_file=self._rules.max_file)
        if (webhook := params.configuration.task_push_notification_config) is not None:
            if self._webhooks is None:
                raise PushNotificationNotSupported
            self._webhooks.check(webhook, "configuration.taskPushNotificationConfig.")

    async def deliver(self, context: RequestContext, params: wire.SendMessageRequest, held: ExitStack) -> Addressed:
        """Store the message, once, as a new task, whose log is then held in memory, or with the task it names."""
        message = params.message
        # One by one, since a configuration of defaults may be given or not; the tenant is the owner's.
        digested = (message, params.configuration, params.metadata)
        claim = await self._idempotency.claim(context, "SendMessage", digested, message_id=message.message_id)

        async def make() -> Addressed:
            if message.task_id:
                return await self._continue(context, params, claim)
            return await self._create(context, params, claim, held)

        async def again(task_id: str) -> Addressed:
            return Addressed(await self._reader.find(context.owner, task_id), task_id)

        return await self._idempotency.once(claim, make, again)

    async def _create(
        self, context: RequestContext, params: wire.SendMessageRequest, claim: Claim | None, held: ExitStack
    ) -> Addressed:
        """Store the message's tree and start it; the tree as it was then."""
        message, session = params.message, self._session
        await self._check_context(context.owner, message.context_id)
        if context.aside is None:
            intake, plan = self._plan(context.principal, params)
        else:
            intake, plan = await context.aside.run(context.owner, self._plan, context.principal, params)
        references = await self._visible(context.owner, message.reference_task_ids)
        await self._open_tasks.admit(context.owner, len(plan.tasks))
        context_id = message.context_id or session.clock.new_id()
        value = message_value(replace(message, task_id=plan.root_id, context_id=context_id))
        enrolled = self._enrolled(context, params, plan.root_id)
        held.enter_context(session.feed.held(plan.root_id))
        submission = Submission(
            origin=ORIGIN,
            context_id=context_id,
            metadata=intake.request(value, references, self._activated(context)),
            message=said_of(value),
        )
        started = await session.create(
            plan,
            submission,
            execute=True,
            documents=_documents(claim, plan.root_id, plan.root_id) + (enrolled.documents if enrolled else ()),
            is_large=context.aside is not None,
        )
        if enrolled is not None and self._webhooks is not None:
            self._webhooks.enroll(enrolled)
        said = next(each for each in started.events if isinstance(each.event, e.MessageReceived))
        return Addressed(started.head.bare(), plan.root_id, said)

    def _activated(self, context: RequestContext) -> tuple[str, ...]:
        """The extensions that the request names and the card, too."""
        return tuple(sorted(self._rules.extensions.intersection(context.extensions)))

    def _enrolled(self, context: RequestContext, params: wire.SendMessageRequest, task_id: str) -> Enrolled | None:
        """The webhook that the message brings for its new task."""
        webhook = params.configuration.task_push_notification_config
        if webhook is None or self._webhooks is None:
            return None
        begin = DeliveryState(shown=TaskStatus.PENDING.value)
        return self._webhooks.prepare(caller_of(context), webhook, Subject(task_id, task_id, begin))

    def _plan(self, caller: Principal, params: wire.SendMessageRequest) -> tuple[Intake, Plan]:
        """The tasks that the message asks for. Raises InvalidPlan in the request's own paths, and A2AErrors."""
        session = self._session
        registry = usable(session.registry, caller)
        intake = read(params, registry, self._rules.default_skill)
        limits = self._rules.limits
        plan = intake.planned(partial(session.plan, owner=caller.owner, limits=limits, registry=registry))
        intake.check_output(plan, session.registry)
        return intake, plan

    async def _check_context(self, owner: str, context_id: str) -> None:
        """Refuse a context that the caller minted, where the operator wants it so; it is never replaced (§3.4.1)."""
        if not context_id or self._rules.takes_context_ids:
            return
        known = await self._session.storage.trees(TreeQuery(owner=owner, context_id=context_id, limit=1))
        if not known.total:
            text = "unknown context; this server assigns context ids, so omit contextId"
            raise InvalidParams.of([Problem("message.contextId", text)])

    async def _visible(self, owner: str, task_ids: Sequence[str]) -> list[str]:
        """Those of the tasks that the caller may see: a foreign one goes the way of a missing one (§3.3.2)."""
        seen = []
        for task_id in dict.fromkeys(task_ids):
            try:
                await self._reader.find(owner, task_id)
            except TaskNotFound:
                continue
            seen.append(task_id)
        return seen

    async def _continue(
        self, context: RequestContext, params: wire.SendMessageRequest, claim: Claim | None
    ) -> Addressed:
        """Hand a message to the task it names: as the answer to its question, else for its history (spec §3.4.2)."""
        message = params.message
        task_id = message.task_id
        head = await self._reader.find(context.owner, task_id)
        if message.context_id and message.context_id != context_of(head):
            raise InvalidParams.of([Problem("message.contextId", "is not this task's context")])
        status = await self._reader.status(head, task_id)
        if status.is_terminal:
            raise UnsupportedOperation(
                f"Task {task_id} has ended ({STATES[status]}) and accepts no more messages",
                metadata={"taskId": task_id},
            )
        await self._check_modes(message)
        webhook = params.configuration.task_push_notification_config
        if webhook is not None and self._webhooks is not None:
            # Clients send it along with every message of a conversation.
            await self._webhooks.add(caller_of(context), webhook, from_now_on(head, task_id, status), by_address=True)
        await self._session.stored.require_room(head.owner)
        said = said_of(message_value(replace(message, context_id=context_of(head))))
        documents = _documents(claim, head.id, task_id)
        try:
            given = ProvideInput(
                task_id,
                answer_value(message),
                said,
                each=answer_values(message),
                extensions=self._activated(context),
            )
            await self._session.provide_input(given, documents)
        except IllegalCommand:  # nothing is asked, or the question was answered a moment ago
            await self._session.receive_message(task_id, said, documents)
        return Addressed(await self._reader.find(context.owner, task_id), task_id)

    async def _check_modes(self, message: wire.Message) -> None:
        """Judge the media types of a message by the executor of the task that it names."""
        registry = self._session.registry
        task = await self._session.storage.task(message.task_id)
        spec = registry.get(task.executor) if task is not None and task.executor else None
        check_input_modes(message, tree_modes(registry) if spec is None else spec.input_modes)


def _documents(claim: Claim | None, tree_id: str, task_id: str) -> Documents:
    return () if claim is None else (claim.document(tree_id, task_id),)
