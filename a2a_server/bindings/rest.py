"""The HTTP+JSON binding of A2A (v1.0 specification §11): the same methods as behind the JSON-RPC endpoint, at paths.

Here stands how a request says which method it calls and with which params, and how the outcome is written.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from starlette.datastructures import Headers, QueryParams
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.gate import Endpoint, media_type
from a2a_server.bindings.jsonrpc import (
    JSON_LIMITS,
    JsonLimits,
    Method,
    Reply,
    json_of,
    parse,
    perform,
    read_large,
    to_events,
)
from a2a_server.edge.overload import CallKind
from a2a_server.protocol.codec import encode, from_query
from a2a_server.protocol.errors import A2AError, HttpMethodNotAllowed, InvalidParams, to_status
from core.model.errors import Problem

JSON = "application/json"
A2A_JSON = "application/a2a+json"

Calls = Mapping[str, str | None]  # HTTP method -> A2A method; None: served elsewhere, not by this binding

# The google.api.http annotations of the proto.
PATHS: Mapping[str, Calls] = {
    "/message:send": {"POST": "SendMessage"},
    "/message:stream": {"POST": "SendStreamingMessage"},
    "/extendedAgentCard": {"GET": "GetExtendedAgentCard"},
    "/tasks": {"GET": "ListTasks", "POST": None},
    "/tasks/{id}": {"GET": "GetTask"},
    "/tasks/{id}:cancel": {"POST": "CancelTask"},
    # The proto says GET, the specification's text POST (§11.3.2).
    "/tasks/{id}:subscribe": {"GET": "SubscribeToTask", "POST": "SubscribeToTask"},
    "/tasks/{id}/events": {"GET": None},
    "/tasks/{taskId}/pushNotificationConfigs": {
        "GET": "ListTaskPushNotificationConfigs",
        "POST": "CreateTaskPushNotificationConfig",
    },
    "/tasks/{taskId}/pushNotificationConfigs/{id}": {
        "GET": "GetTaskPushNotificationConfig",
        "DELETE": "DeleteTaskPushNotificationConfig",
    },
}

_NEEDLESS = re.compile("%(2[DE]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])", re.IGNORECASE)
_WEIGHT = re.compile(r";[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*(?:;|$)", re.IGNORECASE)  # RFC 9110 §12.4.2
_SPELLINGS = {  # of variables, in a body
    "id": ("id",),
    "taskId": ("taskId", "task_id"),
    "tenant": ("tenant",),
    "pushNotificationConfigId": ("pushNotificationConfigId", "push_notification_config_id"),
}
_NOT_KEPT = {"Cache-Control": "no-store"}  # a cache may keep the answer to a GET that says nothing (RFC 9111 §4.2.2)


class Binding(NamedTuple):
    """The paths of one version of A2A, the methods that they call, and how its errors are written."""

    paths: Mapping[str, Calls]
    methods: Mapping[str, Method]
    told: Callable[[A2AError], bytes]


class _Path(NamedTuple):
    pattern: re.Pattern[str]
    calls: Calls
    binding: Binding


@dataclass(frozen=True, slots=True, kw_only=True)
class RestCall:
    """One request to a path of the binding, before its body is read."""

    method: Method | None  # None: the path takes other HTTP methods only
    allowed: str  # these
    path: Mapping[str, str]  # its variables, percent-encoded as they came
    query: QueryParams | None  # None: the params are in the body
    media_type: str | None  # the JSON type that the request speaks of
    json: JsonLimits
    told: Callable[[A2AError], bytes]  # the body of an answer that is an error

    async def handle(self, body: bytes, context: RequestContext) -> Reply:
        """Run the method and write its outcome. Never raises, except for cancellation."""
        if self.method is None:
            return self.refuse(HttpMethodNotAllowed(self.allowed))
        try:
            params = await self._params(self.method, body, context)
        except A2AError as error:
            return self.refuse(error)
        match await perform(self.method, context, params):
            case A2AError() as told:
                return self.refuse(told)
            case bytes() as result:
                # What is nothing over JSON-RPC is google.protobuf.Empty here.
                body = b"{}" if result == b"null" else result
                return Reply(body=body, media_type=self.media_type or A2A_JSON, headers=_NOT_KEPT)
            case frames:
                return Reply(events=to_events(frames, json_of, self.told))

    def refuse(self, error: A2AError) -> Reply:
        """The answer that is one error."""
        return status_reply(error, self.media_type, self.told)

    async def _params(self, method: Method, body: bytes, context: RequestContext) -> dict[str, Any]:
        """The ProtoJSON of the method's request: what the body or the query says, and the variables of the path.

        Raises ParseError, and InvalidParams for a request that contradicts its own path.
        """
        if self.query is not None:
            params: Any = from_query(self.query.multi_items(), method.params_type)
        else:
            is_small = context.aside is None
            params = (
                (parse(body, self.json) if is_small else await read_large(body, self.json, context)) if body else {}
            )
        if not isinstance(params, dict):
            raise InvalidParams.of([Problem("", "the body must be a JSON object")])
        for name, encoded in self.path.items():
            try:
                value = unquote_to_bytes(encoded.encode("latin-1")).decode()
            except UnicodeDecodeError:
                raise InvalidParams.of([Problem(name, "must be UTF-8, percent-encoded")]) from None
            if any(params.pop(spelling, None) not in (None, "", value) for spelling in _SPELLINGS[name]):
                raise InvalidParams.of([Problem(name, "must equal the value in the path, or be omitted")])
            params[name] = value
        return params


class Rest:
    """The binding, over the methods of that endpoint by their names, and those of older versions at their own paths."""

    def __init__(
        self, methods: Mapping[str, Method], json: JsonLimits = JSON_LIMITS, older: Sequence[Binding] = ()
    ) -> None:
        self._json = json
        own = {path: {verb: name for verb, name in calls.items() if name} for path, calls in PATHS.items()}
        # A tenant may be called as a path of ours begins (`tasks`): where both fit, there is no tenant.
        tenants = {"/{tenant}" + path: calls for path, calls in own.items() if calls}
        current = Binding({**PATHS, **tenants}, methods, _status_body)
        self._bindings = (*older, current)
        self._paths = [
            _Path(_pattern(path), calls, each) for each in self._bindings for path, calls in each.paths.items()
        ]
        # What is below an older version's root (`/v1`) is that version's, and no tenant's.
        self._roots = tuple({"/" + path.split("/")[1] + "/" for each in older for path in each.paths})

    def posts(self) -> dict[str, CallKind]:
        """What a POST to one of the paths asks for, by the end of the path that follows its last variable."""
        return {
            path.rpartition("}")[2]: binding.methods[name].kind
            for binding in self._bindings
            for path, calls in binding.paths.items()
            if (name := calls.get("POST")) is not None
        }

    def call(self, scope: Scope) -> RestCall | None:
        """What the request asks of this binding; None where that is served elsewhere, or nowhere."""
        path = _unreserved(_raw_path(scope))
        fitting = [(found, each) for each in self._paths if (found := each.pattern.fullmatch(path))]
        if path.startswith(self._roots):
            fitting = [each for each in fitting if "tenant" not in each[0].groupdict()]
        if not fitting:
            return None
        verb = "GET" if scope["method"] == "HEAD" else scope["method"]  # uvicorn leaves the content out
        found, (_, calls, binding) = next((each for each in fitting if verb in each[1].calls), fitting[0])
        if verb in calls and calls[verb] is None:
            return None
        name = calls.get(verb)
        return RestCall(
            method=None if name is None else binding.methods[name],
            allowed=_allowed({verb for _, each in fitting for verb in each.calls}),
            path=found.groupdict(),
            query=None if verb == "POST" else QueryParams(scope["query_string"]),
            media_type=json_type(scope),
            json=self._json,
            told=binding.told,
        )


class RestRoute(BaseRoute):
    """The whole binding as one route: those of Starlette see decoded paths, where an id's %2F is a slash.

    `answer` serves a request of an endpoint.
    """

    def __init__(self, rest: Rest, answer: Callable[[Endpoint, Scope, Receive, Send], Awaitable[None]]) -> None:
        self._rest = rest
        self._answer = answer

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        call = self._rest.call(scope) if scope["type"] == "http" else None
        return (Match.NONE, {}) if call is None else (Match.FULL, {"rest_call": call})

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope["rest_call"], scope, receive, send)


def _status_body(error: A2AError) -> bytes:
    return encode(to_status(error))


def status_reply(error: A2AError, media_type: str | None, told: Callable[[A2AError], bytes] = _status_body) -> Reply:
    """The answer that is one error (A2A §11.6).

    Where the request says nothing it is plain JSON, which all clients read: §11.6 and "What's new" differ in its type.
    """
    headers = {**_NOT_KEPT, **error.headers}
    return Reply(status=error.http_status, body=told(error), media_type=media_type or JSON, headers=headers)


def json_type(scope: Scope) -> str | None:
    """The JSON type in which the request wants its answer; None where it names neither.

    What it accepts counts before what it brings (RFC 9110 §12.5.1), and of equals the plain type.
    """
    headers = Headers(scope=scope)
    wanted = _weights(",".join(headers.getlist("accept")))
    best = max((JSON, A2A_JSON), key=lambda each: wanted.get(each, 0.0))
    if wanted.get(best, 0.0) > 0:
        return best
    brought = media_type(headers.get("content-type", ""))
    if brought in (JSON, A2A_JSON) and brought not in wanted:
        return brought
    left = [each for each in (JSON, A2A_JSON) if each not in wanted]  # one that is refused is named, with q=0
    return left[0] if len(left) == 1 else None


def _weights(accept: str) -> dict[str, float]:
    """The media types of an Accept field with their weights; one without a good weight has none."""
    found = {}
    for part in accept.split(","):
        weight = _WEIGHT.search(part) if ";" in part else None
        found[media_type(part)] = 1.0 if weight is None else float(weight[1])
    return found


def _allowed(verbs: set[str]) -> str:
    return ", ".join(sorted(verbs | {"HEAD"} if "GET" in verbs else verbs))


def _unreserved(path: str) -> str:
    """The path with those characters as they are that need no encoding (RFC 3986 §6.2.2.2)."""
    return _NEEDLESS.sub(lambda found: chr(int(found[1], 16)), path) if "%" in path else path


def _pattern(path: str) -> re.Pattern[str]:
    """A variable is one segment. A colon belongs to it, except before a verb; there, write %3A for a colon."""
    path = re.sub(r"\{(\w+)\}(?=:)", r"(?P<\1>[^/]+)", path)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+(?<!:cancel)(?<!:subscribe))", path))


def _raw_path(scope: Scope) -> str:
    """The path as it was sent, below where the application is mounted."""
    raw: bytes = scope.get("raw_path") or quote(scope["path"], safe="/:").encode()
    return raw.decode("latin-1").removeprefix(scope.get("root_path", ""))
