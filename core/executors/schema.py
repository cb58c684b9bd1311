"""Checking inputs and results against JSON Schema (draft 2020-12). Nothing is ever fetched for a `$ref`."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import msgspec
from jsonschema import Draft202012Validator, SchemaError
from jsonschema_specifications import REGISTRY  # type: ignore[import-untyped]  # it ships no types
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from core.errors import ConfigurationError

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_ERRORS = 10  # named in one text
MAX_ERROR_LENGTH = 200  # characters of each
CACHED_VALIDATORS = 512
MAX_CACHED_SIZE = 64 * 1024  # bytes of a schema: callers may bring their own, and the cache must stay small


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
    nobody has checked; one that cannot be used is a violation too.
    """
    validator = _usable(schema)
    if isinstance(validator, str):
        return f"{root}: the schema {validator}"
    try:
        found = list(islice(validator.iter_errors(value), MAX_ERRORS + 1))
    except (RecursionError, ArithmeticError):
        return f"{root}: the schema, or the value, is nested too deeply, or a number is too large"
    if not found:
        return None
    found.sort(key=lambda error: [str(step) for step in error.absolute_path])
    named = [_cut(f"{_path(root, error.absolute_path)}: {error.message}") for error in found[:MAX_ERRORS]]
    return "; ".join(named + ["and more"] * (len(found) > MAX_ERRORS))


def _usable(schema: Mapping[str, Any]) -> Draft202012Validator | str:
    """What judges by this schema, or why nothing can."""
    try:
        data = msgspec.json.encode(dict(schema))  # it is data, so that it can be shown to callers and cached
        return _validator(data) if len(data) <= MAX_CACHED_SIZE else _validator.__wrapped__(data)
    except (SchemaError, Unresolvable, RecursionError, TypeError, ValueError, re.error) as error:
        reason = error.message if isinstance(error, SchemaError) else str(error) or "it is nested too deeply"
        return f"is not a usable JSON Schema: {_cut(reason)}"


@lru_cache(CACHED_VALIDATORS)
def _validator(data: bytes) -> Draft202012Validator:
    schema = msgspec.json.decode(data)
    _check(schema)
    # A registry without a way to retrieve: jsonschema's own default would fetch a remote $ref.
    return Draft202012Validator(schema, registry=REGISTRY)


def _check(schema: dict[str, Any]) -> None:
    if schema.get("$schema", DIALECT) != DIALECT:
        raise ValueError(f"its $schema must be {DIALECT}, or absent")
    Draft202012Validator.check_schema(schema)
    resource = DRAFT202012.create_resource(schema)
    pending = [(REGISTRY.resolver_with_root(resource), resource)]
    seen = {id(schema)}
    while pending:
        resolver, resource = pending.pop()
        if isinstance(resource.contents, dict):
            for keyword in ("$ref", "$dynamicRef"):
                if keyword not in resource.contents:
                    continue
                found = resolver.lookup(resource.contents[keyword])
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
