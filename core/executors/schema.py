"""Checking inputs and results against JSON Schema (draft 2020-12). Nothing is ever fetched for a `$ref`."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from math import isqrt
from typing import Any, NamedTuple

import msgspec
from jsonschema import Draft202012Validator, SchemaError, ValidationError
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it ships no types
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from core.model.errors import ConfigurationError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_ERRORS = 10  # named in one text
MAX_ERROR_LENGTH = 200  # characters of each
COUNTED = {"maxProperties": "properties", "maxItems": "items", "maxLength": "characters"}  # what each keyword bounds
CACHED_VALIDATORS = 512
MOST_COST = 48_000  # that is judged at once: 15 ms, about
QUICK_PARTS = 64  # of a schema: seeing whether it can be used costs 0.1 ms for each
MAX_CACHED_SIZE = 64 * 1024  # bytes of a schema: callers may bring their own, and the cache must stay small


class TooCostly(Exception):
    """Judging a value could keep everybody waiting: it is to be done in another process (`core.executors.judges`)."""


def check_schema(schema: Mapping[str, Any], whose: str) -> None:
    """See that the schema can be used. Raises ConfigurationError, which begins with `whose`."""
    if isinstance(found := _usable(schema), str):
        raise ConfigurationError(f"{whose} {found}")


def judge_schema(schema: Mapping[str, Any]) -> str | None:
    """What is wrong with the schema itself; None when it can be used."""
    usable = _usable(schema)
    return usable if isinstance(usable, str) else None


def violation(schema: Mapping[str, Any], value: Any, root: str) -> str | None:
    """What is wrong with a value, naming each field by its path from `root`; None when nothing is.

    `inputs.url: 5 is not of type 'string'; inputs: 'method' is a required property`. A task may bring a schema that
    nobody has checked; one that cannot be used is a violation too. It takes as long as it takes: see `quick_violation`.
    """
    return _violation(_usable(schema), value, root)


def quick_violation(schema: Mapping[str, Any], value: Any, root: str, *, is_brought: bool = False) -> str | None:
    """`violation`, where that costs a few milliseconds at most. Raises TooCostly where it could cost more.

    `is_brought`: the schema came with the task. Other schemas are their operator's, and trusted but for the values.
    """
    if is_brought and not is_quickly_checked(schema):
        raise TooCostly
    usable = _usable(schema)
    if not isinstance(usable, str):
        values = MOST_COST // usable.cost
        if not has_few_values(value, isqrt(values) if usable.compares_items else values):
            raise TooCostly
    return _violation(usable, value, root)


def is_quickly_checked(schema: Any) -> bool:
    """Whether it takes a few milliseconds to see that this can be used as a schema."""
    return has_few_values(schema, QUICK_PARTS)


def has_few_values(value: Any, most: int) -> bool:
    """Whether a JSON value has at most so many values, keys and 256 characters of text each counting as one, too."""
    pending = [value]
    for each in pending:
        kind = type(each)
        if kind is str:
            most -= 1 + (len(each) >> 8)
        elif kind is dict:
            most -= 1 + len(each)
            if most >= 0:
                pending.extend(each)
                pending.extend(each.values())
        elif kind is list:
            most -= 1
            if len(each) <= most:
                pending.extend(each)
            else:
                return False
        else:
            most -= 1
        if most < 0:
            return False
    return True


class _Usable(NamedTuple):
    """A schema that can be used, and how costly that is."""

    validator: Draft202012Validator
    cost: int  # of judging one value with all of it
    compares_items: bool  # each item of an array with each other


def _violation(usable: _Usable | str, value: Any, root: str) -> str | None:
    if isinstance(usable, str):
        return f"{root}: the schema {usable}"
    try:
        found = list(islice(usable.validator.iter_errors(value), MAX_ERRORS + 1))
    except (RecursionError, ArithmeticError):
        return f"{root}: the schema, or the value, is nested too deeply, or a number is too large"
    if not found:
        return None
    found.sort(key=lambda error: [str(step) for step in error.absolute_path])
    named = [_cut(f"{_path(root, error.absolute_path)}: {_reason(error)}") for error in found[:MAX_ERRORS]]
    return "; ".join(named + ["and more"] * (len(found) > MAX_ERRORS))


def _reason(error: ValidationError) -> str:
    """What is wrong with a part of the value. The library's text begins with it: of a long one nothing else is seen."""
    if len(error.message) > MAX_ERROR_LENGTH and (what := COUNTED.get(str(error.validator))) is not None:
        long: Any = error.instance
        return f"has {len(long)} {what}, more than {error.validator_value}"
    return error.message


def _usable(schema: Mapping[str, Any]) -> _Usable | str:
    """What judges by this schema, or why nothing can."""
    try:
        data = msgspec.json.encode(dict(schema))  # it is data, so that it can be shown to callers and cached
        return _validator(data) if len(data) <= MAX_CACHED_SIZE else _validator.__wrapped__(data)
    except (SchemaError, Unresolvable, RecursionError, TypeError, ValueError, re.error) as error:
        reason = error.message if isinstance(error, SchemaError) else str(error) or "it is nested too deeply"
        return f"is not a usable JSON Schema: {_cut(reason)}"


@lru_cache(CACHED_VALIDATORS)
def _validator(data: bytes) -> _Usable:
    schema = msgspec.json.decode(data)
    _check(schema)
    # A registry without a way to retrieve: jsonschema's own default would fetch a remote $ref.
    return _Usable(Draft202012Validator(schema, registry=REGISTRY), _cost(schema), b'"uniqueItems"' in data)


def _cost(schema: Any) -> int:
    """What judging one value with every part of the schema costs: a keyword is some eight times a name or constant."""
    found = 0
    pending = [schema]
    for each in pending:
        found += 8 if isinstance(each, dict) else 1
        if isinstance(each, dict | list):
            pending.extend(each.values() if isinstance(each, dict) else each)
    return found


def _check(schema: dict[str, Any]) -> None:
    if schema.get("$schema", DIALECT) != DIALECT:
        raise ValueError(f"its $schema must be {DIALECT}, or absent")
    Draft202012Validator.check_schema(schema)
    resource = DRAFT202012.create_resource(schema)
    pending = [(REGISTRY.resolver_with_root(resource), resource)]
    seen = {id(schema)}
    while pending:
        resolver, resource = pending.pop()
        contents = resource.contents if isinstance(resource.contents, dict) else {}
        for keyword in [each for each in ("$ref", "$dynamicRef") if each in contents]:
            found = resolver.lookup(contents[keyword])
            # A reference may lead to where no schema was expected, and so none was checked.
            if id(found.contents) not in seen:
                seen.add(id(found.contents))
                Draft202012Validator.check_schema(found.contents)
                pending.append((found.resolver, DRAFT202012.create_resource(found.contents)))
        pending.extend((resolver.in_subresource(inner), inner) for inner in resource.subresources())


def _path(root: str, steps: Iterable[str | int]) -> str:
    return root + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_ERROR_LENGTH else text[: MAX_ERROR_LENGTH - 3] + "..."
