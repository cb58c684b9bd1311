"""Large JSON values, a piece at a time: for a thread beside the event loop, which gets its turn between two pieces.

One call of an encoder or decoder holds the interpreter, in whichever thread, for as long as its value is large.
"""

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import astuple

from core.model.in_flight import PER_VALUE
from core.model.jsonvalue import MAX_DEPTH, NotJson, copied, is_too_deep, may_be_deep, measured

VALUES: Final = 5_000  # of a value that is small, at most: a millisecond, whatever is done with it
CHARACTERS: Final = 256 * 1024  # of its texts, and digits of its long integers
ITEMS: Final = 500  # of an array or object that are taken together

_LARGE: Final = (str, dict, list, tuple)
_SCALARS: Final = frozenset({float, bool, type(None)})
_SHORT: Final = 10**18  # integers up to here have next to no digits
_BITS: Final = 3  # of a digit, at least
_encode = msgspec.json.Encoder().encode


class Part(NamedTuple):
    """Some items of an array or object, as one; or a single large one, with its key where it has one."""

    value: Any
    is_large: bool = False
    key: Any = None  # of a large one of an object


def is_small(value: Any) -> bool:
    """Whether the value is quickly encoded, as far as it need be read to see that it is not."""
    inner = [value]
    left, seen = CHARACTERS, 1
    for each in inner:
        kind = each.__class__
        if kind in _SCALARS:
            continue
        if kind is int:
            if not -_SHORT < each < _SHORT:
                left -= each.bit_length() // _BITS
                if left < 0:
                    return False
            continue
        if kind not in _LARGE:  # of classes that are made from these it is what they are made from
            if isinstance(each, Struct):
                each = astuple(each)
            kind = next((known for known in _LARGE if isinstance(each, known)), kind)
        if kind is str:
            left -= len(each)
            if left < 0:
                return False
        elif each and kind in _LARGE:
            seen += len(each)
            if seen > VALUES:
                return False
            inner += each.values() if kind is dict else each
    return True


def memory_of_copy(value: Any, *, has_texts: bool) -> int:
    """About how much memory a copy of a JSON value takes (`core.model.in_flight.memory_of`), with its texts or not."""
    size, left = 0, [value]
    while left:
        each = left.pop()
        if isinstance(each, str):
            size += each.__sizeof__() if has_texts else 0
            continue
        size += PER_VALUE
        if isinstance(each, dict):
            size += sum(map(len, each)) if has_texts else 0
            left += each.values()
        elif isinstance(each, list | tuple):
            left += each
    return size


def encoded(value: Any) -> bytes:
    """Its JSON, as msgspec encodes it. Keys of objects are text."""
    if isinstance(value, str) and len(value) > CHARACTERS:
        return b'"%b"' % b"".join([_encode(each)[1:-1] for each in _texts(value)])
    if is_small(value) or not isinstance(value, dict | list | tuple):
        return _encode(value)
    chunks: list[bytes] = []
    # Not by recursion: a tree may be told as deep as an encoder goes.
    inside: list[tuple[Iterator[Part], bytes]] = []

    def enter(container: Any) -> None:
        is_object = isinstance(container, dict)
        chunks.append(b"{" if is_object else b"[")
        inside.append((_parts(container), b"}" if is_object else b"]"))

    enter(value)
    while inside:
        parts, end = inside[-1]
        if (part := next(parts, None)) is None:
            inside.pop()
            if chunks[-1] == b",":
                chunks.pop()
            chunks += (end, b",")
        elif not part.is_large:
            chunks += (_encode(part.value)[1:-1], b",")
        else:
            if end == b"}":
                chunks += (_encode(part.key), b":")
            if isinstance(part.value, dict | list | tuple):
                enter(part.value)
            else:
                chunks += (encoded(part.value), b",")
    return b"".join(chunks[:-1])


def encoded_text(text: str) -> bytes:
    """The text in UTF-8, a piece at a time; what has no UTF-8 is replaced."""
    return b"".join([each.encode("utf-8", "replace") for each in _texts(text)])


def measured_in_pieces(value: Any, what: str, limit: int) -> tuple[Any, bytes]:
    """What `core.model.jsonvalue.measured` says, a piece at a time. Raises NotJson as soon as it is too large."""
    found, data = _measured(value, what, limit, 0)
    if may_be_deep(data) and is_too_deep(found):
        raise NotJson(f"the {what} is nested more than {MAX_DEPTH} levels deep")
    return found, data


def _measured(value: Any, what: str, limit: int, level: int) -> tuple[Any, bytes]:
    if isinstance(value, str) and len(value) > CHARACTERS:
        data = b'"%b"' % b"".join([measured(each, what, limit)[1][1:-1] for each in _texts(value)])
        if len(data) > limit:
            raise NotJson(f"the {what} has {len(data)} bytes of JSON; {limit} are allowed")
        return str(value), data
    # Far below there may be a value that is inside of itself, which is told as one of any other size.
    if level > MAX_DEPTH or not isinstance(value, dict | list | tuple) or is_small(value):
        return measured(value, what, limit)
    is_object = isinstance(value, dict)
    found: Any = {} if is_object else []
    texts: list[bytes] = []
    size = 0
    for part in _parts(value):
        each, text = _measured(part.value, what, limit, level + 1)
        if not part.is_large:
            text = text[1:-1]
            found.update(each) if is_object else found.extend(each)
        elif is_object:
            key, name = measured({part.key: None}, what, limit)
            text = name[1 : -len("null}")] + text
            found[next(iter(key))] = each
        else:
            found.append(each)
        texts.append(text)
        size += len(text) + 2
        if size > limit:
            raise NotJson(f"the {what} has at least {size} bytes of JSON; {limit} are allowed")
    data = b", ".join(texts)
    return found, b"{%b}" % data if is_object else b"[%b]" % data


def copied_in_pieces(value: Any) -> Any:
    """A JSON value in objects and arrays of its own (`core.model.jsonvalue.copied`), a piece at a time."""
    if is_small(value) or not isinstance(value, dict | list | tuple):
        return copied(value)
    if isinstance(value, dict):
        return {key: copied_in_pieces(each) for key, each in value.items()}
    found: list[Any] = []
    for part in _parts(value):
        found += [copied_in_pieces(part.value)] if part.is_large else copied(part.value)
    return tuple(found) if isinstance(value, tuple) else found


def _texts(text: str) -> list[str]:
    return [str(text[begin : begin + CHARACTERS]) for begin in range(0, len(text), CHARACTERS)]


def _parts(container: Any) -> Iterator[Part]:
    """The items of an array or object: many small ones together, each large one by itself."""
    is_object = isinstance(container, dict)
    items = list(container.items()) if is_object else container
    for begin in range(0, len(items), ITEMS):
        some = items[begin : begin + ITEMS]
        together = dict(some) if is_object else some
        if is_small(together):
            yield Part(together)
            continue
        for item in some:
            key, value = item if is_object else (None, item)
            yield Part({key: value} if is_object else [value]) if is_small(value) else Part(value, True, key)
