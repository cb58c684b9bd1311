"""The JSON-RPC methods of A2A v0.3: each one is a v1.0 method, with its params and its result in other words."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from msgspec import Raw
from msgspec.structs import replace as changed

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Frame, Handler, Method
from a2a_server.protocol import types as v1
from a2a_server.protocol.dialect import A2ADialect
from a2a_server.protocol.errors import (
    A2AError,
    ExtendedAgentCardNotConfigured,
    InvalidParams,
    TaskNotCancelable,
    TaskNotFound,
    UnsupportedOperation,
    translate,
)
from a2a_server.v0_3 import translate as to
from a2a_server.v0_3 import types as wire
from a2a_server.v0_3.card import hybrid
from a2a_server.v0_3.dialect import A2A_0_3
from a2a_server.v0_3.types import TaskPushNotificationConfig as PushConfig
from core.model.errors import CallerError
from core.model.task import TaskStatus

Status = Callable[[RequestContext, str], Awaitable[TaskStatus]]


@dataclass(frozen=True, slots=True)
class Line:
    """One method, as its v1.0 handler is called for it. `refusal`: what v0.3 says where v1.0 says "unsupported"."""

    name: str
    of: str  # the v1.0 method
    params: Any
    result: Any
    request: Callable[[Any], Any]
    answer: Callable[[Any], Any]
    refusal: type[A2AError] = UnsupportedOperation


def same(result: Any) -> Any:
    """Null stays null; the frames of a stream are in this dialect already."""
    return result


# A message to a task that has ended, and following one, are wrong params in v0.3's own server (a2a-sdk 0.3).
LINES = (
    Line(
        name="message/send",
        of="SendMessage",
        params=wire.MessageSendParams,
        result=wire.Task | wire.Message,
        request=to.send_request,
        answer=to.send_result,
        refusal=InvalidParams,
    ),
    Line(
        name="message/stream",
        of="SendStreamingMessage",
        params=wire.MessageSendParams,
        result=wire.Event,
        request=to.send_request,
        answer=same,
        refusal=InvalidParams,
    ),
    Line(
        name="tasks/get",
        of="GetTask",
        params=wire.TaskQueryParams,
        result=wire.Task,
        request=to.get_request,
        answer=to.task_of,
    ),
    Line(
        name="tasks/cancel",
        of="CancelTask",
        params=wire.TaskIdParams,
        result=wire.Task,
        request=to.cancel_request,
        answer=to.task_of,
    ),
    Line(
        name="tasks/resubscribe",
        of="SubscribeToTask",
        params=wire.TaskIdParams,
        result=wire.Event,
        request=to.subscribe_request,
        answer=same,
        refusal=InvalidParams,
    ),
    Line(
        name="tasks/pushNotificationConfig/set",
        of="CreateTaskPushNotificationConfig",
        params=PushConfig,
        result=PushConfig,
        request=to.create_push_request,
        answer=to.push_config_of,
    ),
    Line(
        name="tasks/pushNotificationConfig/delete",
        of="DeleteTaskPushNotificationConfig",
        params=wire.DeletePushConfigParams,
        result=None,
        request=to.delete_push_request,
        answer=same,
    ),
    Line(
        name="agent/getAuthenticatedExtendedCard",
        of="GetExtendedAgentCard",
        params=wire.NoParams,
        result=wire.HybridCard,
        request=to.card_request,
        answer=hybrid,
        refusal=ExtendedAgentCardNotConfigured,
    ),
)


def table(methods: Iterable[Method], status: Status) -> list[Method]:
    """The v0.3 methods over these, among which are all of v1.0. `status` tells that of a caller's task."""
    known = {method.name: method for method in methods}
    get, page = known["GetTaskPushNotificationConfig"], known["ListTaskPushNotificationConfigs"]
    configs = _PushConfigs(get.handler, page.handler)
    return [
        *methods_of(LINES, known.values(), A2A_0_3, status),
        _over(get, "tasks/pushNotificationConfig/get", configs.get, (wire.GetPushConfigParams, PushConfig)),
        _over(page, "tasks/pushNotificationConfig/list", configs.all, (wire.TaskIdParams, list[PushConfig])),
    ]


def methods_of(lines: Iterable[Line], methods: Iterable[Method], dialect: A2ADialect, status: Status) -> list[Method]:
    """A method for each line, over those of v1.0. `status` tells that of a caller's task."""
    known = {method.name: method for method in methods}
    cancel = known["CancelTask"]
    known[cancel.name] = replace(cancel, handler=_cancel(cancel.handler, status))
    # Over HTTP an error has its status, before a stream as elsewhere.
    opens_stream = dialect is A2A_0_3
    return [
        _over(
            known[line.of],
            line.name,
            _handler(line, known[line.of], opens_stream=opens_stream),
            (line.params, line.result),
            dialect,
        )
        for line in lines
    ]


def _over(of: Method, name: str, handler: Handler, types: tuple[Any, Any], dialect: A2ADialect = A2A_0_3) -> Method:
    """A method in this dialect. The v1.0 handler sees the dialect in its context: streams and webhooks depend on it."""

    async def call(context: RequestContext, given: Any) -> Any:
        return await handler(replace(context, dialect=dialect), given)

    params, result = types
    return replace(
        of,
        name=name,
        handler=call,
        params_type=params,
        result_type=result,
        summary=f"{of.name} in A2A v0.3.",
        dialect=dialect,
    )


def _handler(line: Line, of: Method, *, opens_stream: bool) -> Handler:
    async def call(context: RequestContext, params: Any) -> Any:
        try:
            answer = await of.handler(context, line.request(params))
            return answer if isinstance(answer, Raw) else line.answer(answer)  # a large task is JSON of v0.3 already
        except (A2AError, CallerError) as error:
            told = translate(error)
            if isinstance(told, UnsupportedOperation):
                told = line.refusal(told.message, metadata=told.metadata)
            if of.is_stream and opens_stream and not told.is_http:
                return _failed(told)
            raise told from None

    return call


async def _failed(error: A2AError) -> AsyncGenerator[Frame, None]:
    """A stream that is one error: v0.3 clients that ask for a stream read nothing else (a2a-sdk 0.3, a2a-tck 0.3.x)."""
    raise error
    yield  # what makes it a generator


def _cancel(cancel: Handler, status: Status) -> Handler:
    """In v0.3 a canceled task cannot be canceled again (v0.3 §7.4); in v1.0 that is no error (v1.0 §3.3.1)."""

    async def call(context: RequestContext, params: v1.CancelTaskRequest) -> Any:
        if await status(context, params.id) is TaskStatus.CANCELLED:
            raise TaskNotCancelable(metadata={"taskId": params.id})
        return await cancel(context, params)

    return call


class _PushConfigs:
    """Reading webhooks: a list is a bare array, and a request without a config id gets the task's first."""

    def __init__(self, get: Handler, page: Handler) -> None:
        self._get = get
        self._page = page

    async def get(self, context: RequestContext, params: wire.GetPushConfigParams) -> PushConfig:
        if params.push_notification_config_id:
            request = v1.PushNotificationConfigRequest(task_id=params.id, id=params.push_notification_config_id)
            return to.push_config_of(await self._get(context, request))
        page = await self._page(context, v1.ListTaskPushNotificationConfigsRequest(task_id=params.id, page_size=1))
        if not page.configs:
            raise TaskNotFound("The task has no push notification config", metadata={"taskId": params.id})
        return to.push_config_of(page.configs[0])

    async def all(self, context: RequestContext, params: wire.TaskIdParams) -> list[PushConfig]:
        found: list[PushConfig] = []
        request = v1.ListTaskPushNotificationConfigsRequest(task_id=params.id)
        while True:
            page = await self._page(context, request)
            found += map(to.push_config_of, page.configs)
            if not page.next_page_token:
                return found
            request = changed(request, page_token=page.next_page_token)
