"""JSON values to typed params and back.

`decode` reads the ProtoJSON of A2A, `from_query` makes it of a query string: it takes snake_case names, enum numbers
and every way to write an integer for the fields it knows, reads null as unset, ignores unknown fields, and looks at
nothing inside user JSON.
`decode_strict` reads the params of our own methods: the names as they are, `2.0` for an integer as JSON Schema has it,
and nothing else. Both say everything that is wrong at once.
"""

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from enum import Enum
from functools import cache
from itertools import islice
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Raw, Struct, UnsetType
from msgspec.structs import replace

from a2a_server.protocol.errors import InvalidParams
from core.loop import large_values
from core.model.errors import Problem
from core.model.integral import integral, plain_type
from core.model.problems import MAX_PROBLEMS, Misfit, Unfit, convert, unknown_fields, wrong_fields

T = TypeVar("T", bound=Struct)
Reader = Callable[[Any], Any]

_INSIDE = (Struct, list, tuple, dict)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,18})(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,3})?")  # JSON's, as text
_FRACTION = re.compile(r"\.([0-9]+)(?=[Zz+-])")  # of a timestamp's second
_TWICE = Unfit("is given twice, under both of its names")

encode = msgspec.json.Encoder().encode  # JSON in UTF-8; unset and default fields of wire objects are left out


def one_line(data: bytes) -> bytes:
    """The same JSON without the characters at which some clients end a line: U+0085, U+2028 and U+2029.

    Only LF and CR end one (HTML §9.2.5), but Python's `splitlines`, with which such clients read, ends it there, too.
    """
    if b"\xc2\x85" in data:
        data = data.replace(b"\xc2\x85", b"\\u0085")
    if b"\xe2\x80" in data:
        data = data.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return data


def encode_in_pieces(value: Any, levels: int = 3) -> bytes:
    """The same JSON, for a thread: encoded bit by bit, down to so many levels, so that the event loop goes on."""
    if levels and isinstance(value, Struct):
        # Fields at their defaults are left out of the JSON, and so are empty ones: they stay what they are.
        inside = {name: each for name in value.__struct_fields__ if isinstance(each := getattr(value, name), _INSIDE)}
        value = replace(value, **{name: _piece(each, levels) for name, each in inside.items() if each})
    elif levels and isinstance(value, list | tuple):
        value = [_piece(each, levels) for each in value]
    return large_values.encoded(value)


def _piece(value: Any, levels: int) -> Raw:
    return Raw(encode_in_pieces(value, levels - 1))


def decode(params: Any, type_: type[T]) -> T:
    """The wire object that the ProtoJSON value `params` stands for; None stands for no fields at all.

    Raises InvalidParams with every field that is wrong, by its camelCase path.
    """
    reader = _reader(type_)
    try:
        return convert({} if params is None else reader(params) if reader else params, type_)
    except Misfit as misfit:
        raise _invalid(misfit.problems) from None


def from_query(pairs: Iterable[tuple[str, str]], type_: type[Struct]) -> dict[str, Any]:
    """The ProtoJSON value, for `decode`, that query parameters stand for (A2A §11.5); unknown ones are left out.

    What is no value of its field's type stays the text that it is, or a list where it is given twice, so that `decode`
    names it together with everything else that is wrong.
    """
    fields = {name: field for field in msgspec.structs.fields(type_) for name in (field.encode_name, field.name)}
    given: dict[str, list[str]] = {}
    for name, text in pairs:
        if name in fields:
            given.setdefault(fields[name].encode_name, []).append(text)
    return {name: _from_texts(texts, plain_type(fields[name].type)) for name, texts in given.items()}


def decode_strict(params: Any, type_: type[T]) -> T:
    """The object in `params`, None standing for no fields at all; a field that the type does not have is an error.

    Raises InvalidParams with every field that is wrong or unknown.
    """
    value = {} if params is None else params
    if next(unknown_fields(value, type_), None) is not None:
        raise _invalid(wrong_fields(integral(value, type_), type_, is_strict=True))
    try:
        return convert(value, type_)
    except Misfit as misfit:
        raise _invalid(misfit.problems) from None


def _invalid(problems: Iterable[Problem]) -> InvalidParams:
    """What is wrong with the params as a whole has no path within them."""
    return InvalidParams.of([replace(each, field=each.field or "params") for each in islice(problems, MAX_PROBLEMS)])


# ProtoJSON's liberties: a reader turns them into the one spelling that msgspec then validates. None: nothing to turn.


@cache
def _reader(annotation: Any) -> Reader | None:
    kind = plain_type(annotation)
    if get_origin(kind) is list:
        return _list_reader(_reader(get_args(kind)[0]))
    if get_origin(kind) is dict:
        return _map_reader(_reader(get_args(kind)[1]))
    if kind in _READERS:
        return _READERS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum_reader(kind)
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _struct_reader(kind)
    return None


def _struct_reader(type_: type[Struct]) -> Reader:
    fields: dict[str, tuple[str, Reader | None, bool]] = {}
    for field in msgspec.structs.fields(type_):
        # Where UNSET tells "not given", null is a value (google.protobuf.Value).
        entry = (field.encode_name, _reader(field.type), UnsetType in get_args(field.type))
        fields[field.encode_name] = fields[field.name] = entry

    def read(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        known: dict[str, Any] = {}
        for key, item in value.items():
            if (entry := fields.get(key)) is None:
                continue
            name, reader, takes_null = entry
            if reader is not None and item is not None:
                item = reader(item)
            if item is not None or takes_null:
                known[name] = _TWICE if name in known else item
        return known

    return read


def _list_reader(item_reader: Reader | None) -> Reader | None:
    if item_reader is None:
        return None
    return lambda value: [item_reader(item) for item in value] if isinstance(value, list) else value


def _map_reader(item_reader: Reader | None) -> Reader | None:
    if item_reader is None:
        return None
    return lambda value: {k: item_reader(item) for k, item in value.items()} if isinstance(value, dict) else value


def _enum_reader(type_: type[Enum]) -> Reader:
    """Numbers count from 1 in the order of the members; 0 is the proto's UNSPECIFIED, which means unset."""
    names = dict(enumerate((str(member.value) for member in type_), start=1))
    unspecified = names[1][: len(names[1]) - len(type_(names[1]).name)] + "UNSPECIFIED"

    def read(value: Any) -> Any:
        value = _integer(value)
        if type(value) is int:  # not bool
            return None if value == 0 else names.get(value, value)
        return None if value == unspecified else value

    return read


def _integer(value: Any) -> Any:
    """The integer that a number without a fraction is, also in quotes or with an exponent; all else as it is."""
    if type(value) is str and _NUMBER.fullmatch(value):
        number = float(value)
        return int(number) if number.is_integer() else value
    return int(value) if type(value) is float and value.is_integer() else value


def _microseconds(value: Any) -> Any:
    """A timestamp whose second has at most six digits behind the point, rounded up; the proto's have nine at most."""
    if type(value) is not str or (found := _FRACTION.search(value)) is None or len(found[1]) <= 6:
        return value
    if len(found[1]) > 9:
        return ""  # is no timestamp
    rounded = min(-(-int(found[1].ljust(9, "0")) // 1000), 999_999)
    return f"{value[: found.start()]}.{rounded:06}{value[found.end() :]}"


def _standard_base64(value: Any) -> Any:
    """The standard alphabet with its padding, of either alphabet with or without."""
    if not isinstance(value, str):
        return value
    value = value.replace("-", "+").replace("_", "/")
    return value if "=" in value else value + "=" * (-len(value) % 4)


_READERS: dict[Any, Reader] = {int: _integer, datetime: _microseconds, bytes: _standard_base64}


def _from_texts(texts: list[str], kind: Any) -> Any:
    if get_origin(kind) is list:
        item = plain_type(get_args(kind)[0])
        return [_from_text(part, item) for text in texts for part in text.split(",")]
    return _from_text(texts[0], kind) if len(texts) == 1 else texts


def _from_text(text: str, kind: Any) -> Any:
    return {"true": True, "false": False}.get(text, text) if kind is bool else text
