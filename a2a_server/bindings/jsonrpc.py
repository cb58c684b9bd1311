"""The one JSON-RPC endpoint: bytes in; one response, a batch of them, nothing (notifications) or a stream out.

jsonrpcserver dispatches each call. What it leaves open is settled here: limits on the body, the envelope's rules,
batches item by item, streams, and errors whose text is safe to show. Nothing here knows HTTP beyond a status code.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from inspect import BoundArguments, Signature
from typing import Any, NamedTuple, cast

import msgspec
from jsonrpcserver import Error, Result, Success
from jsonrpcserver.async_dispatcher import dispatch_request
from jsonrpcserver.request import Request
from jsonrpcserver.sentinels import NOID
from msgspec import Raw, Struct

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.keyed import HEADER, refuse_key
from a2a_server.edge.inflight import SMALL, VALUE
from a2a_server.edge.overload import CallKind
from a2a_server.protocol.codec import encode, encode_in_pieces
from a2a_server.protocol.dialect import OWN, Dialect
from a2a_server.protocol.errors import (
    A2AError,
    Internal,
    InvalidParams,
    InvalidRequest,
    MethodNotFound,
    OperatorsOnly,
    ParseError,
    RetryLater,
    translate,
)
from a2a_server.protocol.versions import check_version
from core.loop.origin import CALLER
from core.model.errors import Problem
from core.model.jsonscan import LONGEST_NUMBER, has_few_values, has_short_numbers, is_shallow, most_values

DEFAULT_MAX_BATCH = 50
BATCH_BYTES = 16 * 1024 * 1024  # of the responses of one batch, after which its reads are refused
_HEAD = b'{"jsonrpc":"2.0","id":'

Handler = Callable[[RequestContext, Any], Awaitable[Any]]


class JsonLimits(Struct, frozen=True):
    """What the JSON of a body may be beside its bytes: nothing else bounds the memory that small values take.

    An empty object or array counts as two values.
    """

    nesting: int = 64
    values: int = 1_000_000


JSON_LIMITS = JsonLimits()


class NoParams(Struct, frozen=True):
    """Params of a method that takes none."""


class Frame(NamedTuple):
    """One event of a stream, as a method gives it.

    `result` is any value that msgspec encodes; `msgspec.Raw` for JSON that is encoded already. With `is_response` the
    endpoint puts it into a JSON-RPC response with the request's id, else it is sent as it is. `seq` becomes the SSE id.
    """

    result: Any
    seq: int | None = None
    is_response: bool = True


class Large(NamedTuple):
    """A result that is encoded beside the event loop, as its method knows it to be large."""

    value: Any


class Event(NamedTuple):
    """One event of a stream, as the caller gets it: JSON, and the sequence number for its SSE id."""

    data: bytes
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """One line of the method table.

    `handler(context, params)` gets the decoded params and returns the result, or, where the method streams, an async
    generator of Frames, one that holds nothing before it is iterated; what it raises before it returns that becomes a
    plain error. `is_stream` may be asked of the params (`tasks.execute`). With `is_raw` the handler gets the params
    undecoded, object, array or None, and `params_type` only documents them.
    """

    name: str
    handler: Handler
    kind: CallKind  # whether an overloaded server refuses a call of it
    params_type: Any = NoParams
    result_type: Any = Any  # for the OpenRPC document; a tuple: one of these
    summary: str = ""
    dialect: Dialect = OWN
    is_open: bool = False  # for callers who are no operators, as A2A's methods always are
    is_stream: bool | Callable[[Any], bool] = False
    is_raw: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What goes back: `events` (an SSE stream; close it with aclose()), else `body`, else nothing (204)."""

    status: int = 200
    body: bytes = b""
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    events: AsyncGenerator[Event, None] | None = None


class JsonRpcEndpoint:
    """The methods behind one JSON-RPC endpoint."""

    def __init__(
        self, methods: Iterable[Method], *, max_batch: int = DEFAULT_MAX_BATCH, json: JsonLimits = JSON_LIMITS
    ) -> None:
        self.methods = {method.name: method for method in methods}
        self._targets = {name: _target(method) for name, method in self.methods.items()}
        self._marks = {method.dialect.mark: method.dialect for method in self.methods.values() if method.dialect.mark}
        self._max_batch = max_batch
        self._json = json

    async def handle(self, body: bytes, context: RequestContext) -> Reply:
        """Answer one HTTP body. Never raises, except for cancellation."""
        try:
            is_small = context.aside is None
            message = parse(body, self._json) if is_small else await read_large(body, self._json, context)
            if isinstance(message, list) and not 1 <= len(message) <= self._max_batch:
                raise InvalidRequest(f"A batch must have 1 to {self._max_batch} requests, not {len(message)}")
            if isinstance(message, list) and len(message) > 1 and context.idempotency_key is not None:
                text = "applies to one request; send the requests of a batch one by one"
                raise InvalidRequest.of([Problem(HEADER, text)])
            if isinstance(message, list):
                context.permit.extend(len(message) - 1)
        except A2AError as error:
            return error_reply(error)
        if isinstance(message, list):
            responses = await self._batch(message, context)
            return Reply(body=b"[" + b",".join(responses) + b"]") if responses else Reply(status=204)
        call = await self._call(message, context, in_batch=False)
        if call.frames is not None:
            return Reply(events=_responses(call.frames, call.request_id, call.dialect))
        if call.response is None:
            return Reply(status=204)
        if call.error is None:
            return Reply(body=call.response)
        return error_reply(call.error, call.request_id, dialect=call.dialect)

    def refuse(self, error: A2AError) -> Reply:
        """The answer to a request that is refused before its body is read."""
        return error_reply(error)

    async def _batch(self, items: list[Any], context: RequestContext) -> list[bytes]:
        """The responses of a batch. Work begins at once, since each call may wait for its task; reads take turns.

        Once the responses have BATCH_BYTES together, the reads that follow are refused.
        """
        turn = asyncio.Lock()
        size = 0

        async def respond(item: Any) -> bytes | None:
            nonlocal size
            if self._is_read(item):
                async with turn:
                    if size > BATCH_BYTES:
                        return self._too_large(item)
                    response = (await self._call(item, context, in_batch=True)).response
                    size += len(response or b"")
            else:
                response = (await self._call(item, context, in_batch=True)).response
                size += len(response or b"")
            return response

        responses = await asyncio.gather(*(respond(item) for item in items))
        return [response for response in responses if response is not None]

    def _is_read(self, item: Any) -> bool:
        """Whether the request of a batch neither begins work nor ends it."""
        name = item.get("method") if isinstance(item, dict) else None
        method = self.methods.get(name) if isinstance(name, str) else None
        return method is None or method.kind is CallKind.OTHER

    def _too_large(self, item: Any) -> bytes | None:
        """The response to a read of a batch whose responses are large enough; None for a notification."""
        if not isinstance(item, dict) or "id" not in item:
            return None
        request_id, name = item["id"], item.get("method")
        known = request_id if type(request_id) in (str, int) else None
        text = f"the responses before this one exceed {BATCH_BYTES} bytes; send smaller batches"
        return _error_response(InvalidRequest(text), known, self._dialect(name) if isinstance(name, str) else OWN)

    async def _call(self, item: Any, context: RequestContext, *, in_batch: bool) -> "_Call":
        """Answer one request object: its response (None for a notification), or its frames."""
        call = _Call(context=context, in_batch=in_batch)
        try:
            request = self._request(item, call)
        except InvalidRequest as error:
            call.response = _error_response(error, call.request_id, call.dialect)
            call.error = error
            return call
        # Not the dispatcher's outermost function: that one costs two more tasks a call, and answers whole batches.
        await dispatch_request(self._targets, call, request)
        if request.id is NOID and call.dialect.version is None:
            if call.frames is not None:
                await call.frames.aclose()
                call.frames = None
        elif call.result is not None:
            call.response = b'%b%b,"result":%b}' % (_HEAD, encode(call.request_id), call.result)
        elif call.frames is None:
            # An error of the dispatcher itself carries the text of an exception: what the caller is told is ours alone.
            call.error = call.error or (Internal() if request.method in self._targets else MethodNotFound())
            call.response = _error_response(call.error, call.request_id, call.dialect)
        return call

    def _request(self, item: Any, call: "_Call") -> Request:
        """The request for the dispatcher, its params as one positional argument. Raises InvalidRequest."""
        if not isinstance(item, dict):
            raise InvalidRequest.of([Problem("", "a request must be an object")])
        request_id, name, params = item.get("id"), item.get("method"), item.get("params")
        wrong: list[Problem] = []
        if request_id is None or type(request_id) in (str, int):  # type(): a bool is no id
            call.request_id = request_id
        else:
            wrong.append(Problem("id", "must be a string, an integer or null"))
        if item.get("jsonrpc") != "2.0":
            wrong.append(Problem("jsonrpc", 'must be "2.0"'))
        if not isinstance(name, str):
            wrong.append(Problem("method", "must be a string"))
        else:
            call.dialect = self._dialect(name)
        if not (params is None or isinstance(params, dict | list)):
            wrong.append(Problem("params", "must be an object or an array"))
        if wrong:
            raise InvalidRequest.of(wrong)
        call.has_id = "id" in item
        return Request(str(name), [params], item.get("id", NOID))

    def _dialect(self, name: str) -> Dialect:
        """The dialect of a method of this name, be there one or not."""
        if name in self.methods:
            return self.methods[name].dialect
        return next((dialect for mark, dialect in self._marks.items() if mark in name), OWN)


@dataclass(slots=True, kw_only=True)
class _Call:
    """What becomes of one request object; the context that the dispatcher hands to the method."""

    context: RequestContext
    in_batch: bool
    has_id: bool = True
    dialect: Dialect = OWN
    request_id: str | int | None = None
    result: bytes | None = None
    error: A2AError | None = None
    response: bytes | None = None
    frames: AsyncGenerator[Frame, None] | None = None


def parse(body: bytes, limits: JsonLimits = JSON_LIMITS) -> Any:
    """The JSON value of a body. Integers of up to LONGEST_NUMBER digits stay exact. Raises ParseError."""
    if not has_few_values(body, limits.values):
        raise ParseError(f"{ParseError.text}: more than {limits.values} values")
    if not has_short_numbers(body):
        raise ParseError(f"{ParseError.text}: a number of more than {LONGEST_NUMBER} digits")
    if not is_shallow(body, limits.nesting):
        raise ParseError(f"{ParseError.text}: nested deeper than {limits.nesting} levels")
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        raise ParseError from None


async def read_large(body: bytes, limits: JsonLimits, context: RequestContext) -> Any:
    """The JSON value of a large body, decoded beside the event loop when the memory for its values is granted.

    Raises ParseError, RateLimited, Overloaded.
    """
    assert context.aside is not None
    values = min(await context.aside.run(context.owner, most_values, body), limits.values)
    context.permit.hold(len(body) + VALUE * values)
    return await context.aside.run(context.owner, parse, body, limits)


def error_reply(
    error: A2AError, request_id: str | int | None = None, *, status: int | None = None, dialect: Dialect = OWN
) -> Reply:
    """The answer that is one error; also for requests that never get here, such as those of a wrong type (415)."""
    body = _error_response(error, request_id, dialect)
    status = status or (error.http_status if error.is_http else 200)
    return Reply(status=status, body=body, headers=error.headers)


async def perform(
    method: Method, context: RequestContext, params: Any, *, in_batch: bool = False, has_id: bool = True
) -> bytes | AsyncGenerator[Frame, None] | A2AError:
    """Run a method, in any binding: its result as JSON, its frames where it streams, or what its caller is told."""
    try:
        return await _run(method, context, params, in_batch=in_batch, has_id=has_id)
    except Exception as error:  # noqa: BLE001 - the boundary: `translate` logs what nobody foresaw
        return translate(error)


async def to_events(
    frames: AsyncGenerator[Frame, None], wrapped: Callable[[Frame], bytes], told: Callable[[A2AError], bytes]
) -> AsyncGenerator[Event, None]:
    """The frames as a binding writes them; an error on the way is one last event (A2A §9.4.2)."""
    try:
        async for frame in frames:
            data, seq = wrapped(frame), frame.seq
            del frame  # nothing of what may be large is kept twice, or for longer than it takes to send it
            yield Event(data, seq)
            del data
    except Exception as error:  # noqa: BLE001 - the boundary, as in perform
        yield Event(told(translate(error)))
    finally:
        await frames.aclose()


def _target(method: Method) -> Callable[[_Call, Any], Awaitable[Result]]:
    """The method as jsonrpcserver calls it: a result or an error, never an exception."""

    async def target(call: _Call, params: Any, /) -> Result:
        match await perform(method, call.context, params, in_batch=call.in_batch, has_id=call.has_id):
            case A2AError() as error:
                call.error = error
                return Error(error.code, error.message)
            case bytes() as result:
                call.result = result
            case frames:
                call.frames = frames
        return Success()

    target.__signature__ = _Fitting()  # type: ignore[attr-defined]  # inspect's documented override
    return target


class _Fitting(Signature):
    """The signature that any arguments fit: the endpoint always calls a target with the two it takes.

    The dispatcher inspects and binds on each call, which would cost more than all the rest of it.
    """

    def bind(self, *args: Any, **kwargs: Any) -> BoundArguments:
        return BoundArguments(self, OrderedDict())


async def _run(
    method: Method, context: RequestContext, params: Any, *, in_batch: bool, has_id: bool
) -> bytes | AsyncGenerator[Frame, None]:
    dialect = method.dialect
    if not (dialect.version is not None or method.is_open or context.principal.is_operator):
        raise OperatorsOnly
    if dialect.version is not None:
        check_version(context.a2a_version, dialect.version)
    if context.idempotency_key is not None:
        refuse_key(method.name)
    if not method.is_raw:
        if context.aside is None:
            params = dialect.decode(params, method.params_type)
        else:
            params = await context.aside.run(context.owner, dialect.decode, params, method.params_type)
    if not has_id and dialect.version is not None:
        raise InvalidRequest.of([Problem("id", "is required; notifications are not supported")])
    streams = method.is_stream if isinstance(method.is_stream, bool) else method.is_stream(params)
    if streams and in_batch:
        raise InvalidRequest("A streaming method cannot be part of a batch")
    if streams and context.event_id_problem is not None:
        raise InvalidParams.of([context.event_id_problem])
    if streams:
        context.permit.stream()
    CALLER.set(context.owner)  # in whose name storage is read
    result = await method.handler(context, params)
    if streams:
        return cast("AsyncGenerator[Frame, None]", result)
    is_large = result.__class__ is Large
    if is_large:
        result = result.value
    if context.aside is not None:
        is_whole = result.__class__ is dict and not is_large
        told = await context.aside.run(context.owner, encode if is_whole else encode_in_pieces, result)
    elif is_large:
        told = await asyncio.to_thread(encode_in_pieces, result)
    else:
        told = encode(result)
    return told if len(told) <= SMALL else _with_room(method, context, result, told)


def _with_room(method: Method, context: RequestContext, result: Any, told: bytes) -> bytes:
    """The answer where its caller may hold it. Raises RateLimited or Overloaded, but not where work has been done:

    ends, cancels and what has begun are always told, in a few bytes if need be.
    """
    try:
        context.permit.answer(len(told))
    except RetryLater:
        if method.kind is CallKind.OTHER:
            raise
        return told if isinstance(result, Raw) else encode(method.dialect.bare(result))
    return told


def _responses(
    frames: AsyncGenerator[Frame, None], request_id: str | int | None, dialect: Dialect
) -> AsyncGenerator[Event, None]:
    head = _HEAD + encode(request_id) + b',"result":'

    def wrapped(frame: Frame) -> bytes:
        if not frame.is_response:
            return json_of(frame)
        return b"".join(
            (head, memoryview(frame.result) if isinstance(frame.result, Raw) else encode(frame.result), b"}")
        )

    return to_events(frames, wrapped, lambda error: _error_response(error, request_id, dialect))


def json_of(frame: Frame) -> bytes:
    """The frame's JSON."""
    return bytes(frame.result) if isinstance(frame.result, Raw) else encode(frame.result)


def _error_response(error: A2AError, request_id: str | int | None, dialect: Dialect) -> bytes:
    return _HEAD + encode(request_id) + b',"error":' + encode(dialect.error_object(error)) + b"}"
