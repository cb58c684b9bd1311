"""What every answer carries, whichever route gave it: what browsers and caches may do with it.

Not Starlette's CORSMiddleware: see `origins`.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from a2a_server.edge.origins import Headers, Origins

NOSNIFF = (b"x-content-type-options", b"nosniff")
NO_STORE = (b"cache-control", b"no-store")  # unless the route knows better: answers are one caller's own
_HSTS = (b"strict-transport-security", b"max-age=31536000")


class AnswerHeaders:
    """The app whose answers get the headers, and browsers' questions (CORS preflights) theirs.

    `is_secure`: callers reach us over TLS, and are to keep to that (RFC 6797).
    """

    def __init__(self, app: ASGIApp, *, origins: Origins, is_secure: bool) -> None:
        self._app = app
        self._origins = origins
        self._is_secure = is_secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked = dict(scope["headers"])
        origin = asked[b"origin"].decode("latin-1") if b"origin" in asked else None
        path = scope["path"]
        if scope["method"] == "OPTIONS" and origin is not None and b"access-control-request-method" in asked:
            answer = self._origins.preflight(origin, path)
            if answer is not None:
                await send({"type": "http.response.start", "status": 204, "headers": answer})
                await send({"type": "http.response.body"})
                return
        added = [NOSNIFF, *self._origins.reading(origin, path)]
        # Browsers keep it for all ports of a name: never for that of everybody's own machine.
        if self._is_secure and asked.get(b"host", b"").partition(b":")[0].lower() != b"localhost":
            added.append(_HSTS)
        await self._app(scope, receive, _adding(added, send))


def _adding(added: Headers, send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Headers = [*message.get("headers", ()), *added]
            if b"cache-control" not in dict(headers):
                headers.append(NO_STORE)
            message = {**message, "headers": headers}
        await send(message)

    return sending
