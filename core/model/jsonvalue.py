"""What may be kept: JSON values, and nothing else. Pure."""

import json
import math
from typing import Any

import msgspec
from msgspec import Struct

PARTS = "$parts"  # a result that is a list of A2A parts is kept as an object with this one key

MAX_BYTES = 10 * 1024 * 1024  # of one result or artifact, unless it is said otherwise
MAX_OUTPUT = 64 * 1024 * 1024  # bytes of all artifacts of one attempt, unless it is said otherwise
MAX_SINGLE = 10_000  # parts of a value that are encoded one by one to find out that it is too large
MAX_DEPTH = 200  # levels of nesting: every encoder and decoder recurses, and some have little of the stack left


class NotJson(ValueError):
    """A value cannot be kept: it is no JSON value, or too large. The text says why."""


class Verified(Struct, frozen=True):
    """A result that its executor knows to be JSON, and what its schema says: it is not judged again."""

    value: Any


def to_json_value(value: Any, what: str = "value", limit: int = MAX_BYTES) -> Any:
    """The value as it will be read back: tuples become lists. Raises NotJson for anything JSON cannot say."""
    return measured(value, what, limit)[0]


def measured(value: Any, what: str, limit: int) -> tuple[Any, bytes]:
    """The value as it will be read back, and its JSON. Raises NotJson for what is none, or has more bytes of it."""
    if value is None or value is True or value is False or (type(value) is float and math.isfinite(value)):
        return value, b""  # it has next to none
    if type(value) is Verified:
        data = msgspec.json.encode(value.value)
        if len(data) > limit:
            raise NotJson(f"the {what} has {len(data)} bytes of JSON; {limit} are allowed")
        return value.value, data
    try:
        data = json.dumps(value, allow_nan=False, ensure_ascii=False, default=_refuse).encode()
    except UnicodeEncodeError:
        raise NotJson(f"the {what} is not JSON: it has text that is not valid Unicode") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise NotJson(f"the {what} is not JSON: {error}") from None
    if (key := _odd_key(value)) is not None:
        raise NotJson(f"the {what} is not JSON: an object has the key {key!r}, which is not a string")
    if len(data) > limit:
        raise NotJson(f"the {what} has {len(data)} bytes of JSON; {limit} are allowed")
    try:
        decoded = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise NotJson(f"the {what} is not JSON: {error}") from None
    if may_be_deep(data) and is_too_deep(decoded):
        raise NotJson(f"the {what} is nested more than {MAX_DEPTH} levels deep")
    return decoded, data


def refuse_large(value: Any, what: str, limit: int) -> None:
    """Raise NotJson as soon as parts of the value have more bytes of JSON: the rest of it is not encoded.

    It is for values that may be many times too large. What passes may still be refused by `measured`.
    """
    parts: list[Any] = []
    for each in _inside(value, MAX_SINGLE):
        parts += _inside(each, MAX_SINGLE - len(parts))
    size = _characters(value, limit)
    if size > limit:
        raise NotJson(f"the {what} has at least {size} bytes of JSON; {limit} are allowed")
    size = 0
    try:
        for part in parts:
            size += len(_compact(part))
            if size > limit:
                break
    except (TypeError, ValueError, RecursionError):
        return  # it is no JSON value, which `measured` says better
    if size > limit:
        raise NotJson(f"the {what} has at least {size} bytes of JSON; {limit} are allowed")


def _characters(value: Any, enough: int) -> int:
    """The characters of texts in the value, as far as it need be read to find more than enough: they cost no look."""
    size, inner = 0, [value]
    for each in inner:
        if isinstance(each, str):
            size += len(each)
        elif isinstance(each, dict | list | tuple) and len(inner) + len(each) <= MAX_SINGLE:
            inner += each.values() if isinstance(each, dict) else each
        if size > enough:
            break
    return size


def _compact(value: Any) -> bytes:
    """Its JSON without spaces."""
    try:
        return msgspec.json.encode(value)
    except OverflowError:  # an integer of more than 64 bits is in it
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_refuse).encode()


def _inside(value: Any, most: int) -> list[Any]:
    """The values inside an object or array of at most so many; else the value itself."""
    if not isinstance(value, dict | list | tuple) or len(value) > most:
        return [value]
    return list(value.values() if isinstance(value, dict) else value)


def copied(value: Any) -> Any:
    """A JSON value in objects and arrays of its own: what is done to the copy is not done to the original."""
    return msgspec.to_builtins(value)


def json_size(value: Any) -> int:
    """The bytes of a JSON value as it is kept."""
    return len(msgspec.json.encode(value))


def _odd_key(value: Any) -> Any:
    """A key that JSON would silently turn into text, so that two keys could become one. None is told as "None"."""
    inner = [value]
    for each in inner:
        if isinstance(each, dict):
            odd = [key for key in each if not isinstance(key, str)]
            if odd:
                return "None" if odd[0] is None else odd[0]
            each = each.values()
        elif not isinstance(each, list | tuple):
            continue
        inner.extend(found for found in each if isinstance(found, dict | list | tuple))
    return None


def may_be_deep(data: bytes) -> bool:
    """Whether this JSON has so many brackets that its value may be too deep, which takes longer to find out."""
    return data.count(b"[") + data.count(b"{") > MAX_DEPTH


def is_too_deep(value: Any, levels: int = MAX_DEPTH) -> bool:
    """Whether a JSON value has more levels of objects and arrays than that."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(levels):
        inside = [inner for each in level for inner in (each.values() if isinstance(each, dict) else each)]
        level = [inner for inner in inside if isinstance(inner, dict | list)]
        if not level:
            return False
    return bool(level)


def plain(result: Any) -> Any:
    """A kept result as other tasks see it: parts are a plain list."""
    return result[PARTS] if type(result) is dict and PARTS in result and len(result) == 1 else result


def _refuse(value: Any) -> Any:
    raise TypeError(f"a {type(value).__name__} is not a JSON value")
