"""The methods of A2A v1.0 (specification §3.1, §9.4). They see the trees that came in through A2A, and no others."""

import asyncio
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from a2a_server.context import Principal, RequestContext
from a2a_server.dialect import A2A_1_0
from a2a_server.intake import check_output_modes, request_of, work_of
from a2a_server.jsonrpc import Frame, Handler, Method
from a2a_server.methods.access import OpenTasks, owned_head, readable
from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import (
    ExtensionSupportRequired,
    InvalidParams,
    PushNotificationNotSupported,
    UnsupportedOperation,
)
from a2a_server.streams import Streams, View, read_events
from a2a_server.translate import (
    STATES,
    STATUSES,
    answer_value,
    context_of,
    kinds,
    message_value,
    reply_message,
    snapshot,
)
from core import events as e
from core.errors import IllegalCommand, InvalidPlan, Problem
from core.events import Recorded
from core.plan import Limits
from core.session import Session, needs_caller
from core.storage.base import TreeQuery
from core.task import TaskStatus, TreeHead

ORIGIN = "a2a"
DEFAULT_PAGE = 50
REPLY_GRACE = 0.25  # seconds that a stream waits for a direct Message before it opens with the Task


class A2AMethods:
    """The eleven methods. `default_skill` is run for messages that name none."""

    def __init__(
        self,
        session: Session,
        streams: Streams,
        open_tasks: OpenTasks,
        *,
        limits: Limits,
        default_skill: str | None,
        required_extensions: Sequence[str] = (),
        extended_card: Callable[[Principal], wire.AgentCard] | None = None,
    ) -> None:
        self._session = session
        self._streams = streams
        self._open_tasks = open_tasks
        self._limits = limits
        self._default_skill = default_skill
        self._required = frozenset(required_extensions)
        self._extended_card = extended_card

    def table(self) -> list[Method]:
        """The methods as the door takes them."""
        push, listing = wire.TaskPushNotificationConfig, wire.ListTaskPushNotificationConfigsRequest
        one = wire.PushNotificationConfigRequest
        return [
            self._method("SendMessage", self.send_message, wire.SendMessageRequest, wire.SendMessageResponse),
            self._method(
                "SendStreamingMessage", self.stream_message, wire.SendMessageRequest, wire.StreamResponse, stream=True
            ),
            self._method("GetTask", self.get_task, wire.GetTaskRequest, wire.Task),
            self._method("ListTasks", self.list_tasks, wire.ListTasksRequest, wire.ListTasksResponse),
            self._method("CancelTask", self.cancel_task, wire.CancelTaskRequest, wire.Task),
            self._method(
                "SubscribeToTask", self.subscribe, wire.SubscribeToTaskRequest, wire.StreamResponse, stream=True
            ),
            self._method("GetExtendedAgentCard", self.extended_card, wire.GetExtendedAgentCardRequest, wire.AgentCard),
            self._method("CreateTaskPushNotificationConfig", _no_push, push, push),
            self._method("GetTaskPushNotificationConfig", _no_push, one, push),
            self._method(
                "ListTaskPushNotificationConfigs", _no_push, listing, wire.ListTaskPushNotificationConfigsResponse
            ),
            self._method("DeleteTaskPushNotificationConfig", _no_push, one, None),
        ]

    def _method(self, name: str, handler: Handler, params: Any, result: Any, *, stream: bool = False) -> Method:
        async def checked(context: RequestContext, given: Any) -> Any:
            if missing := self._required.difference(context.extensions):
                raise ExtensionSupportRequired(metadata={"extensions": ",".join(sorted(missing))})
            return await handler(context, given)

        return Method(
            name=name,
            handler=checked,
            params_type=params,
            result_type=result,
            summary=SUMMARIES[name],
            dialect=A2A_1_0,
            is_stream=stream,
        )

    # Messages

    async def send_message(self, context: RequestContext, params: wire.SendMessageRequest) -> wire.SendMessageResponse:
        """Answers when the task has ended or waits for its caller, with `returnImmediately` as soon as it is stored.

        A server that is stopping answers with the task as it is; its caller gets on with GetTask or SubscribeToTask.
        """
        _check_request(params)
        history_length = params.configuration.history_length
        if params.message.task_id:
            head, task_id = await self._continue(context, params.message), params.message.task_id
            if not params.configuration.return_immediately:
                head = await self._settled(head, task_id)
            return wire.SendMessageResponse(task=await self._snapshot(head, task_id, history_length))
        head, opening = await self._create(context, params)
        if params.configuration.return_immediately:
            return wire.SendMessageResponse(task=opening)
        head = await self._session.wait(head.id, needs_caller)
        events = await self._events(head, head.id)
        for recorded in events:
            if reply := reply_message(recorded, context_of(head)):
                return wire.SendMessageResponse(message=reply)
        return wire.SendMessageResponse(task=snapshot(head, head.id, events, history_length=history_length))

    async def stream_message(
        self, context: RequestContext, params: wire.SendMessageRequest
    ) -> AsyncGenerator[Frame, None]:
        """The task, then everything that happens to it, to its end or its first question."""
        _check_request(params)
        if context.last_event_id is not None:
            text = "a message is not sent twice: take the stream up with SubscribeToTask"
            raise InvalidParams.of([Problem("Last-Event-ID", text)])
        if params.message.task_id:
            head = await self._continue(context, params.message)
            view = View(head.id, params.message.task_id, context_of(head), context.dialect)
            first = await self._snapshot(head, view.task_id, params.configuration.history_length)
            return self._streams.a2a(head, view, head.version, first=first, until_input=True)
        head, opening = await self._create(context, params)
        return self._open_stream(View(head.id, head.id, context_of(head), context.dialect), head, opening)

    async def _open_stream(self, view: View, head: TreeHead, opening: wire.Task) -> AsyncGenerator[Frame, None]:
        """A new task's stream. Only a task on its own can be answered with a Message, and only with its first word."""
        if head.size == 1:
            try:
                async with asyncio.timeout(REPLY_GRACE):
                    said = await self._streams.peek_reply(head.id, head.version)
            except TimeoutError:
                said = None
            if said is not None and (reply := reply_message(said, context_of(head))):
                yield Frame(Raw(view.dialect.event(wire.StreamResponse(message=reply), True)), said.seq)
                return
        async with aclosing(self._streams.a2a(head, view, head.version, first=opening, until_input=True)) as frames:
            async for frame in frames:
                yield frame

    async def _create(self, context: RequestContext, params: wire.SendMessageRequest) -> tuple[TreeHead, wire.Task]:
        """Store the message's tree and start it; the tree as it was then, and how a client sees that."""
        message, session = params.message, self._session
        work = work_of(message, params.metadata, session.registry, self._default_skill)
        try:
            plan = session.plan(work.items, owner=context.owner, limits=self._limits)
        except InvalidPlan as error:
            if not work.path:
                raise
            raise InvalidPlan([Problem(f"{work.path}.{p.field}", p.message) for p in error.problems]) from None
        check_output_modes(plan, session.registry, params.configuration.accepted_output_modes)
        await self._open_tasks.admit(context.owner, len(plan.tasks))
        context_id = message.context_id or session.clock.new_id()
        message = replace(message, task_id=plan.root_id, context_id=context_id)
        value = message_value(message)
        head = await session.create(
            plan,
            origin=ORIGIN,
            context_id=context_id,
            metadata=request_of(value, params.metadata),
            execute=True,
            message=value,
        )
        # The tree was created, got its message and its run was started in one step: events 1 to 3.
        start = replace(
            head, version=3, status=TaskStatus.PENDING, is_live=True, progress=0.0, updated_at=head.created_at
        )
        received = e.MessageReceived(head.id, value)
        said = Recorded(
            tree_id=head.id, seq=2, at=head.created_at, name="", tree_status=TaskStatus.PENDING, event=received
        )
        history_length = params.configuration.history_length
        opening = snapshot(start, head.id, [said], history_length=history_length)
        return start, opening

    async def _continue(self, context: RequestContext, message: wire.Message) -> TreeHead:
        """Hand a message to the task it names: as the answer to its question, else for its history (spec §3.4.2)."""
        task_id = message.task_id
        head = await owned_head(self._session, context.owner, task_id, origin=ORIGIN)
        if message.context_id and message.context_id != context_of(head):
            raise InvalidParams.of([Problem("message.contextId", "is not the context of this task")])
        status = await self._status(head, task_id)
        if status.is_terminal:
            raise UnsupportedOperation(
                f"Task {task_id} has ended ({STATES[status]}) and takes no more messages", metadata={"taskId": task_id}
            )
        value = message_value(replace(message, context_id=context_of(head)))
        try:
            await self._session.provide_input(task_id, answer_value(message), value)
        except IllegalCommand:  # nothing is asked, or the question was answered a moment ago
            await self._session.receive_message(task_id, value)
        return await owned_head(self._session, context.owner, task_id, origin=ORIGIN)

    async def _settled(self, head: TreeHead, task_id: str) -> TreeHead:
        """The head as soon as the task has ended or waits for its caller."""
        if task_id == head.id:
            return await self._session.wait(head.id, needs_caller)
        status = await self._status(head, task_id)
        if not (status.is_terminal or status.is_interrupted):
            await self._streams.until_settled(head, task_id)
        return await self._session.wait(head.id, lambda _: True)

    async def _status(self, head: TreeHead, task_id: str) -> TaskStatus:
        """The status that an A2A client sees."""
        if task_id == head.id:
            return head.status
        task = await self._session.storage.task(task_id)
        return head.status if task is None else task.status

    # Tasks

    async def get_task(self, context: RequestContext, params: wire.GetTaskRequest) -> wire.Task:
        head = await owned_head(self._session, context.owner, params.id, origin=ORIGIN)
        return await self._snapshot(head, params.id, params.history_length)

    async def list_tasks(self, context: RequestContext, params: wire.ListTasksRequest) -> wire.ListTasksResponse:
        since = params.status_timestamp_after
        size = DEFAULT_PAGE if params.page_size is None else params.page_size
        page = await self._session.storage.trees(
            TreeQuery(
                owner=context.owner,
                origin=ORIGIN,
                statuses=frozenset({STATUSES[params.status]}) if params.status else None,
                context_id=params.context_id or None,
                updated_since=since.timestamp() if since else None,
                before=_from_token(params.page_token) if params.page_token else None,
                limit=size,
            )
        )
        snapshots = [
            await readable(
                self._snapshot(head, head.id, params.history_length, with_artifacts=params.include_artifacts)
            )
            for head in page.heads
        ]
        tasks = [task for task in snapshots if task is not None]
        token = _to_token(page.heads[-1]) if page.has_more else ""
        return wire.ListTasksResponse(tasks=tasks, next_page_token=token, page_size=size, total_size=page.total)

    async def cancel_task(self, context: RequestContext, params: wire.CancelTaskRequest) -> wire.Task:
        """Cancels the task with all below it; cancelling again what is canceled changes nothing (spec §3.3.1)."""
        await owned_head(self._session, context.owner, params.id, origin=ORIGIN)
        reason = params.metadata.get("reason")
        result = await self._session.cancel(params.id, reason if isinstance(reason, str) and reason else None)
        return await self._snapshot(result.head, params.id, None)

    async def subscribe(
        self, context: RequestContext, params: wire.SubscribeToTaskRequest
    ) -> AsyncGenerator[Frame, None]:
        """The task, then everything that happens to it to its end; with `Last-Event-ID` what came after that only.

        A task that has ended is refused, save to a reader who resumes: what he has missed is still to be had.
        """
        head = await owned_head(self._session, context.owner, params.id, origin=ORIGIN)
        view = View(head.id, params.id, context_of(head), context.dialect)
        if (after := context.last_event_id) is not None:
            if after > head.version:
                raise InvalidParams.of([Problem("Last-Event-ID", f"this task has only {head.version} events")])
            return self._streams.a2a(head, view, after, first=None, until_input=False)
        status = await self._status(head, params.id)
        if status.is_terminal:
            raise UnsupportedOperation(f"Task {params.id} has ended ({STATES[status]})", metadata={"taskId": params.id})
        first = await self._snapshot(head, params.id, None)
        return self._streams.a2a(head, view, head.version, first=first, until_input=False)

    async def extended_card(self, context: RequestContext, params: wire.GetExtendedAgentCardRequest) -> wire.AgentCard:
        """The card for this very caller, if he has said who he is (spec §3.1.11)."""
        if self._extended_card is None:
            raise UnsupportedOperation("This agent offers no extended agent card")
        return self._extended_card(context.principal)

    async def _snapshot(
        self, head: TreeHead, task_id: str, history_length: int | None, *, with_artifacts: bool = True
    ) -> wire.Task:
        events = await self._events(head, task_id, with_artifacts=with_artifacts)
        return snapshot(head, task_id, events, history_length=history_length, with_artifacts=with_artifacts)

    async def _events(self, head: TreeHead, task_id: str, *, with_artifacts: bool = True) -> list[Recorded]:
        """What a snapshot at the head's version is made of."""
        return await read_events(
            self._session.storage,
            head.id,
            0,
            until=head.version,
            task_id=None if task_id == head.id else task_id,
            kinds=kinds(head, task_id, with_artifacts=with_artifacts),
        )


async def _no_push(context: RequestContext, params: Any) -> Any:
    raise PushNotificationNotSupported


def _check_request(params: wire.SendMessageRequest) -> None:
    if params.message.role is not wire.Role.USER:
        raise InvalidParams.of(
            [Problem("message.role", f"must be {wire.Role.USER}: a client's messages are the user's")]
        )
    if params.configuration.task_push_notification_config is not None:
        raise PushNotificationNotSupported


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last row of a page: what its token says."""

    updated_at: float
    task_id: str


def _to_token(head: TreeHead) -> str:
    return urlsafe_b64encode(msgspec.json.encode(_Cursor(head.updated_at, head.id))).decode().rstrip("=")


def _from_token(token: str) -> tuple[float, str]:
    try:
        data = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        cursor = msgspec.json.decode(data, type=_Cursor)
    except ValueError:  # not ASCII, not base64, not JSON, not a cursor
        raise InvalidParams.of([Problem("pageToken", "is not a token that ListTasks gave")]) from None
    return cursor.updated_at, cursor.task_id


SUMMARIES = {
    "SendMessage": "Send a message: a new task, or more for one that exists. Answers when it has ended or asks.",
    "SendStreamingMessage": "Send a message and follow its task as server-sent events.",
    "GetTask": "A task with its artifacts and history.",
    "ListTasks": "The caller's tasks, latest change of status first, page by page.",
    "CancelTask": "Cancel a task with all below it.",
    "SubscribeToTask": "Follow a task that has not ended; Last-Event-ID takes a broken stream up.",
    "GetExtendedAgentCard": "The agent card for callers who have said who they are.",
    "CreateTaskPushNotificationConfig": "Not offered.",
    "GetTaskPushNotificationConfig": "Not offered.",
    "ListTaskPushNotificationConfigs": "Not offered.",
    "DeleteTaskPushNotificationConfig": "Not offered.",
}
