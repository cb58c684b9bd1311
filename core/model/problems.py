"""Every field of a JSON value that does not fit a type: its path, and what is wrong with it in JSON's words. Pure.

msgspec stops at the first wrong field. So a value that it refuses is gone through field by field, and each is converted
by itself. What is repeated of a caller's own text is bounded, and so is how many problems are kept.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import cache
from typing import Any, TypeVar, get_args, get_origin

import msgspec
from msgspec import Struct, ValidationError
from msgspec.structs import FieldInfo

from core.model.errors import Problem
from core.model.integral import integral, plain_type, struct_of

T = TypeVar("T", bound=Struct)

MAX_PROBLEMS = 100  # told in one answer
MAX_KEPT = 1_000  # that are kept until then, so that what is told once is not told again
LONGEST_NAME = 80  # characters of an unknown field's name that are repeated to the caller
LONGEST_WORDS = 300  # characters of what msgspec says, which may quote a value

_ERROR = re.compile(r"(.*?)(?: - at `(?:key` in `)?\$([^`]*)`)?", re.DOTALL)  # msgspec's words and the place
_TYPES = re.compile(r"(expected|got) `([^`]*)`")
_JSONS = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "NoneType": "null", "list": "array",
    "tuple": "array", "dict": "object", "datetime": "timestamp",
}  # fmt: skip


class Misfit(Exception):
    """A value does not fit its type. It has every problem, found as they are read."""

    def __init__(self, problems: Iterator[Problem]) -> None:
        self.problems = problems
        super().__init__("the value does not fit its type")


class Unfit:
    """Stands for a value of which something is wrong that no type can say: it fits none, and this is its problem."""

    def __init__(self, message: str) -> None:
        self.message = message


def convert(value: Any, type_: type[T], path: str = "") -> T:
    """The value as a Struct of that type, in one step when it fits. Raises Misfit with the paths below `path`."""
    try:
        return msgspec.convert(value, type_)
    except ValidationError:
        value = integral(value, type_)
    try:
        return msgspec.convert(value, type_)
    except ValidationError:
        raise Misfit(wrong_fields(value, type_, path)) from None


def wrong_fields(value: Any, annotation: Any, path: str = "", *, is_strict: bool = False) -> Iterator[Problem]:
    """Every field of the value that does not fit, innermost first; one that holds wrong fields is not named itself.

    Fields that a type does not have are wrong where it forbids them; `is_strict`: everywhere.
    """
    kind = plain_type(annotation)
    is_fine = True
    for problem in _wrong_within(value, kind, path, is_strict):
        is_fine = False
        yield problem
    if not is_fine:
        return
    try:
        msgspec.convert(value, annotation)
    except ValidationError as error:
        if isinstance(value, Unfit):
            yield Problem(path, value.message)
        else:
            problem = problem_of(error, path)
            yield Problem(path, words) if (words := _enum_words(kind)) else problem


def _wrong_within(value: Any, kind: Any, path: str, is_strict: bool) -> Iterator[Problem]:
    struct = struct_of(kind) if isinstance(value, dict) else None
    if struct is not None and (is_strict or struct.__struct_config__.forbid_unknown_fields):
        yield from _unknown_here(value, kind, path)
    for item, annotation, place in _inside(value, kind, path):
        yield from wrong_fields(item, annotation, place, is_strict=is_strict)
    if struct is not None:
        for name, field in _fields(struct).items():
            if field.required and name not in value:
                yield Problem(_join(path, name), "is required")


def unknown_fields(value: Any, annotation: Any, path: str = "") -> Iterator[Problem]:
    """Every field in the value, at any depth, that its type does not have."""
    kind = plain_type(annotation)
    yield from _unknown_here(value, kind, path)
    for item, inner, place in _inside(value, kind, path):
        yield from unknown_fields(item, inner, place)


def _unknown_here(value: Any, kind: Any, path: str) -> Iterator[Problem]:
    """A type says in its INSTEAD, by name, what to do about fields that a caller might think it has."""
    if not isinstance(value, dict) or (struct := struct_of(kind)) is None:
        return
    fields = _fields(struct)
    for name in value:
        if name not in fields:
            known = f"the known ones are: {', '.join(fields) or 'none'}"
            instead = getattr(struct, "INSTEAD", {}).get(name, known)
            yield Problem(_join(path, str(name)[:LONGEST_NAME]), f"unknown field; {instead}")


def _inside(value: Any, kind: Any, path: str) -> Iterator[tuple[Any, Any, str]]:
    """What the value is made of as its type says: each with its own type and path. A caller's own JSON is one piece."""
    if isinstance(value, dict) and (struct := struct_of(kind)) is not None:
        fields = _fields(struct)
        for name in filter(value.__contains__, fields):
            yield value[name], fields[name].type, _join(path, name)
    elif isinstance(value, dict) and get_origin(kind) is dict and (of := get_args(kind)[1]) is not Any:
        for name, item in value.items():
            yield item, of, _join(path, str(name)[:LONGEST_NAME])
    elif isinstance(value, list) and get_origin(kind) is list and (of := get_args(kind)[0]) is not Any:
        for index, item in enumerate(value):
            yield item, of, f"{path}[{index}]"


@cache
def _fields(type_: type[Struct]) -> dict[str, FieldInfo]:
    """The fields of a type by their names in JSON."""
    return {field.encode_name: field for field in msgspec.structs.fields(type_)}


def _join(path: str, name: str) -> str:
    name = name or '""'
    return f"{path}.{name}" if path else name


def _enum_words(kind: Any) -> str | None:
    """What is to be said of a value that is none of an Enum; None where the type is not one."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return f"must be one of {', '.join(str(member.value) for member in kind)}"
    return None


def problem_of(error: ValidationError, path: str = "") -> Problem:
    """What msgspec, or a type's own rule, says is wrong with the value at `path`, in JSON's words."""
    found = _ERROR.fullmatch(str(error))
    words, place = found.groups("") if found else (str(error), "")
    words = _TYPES.sub(lambda types: f"{types[1]} `{_in_json(types[2])}`", words[:1].lower() + words[1:])
    if len(words) > LONGEST_WORDS:
        words = f"{words[: LONGEST_WORDS - 1]}…"
    place = place.replace("[...]", "")  # an object's member, whose name msgspec does not say
    return Problem(f"{path}{place}" if path else place.removeprefix("."), words)


def _in_json(types: str) -> str:
    return " | ".join(_JSONS.get(each, each) for each in types.split(" | "))


def readable(value: Any, type_: type[T], instead: Mapping[str, Any]) -> T:
    """What can be read of a value with wrong fields, so that the rest is judged in the same answer.

    `instead` has values for required fields that cannot be read.
    """
    found = dict(instead)
    given = value if isinstance(value, Mapping) else {}
    fields = _fields(type_)
    for name in filter(given.__contains__, fields):
        field = fields[name]
        with suppress(ValidationError):
            found[field.name] = msgspec.convert(integral(given[name], field.type), field.type)
    return type_(**found)


class Problems(list[Problem]):
    """What is wrong: the first MAX_KEPT are kept, the others only counted, however many a caller makes."""

    dropped = 0

    def append(self, problem: Problem) -> None:
        if len(self) < MAX_KEPT:
            super().append(problem)
        else:
            self.dropped += 1

    def __iadd__(self, problems: Iterable[Problem]) -> "Problems":  # type: ignore[override,misc]
        for problem in problems:
            self.append(problem)
        return self

    def told(self) -> list[Problem]:
        """The first MAX_PROBLEMS, and how many more there are."""
        more = len(self) + self.dropped - MAX_PROBLEMS
        return [*self[:MAX_PROBLEMS], Problem("", f"and {more} more problems")] if more > 0 else list(self)
