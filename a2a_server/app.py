"""The composition root: builds everything of one server from its configuration, and wires it. Nothing else does."""

import asyncio
from collections.abc import Iterable, Sequence
from functools import partial
from math import inf
from time import time

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from a2a_server.auth.apikeys import ApiKeys
from a2a_server.auth.authenticator import make_authenticator
from a2a_server.auth.key_watch import KeyWatch
from a2a_server.auth.known_keys import MAX_AGE, KnownKeys
from a2a_server.auth.lifetimes import Lifetimes
from a2a_server.auth.schemes import security_requirements, security_schemes
from a2a_server.auth.settings import KEYS
from a2a_server.bindings.aside import Aside
from a2a_server.bindings.endpoint import HttpEndpoint, HttpRules, not_served
from a2a_server.bindings.gate import Endpoint, Gate
from a2a_server.bindings.jsonrpc import JsonLimits, JsonRpcEndpoint, Method
from a2a_server.bindings.openrpc import discover_method
from a2a_server.bindings.readiness import Readiness
from a2a_server.bindings.rest import Rest, RestRoute
from a2a_server.card.agent_card import Offer
from a2a_server.card.published import dated
from a2a_server.card.well_known import WellKnown
from a2a_server.cards import Cards, make_cards
from a2a_server.config import Config
from a2a_server.edge.headers import AnswerHeaders
from a2a_server.edge.inflight import InFlight
from a2a_server.edge.limits import Callers, Permits
from a2a_server.edge.origins import Origins
from a2a_server.edge.overload import Classifier, Load, Thresholds
from a2a_server.edge.proxies import BehindProxy
from a2a_server.limit_table import limits_in_force
from a2a_server.methods.a2a import A2AMethods, Offered
from a2a_server.methods.access import OpenTasks
from a2a_server.methods.delivery import MessageDelivery, MessageRules
from a2a_server.methods.event_source import EventSource
from a2a_server.methods.idempotency import Acceptance, Idempotency
from a2a_server.methods.intake import skills
from a2a_server.methods.keys import KeysMethods
from a2a_server.methods.messages import Messages
from a2a_server.methods.push import PushMethods
from a2a_server.methods.reading import TaskReader
from a2a_server.methods.system import SystemMethods
from a2a_server.methods.tasks import table as tasks_table
from a2a_server.methods.turns import MOST_LISTS, MOST_LISTS_PER_CALLER, in_turns
from a2a_server.process.distribution import version
from a2a_server.protocol.types import AgentExtension
from a2a_server.push.bodies import Payloads
from a2a_server.push.configs import ConfigStore, SecretBox, unread_trees
from a2a_server.push.deliveries import Deliveries, DeliveryRetry
from a2a_server.push.outbox import Outbox
from a2a_server.push.parcels import Parcels
from a2a_server.push.readers import Reader
from a2a_server.push.sender import Sender
from a2a_server.push.webhooks import WebhookRules, Webhooks
from a2a_server.shares import runner_limits
from a2a_server.v0_3.card import hybrid
from a2a_server.v0_3.dialect import A2A_0_3
from a2a_server.v0_3.dialect import EXTENSIONS_HEADER as V0_3_EXTENSIONS_HEADER
from a2a_server.v0_3.methods import table as v0_3_table
from a2a_server.v0_3.rest import binding as v0_3_binding
from a2a_server.views.streams import Streams
from core.databases import storage_of
from core.executors.builtins.command import CommandPolicy
from core.executors.builtins.registration import register_builtins
from core.executors.registry import ExecutorRegistry, default_registry
from core.loop.turns import Turns
from core.model.errors import ConfigurationError
from core.model.plan import Limits
from core.model.shares import FairShares
from core.outside.egress import Egress, EgressPolicy
from core.run.retention import Retention, RetentionTimes
from core.session import Session
from core.storage.base import Storage

RPC_PATHS = ("/", "/tasks", "/tasks/", "/system", "/system/")
EXTENSIONS_HEADERS = ("A2A-Extensions", V0_3_EXTENSIONS_HEADER)


class Application:
    """One server's parts. `asgi` is the ASGI app; `start`, `drain` and `stop` are called by who runs it."""

    def __init__(self, config: Config, session: Session, cards: Cards, url: str) -> None:
        self.config = config
        self.url = url
        self.session = session
        self.cards = cards
        self.streams = Streams(session)
        self.lifetimes = Lifetimes(session.clock)
        max_age = inf if session.storage.is_exclusive else MAX_AGE
        known = KnownKeys(session.storage, session.clock, max_age, self.lifetimes.end)
        self.keys = ApiKeys(session.storage, session.clock, config.max_keys, known)
        self.key_watch = KeyWatch(known, self.lifetimes)
        self.aside = Aside()
        self.inflight = InFlight(per_caller=config.max_http_bytes_per_caller, total=config.max_http_bytes)
        self.authenticator = make_authenticator(config, self.keys, EgressPolicy(config.egress_allow), session.clock)
        self.webhooks = _make_webhooks(config, session) if config.push else None
        self.retention = _make_retention(config, session, self.webhooks)
        self.readiness = Readiness(lambda: session.storage.refusal() or session.runner.problem())
        self._json_limits = JsonLimits(config.max_nesting, config.max_values)
        self._status = TaskReader(session).status_for
        self.json_rpc = self._make_endpoint()
        self.rest = Rest(
            self.json_rpc.methods, self._json_limits, [v0_3_binding(self.json_rpc.methods.values(), self._status)]
        )
        self.load = _make_load(config, session, self.json_rpc.methods.values(), self.rest)
        self.http = HttpEndpoint(
            _rules(config, cards.extensions), self.readiness, self.authenticator, self.lifetimes, self.aside
        )
        self.well_known = WellKnown(cards.published)
        self.asgi = self._make_edge(self._make_routes())

    def _make_endpoint(self) -> JsonRpcEndpoint:
        config, session = self.config, self.session
        limits = Limits(max_tasks=config.max_tree_tasks, max_depth=config.max_depth)
        open_tasks = OpenTasks(session, config.max_open_tasks)
        required = [each.uri for each in self.cards.extensions if each.required]
        idempotency = Idempotency(session, keep=config.idempotency_keep, by_message_id=config.idempotency_by_message_id)
        acceptance = Acceptance(open_tasks, idempotency)
        known = frozenset(each.uri for each in self.cards.extensions)
        rules = MessageRules(limits, config.default_skill, config.max_file, config.client_context_ids, known)
        messages = Messages(session, self.streams, MessageDelivery(session, acceptance, rules, self.webhooks))
        push = PushMethods(session, self.webhooks) if self.webhooks is not None else None
        a2a = A2AMethods(
            session,
            self.streams,
            messages,
            offered=Offered(required, self.cards.extended),
            push=push,
        )
        tasks = tasks_table(session, self.streams, acceptance, limits, self.webhooks)
        system = SystemMethods(
            session,
            version=version(),
            clock=session.clock,
            limits=lambda is_identified: limits_in_force(config, is_identified=is_identified),
        )
        turns = Turns(MOST_LISTS, MOST_LISTS_PER_CALLER)
        current = in_turns(a2a.table(), turns)
        methods = [*current, *v0_3_table(current, self._status), *in_turns(tasks, turns), *system.table()]
        if push is not None:
            methods += in_turns(push.table(), turns)
        if KEYS in config.auth:  # else anybody could make a key for the time when callers are identified
            keys = KeysMethods(self.keys, self.lifetimes, clock=session.clock)
            methods += in_turns(keys.table(), turns)
        methods += [discover_method(methods, version=version())]
        return JsonRpcEndpoint(methods, max_batch=config.max_batch, json=self._json_limits)

    def _make_routes(self) -> Starlette:
        event_source = EventSource(self.session, self.streams, self.http)
        app = Starlette(
            routes=[
                *(Route(path, self.http.serving(self.json_rpc), methods=["POST"]) for path in RPC_PATHS),
                RestRoute(self.rest, self.http.answer),
                Route("/tasks/{task_id}/events", event_source.events, methods=["GET"]),
                *self.well_known.routes(),
                Route("/healthz", self.readiness.healthz, methods=["GET"]),
                Route("/readyz", self.readiness.readyz, methods=["GET"]),
            ],
            exception_handlers={HTTPException: not_served},
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
        app: ASGIApp = Permits(_shortcut(self.http, self.json_rpc, routes), Callers(inflight=self.inflight))

        def endpoint(scope: Scope) -> Endpoint:
            return self.rest.call(scope) or self.json_rpc

        app = Gate(app, endpoint=endpoint, origins=origins, hosts=config.hosts(), max_body=config.max_body)
        app = AnswerHeaders(app, origins=origins, is_secure=self.url.startswith("https:"))
        return BehindProxy(app, root_path=config.root_path, trusted=config.trusted_proxies)

    # Life

    async def start(self) -> None:
        """Open the storage. Raises DatabaseInUse or StorageError."""
        await self.session.start()
        published, now = self.well_known.published, self.session.clock.now()
        self.well_known.published = await dated(published, self.session.storage, now)

    async def resume(self) -> None:
        """Resume what an earlier process left, then be ready."""
        await self.session.resume()
        if self.webhooks is not None:
            self.webhooks.outbox.start()
        self.retention.start()
        if not self.session.storage.is_exclusive:
            self.key_watch.start()
        self.readiness.is_ready = True

    def announce_end(self) -> None:
        """Let `/readyz` say that the server will stop; calls are still served."""
        self.readiness.is_draining = True

    def drain(self) -> None:
        """Take no new work; streams end, resumably, and blocking calls answer with their task as it is."""
        self._refuse_work()
        self.session.feed.close()

    async def finish(self, grace: float, limit: float) -> None:
        """Take no new work, let attempts end within `grace` seconds, and interrupt what is left.

        Streams and blocking calls of a tree end when nothing of it runs any more. What was interrupted is waited for
        `limit` seconds.
        """
        self._refuse_work()
        await self.session.stop(grace, limit)

    def _refuse_work(self) -> None:
        self.readiness.is_ready = False
        self.readiness.is_draining = True

    async def stop(self, limit: float) -> None:
        """Stop what runs and close the storage. What has not stopped within so many seconds is left as it is."""
        self.drain()
        await self.retention.close()
        await self.key_watch.close()
        await self.authenticator.close()
        try:
            async with asyncio.timeout(limit):
                await self.session.close(grace=0.0)
        except TimeoutError:
            await self.session.storage.close()
        finally:
            self.aside.close()
            if self.webhooks is not None:  # last, so that what stops in time is still told
                await self.webhooks.outbox.close()


def _make_webhooks(config: Config, session: Session) -> Webhooks:
    policy = EgressPolicy(config.egress_allow, timeout=config.push_timeout)
    store = ConfigStore(session.storage, SecretBox(config.secret_keys))
    sender = Sender(
        Egress(policy),
        store.box,
        session.clock,
        timeout=config.push_timeout,
        secret=config.push_signing_secret,
    )
    retry_policy = DeliveryRetry(
        initial=config.push_retry_initial, longest=config.push_retry_longest, max_age=config.push_max_age
    )
    parcels = Parcels(session.storage, Payloads(session, {A2A_0_3.version: A2A_0_3}))
    deliveries = Deliveries(session, store, parcels, sender, retry_policy)
    shares: FairShares[Reader] = FairShares(config.push_concurrency, config.deliveries_per_caller)
    rules = WebhookRules(policy, config.max_push_configs, config.max_webhooks)
    return Webhooks(session, store, Outbox(session, store, deliveries, shares), rules)


def _make_retention(config: Config, session: Session, webhooks: Webhooks | None) -> Retention:
    times = RetentionTimes(compact_after=config.compact_after or None, drop_after=config.delete_after or None)
    # With or without webhooks at present: what waits for its delivery waits.
    unread = partial(unread_trees, session.storage) if webhooks is None else webhooks.outbox.scanner.unread
    return Retention(session.storage, session.feed, session.clock, times, unread)


def _make_load(config: Config, session: Session, methods: Iterable[Method], rest: Rest) -> Load:
    thresholds = Thresholds(soft=config.overload_soft, hard=config.overload_hard)
    classifier = Classifier({each.name: each.kind for each in methods}, rest.posts())
    load = Load(thresholds, classifier)
    session.feed.watch(load.committed)
    return load


def _rules(config: Config, extensions: Sequence[AgentExtension]) -> HttpRules:
    return HttpRules(
        max_body=config.max_body,
        body_timeout=config.body_timeout,
        sse_ping=config.sse_ping,
        of_everybody=config.caller_limits(is_identified=False),
        of_the_identified=config.caller_limits(is_identified=True),
        extensions=frozenset(each.uri for each in extensions),
        extension_headers=EXTENSIONS_HEADERS,
    )


def _shortcut(http: HttpEndpoint, json_rpc: JsonRpcEndpoint, routes: ASGIApp) -> ASGIApp:
    """The routes, behind the JSON-RPC endpoint: Starlette's layers cost a call a twentieth of its time."""

    async def shortcut(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in RPC_PATHS:
            await http.answer(json_rpc, scope, receive, send)
        else:
            await routes(scope, receive, send)

    return shortcut


def build(
    config: Config, *, port: int | None = None, registry: ExecutorRegistry | None = None, storage: Storage | None = None
) -> Application:
    """Everything of one server. `port`: the one it really listens on; `registry` and `storage` replace the usual ones.

    Raises ConfigurationError.
    """
    registry = default_registry if registry is None else registry
    command = CommandPolicy(programs=config.commands) if config.commands else None
    egress = EgressPolicy(config.egress_allow)
    register_builtins(registry, egress=egress, command=command)
    known = [spec.id for spec in skills(registry)]
    if config.default_skill is not None and config.default_skill not in known:
        raise ConfigurationError(
            f"default_skill: there is no skill {config.default_skill!r}; the skills are: {', '.join(known) or 'none'}"
        )
    session = Session(
        storage or storage_of(config.database, reserve=config.disk_reserve),
        registry=registry,
        limits=runner_limits(config),
        egress=Egress(egress),
    )
    url = config.url(port)
    offer = Offer(
        url=url,
        push_notifications=config.push,
        security_schemes=security_schemes(config),
        security_requirements=security_requirements(config),
    )
    cards = make_cards(config, registry, offer, now=time(), hybrid=hybrid)
    return Application(config, session, cards, url)
