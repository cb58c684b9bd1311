"""The composition root: builds everything of one server from its configuration, and wires it. Nothing else does."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from time import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from a2a_server.agent_card import DISTRIBUTION, Offer
from a2a_server.cards import Cards, make_cards
from a2a_server.config import Config
from a2a_server.context import NOBODY, RequestContext
from a2a_server.gate import Face, Gate, read_body, send_refusal, send_reply
from a2a_server.headers import AnswerHeaders
from a2a_server.intake import skills
from a2a_server.jsonrpc import Door, Event, Reply, error_reply, to_events
from a2a_server.limits import PERMIT, Admission, Callers, Permit
from a2a_server.methods.a2a import A2AMethods
from a2a_server.methods.access import OpenTasks, owned_head
from a2a_server.methods.system import SystemMethods
from a2a_server.methods.tasks import TasksMethods, check_resume
from a2a_server.openrpc import discover_method
from a2a_server.origins import Origins
from a2a_server.protocol.codec import encode
from a2a_server.protocol.errors import (
    A2AError,
    HttpMethodNotAllowed,
    InvalidParams,
    Overloaded,
    PathNotFound,
    translate,
)
from a2a_server.proxies import BehindProxy
from a2a_server.rest import Rest, RestRoute, json_type, status_reply
from a2a_server.streams import EventStream, Streams, View, sse
from a2a_server.well_known import WellKnown
from core.egress import EgressPolicy
from core.errors import CallerError, ConfigurationError, Problem, StorageError
from core.executors.builtin import register_builtins
from core.executors.command import CommandPolicy
from core.executors.registry import ExecutorRegistry, default_registry
from core.plan import Limits
from core.runner import RunnerLimits
from core.session import Session, has_ended
from core.storage.base import Storage
from core.storage.sql import SqlStorage

RETRY_AFTER = 5.0  # seconds, told to those who come while the server starts or stops
PATIENCE = 0.75  # of the time to stop: what must not be interrupted may take it; the rest is for interrupting it
DOOR_PATHS = ("/", "/tasks", "/tasks/", "/system", "/system/")
_NO_EVENT_ID = Problem("Last-Event-ID", "must be the id of one of this stream's events")


class Application:
    """One server's parts. `asgi` is the ASGI app; `start`, `drain` and `stop` are called by who runs it."""

    def __init__(self, config: Config, session: Session, cards: Cards, url: str) -> None:
        self.config = config
        self.url = url
        self.session = session
        self.cards = cards
        self.streams = Streams(session)
        self.is_ready = False
        self.is_draining = False
        self._extensions = {extension.uri for extension in cards.extensions}
        self.door = self._make_door()
        self.rest = Rest(self.door.methods)
        self.asgi = self._make_edge(self._make_routes())

    def _make_door(self) -> Door:
        config, session = self.config, self.session
        limits = Limits(max_tasks=config.max_tree_tasks, max_depth=config.max_depth)
        open_tasks = OpenTasks(session, config.max_open_tasks)
        required = [each.uri for each in self.cards.extensions if each.required]
        a2a = A2AMethods(
            session,
            self.streams,
            open_tasks,
            limits=limits,
            default_skill=config.default_skill,
            required_extensions=required,
            extended_card=self.cards.extended,
        )
        tasks = TasksMethods(session, self.streams, open_tasks, limits=limits)
        system = SystemMethods(session, version=version(DISTRIBUTION), clock=session.clock)
        methods = [*a2a.table(), *tasks.table(), *system.table()]
        return Door([*methods, discover_method(methods, version=version(DISTRIBUTION))], max_batch=config.max_batch)

    def _make_routes(self) -> Starlette:
        app = Starlette(
            routes=[
                *(Route(path, _Endpoint(partial(self.answer, self.door)), methods=["POST"]) for path in DOOR_PATHS),
                RestRoute(self.rest, self.answer),
                Route("/tasks/{task_id}/events", self.events, methods=["GET"]),
                *WellKnown(self.cards.published).routes(),
                Route("/healthz", self.healthz, methods=["GET"]),
                Route("/readyz", self.readyz, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _not_served},
        )
        app.router.redirect_slashes = False
        return app

    def _make_edge(self, routes: ASGIApp) -> ASGIApp:
        """What a request passes on its way to the routes, from the inside out."""
        config = self.config
        origins = Origins(
            allowed=config.own_origins() | set(config.allowed_origins),
            readers=config.cors_origins,
            credentials=config.cors_credentials,
            opens_documents=config.is_exposed,
        )
        app: ASGIApp = Admission(routes, Callers())
        app = Gate(app, face=self._face, origins=origins, hosts=config.hosts(), max_body=config.max_body)
        app = AnswerHeaders(app, origins=origins, is_secure=self.url.startswith("https:"))
        return BehindProxy(app, root_path=config.root_path, trusted=config.trusted_proxies)

    # Life

    async def start(self) -> None:
        """Open the storage. Raises DatabaseInUse or StorageError."""
        await self.session.start()

    async def resume(self) -> None:
        """Take up what an earlier process left, then be ready."""
        await self.session.resume()
        self.is_ready = True

    def drain(self) -> None:
        """Take no new work; streams end, resumably, and blocking calls answer with their task as it is."""
        self.is_ready = False
        self.is_draining = True
        self.session.feed.close()

    async def stop(self, limit: float) -> None:
        """Stop what runs and close the storage. What has not stopped within so many seconds is left as it is."""
        self.drain()
        try:
            async with asyncio.timeout(limit):
                await self.session.close(PATIENCE * limit)
        except TimeoutError:
            await self.session.storage.close()

    # HTTP

    async def answer(self, face: Face, scope: Scope, receive: Receive, send: Send) -> None:
        """One request to the JSON-RPC door or to a path of the HTTP+JSON binding."""
        try:
            if not self.is_ready:
                raise self._not_ready()
            context = await self._context(Request(scope))  # who calls is judged before anything of the body is read
            body = await read_body(receive, self.config.max_body, self.config.body_timeout)
        except A2AError as error:
            await send_refusal(face.refuse(error), receive, send)
            return
        except ConnectionError:
            return
        reply = await face.handle(body, context)
        if active := self._extensions.intersection(context.extensions):
            reply = replace(reply, headers={**reply.headers, "A2A-Extensions": ", ".join(sorted(active))})
        if reply.events is None:
            await send_reply(reply, send)
        else:
            await self._stream(reply.events)(scope, receive, send)

    async def events(self, request: Request) -> Response:
        """The events of a task for a browser's EventSource; `?after=` or Last-Event-ID says from where on."""
        if not self.is_ready:
            return _plain(error_reply(self._not_ready()))
        try:
            context = await self._context(request)
            if context.event_id_problem is not None:
                raise InvalidParams.of([context.event_id_problem])
            task_id = request.path_params["task_id"]
            head = await owned_head(self.session, context.owner, task_id)
            after = check_resume(head, context.last_event_id)
            context.permit.stream()
        except (A2AError, CallerError, StorageError) as error:
            told = translate(error)
            return _plain(error_reply(told, status=told.http_status))
        if has_ended(head) and context.last_event_id is not None and after >= head.version:
            return Response(status_code=204)  # an EventSource reconnects until it is told so (HTML §9.2.3)
        frames = self.streams.tasks(head, View(head.id, task_id, ""), after)
        return self._stream(
            to_events(frames, lambda frame: encode(frame.result), lambda error: error_reply(error).body)
        )

    async def healthz(self, request: Request) -> Response:
        """Whether the process lives."""
        return JSONResponse({"status": "ok"})

    async def readyz(self, request: Request) -> Response:
        """Whether it takes work."""
        status = "draining" if self.is_draining else "ready" if self.is_ready else "starting"
        return JSONResponse({"status": status}, status_code=200 if self.is_ready else 503)

    def _face(self, scope: Scope) -> Face:
        return self.rest.call(scope) or self.door

    def _not_ready(self) -> Overloaded:
        return Overloaded(f"The server is {'stopping' if self.is_draining else 'starting'}", retry_after=RETRY_AFTER)

    def _stream(self, events: AsyncGenerator[Event, None]) -> EventStream:
        return EventStream(sse(events, lambda: self.is_draining), ping=self.config.sse_ping)

    async def _context(self, request: Request) -> RequestContext:
        """Who calls, and how. Raises Unauthenticated, PermissionDenied or RateLimited."""
        headers, query = request.headers, request.query_params
        event_id = headers.get("last-event-id") or query.get("after") or ""
        is_event_id = event_id.isascii() and event_id.isdigit() and len(event_id) <= 18
        extensions = headers.get("a2a-extensions", "")
        principal = NOBODY
        permit: Permit = request.scope[PERMIT]
        permit.admit(principal.owner, self.config.caller_limits(is_identified=principal is not NOBODY))
        return RequestContext(
            principal=principal,
            permit=permit,
            a2a_version=headers.get("a2a-version") or query.get("A2A-Version"),
            extensions=tuple(uri for part in extensions.split(",") if (uri := part.strip())),
            idempotency_key=headers.get("idempotency-key"),
            last_event_id=int(event_id) if is_event_id else None,
            event_id_problem=_NO_EVENT_ID if event_id and not is_event_id else None,
            base_url=str(request.base_url),
        )


class _Endpoint:
    """An ASGI app as a route's endpoint. Starlette takes a bound coroutine function for a request handler."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def build(
    config: Config, *, port: int | None = None, registry: ExecutorRegistry | None = None, storage: Storage | None = None
) -> Application:
    """Everything of one server. `port`: the one it really listens on; `registry` and `storage` replace the usual ones.

    Raises ConfigurationError.
    """
    registry = default_registry if registry is None else registry
    command = CommandPolicy(programs=config.commands) if config.commands else None
    register_builtins(registry, egress=EgressPolicy(config.egress_allow), command=command)
    known = [spec.id for spec in skills(registry)]
    if config.default_skill is not None and config.default_skill not in known:
        raise ConfigurationError(
            f"default_skill: there is no skill {config.default_skill!r}; the skills are: {', '.join(known) or 'none'}"
        )
    limits = RunnerLimits(tasks=config.max_running, processes=config.max_processes, tree=config.max_running_per_tree)
    session = Session(storage or SqlStorage(config.database), registry=registry, limits=limits)
    url = config.url(port)
    cards = make_cards(config, registry, url, Offer(), now=time())
    return Application(config, session, cards, url)


def _plain(reply: Reply) -> Response:
    headers = dict(reply.headers)
    return Response(reply.body, status_code=reply.status, media_type=reply.media_type, headers=headers)


async def _not_served(request: Request, error: Exception) -> Response:
    """Starlette found no route, or one for other HTTP methods."""
    assert isinstance(error, HTTPException)
    allowed = (error.headers or {}).get("Allow")
    told = PathNotFound() if allowed is None else HttpMethodNotAllowed(allowed)
    return _plain(status_reply(told, json_type(request.scope)))
