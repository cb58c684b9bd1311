"""`rpc.discover`: the OpenRPC 1.3 document, made from the method table itself."""

from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method, NoParams
from a2a_server.bindings.schemas import schema_components
from a2a_server.edge.overload import CallKind
from a2a_server.process import distribution
from a2a_server.protocol.codec import encode

OPENRPC_VERSION = "1.3.2"
NAME = "rpc.discover"

_REFERENCE = "#/components/schemas/{name}"


def discover_method(methods: Sequence[Method], *, version: str) -> Method:
    """The method that describes `methods` and itself. `version` is the server's."""

    async def discover(context: RequestContext, params: NoParams) -> Raw:
        return document

    method = Method(
        name=NAME,
        handler=discover,
        kind=CallKind.OTHER,
        result_type=dict[str, Any],
        summary="This server's methods as an OpenRPC document.",
        is_open=True,
    )
    document = Raw(encode(describe([*methods, method], version=version)))
    return method


def describe(methods: Sequence[Method], *, version: str) -> dict[str, Any]:
    """The OpenRPC document of these methods."""
    types = [each for method in methods for each in (method.params_type, method.result_type)]
    schemas, components = schema_components(types, ref_template=_REFERENCE)
    described = [
        _method(method, schemas[2 * index], schemas[2 * index + 1], components) for index, method in enumerate(methods)
    ]
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": distribution.NAME, "version": version},
        "methods": described,
        "components": {"schemas": components},
    }


def _method(
    method: Method, params: dict[str, Any], result: dict[str, Any], components: dict[str, Any]
) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "name": method.name,
        "params": _by_name(params, components),
        "paramStructure": "by-name",
        "result": {"name": "result", "schema": result},
    }
    if method.summary:
        answer["summary"] = method.summary
    if method.is_raw:
        # What is not an object of named fields only: the whole of it as JSON Schema (OpenRPC extension field).
        answer |= {"paramStructure": "either", "x-params-schema": params}
    if method.is_stream:
        answer["x-streaming"] = "always" if method.is_stream is True else "on request"
    return answer


def _by_name(params: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    """One content descriptor for each field of the params, required ones first; none where they are not one object."""
    if "$ref" not in params:
        return []
    component = components[params["$ref"].removeprefix(_REFERENCE.format(name=""))]
    required = component.get("required", ())
    return [
        {"name": name, "required": name in required, "schema": schema}
        for name, schema in sorted(component["properties"].items(), key=lambda item: item[0] not in required)
    ]
