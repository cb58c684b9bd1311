"""Integers as JSON may write them: `2.0` is one (JSON Schema 2020-12 §6.1.1), `2.5` and `"2"` are none. Pure."""

from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from msgspec import Struct, UnsetType
from msgspec.structs import fields


def integral(value: Any, annotation: Any) -> Any:
    """The value with integers where its type has some and it has numbers without a fraction; user JSON as it is."""
    kind = plain_type(annotation)
    if kind is int:
        return int(value) if type(value) is float and value.is_integer() else value
    if isinstance(value, list):
        return [integral(item, get_args(kind)[0]) for item in value] if get_origin(kind) is list else value
    if isinstance(value, dict) and (struct := struct_of(kind)) is not None:
        hints = _hints(struct)
        return {name: integral(item, hints[name]) if name in hints else item for name, item in value.items()}
    return value


@cache
def plain_type(annotation: Any) -> Any:
    """The type without its constraints, and without None and UNSET where these are the only alternatives."""
    if get_origin(annotation) is Annotated:
        return plain_type(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        options = [option for option in get_args(annotation) if option not in (NoneType, UnsetType)]
        return plain_type(options[0]) if len(options) == 1 else annotation
    return annotation


@cache
def struct_of(kind: Any) -> type[Struct] | None:
    """The Struct that an object of this type is: the type itself, or the only one among its alternatives."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    found = [option for option in options if isinstance(option, type) and issubclass(option, Struct)]
    return found[0] if len(found) == 1 else None


@cache
def _hints(struct: type[Struct]) -> dict[str, Any]:
    """The types of its fields by their names in JSON."""
    return {field.encode_name: field.type for field in fields(struct)}
