"""The HTTP+JSON binding of A2A v0.3 (v0.3 specification §3.2.3, §7): paths below `/v1`, the same handlers.

Requests may also have the shapes of v0.3's JSON-RPC, as its text shows them; answers are ProtoJSON, which its clients
read.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

from msgspec import Raw, json
from msgspec.structs import replace

from a2a_server.bindings.jsonrpc import Method
from a2a_server.bindings.rest import Binding, Calls
from a2a_server.protocol import types as v1
from a2a_server.protocol.codec import decode, encode
from a2a_server.protocol.dialect import A2ADialect
from a2a_server.protocol.errors import A2AError, ExtendedAgentCardNotConfigured, InvalidParams
from a2a_server.protocol.types import StreamResponse
from a2a_server.protocol.wire import Required, Wire
from a2a_server.v0_3 import proto
from a2a_server.v0_3 import translate as to
from a2a_server.v0_3.card import hybrid
from a2a_server.v0_3.dialect import decode_with_kinds
from a2a_server.v0_3.errors import error_object
from a2a_server.v0_3.methods import Line, Status, methods_of, same
from a2a_server.v0_3.types import HistoryLength, MessageSendParams, NoParams
from core.model.errors import Problem

MOST_LISTED = 100  # tasks of one list, without their history and artifacts

PATHS: Mapping[str, Calls] = {
    "/v1/message:send": {"POST": "message/send"},
    "/v1/message:stream": {"POST": "message/stream"},
    "/v1/card": {"GET": "agent/getAuthenticatedExtendedCard"},
    "/v1/tasks": {"GET": "tasks/list"},
    "/v1/tasks/{id}": {"GET": "tasks/get"},
    "/v1/tasks/{id}:cancel": {"POST": "tasks/cancel"},
    "/v1/tasks/{id}:subscribe": {"GET": "tasks/resubscribe", "POST": "tasks/resubscribe"},  # Python's client, Node's
    "/v1/tasks/{id}/pushNotificationConfigs": {
        "GET": "tasks/pushNotificationConfig/list",
        "POST": "tasks/pushNotificationConfig/set",
    },
    "/v1/tasks/{id}/pushNotificationConfigs/{pushNotificationConfigId}": {
        "GET": "tasks/pushNotificationConfig/get",
        "DELETE": "tasks/pushNotificationConfig/delete",
    },
}


class TaskParams(Wire, frozen=True, kw_only=True):
    """One task; the body may repeat its name."""

    id: Required
    history_length: HistoryLength = 0
    metadata: dict[str, Any] = {}


class ListParams(Wire, frozen=True, kw_only=True):
    """Which of the caller's tasks; v0.3 itself has no params here (§3.5.6, after §7.3)."""

    page_size: v1.PageSize | None = None
    page_token: str = ""


class PushParams(Wire, frozen=True, kw_only=True):
    """One webhook of a task."""

    id: Required
    push_notification_config_id: Required


class ListPushParams(Wire, frozen=True, kw_only=True):
    """The webhooks of a task."""

    id: Required
    page_size: HistoryLength = 0
    page_token: str = ""


class CreatePushParams(Wire, frozen=True, kw_only=True):
    """A webhook: bare, as the proto's annotation has it, or in the whole request, as Python's client sends it."""

    id: Required
    config_id: str = ""
    config: proto.PushConfig | None = None
    push_notification_config: proto.PushNotificationConfig | None = None


def _list(params: ListParams) -> v1.ListTasksRequest:
    size = MOST_LISTED if params.page_size is None else params.page_size
    return v1.ListTasksRequest(page_size=size, page_token=params.page_token, history_length=0)


def _listed(page: v1.ListTasksResponse) -> list[proto.Task]:
    """An array has no place for the token of the next page: the last task's metadata has it, where there is one."""
    told = cast("list[v1.Task | Raw]", page.tasks)
    tasks = [json.decode(each, type=proto.Task) if isinstance(each, Raw) else proto.task_of(each) for each in told]
    if tasks and page.next_page_token:
        tasks[-1] = replace(tasks[-1], metadata=tasks[-1].metadata | {"nextPageToken": page.next_page_token})
    return tasks


def _create_push(params: CreatePushParams) -> v1.TaskPushNotificationConfig:
    given = params.config.push_notification_config if params.config else params.push_notification_config
    if given is None:
        raise InvalidParams.of([Problem("pushNotificationConfig", "is required")])
    if params.config_id and params.config_id != (given.id or params.config_id):
        raise InvalidParams.of(
            [Problem("configId", "must be pushNotificationConfig.id, or one of the two must be omitted")]
        )
    return proto.push_config(params.id, replace(given, id=given.id or params.config_id))


def _list_push(params: ListPushParams) -> v1.ListTaskPushNotificationConfigsRequest:
    size = min(params.page_size, 100)
    return v1.ListTaskPushNotificationConfigsRequest(task_id=params.id, page_size=size, page_token=params.page_token)


def _one_push(params: PushParams) -> v1.PushNotificationConfigRequest:
    return v1.PushNotificationConfigRequest(task_id=params.id, id=params.push_notification_config_id)


def _send(params: proto.SendMessageRequest | MessageSendParams) -> v1.SendMessageRequest:
    return to.send_request(params) if isinstance(params, MessageSendParams) else proto.send_request(params)


def _get(params: TaskParams) -> v1.GetTaskRequest:
    return v1.GetTaskRequest(id=params.id, history_length=params.history_length or None)


def _cancel(params: TaskParams) -> v1.CancelTaskRequest:
    return v1.CancelTaskRequest(id=params.id, metadata=params.metadata)


def _subscribe(params: TaskParams) -> v1.SubscribeToTaskRequest:
    return v1.SubscribeToTaskRequest(id=params.id)


LINES = (
    Line("message/send", "SendMessage", proto.SendMessageRequest, proto.Response, _send, proto.response_of),
    Line("message/stream", "SendStreamingMessage", proto.SendMessageRequest, proto.Response, _send, same),
    Line("tasks/get", "GetTask", TaskParams, proto.Task, _get, proto.task_of),
    Line("tasks/list", "ListTasks", ListParams, list[proto.Task], _list, _listed),
    Line("tasks/cancel", "CancelTask", TaskParams, proto.Task, _cancel, proto.task_of),
    Line("tasks/resubscribe", "SubscribeToTask", TaskParams, proto.Response, _subscribe, same),
    Line(
        "tasks/pushNotificationConfig/set",
        "CreateTaskPushNotificationConfig",
        CreatePushParams,
        proto.PushConfig,
        _create_push,
        proto.push_config_of,
    ),
    Line(
        "tasks/pushNotificationConfig/get",
        "GetTaskPushNotificationConfig",
        PushParams,
        proto.PushConfig,
        _one_push,
        proto.push_config_of,
    ),
    Line(
        "tasks/pushNotificationConfig/list",
        "ListTaskPushNotificationConfigs",
        ListPushParams,
        proto.PushConfigs,
        _list_push,
        proto.push_configs_of,
    ),
    Line("tasks/pushNotificationConfig/delete", "DeleteTaskPushNotificationConfig", PushParams, None, _one_push, same),
    Line(
        "agent/getAuthenticatedExtendedCard",
        "GetExtendedAgentCard",
        NoParams,
        dict[str, Any],
        to.card_request,
        hybrid,
        ExtendedAgentCardNotConfigured,
    ),
)


def binding(methods: Iterable[Method], status: Status) -> Binding:
    """The binding over the methods of v1.0. `status` tells that of a caller's task."""
    table = methods_of(LINES, methods, A2A_0_3_REST, status)
    return Binding(PATHS, {method.name: method for method in table}, _error_body)


def _decode(params: Any, type_: Any) -> Any:
    said = params.get("message") if isinstance(params, dict) else None
    if type_ is proto.SendMessageRequest and isinstance(said, dict) and "parts" in said and "content" not in said:
        return decode_with_kinds(params, MessageSendParams)
    return decode(params, type_)


def _event(event: StreamResponse, is_last: bool) -> bytes:
    return encode(proto.event_of(event, is_last=is_last))


def _error_body(error: A2AError) -> bytes:
    """The error object of JSON-RPC, by whose code v0.3's own clients know it."""
    return encode(error_object(error))


A2A_0_3_REST = A2ADialect(
    version="0.3",
    form="rest",
    decode=_decode,
    error_object=error_object,
    event=_event,
    shape=proto.shape_of,
    bare=proto.bare_answer,
)
