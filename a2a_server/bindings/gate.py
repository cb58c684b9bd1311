"""What every HTTP request passes before anything is read of it: Host, Origin, content type, size.

Plain ASGI, and cheap: one walk over the headers. The limit on the body's size holds for chunked ones too (`read_body`).
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Reply
from a2a_server.edge.inflight import PIECE, SMALL
from a2a_server.edge.origins import Origins
from a2a_server.edge.overload import PROBES, REFUSED
from a2a_server.edge.targets import SCHEME, host_name, is_host
from a2a_server.protocol.errors import (
    A2AError,
    BadHeaders,
    BodyTimeout,
    BodyTooLarge,
    ForeignOrigin,
    Misdirected,
    Overloaded,
    UnsupportedCoding,
    UnsupportedMediaType,
)

JSON_TYPES = frozenset({"application/json", "application/a2a+json"})
LINGER = 5.0  # seconds that the rest of a refused body is read and dropped
MOST_DROPPED = 64 * 1024 * 1024  # bytes of it

_SEEN = frozenset(
    {
        b"host",
        b"origin",
        b"content-type",
        b"content-encoding",
        b"content-length",
        b"transfer-encoding",
        b"idempotency-key",
        b"a2a-version",
        b"last-event-id",
    }
)


class Endpoint(Protocol):
    """A way in: how requests to it are answered, and in which shape one is refused whose body has not been read."""

    async def handle(self, body: bytes, context: RequestContext) -> Reply:
        """Never raises, except for cancellation."""

    def refuse(self, error: A2AError) -> Reply: ...


class Gate:
    """The app behind the checks. `hosts` are the names that `Host` may have, lower case, without port and brackets.

    `endpoint` says whom a request was meant for: in that one's shape it is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        endpoint: Callable[[Scope], Endpoint],
        origins: Origins,
        hosts: frozenset[str],
        max_body: int,
    ) -> None:
        self._app = app
        self._origins = origins
        self._endpoint = endpoint
        self._hosts = hosts
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except A2AError as error:
            await send_refusal(self._endpoint(scope).refuse(error), receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name not in _SEEN:
                continue
            if name in headers:
                raise BadHeaders(f"The header {name.decode()} is given twice")
            headers[name] = value.decode("latin-1")
        host = headers.get(b"host", "")
        name = host_name(host)
        if not name and not is_host(host) and (b"host" in headers or scope["http_version"] != "1.0"):  # RFC 9112 §3.2
            raise BadHeaders("The header Host is missing, or is not a host name or address with an optional port")
        if scope["path"] in PROBES:
            return
        # A page on the web can make a browser call us under a name of its own (DNS rebinding).
        is_ours = name in self._hosts or (name and "*" in self._hosts)
        if not is_ours or (SCHEME in scope and scope[SCHEME] != scope["scheme"]):  # RFC 9110 §7.4
            raise Misdirected("This server does not accept this Host; see allowed_hosts")
        origin = headers.get(b"origin")
        if origin is not None and not self._origins.admits(origin, host, scope["path"]):
            raise ForeignOrigin("Requests from this web origin are not accepted; see allowed_origins")
        if scope["method"] == "POST":
            _check_content(headers, self._max_body)
        if REFUSED in scope:  # judged at the connection
            raise Overloaded


def _check_content(headers: Mapping[bytes, str], max_body: int) -> None:
    if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedCoding("Encoded bodies are not accepted; send plain JSON")
    length = headers.get(b"content-length", "")
    # Without a body there is nothing to have a type (RFC 9112 §6.3). A browser says an Origin with each POST to another
    # site, and a "simple" one of its requests cannot have a JSON type: neither gets here.
    has_body = length not in ("", "0") or b"transfer-encoding" in headers
    if (has_body or b"content-type" in headers) and media_type(headers.get(b"content-type", "")) not in JSON_TYPES:
        raise UnsupportedMediaType("The Content-Type must be application/json")
    if length.isdigit() and int(length) > max_body:
        raise too_large(max_body)


def media_type(value: str) -> str:
    """A media type in lower case, without its parameters."""
    return value.partition(";")[0].strip().lower()


def too_large(max_body: int) -> BodyTooLarge:
    """The refusal of a body that is larger than it may be."""
    return BodyTooLarge(f"The body is larger than {max_body} bytes")


async def read_body(receive: Receive, max_body: int, seconds: float, hold: Callable[[int], None]) -> bytes:
    """The request's body, which may take so many seconds; never more than the limit of it in memory.

    `hold` is told how many bytes have come as soon as they are many. Raises what it raises, BodyTooLarge, BodyTimeout;
    ConnectionError when the client is gone.
    """
    try:
        async with asyncio.timeout(seconds):
            return await _whole_body(receive, max_body, hold)
    except TimeoutError:
        raise BodyTimeout("The body took too long to arrive") from None


async def _whole_body(receive: Receive, max_body: int, hold: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client disconnected")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_body:
            raise too_large(max_body)
        if size > SMALL:
            hold(size)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


async def send_reply(reply: Reply, send: Send) -> None:
    """Send a reply that is no stream."""
    await send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
    sent = 0
    while len(reply.body) - sent > PIECE:  # each waits until the client has taken most of those before it
        await send({"type": "http.response.body", "body": reply.body[sent : sent + PIECE], "more_body": True})
        sent += PIECE
    await send({"type": "http.response.body", "body": reply.body[sent:] if sent else reply.body})


async def send_refusal(reply: Reply, receive: Receive, send: Send, *, linger: float = LINGER) -> None:
    """Send a reply to a request whose body has not been read to its end, and end the connection.

    What still comes is read and dropped for `linger` seconds: closing on unread data would take the reply away from
    the client.
    """
    headers = [*_headers(reply), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": True})
    with suppress(TimeoutError):
        async with asyncio.timeout(linger):
            await _drop_rest(receive)
    await send({"type": "http.response.body", "body": b""})


async def _drop_rest(receive: Receive) -> None:
    dropped, is_more = 0, True
    while is_more and dropped < MOST_DROPPED:
        message = await receive()
        dropped += len(message.get("body", b""))
        is_more = message.get("more_body", False)


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-length", str(len(reply.body)).encode())] if reply.status != 204 else []
    if reply.body:
        headers.append((b"content-type", reply.media_type.encode()))
    return headers + [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
