"""What all objects on the wire have in common."""

from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import fields

# A REQUIRED string is not empty and a REQUIRED array has an element (A2A §5.7; ProtoJSON cannot tell empty from unset).
Required = Annotated[str, Meta(min_length=1)]


class Wire(Struct, rename="camel", omit_defaults=True, frozen=True):
    """An object on the wire: camelCase names, and nothing that is unset."""


def check_one_of(wire: Wire) -> None:
    """Raise ValueError unless exactly one of its fields is set: a `oneof` of the proto."""
    names = {each.name: each.encode_name for each in fields(wire)}
    given = sum(getattr(wire, name) is not None for name in names)
    if given != 1:
        raise ValueError(f"exactly one of {', '.join(names.values())} is needed, not {given}")
