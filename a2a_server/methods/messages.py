"""SendMessage and SendStreamingMessage (A2A §3.1.1, §3.1.2): a message becomes a task, or goes to one that exists."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import ExitStack, aclosing

from msgspec import Raw

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Frame
from a2a_server.methods.delivery import Addressed, MessageDelivery
from a2a_server.methods.reading import TaskReader
from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import InvalidParams
from a2a_server.views.frames import View
from a2a_server.views.snapshots import Reading, Told
from a2a_server.views.streams import Streams
from a2a_server.views.translate import (
    context_of,
    reply_message,
    snapshot,
)
from core.model.errors import Problem
from core.model.events import Recorded
from core.model.task import TreeHead
from core.session import Session, has_ended, needs_caller
from core.storage.base import EventQuery

REPLY_GRACE = 0.25  # seconds that a stream waits for a direct Message before it opens with the Task


class Messages:
    """The two methods that take messages."""

    def __init__(self, session: Session, streams: Streams, delivery: MessageDelivery) -> None:
        self._session = session
        self._streams = streams
        self._delivery = delivery
        self._reader = TaskReader(session)
        self._snapshots = streams.snapshots

    async def send(self, context: RequestContext, params: wire.SendMessageRequest) -> wire.SendMessageResponse | Raw:
        """Answers when the task has ended or waits for its caller, with `returnImmediately` as soon as it is stored.

        A server that is stopping answers with the task as it is; its caller gets on with GetTask or SubscribeToTask.
        """
        self._delivery.check(params)
        reading = Reading(
            context.owner,
            context.permit,
            context.dialect,
            params.configuration.history_length,
            is_told_anyway=True,
        )
        with ExitStack() as held:
            sent = await self._delivery.deliver(context, params, held)
            if params.configuration.return_immediately:
                return await self._seen(sent, reading)
            context.permit.park()
            head = await self._settled(sent.head, sent.task_id)

            def answer(task: wire.Task, events: Sequence[Recorded]) -> wire.SendMessageResponse:
                if not params.message.task_id:  # once there is a Task, only Tasks are told
                    for recorded in events:
                        if reply := reply_message(recorded, context_of(head)):
                            return wire.SendMessageResponse(message=reply)
                return wire.SendMessageResponse(task=task)

            return await self._snapshots.tell(head, sent.task_id, reading, answer)

    async def stream(self, context: RequestContext, params: wire.SendMessageRequest) -> AsyncGenerator[Frame, None]:
        """The task, then everything that happens to it, to its end or its first question."""
        self._delivery.check(params)
        if context.last_event_id is not None:
            text = "a message is not sent twice; resume its stream with SubscribeToTask"
            raise InvalidParams.of([Problem("Last-Event-ID", text)])
        with ExitStack() as held:
            sent = await self._delivery.deliver(context, params, held)
        history_length = params.configuration.history_length
        head = sent.head
        view = View(head.id, sent.task_id, context_of(head), context.dialect)
        reading = Reading(context.owner, context.permit, context.dialect, history_length, is_told_anyway=True)
        if sent.said is not None:
            task = snapshot(head, sent.task_id, [sent.said], history_length=history_length)
            first = Told(task.status.state, wire.StreamResponse(task=task))
        else:
            first = await self._snapshots.opening(head, sent.task_id, reading)
        frames = self._streams.a2a(head, view, head.version, first=first, until_input=True, permit=context.permit)
        return frames if params.message.task_id else self._open(sent, view, frames)

    async def _open(
        self, sent: Addressed, view: View, frames: AsyncGenerator[Frame, None]
    ) -> AsyncGenerator[Frame, None]:
        """The stream of a task that its message made: that of a direct Message is the Message alone."""
        async with aclosing(frames):
            said = await self._reply(sent)
            context_id = context_of(sent.head)
            del sent  # with its message: a stream may be open for long, and nobody counts it
            if said is not None and (reply := reply_message(said, context_id)):
                yield Frame(Raw(view.dialect.event(wire.StreamResponse(message=reply), True)), said.seq)
                return
            async for frame in frames:
                yield frame
                del frame

    async def _reply(self, sent: Addressed) -> Recorded | None:
        """The direct reply, if there is one already. Only a task on its own can give one, with its first word."""
        head = sent.head
        if head.size > 1:
            return None
        if sent.said is None:
            # The first word is the reply, if there is one.
            words = await self._session.storage.events(
                EventQuery(tree_id=head.id, until=head.version, kinds=("message_sent",), limit=1)
            )
            for said in words:
                if reply_message(said, context_of(head)):
                    return said
            if has_ended(head):
                return None
        try:
            async with asyncio.timeout(REPLY_GRACE):
                return await self._streams.peek_reply(head.id, head.version)
        except TimeoutError:
            return None

    async def _seen(self, sent: Addressed, reading: Reading) -> wire.SendMessageResponse | Raw:
        if sent.said is not None:
            task = snapshot(sent.head, sent.task_id, [sent.said], history_length=reading.history_length)
            return wire.SendMessageResponse(task=task)
        return await self._snapshots.tell(
            sent.head, sent.task_id, reading, lambda task, _: wire.SendMessageResponse(task=task)
        )

    async def _settled(self, head: TreeHead, task_id: str) -> TreeHead:
        """The head as soon as the task has ended or waits for its caller."""
        if task_id == head.id:
            return await self._session.wait(head.id, needs_caller)
        status = await self._reader.status(head, task_id)
        if not (status.is_terminal or status.is_interrupted):
            await self._streams.until_settled(head, task_id)
        return await self._session.wait(head.id, lambda _: True)
