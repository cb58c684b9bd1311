"""The abstract operations of ACTS (§4.1) over JSON-RPC and over HTTP+JSON, as the A2A specification has them (§5.3)."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import uuid4

import httpx2

from tests.acceptance.acts.matching import CaseError

VERSION = {"A2A-Version": "1.0"}
CARD_PATH = "/.well-known/agent-card.json"
# The published cases name the operations on webhooks in another way than the document.
ALIASES: Mapping[str, str] = {
    "set_push_notification_config": "create_push_config",
    "get_push_notification_config": "get_push_config",
    "list_push_notification_configs": "list_push_configs",
    "delete_push_notification_config": "delete_push_config",
}
# operation -> JSON-RPC method, HTTP verb and path; what the path does not take is the query or the body.
OPERATIONS: Mapping[str, tuple[str, str, str]] = {
    "send_message": ("SendMessage", "POST", "/message:send"),
    "send_streaming_message": ("SendStreamingMessage", "POST", "/message:stream"),
    "get_task": ("GetTask", "GET", "/tasks/{id}"),
    "list_tasks": ("ListTasks", "GET", "/tasks"),
    "cancel_task": ("CancelTask", "POST", "/tasks/{id}:cancel"),
    "subscribe_to_task": ("SubscribeToTask", "POST", "/tasks/{id}:subscribe"),
    "get_extended_agent_card": ("GetExtendedAgentCard", "GET", "/extendedAgentCard"),
    "create_push_config": ("CreateTaskPushNotificationConfig", "POST", "/tasks/{taskId}/pushNotificationConfigs"),
    "get_push_config": ("GetTaskPushNotificationConfig", "GET", "/tasks/{taskId}/pushNotificationConfigs/{id}"),
    "list_push_configs": ("ListTaskPushNotificationConfigs", "GET", "/tasks/{taskId}/pushNotificationConfigs"),
    "delete_push_config": (
        "DeleteTaskPushNotificationConfig",
        "DELETE",
        "/tasks/{taskId}/pushNotificationConfigs/{id}",
    ),
}
STREAMS = frozenset({"send_streaming_message", "subscribe_to_task"})
# name -> JSON-RPC code, reason, HTTP status (A2A §5.4, which ACTS §6.2 gives precedence over its own table)
ERRORS: Mapping[str, tuple[int, str, int]] = {
    "TaskNotFoundError": (-32001, "TASK_NOT_FOUND", 404),
    "TaskNotCancelableError": (-32002, "TASK_NOT_CANCELABLE", 400),
    "PushNotificationNotSupportedError": (-32003, "PUSH_NOTIFICATION_NOT_SUPPORTED", 400),
    "UnsupportedOperationError": (-32004, "UNSUPPORTED_OPERATION", 400),
    "ContentTypeNotSupportedError": (-32005, "CONTENT_TYPE_NOT_SUPPORTED", 400),
    "ExtendedCardNotSupportedError": (-32007, "EXTENDED_AGENT_CARD_NOT_CONFIGURED", 400),
    "ExtensionSupportRequiredError": (-32008, "EXTENSION_SUPPORT_REQUIRED", 400),
    "VersionNotSupportedError": (-32009, "VERSION_NOT_SUPPORTED", 400),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, without the binding's envelope. `error`: name, code, message and data, when that came instead."""

    status: int
    body: Any = None
    error: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)


class Binding(Protocol):
    """One way to ask a server."""

    name: str
    http: httpx2.Client

    def request(self, operation: str, params: dict[str, Any]) -> httpx2.Request:
        """The request for an operation."""
        ...

    def unwrap(self, status: int, value: Any) -> tuple[Any, Mapping[str, Any] | None]:
        """The A2A object, or the error, in a JSON body or the data of one event."""
        ...


class JsonRpc:
    """Envelopes to `/`."""

    name = "jsonrpc"

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http

    def request(self, operation: str, params: dict[str, Any]) -> httpx2.Request:
        envelope = {"jsonrpc": "2.0", "id": str(uuid4()), "method": OPERATIONS[operation][0], "params": params}
        return self.http.build_request("POST", "/", json=envelope, headers=VERSION)

    def unwrap(self, status: int, value: Any) -> tuple[Any, Mapping[str, Any] | None]:
        if "error" not in value:
            return value["result"], None
        error = value["error"]
        names = [name for name, (code, _, _) in ERRORS.items() if code == error["code"]]
        return None, {**error, "name": names[0] if names else JSONRPC_ERRORS.get(error["code"], "?")}


class Rest:
    """A path for each operation."""

    name = "rest"

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http

    def request(self, operation: str, params: dict[str, Any]) -> httpx2.Request:
        _, verb, template = OPERATIONS[operation]
        path = template.format_map(params)
        rest = {name: value for name, value in params.items() if f"{{{name}}}" not in template}
        headers = VERSION | {"Content-Type": "application/a2a+json"}
        if verb == "POST":
            return self.http.build_request(verb, path, content=json.dumps(rest), headers=headers)
        query = {name: str(value).lower() if isinstance(value, bool) else value for name, value in rest.items()}
        return self.http.build_request(verb, path, params=query, headers=VERSION)

    def unwrap(self, status: int, value: Any) -> tuple[Any, Mapping[str, Any] | None]:
        if status < 400:
            return value, None
        error = value["error"]
        reasons = {detail.get("reason") for detail in error.get("details", ())}
        names = [name for name, (_, reason, http) in ERRORS.items() if reason in reasons and http == status]
        told = {"code": error["code"], "message": error["message"], "data": error.get("details")}
        return None, told | {"name": names[0] if names else REST_ERRORS.get(status, "?")}


JSONRPC_ERRORS: Mapping[int, str] = {
    -32602: "InvalidParamsError",
    -32700: "JSONParseError",
    -32601: "MethodNotFoundError",
    -32603: "InternalError",
}
REST_ERRORS: Mapping[int, str] = {400: "InvalidParamsError", 500: "InternalError"}


def call(binding: Binding, operation: str, params: Mapping[str, Any]) -> Answer:
    """Ask, and wait for all of the answer, a stream's too."""
    operation, given = normal(operation, params)
    if operation == "get_agent_card":
        response = binding.http.get(CARD_PATH, headers=VERSION)
        return Answer(status=response.status_code, body=response.json(), headers=response.headers)
    if operation in STREAMS:
        with opened(binding, operation, given) as (answer, events):
            return Answer(status=answer.status, error=answer.error, headers=answer.headers, events=list(events))
    return _answer(binding, binding.http.send(binding.request(operation, given)))


@contextmanager
def opened(binding: Binding, operation: str, params: Mapping[str, Any]) -> Iterator[tuple[Answer, Iterator[Any]]]:
    """A stream: its head, or the error that came instead, and its events, which are read one by one."""
    operation, given = normal(operation, params)
    response = binding.http.send(binding.request(operation, given), stream=True)
    try:
        if response.headers["content-type"].startswith("text/event-stream"):
            head = Answer(status=response.status_code, headers=response.headers)
            yield head, _events(binding, response)
        else:
            response.read()
            yield _answer(binding, response), iter(())
    finally:
        response.close()


def data_of(lines: Iterator[str]) -> Iterator[Any]:
    """The JSON of each server-sent event."""
    return (json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:"))


def normal(operation: str, params: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The operation and its params as A2A has them.

    The published cases put a message's `taskId` and `contextId` beside it, a webhook into an object of its own, and
    ask for the extended card as a kind of the card.
    """
    operation, given = ALIASES.get(operation, operation), dict(params)
    if operation == "get_agent_card" and given.pop("extended", False):
        operation = "get_extended_agent_card"
    if operation not in OPERATIONS and operation != "get_agent_card":
        raise CaseError(f"ACTS has no operation {operation!r}")
    if "message" in given:
        addressed = {name: given.pop(name) for name in ("taskId", "contextId") if name in given}
        given["message"] = {"messageId": str(uuid4())} | given["message"] | addressed
    if operation == "create_push_config":
        given |= given.pop("pushNotificationConfig")
    return operation, given


def _answer(binding: Binding, response: httpx2.Response) -> Answer:
    value = response.json() if response.content else None
    body, error = binding.unwrap(response.status_code, value)
    return Answer(status=response.status_code, body=body, error=error, headers=response.headers)


def _events(binding: Binding, response: httpx2.Response) -> Iterator[Any]:
    for value in data_of(response.iter_lines()):
        event, error = binding.unwrap(response.status_code, value)
        if error is not None:
            raise AssertionError(f"the stream broke with {error}")
        yield event
