"""Streams as server-sent events over HTTP: the bytes of each event, and the response that carries them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Receive, Scope, Send

from a2a_server.bindings.jsonrpc import Event
from a2a_server.edge.framing import HALF_CLOSED
from a2a_server.edge.inflight import PIECE, SMALL
from a2a_server.edge.limits import Permit
from a2a_server.protocol.codec import one_line
from a2a_server.protocol.errors import RetryLater

LARGE_EVENT = 4 * 1024 * 1024  # bytes; larger events are written beside the event loop

# No blank line belongs to a comment: some readers take each blank line for an event, once an id was seen (httpx-sse).
PING = b": ping\n"
CROWDED = b": its caller has not taken too many bytes; resume with Last-Event-ID\n"
DRAINED = b": the server is stopping; resume with Last-Event-ID\n"


async def sse(
    events: AsyncGenerator[Event, None], is_draining: Callable[[], bool], permit: Permit
) -> AsyncIterator[bytes]:
    """The events as bytes of a `text/event-stream`: one `data` line each, with its number as `id`.

    A large one is held by the permit until it is taken. Where its caller holds too much already, the stream ends.
    """
    async with aclosing(events) as source:
        async for data, seq in source:
            line = one_line(data) if len(data) <= LARGE_EVENT else await asyncio.to_thread(one_line, data)
            del data
            is_large = len(line) > SMALL
            if is_large and not _has_room(permit, line):
                yield CROWDED
                return
            yield b"data: %b\n\n" % line if seq is None else b"id: %d\ndata: %b\n\n" % (seq, line)
            del line
            if is_large:
                permit.let_go()
                yield b""  # else the response would keep it until the next event
    if is_draining():
        yield DRAINED


def _has_room(permit: Permit, line: bytes) -> bool:
    try:
        permit.hold(2 * len(line))  # itself, and what is on its way
    except RetryLater:
        return False
    return True


class EventStream(EventSourceResponse):
    """The response: comments keep the connection alive.

    A reader that takes nothing for a while is cut (`deadlines`); the tree goes on without its readers, and a reader
    that was cut resumes with `Last-Event-ID`.
    """

    def __init__(self, events: AsyncIterator[bytes], *, ping: float) -> None:
        super().__init__(events, ping=ping, sep="\n", ping_message_factory=_Ping, cleanup_timeout=5.0)
        del self.headers["connection"]  # what becomes of the connection is said where that is known (RFC 9110 §7.6.1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A large event is handed to the connection in pieces, each when those before it have been taken."""
        senders = [send]
        whole = asyncio.Lock()  # a comment in the middle of an event would be part of it

        async def in_pieces(message: Message) -> None:
            async with whole:
                body = message.get("body", b"")
                if len(body) <= PIECE:
                    if body or not message.get("more_body") or "body" not in message:
                        await senders[0](message)
                    return
                for begin in range(0, len(body), PIECE):
                    await senders[0]({**message, "body": body[begin : begin + PIECE], "more_body": True})

        async def hearing() -> Message:
            """What is written to a client that has left, and not only closed its half, comes back: the stream ends."""
            message = await receive()
            if message["type"] == "http.request" and HALF_CLOSED in scope:
                await in_pieces({"type": "http.response.body", "body": PING, "more_body": True})
            return message

        try:
            await super().__call__(scope, hearing, in_pieces)
        finally:
            senders.clear()  # the library's cancelled tasks keep `in_pieces`, but not the request and its head

    @staticmethod
    async def _listen_for_exit_signal() -> None:
        """Our own drain ends the events; the library's watcher, one task a loop that polls for ever, is not wanted."""
        await asyncio.get_running_loop().create_future()


class _Ping(ServerSentEvent):
    def encode(self) -> bytes:
        return PING
