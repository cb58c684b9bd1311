"""HTTP to a binding and back: the caller is authenticated, the body read, and the reply or the stream is sent."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from a2a_server.auth.authenticator import Authenticator
from a2a_server.auth.lifetimes import Lifetimes
from a2a_server.auth.principal import NOBODY
from a2a_server.bindings.aside import LARGE, Aside
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.gate import LINGER, Endpoint, read_body, send_refusal, send_reply
from a2a_server.bindings.jsonrpc import Event, Reply
from a2a_server.bindings.readiness import Readiness
from a2a_server.bindings.rest import json_type, status_reply
from a2a_server.bindings.sse import EventStream, sse
from a2a_server.edge.limits import PERMIT, CallerLimits, Permit
from a2a_server.protocol.errors import A2AError, BodyTimeout, HttpMethodNotAllowed, PathNotFound
from core.model.errors import Problem

_NO_EVENT_ID = Problem("Last-Event-ID", "must be the id of an event of this stream")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRules:
    """What the operator decided about requests, and what the card says of extensions."""

    max_body: int  # bytes
    body_timeout: float  # seconds
    sse_ping: float  # seconds of silence of a stream
    of_everybody: CallerLimits
    of_the_identified: CallerLimits
    extensions: frozenset[str]  # URIs: those in the card
    extension_headers: Sequence[str]  # that name them; the usual one first


class HttpEndpoint:
    """What all HTTP requests to methods have in common, whichever binding they use."""

    def __init__(
        self,
        rules: HttpRules,
        readiness: Readiness,
        authenticator: Authenticator,
        lifetimes: Lifetimes,
        aside: Aside,
    ) -> None:
        self._rules = rules
        self._readiness = readiness
        self._authenticator = authenticator
        self._lifetimes = lifetimes
        self._aside = aside

    def serving(self, endpoint: Endpoint) -> ASGIApp:
        """The ASGI app that answers with this binding, as a route takes it."""
        return _App(partial(self.answer, endpoint))

    async def answer(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to the JSON-RPC binding or to a path of the HTTP+JSON binding."""
        try:
            context = await self.context(Request(scope))  # the caller is known before any of the body is read
            body = await read_body(receive, self._rules.max_body, self._rules.body_timeout, context.permit.hold)
        except A2AError as error:
            # The rest of a body that was waited for in vain is not waited for again.
            linger = 0.0 if isinstance(error, BodyTimeout) else LINGER
            await send_refusal(endpoint.refuse(error), receive, send, linger=linger)
            return
        except ConnectionError:
            return
        if len(body) > LARGE:
            context = replace(context, aside=self._aside)
        reply = await endpoint.handle(body, context)
        del body
        if active := self._rules.extensions.intersection(context.extensions):
            name = self._extensions_header(Headers(scope=scope))
            reply = replace(reply, headers={**reply.headers, name: ", ".join(sorted(active))})
        if reply.events is None:
            await send_reply(reply, send)
        else:
            context.permit.park()
            context.permit.answer_streams()
            await self.stream(reply.events, context)(scope, receive, send)

    def stream(self, events: AsyncGenerator[Event, None], context: RequestContext) -> EventStream:
        """The response of these events, which ends with the caller's credential."""
        guarded = self._lifetimes.guarded(events, context.principal)
        frames = sse(guarded, lambda: not self._readiness.is_ready, context.permit)
        return EventStream(frames, ping=self._rules.sse_ping)

    async def context(self, request: Request) -> RequestContext:
        """Who calls, and how. Raises Overloaded, Unauthenticated, PermissionDenied or RateLimited."""
        if not self._readiness.is_ready:
            raise self._readiness.refusal()
        headers, query = request.headers, request.query_params
        client = request.client.host if request.client else "an unknown address"
        event_id = headers.get("last-event-id") or query.get("after") or ""
        is_event_id = event_id.isascii() and event_id.isdigit() and len(event_id) <= 18
        extensions = ",".join(headers.getlist(self._extensions_header(headers)))
        principal = await self._authenticator.principal(headers, client)
        permit: Permit = request.scope[PERMIT]
        limits = self._rules.of_everybody if principal is NOBODY else self._rules.of_the_identified
        permit.admit(principal.owner, limits)
        return RequestContext(
            principal=principal,
            permit=permit,
            a2a_version=headers.get("a2a-version") or query.get("A2A-Version"),
            extensions=tuple(uri for part in extensions.split(",") if (uri := part.strip())),
            idempotency_key=headers.get("idempotency-key"),
            last_event_id=int(event_id) if is_event_id else None,
            event_id_problem=_NO_EVENT_ID if event_id and not is_event_id else None,
        )

    def _extensions_header(self, headers: Headers) -> str:
        """The header in which the client names extensions; its answer names them there, too."""
        names = self._rules.extension_headers
        return next((name for name in names if name in headers), names[0])


class _App:
    """An ASGI app as a route's endpoint. Starlette takes a bound coroutine function for a request handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def as_response(reply: Reply) -> Response:
    """A reply that is no stream, for a route's request handler."""
    headers = dict(reply.headers)
    return Response(reply.body, status_code=reply.status, media_type=reply.media_type, headers=headers)


async def not_served(request: Request, error: Exception) -> Response:
    """Starlette found no route, or one for other HTTP methods."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    told = PathNotFound() if allowed is None else HttpMethodNotAllowed(allowed)
    return as_response(status_reply(told, json_type(request.scope)))
