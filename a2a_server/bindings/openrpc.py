"""`rpc.discover`: the OpenRPC 1.3 document, made from the method table itself."""

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

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


class Info(TypedDict):
    """What is described."""

    title: str
    version: str


class ContentDescriptor(TypedDict):
    """A param by its name, or a result."""

    name: str
    required: NotRequired[bool]
    schema: dict[str, Any]


MethodObject = TypedDict(
    "MethodObject",
    {
        "name": str,
        "summary": NotRequired[str],
        "params": list[ContentDescriptor],
        "paramStructure": Literal["by-name", "either"],
        "x-params-schema": NotRequired[dict[str, Any]],
        "result": ContentDescriptor,
        "x-streaming": NotRequired[Literal["always", "on request"]],
    },
)


class Components(TypedDict):
    """The schemas that the methods refer to."""

    schemas: dict[str, Any]


class Document(TypedDict):
    """An OpenRPC document."""

    openrpc: str
    info: Info
    methods: list[MethodObject]
    components: Components


def discover_method(methods: Sequence[Method], *, version: str) -> Method:
    """The method that describes `methods` and itself. `version` is the server's."""

    async def discover(context: RequestContext, params: NoParams) -> Raw:
        return document

    method = Method(
        name=NAME,
        handler=discover,
        kind=CallKind.OTHER,
        result_type=Document,
        summary="This server's methods as an OpenRPC document.",
        is_open=True,
    )
    document = Raw(encode(describe([*methods, method], version=version)))
    return method


def describe(methods: Sequence[Method], *, version: str) -> Document:
    """The OpenRPC document of these methods."""
    types = [each for method in methods for each in (method.params_type, *_results(method))]
    schemas, components = schema_components(types, ref_template=_REFERENCE)
    rest = iter(schemas)
    described = [
        _method(method, next(rest), _any_of([next(rest) for _ in _results(method)]), components) for method in methods
    ]
    return {
        "openrpc": OPENRPC_VERSION,
        "info": {"title": distribution.NAME, "version": version},
        "methods": described,
        "components": {"schemas": components},
    }


def _method(method: Method, params: dict[str, Any], result: dict[str, Any], components: dict[str, Any]) -> MethodObject:
    answer: MethodObject = {
        "name": method.name,
        "params": _by_name(params, components),
        "paramStructure": "by-name",
        "result": {"name": "result", "schema": result},
    }
    if method.summary:
        answer["summary"] = method.summary
    if method.is_raw:
        # What is not an object of named fields only: the whole of it as JSON Schema (OpenRPC extension field).
        answer["paramStructure"] = "either"
        answer["x-params-schema"] = params
    if method.is_stream:
        answer["x-streaming"] = "always" if method.is_stream is True else "on request"
    return answer


def _results(method: Method) -> tuple[Any, ...]:
    return method.result_type if isinstance(method.result_type, tuple) else (method.result_type,)


def _any_of(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    return schemas[0] if len(schemas) == 1 else {"anyOf": schemas}


def _by_name(params: dict[str, Any], components: dict[str, Any]) -> list[ContentDescriptor]:
    """One content descriptor for each field of the params, required ones first; none where they are not one object."""
    if "$ref" not in params:
        return []
    component = components[params["$ref"].removeprefix(_REFERENCE.format(name=""))]
    required = component.get("required", ())
    return [
        {"name": name, "required": name in required, "schema": schema}
        for name, schema in sorted(component["properties"].items(), key=lambda item: item[0] not in required)
    ]
