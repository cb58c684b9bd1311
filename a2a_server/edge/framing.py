"""Where an answer ends, and what is known of the client's end."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

HALF_CLOSED: Final = "a2a_server.half_closed"  # in the scope: the client sends nothing more, or is gone


class Ending:
    """The app, whose answer is framed as the rest of its connection allows.

    HTTP/1.0 knows no chunks, so that an answer of unknown length ends with its connection (RFC 9112 §6.1, §6.3). And
    it is unclear what follows an answer to a client that was never told to send its body (RFC 9110 §10.1.1).
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = False

        async def sending(message: Message) -> None:
            nonlocal is_open
            cycle = self._cycle
            if message["type"] == "http.response.start":
                if cycle.waiting_for_100_continue:
                    cycle.keep_alive = False
                if scope["http_version"] == "1.0" and not _has_length(message):
                    is_open, cycle.chunked_encoding = True, False
            elif is_open:
                cycle.expected_content_length = len(message.get("body", b""))  # uvicorn counts down from it
            await send(message)

        await self._app(scope, receive, sending)


def _has_length(message: Message) -> bool:
    return any(name == b"content-length" for name, _ in message["headers"])
