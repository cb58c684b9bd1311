"""JSON Schemas of our types, the same whatever version of msgspec makes them."""

from collections.abc import Sequence
from inspect import cleandoc
from typing import Any

import msgspec

_UNORDERED = ("anyOf", "enum", "required")  # lists whose order means nothing


def schema_components(types: Sequence[Any], *, ref_template: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A schema for each of `types`, and the components that these refer to by `ref_template`.

    msgspec decides how a docstring is indented and in which order alternatives and names stand, and has changed both:
    documents that are kept in a repository, or compared by clients, must not change with it.
    """
    schemas, components = msgspec.json.schema_components(types, ref_template=ref_template)
    return [_settled(schema) for schema in schemas], {name: _settled(components[name]) for name in sorted(components)}


def _settled(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_settled(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    settled: dict[str, Any] = {}
    for key in sorted(schema):
        value = schema[key]
        if key in ("properties", "$defs") and isinstance(value, dict):
            settled[key] = {name: _settled(item) for name, item in value.items()}  # in the order of the fields
        elif key == "description" and isinstance(value, str):
            settled[key] = cleandoc(value)
        elif key in _UNORDERED and isinstance(value, list):
            settled[key] = sorted((_settled(item) for item in value), key=repr)
        elif key in ("default", "const", "examples"):
            settled[key] = value  # data, not schema
        else:
            settled[key] = _settled(value)
    return settled
