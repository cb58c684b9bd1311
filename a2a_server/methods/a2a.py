"""The methods of A2A v1.0 (specification §3.1, §9.4). They see the trees that came in through A2A, and no others."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import Any, cast

from msgspec import Raw, Struct
from msgspec.structs import replace

from a2a_server.auth.principal import Principal
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Frame, Method
from a2a_server.edge.overload import CallKind
from a2a_server.methods.access import check_tenant, readable
from a2a_server.methods.messages import Messages
from a2a_server.methods.pages import PageTokens
from a2a_server.methods.push import PushMethods
from a2a_server.methods.reading import ORIGIN, TaskReader
from a2a_server.protocol import types as wire
from a2a_server.protocol.codec import encode
from a2a_server.protocol.dialect import A2A_1_0
from a2a_server.protocol.errors import (
    ExtensionSupportRequired,
    InvalidParams,
    PushNotificationNotSupported,
    TaskNotCancelable,
    UnsupportedOperation,
)
from a2a_server.protocol.states import STATES, STATUSES
from a2a_server.views.frames import View
from a2a_server.views.snapshots import Reading
from a2a_server.views.streams import Streams
from a2a_server.views.translate import context_of
from core.loop.pieces import PIECE
from core.model.errors import Problem
from core.model.events import Recorded
from core.model.task import TreeHead
from core.session import Session
from core.storage.base import TreeQuery

DEFAULT_PAGE = 50
PAGE_BYTES = 4 * 1024 * 1024  # of JSON, behind which a page of tasks ends; at least one is in it

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Offered(Struct, frozen=True):
    """What the card says of the methods: extensions that each call must use, and the card for identified callers."""

    required_extensions: Sequence[str] = ()
    extended_card: Callable[[Principal], wire.AgentCard] | None = None


class A2AMethods:
    """The eleven methods; `messages` has the two that take messages."""

    def __init__(
        self,
        session: Session,
        streams: Streams,
        messages: Messages,
        *,
        offered: Offered | None = None,
        push: PushMethods | None = None,
    ) -> None:
        offered = offered or Offered()
        self._session = session
        self._streams = streams
        self._messages = messages
        self._reader = TaskReader(session)
        self._snapshots = streams.snapshots
        self._pages = PageTokens(session.storage)
        self._required = frozenset(offered.required_extensions)
        self._extended_card = offered.extended_card
        self._push = push

    def table(self) -> list[Method]:
        """The methods, for the bindings."""
        other, work = CallKind.OTHER, CallKind.WORK
        send, stream = self._messages.send, self._messages.stream
        said, follow = wire.SendMessageRequest, wire.SubscribeToTaskRequest
        event, card = wire.StreamResponse, wire.GetExtendedAgentCardRequest
        return [
            self._of_a2a(method)
            for method in (
                Method("SendMessage", send, work, said, wire.SendMessageResponse),
                Method("SendStreamingMessage", stream, work, said, event, is_stream=True),
                Method("GetTask", self.get_task, other, wire.GetTaskRequest, wire.Task),
                Method("ListTasks", self.list_tasks, other, wire.ListTasksRequest, wire.ListTasksResponse),
                Method("CancelTask", self.cancel_task, CallKind.EXEMPT, wire.CancelTaskRequest, wire.Task),
                Method("SubscribeToTask", self.subscribe, other, follow, event, is_stream=True),
                Method("GetExtendedAgentCard", self.extended_card, other, card, wire.AgentCard),
                *self._push_table(),
            )
        ]

    def _push_table(self) -> list[Method]:
        config, one = wire.TaskPushNotificationConfig, wire.PushNotificationConfigRequest
        listing, page = wire.ListTaskPushNotificationConfigsRequest, wire.ListTaskPushNotificationConfigsResponse
        push, other = self._push, CallKind.OTHER
        return [
            Method("CreateTaskPushNotificationConfig", push.create if push else _no_push, other, config, config),
            Method("GetTaskPushNotificationConfig", push.get if push else _no_push, other, one, config),
            Method("ListTaskPushNotificationConfigs", push.list_configs if push else _no_push, other, listing, page),
            Method("DeleteTaskPushNotificationConfig", push.delete if push else _no_push, other, one, None),
        ]

    def _of_a2a(self, method: Method) -> Method:
        """The method of A2A 1.0, for callers that use the extensions which the card requires, in their own tenant."""

        async def checked(context: RequestContext, given: Any) -> Any:
            if missing := self._required.difference(context.extensions):
                raise ExtensionSupportRequired(metadata={"extensions": ",".join(sorted(missing))})
            check_tenant(context.principal, given)
            return await method.handler(context, given)

        return dataclasses.replace(method, handler=checked, summary=SUMMARIES[method.name], dialect=A2A_1_0)

    async def get_task(self, context: RequestContext, params: wire.GetTaskRequest) -> wire.Task | Raw:
        """A tree's root tells its nodes, a node its parent and its root, in the metadata."""
        head = await self._reader.find(context.owner, params.id)
        reading = Reading(
            context.owner, context.permit, context.dialect, params.history_length, with_nodes=params.id == head.id
        )
        return await self._snapshots.task(head, params.id, reading)

    async def list_tasks(self, context: RequestContext, params: wire.ListTasksRequest) -> wire.ListTasksResponse:
        since = params.status_timestamp_after
        size = DEFAULT_PAGE if params.page_size is None else params.page_size
        pages = await self._pages.of(context.owner, params)
        page = await self._session.storage.trees(
            TreeQuery(
                owner=context.owner,
                origin=ORIGIN,
                statuses=frozenset({STATUSES[params.status]}) if params.status else None,
                context_id=params.context_id or None,
                updated_since=_in_milliseconds(since) if since else None,
                before=pages.read(params.page_token) if params.page_token else None,
                limit=size,
            )
        )
        tasks, last = await self._page(context, page.heads, params)
        has_more = last is not None and (page.has_more or last is not page.heads[-1])
        token = pages.token(last) if last is not None and has_more else ""
        return wire.ListTasksResponse(tasks=tasks, next_page_token=token, page_size=size, total_size=page.total)

    async def _page(
        self, context: RequestContext, heads: Sequence[TreeHead], params: wire.ListTasksRequest
    ) -> tuple[list[wire.Task], TreeHead | None]:
        """The tasks of a page, which ends early behind PAGE_BYTES; and the last head that was looked at."""
        tasks: list[wire.Task] = []
        size = 0
        last = None
        reading = Reading(
            context.owner, context.permit, context.dialect, params.history_length, params.include_artifacts
        )

        def listed(task: wire.Task, events: Sequence[Recorded]) -> wire.Task:
            # Asked for, artifacts are told even where there are none (§3.1.4).
            is_bare = params.include_artifacts and task.artifacts is None
            return replace(task, artifacts=[]) if is_bare else task

        ends_at = perf_counter() + PIECE
        for last in heads:
            if (task := await readable(self._snapshots.tell(last, last.id, reading, listed))) is None:
                continue
            tasks.append(cast("wire.Task", task))  # or its JSON
            size += len(encode(task))
            if perf_counter() >= ends_at:  # what is in memory is read without a wait
                await asyncio.sleep(0)
                ends_at = perf_counter() + PIECE
            if size >= PAGE_BYTES:
                break
        return tasks, last

    async def cancel_task(self, context: RequestContext, params: wire.CancelTaskRequest) -> wire.Task | Raw:
        """Cancels the task with all below it; cancelling again what is canceled changes nothing (spec §3.3.1).

        Raises TaskNotCancelable where nothing was cancelled: what cannot be interrupted was asked to stop, in vain.
        """
        await self._reader.find(context.owner, params.id)
        given = params.metadata.get("reason")
        reason = given if isinstance(given, str) and given else None
        result = await self._session.cancel(params.id, reason, metadata=params.metadata)
        if not result.has_effect:
            how = "still runs" if params.id in result.not_cancelable else f"ended as {result.task.status}"
            text = f"Task {params.id} cannot be interrupted: it was asked to stop, and {how}"
            raise TaskNotCancelable(text, metadata={"taskId": params.id})
        reading = Reading(context.owner, context.permit, context.dialect, is_told_anyway=True)
        return await self._snapshots.task(result.head, params.id, reading)

    async def subscribe(
        self, context: RequestContext, params: wire.SubscribeToTaskRequest
    ) -> AsyncGenerator[Frame, None]:
        """The task, then everything that happens to it to its end; with `Last-Event-ID` what came after that only.

        A finished task is refused, except when resuming with Last-Event-ID: missed events are still available.
        """
        head = await self._reader.find(context.owner, params.id)
        view = View(head.id, params.id, context_of(head), context.dialect)
        if (after := context.last_event_id) is not None:
            if after > head.version:
                raise InvalidParams.of([Problem("Last-Event-ID", f"this task has only {head.version} events")])
            return self._streams.a2a(head, view, after, first=None, until_input=False, permit=context.permit)
        status = await self._reader.status(head, params.id)
        if status.is_terminal:
            raise UnsupportedOperation(f"Task {params.id} has ended ({STATES[status]})", metadata={"taskId": params.id})
        first = await self._snapshots.opening(head, params.id, Reading(context.owner, context.permit, context.dialect))
        return self._streams.a2a(head, view, head.version, first=first, until_input=False, permit=context.permit)

    async def extended_card(self, context: RequestContext, params: wire.GetExtendedAgentCardRequest) -> wire.AgentCard:
        """The card for this caller, if authenticated (spec §3.1.11)."""
        if self._extended_card is None:
            raise UnsupportedOperation("This agent has no extended agent card")
        return self._extended_card(context.principal)


def _in_milliseconds(since: datetime) -> float:
    """Seconds since 1970, rounded up to the milliseconds in which timestamps are told: what is told as later, is."""
    return -(-((since - _EPOCH) // timedelta(microseconds=1)) // 1000) / 1000


async def _no_push(context: RequestContext, params: Any) -> Any:
    raise PushNotificationNotSupported


SUMMARIES = {
    "SendMessage": "Send a message to a new or existing task. Answers when the task has ended or waits for input.",
    "SendStreamingMessage": "Send a message and stream its task as server-sent events.",
    "GetTask": "Get a task with its artifacts and history.",
    "ListTasks": "List the caller's tasks, latest status change first, in pages.",
    "CancelTask": "Cancel a task and everything below it.",
    "SubscribeToTask": "Stream a task that has not ended; send Last-Event-ID to resume a broken stream.",
    "GetExtendedAgentCard": "Get the extended agent card, for authenticated callers.",
    "CreateTaskPushNotificationConfig": "Register a webhook for a task's future updates.",
    "GetTaskPushNotificationConfig": "Get a webhook of a task, without its secrets.",
    "ListTaskPushNotificationConfigs": "List the webhooks of a task, oldest first.",
    "DeleteTaskPushNotificationConfig": "Delete a webhook.",
}
