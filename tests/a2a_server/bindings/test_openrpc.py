"""`rpc.discover`: the document describes what the endpoint really has."""

import json
from typing import Any

import jsonschema
import msgspec
import pytest

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import JsonRpcEndpoint, Method
from a2a_server.bindings.openrpc import describe, discover_method
from a2a_server.edge.overload import CallKind
from a2a_server.protocol import types
from a2a_server.protocol.dialect import A2A_1_0


class Task(msgspec.Struct):
    """A task of ours, whose name an A2A type has, too."""

    id: str


class GetParams(msgspec.Struct, kw_only=True):
    limit: int = 5
    task_id: str


async def nothing(context: RequestContext, params: Any) -> None:
    return None


METHODS = [
    Method(
        name="tasks.get",
        kind=CallKind.OTHER,
        handler=nothing,
        params_type=GetParams,
        result_type=Task,
        summary="One task.",
    ),
    Method(
        name="tasks.create",
        kind=CallKind.WORK,
        handler=nothing,
        params_type=Task | list[Task],
        result_type=Task,
        is_raw=True,
    ),
    Method(
        name="GetTask",
        kind=CallKind.OTHER,
        handler=nothing,
        params_type=types.GetTaskRequest,
        result_type=types.Task,
        dialect=A2A_1_0,
    ),
    Method(
        name="SendStreamingMessage",
        kind=CallKind.WORK,
        handler=nothing,
        params_type=types.SendMessageRequest,
        result_type=types.StreamResponse,
        dialect=A2A_1_0,
        is_stream=True,
    ),
    Method(
        name="ListTasks",
        kind=CallKind.OTHER,
        handler=nothing,
        params_type=types.ListTasksRequest,
        result_type=types.ListTasksResponse,
    ),
]


@pytest.mark.asyncio
async def test_the_document_lists_every_method_and_itself() -> None:
    endpoint = JsonRpcEndpoint([*METHODS, discover_method(METHODS, version="1.2.3")])
    reply = await endpoint.handle(b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}', RequestContext())
    document = json.loads(reply.body)["result"]

    assert document["openrpc"] == "1.3.2"
    assert document["info"] == {"title": "durable-a2a", "version": "1.2.3"}
    assert [method["name"] for method in document["methods"]] == [*(m.name for m in METHODS), "rpc.discover"]


def test_a_method_has_its_params_by_name_required_ones_first() -> None:
    get = describe(METHODS, version="1")["methods"][0]
    assert get["summary"] == "One task."
    assert get["paramStructure"] == "by-name"
    assert [(param["name"], param["required"]) for param in get["params"]] == [("task_id", True), ("limit", False)]
    assert get["params"][1]["schema"] == {"type": "integer", "default": 5}


def test_wire_types_are_described_in_camel_case_and_names_do_not_clash() -> None:
    document = describe(METHODS, version="1")
    a2a = document["methods"][2]
    assert {param["name"] for param in a2a["params"]} == {"id", "tenant", "historyLength"}
    assert a2a["result"]["schema"] != document["methods"][0]["result"]["schema"]


def test_streams_and_array_params_are_marked() -> None:
    _, create, _, stream, _ = describe(METHODS, version="1")["methods"]
    assert create["paramStructure"] == "either"
    assert create["x-params-schema"]["anyOf"]
    assert stream["x-streaming"] == "always"


def test_every_reference_resolves_and_every_schema_is_one() -> None:
    document = json.loads(json.dumps(describe(METHODS, version="1")))

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for item in value.values() for found in references(item)]
        return [found for item in value for found in references(item)] if isinstance(value, list) else []

    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in references(document)} <= set(schemas)
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
