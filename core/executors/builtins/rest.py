"""`rest_executor`: one HTTP call, through the egress guard. The operator's policy decides where to and how long."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.signature import InputsRefused
from core.loop.large_values import encoded, encoded_text, is_small
from core.model.errors import CoreError
from core.model.jsonvalue import Verified
from core.outside.egress import Egress, EgressPolicy, Outgoing
from core.outside.fetched import Incoming

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # they change nothing (RFC 9110 §9.2.1), so they need no key
SHOWN_BODY = 300  # characters of the answer in the error of a failed call
LOOKED_AT = 4 * 1024  # bytes of it that are looked at for them

MOST_PARAMS: Final = 1_000  # names of a query, and values of each
MOST_HEADERS: Final = 200
MOST_TEXT: Final = 64 * 1024  # bytes of a query, and of the headers, as the task gives them

# These frame the message, or say whom it is for: they come from the URL and the body, never from a task.
RESERVED_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "keep-alive", "expect"}
)
SCALAR = {"type": ["string", "number", "boolean", "null"]}

INPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "url": {"type": "string", "minLength": 1, "description": "http or https"},
        "method": {"enum": list(METHODS), "default": "GET"},
        "headers": {"type": "object", "maxProperties": MOST_HEADERS, "additionalProperties": {"type": "string"}},
        "params": {
            "type": "object",
            "description": "the query, put in place of the URL's own",
            "maxProperties": MOST_PARAMS,
            "additionalProperties": {"anyOf": [SCALAR, {"type": "array", "maxItems": MOST_PARAMS, "items": SCALAR}]},
        },
        "json": {"description": "the body, as JSON"},
        "body": {"type": "string", "description": "the body, as text"},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "description": "seconds, at most the server's own limit"},
        "follow_redirects": {"type": "boolean", "default": False},
    },
    "required": ["url"],
    "additionalProperties": False,
}
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "status_code": {"type": "integer"},
        "headers": {"type": "object", "additionalProperties": {"type": "string"}},
        "json": {"description": "the body, where it is JSON"},
        "text": {"type": "string", "description": "the body, where it is not"},
        "url": {"type": "string", "description": "where the answer came from"},
        "elapsed": {"type": "number", "description": "seconds"},
    },
    "required": ["status_code", "headers", "url", "elapsed"],
}


class CallFailed(CoreError):
    """The call was not made, or its answer is not a success."""


def rest_executor_spec(policy: EgressPolicy) -> ExecutorSpec:
    """The executor that makes calls under this policy."""
    egress = Egress(policy)
    return ExecutorSpec(
        id="rest_executor",
        make=lambda: RestExecutor(egress),
        name="HTTP call",
        description="Makes one HTTP call and returns the answer. An HTTP error status fails the task.",
        tags=("http", "rest", "network"),
        examples=('{"url": "https://example.com/items", "method": "POST", "json": {"name": "one"}}',),
        input_schema=INPUT_SCHEMA,
        output_schema=OUTPUT_SCHEMA,
    )


class RestExecutor:
    """Makes one call for one attempt. Cancelling it drops the connection."""

    def __init__(self, egress: Egress) -> None:
        self._egress = egress

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Verified:
        """Make the call. Raises CallFailed for a status outside 200 to 299, and EgressError when no answer came."""
        task = context.stored_task
        call = await outgoing(inputs, task.inputs, context.idempotency_key, partial(context.beside.run, task.owner))
        answer = await self._egress.fetch(replace(call, owner=context.stored_task.owner), context.room)
        if not 200 <= answer.status_code < 300:
            text = (await answer.text(LOOKED_AT)).strip()[:SHOWN_BODY]
            raise CallFailed(f"the server answered with status {answer.status_code}{f': {text}' if text else ''}")
        return Verified(await result(answer))


async def outgoing(
    inputs: Mapping[str, Any], own: Mapping[str, Any], idempotency_key: str, beside: Callable[..., Awaitable[bytes]]
) -> Outgoing:
    """The call that the inputs ask for; `own` are those that the task's author wrote. `beside` runs what takes long.

    Headers, and the body of a method that is to change nothing, are taken from the own ones only: otherwise the
    headers and the JSON of a call that this one depends on would be sent to another server.
    Raises CallFailed when a header is not the caller's to set, and InputsRefused when the query or the headers are too
    long: they are encoded on the event loop.
    """
    method = inputs.get("method", "GET")
    headers: dict[str, str] = dict(own.get("headers", {}))
    _refuse_long("headers", headers)
    _refuse_long("params", inputs.get("params") or {})
    names = {name.lower() for name in headers}
    if refused := sorted(name for name in names if name in RESERVED_HEADERS or name.startswith("proxy-")):
        raise CallFailed(f"inputs.headers: {', '.join(refused)} cannot be set")
    if "json" in own and "body" in own:
        raise CallFailed("inputs: give either json or body")
    if method not in SAFE_METHODS and "idempotency-key" not in names:
        headers["Idempotency-Key"] = idempotency_key
    source = own if method in SAFE_METHODS or "json" in own or "body" in own else inputs
    body: bytes | None = None
    if "body" in source:
        text = source["body"]
        body = encoded_text(text) if is_small(text) else await beside(encoded_text, text)
    elif "json" in source:
        value = source["json"]
        body = encoded(value) if is_small(value) else await beside(encoded, value)
        if "content-type" not in names:
            headers["Content-Type"] = "application/json"
    return Outgoing(
        url=inputs["url"],
        method=method,
        headers=headers,
        params=inputs.get("params"),
        body=body,
        timeout=inputs.get("timeout"),
        follow_redirects=inputs.get("follow_redirects", False),
    )


def _refuse_long(name: str, fields: Mapping[str, Any]) -> None:
    """Raise InputsRefused for more names or bytes than are encoded at once, having read no more than that of them."""
    most = MOST_HEADERS if name == "headers" else MOST_PARAMS
    if len(fields) > most:
        raise InputsRefused(f"inputs.{name}: {len(fields)} names; {most} are allowed")
    size = 0
    for part in _texts(fields):
        # Of what is too long even in characters no bytes are made.
        size += len(part) if len(part) > MOST_TEXT else len(part.encode("utf-8", "replace"))
        if size > MOST_TEXT:
            raise InputsRefused(f"inputs.{name}: more than {MOST_TEXT} bytes; send what is large as json or body")


def _texts(fields: Mapping[str, Any]) -> Iterator[str]:
    """The names and values as they are written: a name stands before each value of an array."""
    for name, value in fields.items():
        for each in value if isinstance(value, list | tuple) else (value,):
            yield name
            yield each if isinstance(each, str) else str(each)


async def result(answer: Incoming) -> dict[str, Any]:
    """The task's result: the body is under `json` when it says that it is JSON, and is; else under `text`.

    Raises AnswerNotReadable when it is JSON with more values than are taken.
    """
    shown: dict[str, Any] = {
        "status_code": answer.status_code,
        "headers": answer.headers,
        "url": answer.url,
        "elapsed": round(answer.elapsed, 6),
    }
    if answer.media_type == "application/json" or answer.media_type.endswith("+json"):
        try:
            return shown | {"json": await answer.json()}
        except ValueError:
            pass
    return shown | {"text": await answer.text()}
