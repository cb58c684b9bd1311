"""The HTTP+JSON binding: which request is which call, and how outcomes are written."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Frame, Method, Reply
from a2a_server.bindings.rest import A2A_JSON, JSON, Rest
from a2a_server.protocol import errors
from tests.a2a_server.conftest import calling, message

SECRET = "password=hunter2"
TASK = "0190b8c2"


class Recorder:
    """The binding over the real method table, whose handlers tell with what they were called."""

    def __init__(self, methods: dict[str, Method]) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.contexts: list[RequestContext] = []
        self.raises: Exception | None = None
        self.result: Any = {"ok": True}
        self.rest = Rest({name: replace(method, handler=self._handler(method)) for name, method in methods.items()})

    def _handler(self, method: Method) -> Any:
        async def handler(context: RequestContext, params: Any) -> Any:
            self.calls.append((method.name, params))
            self.contexts.append(context)
            if method.is_stream:
                return self._stream()
            if self.raises:
                raise self.raises
            return self.result

        return handler

    async def _stream(self) -> AsyncGenerator[Frame, None]:
        yield Frame({"task": {"id": "t"}}, 1)
        if self.raises:
            raise self.raises
        yield Frame(msgspec.Raw(b'{"statusUpdate":{}}'), 2)

    async def __call__(self, verb: str, target: str, body: Any = None, **context: Any) -> Reply:
        """The reply to a request that the binding takes."""
        call = self.rest.call(scope_of(verb, target))
        assert call is not None, f"{verb} {target} is not the binding's"
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        return await call.handle(data, RequestContext(**context))

    async def params(self, verb: str, target: str, body: Any = None) -> dict[str, Any]:
        """What the method got of a request that it got, as JSON."""
        reply = await self(verb, target, body)
        assert reply.status == 200, reply.body
        return dict(msgspec.to_builtins(self.calls[-1][1]))

    async def error(self, verb: str, target: str, body: Any = None, **context: Any) -> dict[str, Any]:
        """The error that a request is answered with."""
        reply = await self(verb, target, body, **context)
        error = json.loads(reply.body)["error"]
        assert error["code"] == reply.status
        return dict(error)


def scope_of(verb: str, target: str, **headers: str) -> dict[str, Any]:
    path, _, query = target.partition("?")
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {
        "type": "http", "method": verb, "path": path, "raw_path": path.encode(), "query_string": query.encode(),
        "headers": fields,
    }  # fmt: skip


def fields_of(error: dict[str, Any]) -> set[str]:
    return {each["field"] for detail in error["details"] for each in detail.get("fieldViolations", [])}


def reason_of(error: dict[str, Any]) -> str:
    (info,) = (detail for detail in error["details"] if detail["@type"].endswith("google.rpc.ErrorInfo"))
    return str(info["reason"])


@pytest_asyncio.fixture
async def recorder() -> AsyncIterator[Recorder]:
    async with calling() as caller:
        yield Recorder(caller.application.json_rpc.methods)


# Which request is which call

ROUTES = [
    ("POST", "/message:send", "SendMessage", {}),
    ("POST", "/message:stream", "SendStreamingMessage", {}),
    ("GET", "/tasks", "ListTasks", {}),
    ("GET", "/tasks/t-1", "GetTask", {"id": "t-1"}),
    ("POST", "/tasks/t-1:cancel", "CancelTask", {"id": "t-1"}),
    ("GET", "/tasks/t-1:subscribe", "SubscribeToTask", {"id": "t-1"}),
    ("POST", "/tasks/t-1:subscribe", "SubscribeToTask", {"id": "t-1"}),
    ("POST", "/tasks/t-1/pushNotificationConfigs", "CreateTaskPushNotificationConfig", {"taskId": "t-1"}),
    ("GET", "/tasks/t-1/pushNotificationConfigs", "ListTaskPushNotificationConfigs", {"taskId": "t-1"}),
    (
        "GET", "/tasks/t-1/pushNotificationConfigs/c-1", "GetTaskPushNotificationConfig",
        {"taskId": "t-1", "id": "c-1"},
    ),
    (
        "DELETE", "/tasks/t-1/pushNotificationConfigs/c-1", "DeleteTaskPushNotificationConfig",
        {"taskId": "t-1", "id": "c-1"},
    ),
    ("GET", "/extendedAgentCard", "GetExtendedAgentCard", {}),
]  # fmt: skip
BODIES = {
    "SendMessage": message(),
    "SendStreamingMessage": message(),
    "CreateTaskPushNotificationConfig": {"url": "https://example.com/hook"},
}


TENANTS = ["", "acme", "v1", "message:send", "extendedAgentCard", "a%2Fb", "system", "tasks"]
NO_TENANT = {"/tasks/tasks", "/tasks/extendedAgentCard"}  # tasks of these ids: see the test of them


@pytest.mark.parametrize(
    ("tenant", "verb", "path", "method", "variables"),
    [(tenant, *route) for tenant in TENANTS for route in ROUTES if f"/{tenant}{route[1]}" not in NO_TENANT],
)
@pytest.mark.asyncio
async def test_every_path_calls_its_method_with_and_without_a_tenant(
    recorder: Recorder, tenant: str, verb: str, path: str, method: str, variables: dict[str, str]
) -> None:
    prefix = f"/{tenant}" if tenant else ""

    params = await recorder.params(verb, prefix + path, BODIES.get(method))

    assert recorder.calls[-1][0] == method
    assert {name: params[name] for name in variables} == variables
    assert params.get("tenant", "") == tenant.replace("%2F", "/")


@pytest.mark.parametrize("name", ["tasks", "extendedAgentCard"])
@pytest.mark.asyncio
async def test_where_two_paths_fit_there_is_no_tenant(recorder: Recorder, name: str) -> None:
    """A tenant called `tasks` still has the query parameter."""
    assert await recorder.params("GET", f"/tasks/{name}") == {"id": name}
    assert await recorder.params("GET", "/tasks?tenant=tasks") == {"tenant": "tasks"}


def test_what_other_routes_serve_is_not_the_binding_s(recorder: Recorder) -> None:
    elsewhere = [("POST", "/tasks"), ("GET", "/tasks/t/events"), ("GET", "/tasks/tasks/events"), ("POST", "/")]
    nowhere = [("GET", "/tasks/"), ("GET", "/a/b/tasks"), ("POST", "//message:send"), ("GET", "/tasks/t/x")]
    for verb, path in elsewhere + nowhere:
        assert recorder.rest.call(scope_of(verb, path)) is None


@pytest.mark.parametrize(
    ("verb", "path", "allowed"),
    [
        ("PUT", "/tasks", "GET, HEAD, POST"),
        ("POST", "/tasks/t", "GET, HEAD"),
        ("GET", "/message:send", "POST"),
        ("GET", "/tasks/t:cancel", "POST"),
        ("DELETE", "/acme/tasks/t:subscribe", "GET, HEAD, POST"),
        ("POST", "/tasks/t/events", "GET, HEAD"),
        ("POST", "/acme/tasks", "GET, HEAD"),
        ("PUT", "/tasks/t/pushNotificationConfigs/c", "DELETE, GET, HEAD"),
        ("PUT", "/tasks/message:send", "GET, HEAD, POST"),
    ],
)
@pytest.mark.asyncio
async def test_wrong_http_method_is_told_the_right_ones(recorder: Recorder, verb: str, path: str, allowed: str) -> None:
    reply = await recorder(verb, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)
    assert json.loads(reply.body)["error"]["status"] == "UNIMPLEMENTED"
    assert recorder.calls == []


@pytest.mark.parametrize(
    "task_id", ["a/b", "a:cancel", "a:b", "urn:task:1", "ä 1", "%41", "a?b#c", "..", ".", "x" * 2000, "a+b", "tasks"]
)
@pytest.mark.asyncio
async def test_ids_may_hold_any_character(recorder: Recorder, task_id: str) -> None:
    encoded = quote(task_id, safe="")
    assert await recorder.params("GET", f"/tasks/{encoded}") == {"id": task_id}
    assert await recorder.params("POST", f"/tasks/{encoded}:cancel") == {"id": task_id}
    config = await recorder.params("GET", f"/t/tasks/{encoded}/pushNotificationConfigs/{encoded}")
    assert config == {"tenant": "t", "taskId": task_id, "id": task_id}


@pytest.mark.asyncio
async def test_id_with_a_plain_colon_is_one(recorder: Recorder) -> None:
    assert await recorder.params("GET", "/tasks/urn:task:1") == {"id": "urn:task:1"}
    assert await recorder.params("POST", "/tasks/urn:task:1:cancel") == {"id": "urn:task:1"}


@pytest.mark.asyncio
async def test_path_that_is_not_utf_8_is_refused(recorder: Recorder) -> None:
    error = await recorder.error("GET", "/tasks/%FF")
    assert (error["code"], fields_of(error)) == (400, {"id"})


def test_path_below_a_mount_point_and_without_a_raw_one_is_read(recorder: Recorder) -> None:
    scope = scope_of("GET", "/agent/tasks/t") | {"root_path": "/agent"}
    call = recorder.rest.call(scope | {"raw_path": None, "path": "/agent/tasks/ä:subscribe"})
    assert recorder.rest.call(scope) is not None
    assert call is not None and call.path == {"id": "%C3%A4"}


# Params


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("contextId=c%201&status=TASK_STATE_WORKING", {"contextId": "c 1", "status": "TASK_STATE_WORKING"}),
        ("context_id=c&page_size=7&page_token=x", {"contextId": "c", "pageSize": 7, "pageToken": "x"}),
        ("pageSize=50&historyLength=0", {"pageSize": 50, "historyLength": 0}),
        ("includeArtifacts=true", {"includeArtifacts": True}),
        ("includeArtifacts=false&pageToken=&contextId=", {}),
        ("statusTimestampAfter=2026-01-31T12:00:00.5Z", {"statusTimestampAfter": "2026-01-31T12:00:00.500000Z"}),
        ("unknown=1&A2A-Version=1.0&tenant=x", {"tenant": "x"}),
    ],
)  # fmt: skip
@pytest.mark.asyncio
async def test_query_parameters_become_params(recorder: Recorder, query: str, params: dict[str, Any]) -> None:
    assert await recorder.params("GET", f"/tasks?{query}") == params


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("pageSize=abc", {"pageSize"}),
        ("pageSize=0", {"pageSize"}),
        ("pageSize=101&status=working&historyLength=-1", {"pageSize", "status", "historyLength"}),
        ("pageSize=1&pageSize=2", {"pageSize"}),
        ("contextId=1&context_id=2", {"contextId"}),
        ("pageSize=1.5", {"pageSize"}),
        ("pageSize=", {"pageSize"}),
        (f"pageSize={'9' * 5000}", {"pageSize"}),
        ("page_size=١", {"pageSize"}),
        ("includeArtifacts=True&include_artifacts=1", {"includeArtifacts"}),
        ("includeArtifacts=yes", {"includeArtifacts"}),
        ("statusTimestampAfter=yesterday", {"statusTimestampAfter"}),
        ("statusTimestampAfter=2026-01-31T12:00:00", {"statusTimestampAfter"}),
        ("status=TASK_STATE_WORKING,TASK_STATE_FAILED", {"status"}),
    ],
)
@pytest.mark.asyncio
async def test_wrong_query_parameters_are_named_all_at_once(recorder: Recorder, query: str, fields: set[str]) -> None:
    error = await recorder.error("GET", f"/tasks?{quote(query, safe='=&:,')}")
    assert (error["code"], error["status"], reason_of(error)) == (400, "INVALID_ARGUMENT", "INVALID_PARAMS")
    assert fields_of(error) == fields
    assert recorder.calls == []


@pytest.mark.asyncio
async def test_body_is_read_as_proto_json(recorder: Recorder) -> None:
    """snake_case names, enum numbers and unknown fields, as through the endpoint."""
    body = {"message": {"message_id": "m", "role": 1, "parts": [{"text": "x"}]}, "not_known": 1, "metadata": None}
    params = await recorder.params("POST", "/message:send", body)
    assert params == {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}}


@pytest.mark.asyncio
async def test_cancel_takes_no_body_an_empty_one_and_one_with_metadata(recorder: Recorder) -> None:
    assert await recorder.params("POST", "/tasks/t:cancel") == {"id": "t"}
    assert await recorder.params("POST", "/tasks/t:cancel", {"id": ""}) == {"id": "t"}
    body = {"id": "t", "metadata": {"reason": "late"}, "tenant": ""}
    assert await recorder.params("POST", "/tasks/t:cancel", body) == {"id": "t", "metadata": {"reason": "late"}}


@pytest.mark.parametrize(
    ("verb", "target", "body", "field"),
    [
        ("POST", "/tasks/t:cancel", {"id": "u"}, "id"),
        ("POST", "/tasks/t:cancel", {"id": 5}, "id"),
        ("POST", "/acme/tasks/t:cancel", {"tenant": "other"}, "tenant"),
        ("POST", "/acme/message:send", message() | {"tenant": "other"}, "tenant"),
        ("POST", "/tasks/t/pushNotificationConfigs", {"url": "https://x.example", "taskId": "u"}, "taskId"),
        ("POST", "/tasks/t/pushNotificationConfigs", {"url": "https://x.example", "task_id": "u"}, "taskId"),
        ("GET", "/tasks/t?id=u", None, "id"),
        ("GET", "/acme/tasks?tenant=other", None, "tenant"),
    ],
)
@pytest.mark.asyncio
async def test_body_that_contradicts_the_path_is_refused(
    recorder: Recorder, verb: str, target: str, body: Any, field: str
) -> None:
    error = await recorder.error(verb, target, body)
    assert (error["code"], fields_of(error)) == (400, {field})
    assert recorder.calls == []


@pytest.mark.asyncio
async def test_body_that_agrees_with_the_path_in_either_spelling_passes(recorder: Recorder) -> None:
    body = {"url": "https://x.example", "taskId": "t", "task_id": "t", "tenant": "acme"}
    params = await recorder.params("POST", "/acme/tasks/t/pushNotificationConfigs", body)
    assert params == {"url": "https://x.example", "taskId": "t", "tenant": "acme"}


@pytest.mark.parametrize("body", [b"{", b"[" * 65 + b"]" * 65, b'{"a":NaN}', b"{}x", b" "])
@pytest.mark.asyncio
async def test_body_that_is_no_json_is_a_parse_error(recorder: Recorder, body: bytes) -> None:
    error = await recorder.error("POST", "/message:send", body)
    assert (error["code"], error["status"], reason_of(error)) == (400, "INVALID_ARGUMENT", "PARSE_ERROR")


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"1", b"null"])
@pytest.mark.asyncio
async def test_body_that_is_no_object_is_refused(recorder: Recorder, body: bytes) -> None:
    error = await recorder.error("POST", "/tasks/t:cancel", body)
    assert (error["code"], reason_of(error)) == (400, "INVALID_PARAMS")


@pytest.mark.asyncio
async def test_every_wrong_field_of_a_body_is_named(recorder: Recorder) -> None:
    error = await recorder.error("POST", "/message:send", {"message": {"role": "x", "parts": []}})
    assert fields_of(error) == {"message.messageId", "message.role", "message.parts"}


# Outcomes


@pytest.mark.asyncio
async def test_result_is_bare_and_nothing_is_an_empty_object(recorder: Recorder) -> None:
    reply = await recorder("GET", "/tasks/t")
    assert (reply.body, reply.headers) == (b'{"ok":true}', {"Cache-Control": "no-store"})
    recorder.result = None
    reply = await recorder("DELETE", "/tasks/t/pushNotificationConfigs/c")
    assert (reply.status, reply.body) == (200, b"{}")


ERRORS = [
    (errors.TaskNotFound, 404, "NOT_FOUND"),
    (errors.TaskNotCancelable, 400, "FAILED_PRECONDITION"),
    (errors.PushNotificationNotSupported, 400, "FAILED_PRECONDITION"),
    (errors.UnsupportedOperation, 400, "FAILED_PRECONDITION"),
    (errors.ContentTypeNotSupported, 400, "INVALID_ARGUMENT"),
    (errors.InvalidAgentResponse, 500, "INTERNAL"),
    (errors.ExtendedAgentCardNotConfigured, 400, "FAILED_PRECONDITION"),
    (errors.ExtensionSupportRequired, 400, "FAILED_PRECONDITION"),
    (errors.VersionNotSupported, 400, "FAILED_PRECONDITION"),
    (errors.InvalidParams, 400, "INVALID_ARGUMENT"),
    (errors.Unauthenticated, 401, "UNAUTHENTICATED"),
    (errors.PermissionDenied, 403, "PERMISSION_DENIED"),
    (errors.RateLimited, 429, "RESOURCE_EXHAUSTED"),
    (errors.Overloaded, 503, "UNAVAILABLE"),
]


@pytest.mark.parametrize(("type_", "status", "name"), ERRORS)
@pytest.mark.asyncio
async def test_every_error_has_its_status_its_name_and_its_reason(
    recorder: Recorder, type_: type[errors.A2AError], status: int, name: str
) -> None:
    recorder.raises = type_()
    reply = await recorder("GET", "/tasks/t")
    error = json.loads(reply.body)["error"]
    assert (reply.status, error["code"], error["status"], error["message"]) == (status, status, name, type_.text)
    assert reason_of(error) == type_.reason
    assert reply.headers == {"Cache-Control": "no-store", **recorder.raises.headers}


@pytest.mark.asyncio
async def test_unforeseen_exception_is_not_told(recorder: Recorder) -> None:
    recorder.raises = RuntimeError(SECRET)
    error = await recorder.error("GET", "/tasks/t")
    assert (error["code"], error["status"], reason_of(error)) == (500, "INTERNAL", "INTERNAL")
    assert SECRET not in json.dumps(error)


@pytest.mark.asyncio
async def test_stream_is_bare_objects_with_their_numbers(recorder: Recorder) -> None:
    reply = await recorder("POST", "/message:stream", message())
    assert reply.events is not None
    events = [event async for event in reply.events]
    assert events == [(b'{"task":{"id":"t"}}', 1), (b'{"statusUpdate":{}}', 2)]


@pytest.mark.asyncio
async def test_error_on_the_way_is_the_stream_s_last_event(recorder: Recorder) -> None:
    recorder.raises = RuntimeError(SECRET)
    reply = await recorder("GET", "/tasks/t:subscribe")
    assert reply.events is not None
    events = [event async for event in reply.events]
    error = json.loads(events[-1].data)["error"]
    assert (len(events), error["code"], events[-1].seq) == (2, 500, None)
    assert SECRET not in json.dumps(error)


@pytest.mark.asyncio
async def test_version_that_is_not_spoken_is_refused(recorder: Recorder) -> None:
    for version in ("0.3", "99.0", "x"):
        error = await recorder.error("GET", "/tasks/t", a2a_version=version)
        assert (error["code"], reason_of(error)) == (400, "VERSION_NOT_SUPPORTED")
    for version in (None, "", "1.0", "1.0.1"):
        assert (await recorder("GET", "/tasks/t", a2a_version=version)).status == 200


@pytest.mark.parametrize(
    ("headers", "result", "error"),
    [
        ({}, A2A_JSON, JSON),
        ({"accept": "*/*"}, A2A_JSON, JSON),
        ({"content_type": "application/a2a+json", "accept": "*/*"}, A2A_JSON, A2A_JSON),
        ({"content_type": "Application/JSON; charset=utf-8"}, JSON, JSON),
        ({"accept": "text/event-stream, application/json;q=0.9"}, JSON, JSON),
        ({"accept": "application/json;q=0.5, application/a2a+json"}, A2A_JSON, A2A_JSON),
        ({"accept": "application/a2a+json; x=y ;Q=0.9, application/json; q=0.901"}, JSON, JSON),
        ({"accept": "application/a2a+json, application/json"}, JSON, JSON),
        ({"accept": "application/json;q=0, */*"}, A2A_JSON, A2A_JSON),
        ({"accept": "application/a2a+json;q=0.000, */*"}, JSON, JSON),
        ({"accept": "application/a2a+json;q=0, application/json;q=0"}, A2A_JSON, JSON),
        ({"accept": "application/json;q=7"}, JSON, JSON),
        ({"accept": "application/a2a+json", "content_type": "application/json"}, A2A_JSON, A2A_JSON),
        ({"accept": "application/json;q=0", "content_type": "application/json"}, A2A_JSON, A2A_JSON),
    ],
)
@pytest.mark.asyncio
async def test_answer_has_the_media_type_that_the_request_speaks_of(
    recorder: Recorder, headers: dict[str, str], result: str, error: str
) -> None:
    call = recorder.rest.call(scope_of("GET", "/tasks/t", **headers))
    assert call is not None
    assert (await call.handle(b"", RequestContext())).media_type == result
    assert call.refuse(errors.TaskNotFound()).media_type == error
