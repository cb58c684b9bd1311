"""What every HTTP request passes before anything is read of it: Host, Origin, content type, size.

Plain ASGI, and cheap: one walk over the headers. The limit on the body's size holds for chunked ones too (`read_body`).
"""

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from a2a_server.jsonrpc import Reply, error_reply
from a2a_server.origins import Origins
from a2a_server.protocol.errors import A2AError, ContentTypeNotSupported, InvalidRequest

JSON_TYPES = frozenset({"application/json", "application/a2a+json"})
PROBES = frozenset({"/healthz", "/readyz"})  # asked by address, and they tell nothing
BODY_DEADLINE = 30.0  # seconds that a body may take to arrive
LINGER = 5.0  # seconds that the rest of a refused body is read and dropped
MOST_DROPPED = 64 * 1024 * 1024  # bytes of it

_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::[0-9]*)?")
_SEEN = frozenset({b"host", b"origin", b"content-type", b"content-encoding", b"content-length"})


class Refused(Exception):
    """The request is answered here, with this reply."""

    def __init__(self, error: A2AError, status: int) -> None:
        self.reply = error_reply(error, status=status)
        super().__init__(error.message)


class Gate:
    """The app behind the checks. `hosts` are the names that `Host` may have, lower case, without port and brackets."""

    def __init__(self, app: ASGIApp, *, origins: Origins, hosts: frozenset[str], max_body: int) -> None:
        self._app = app
        self._origins = origins
        self._hosts = hosts
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            self._check(scope)
        except Refused as refused:
            await send_refusal(refused.reply, receive, send)
            return
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        if scope["path"] in PROBES:
            return
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name not in _SEEN:
                continue
            if name in headers:
                raise Refused(InvalidRequest(f"The header {name.decode()} is given twice"), 400)
            headers[name] = value.decode("latin-1")
        host = headers.get(b"host", "")
        # A page on the web can make a browser call us under a name of its own (DNS rebinding).
        name = host_name(host)
        if not name or (name not in self._hosts and "*" not in self._hosts):
            raise Refused(InvalidRequest("This server does not answer for this Host; see allowed_hosts"), 421)
        origin = headers.get(b"origin")
        if origin is not None and not self._origins.admits(origin, host, scope["path"]):
            raise Refused(InvalidRequest("Requests of other origins are not taken"), 403)
        if scope["method"] == "POST":
            _check_content(headers, self._max_body)


def _check_content(headers: Mapping[bytes, str], max_body: int) -> None:
    if headers.get(b"content-encoding", "identity").strip().lower() != "identity":
        raise Refused(ContentTypeNotSupported("Encoded bodies are not taken; send the JSON as it is"), 415)
    # A "simple" cross-site request of a browser cannot have this type, so it never gets here.
    media_type = headers.get(b"content-type", "").partition(";")[0].strip().lower()
    if media_type not in JSON_TYPES:
        raise Refused(ContentTypeNotSupported("The Content-Type must be application/json"), 415)
    length = headers.get(b"content-length", "")
    if length.isdigit() and int(length) > max_body:
        raise too_large(max_body)


def host_name(host: str) -> str:
    """The name in a Host header: lower case, without port and brackets; empty where it is none."""
    matched = _HOST.fullmatch(host.strip().lower())
    return (matched[1] or matched[2]) if matched else ""


def too_large(max_body: int) -> Refused:
    """The refusal of a body that is larger than it may be."""
    return Refused(InvalidRequest(f"The body is larger than {max_body} bytes"), 413)


async def read_body(receive: Receive, max_body: int) -> bytes:
    """The request's body, never more than the limit of it in memory.

    Raises Refused for one that is too large or comes too slowly; ConnectionError when the client is gone.
    """
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_DEADLINE):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ConnectionError("the client went away")
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > max_body:
                    raise too_large(max_body)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    return b"".join(chunks)
    except TimeoutError:
        raise Refused(InvalidRequest("The body took too long to arrive"), 408) from None


async def send_reply(reply: Reply, send: Send) -> None:
    """Send a reply that is no stream."""
    await send({"type": "http.response.start", "status": reply.status, "headers": _headers(reply)})
    await send({"type": "http.response.body", "body": reply.body})


async def send_refusal(reply: Reply, receive: Receive, send: Send) -> None:
    """Send a reply to a request whose body has not been read to its end, and end the connection.

    What still comes is read and dropped for a while: closing on unread data would take the reply away from the client.
    """
    headers = [*_headers(reply), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body, "more_body": True})
    dropped = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER):
            while dropped < MOST_DROPPED:
                message = await receive()
                dropped += len(message.get("body", b""))
                if not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b""})


def _headers(reply: Reply) -> list[tuple[bytes, bytes]]:
    headers = [(b"content-length", str(len(reply.body)).encode())] if reply.status != 204 else []
    if reply.body:
        headers.append((b"content-type", b"application/json"))
    return headers + [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
