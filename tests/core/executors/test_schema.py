"""Inputs and results against JSON Schema: what the errors say, and which schemas are refused."""

import socket
from typing import Any

import pytest

from core.executors.schema import (
    MAX_ERRORS,
    TooCostly,
    _validator,
    check_schema,
    has_few_values,
    quick_violation,
    violation,
)
from core.model.errors import ConfigurationError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "url": {"type": "string"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"size": {"type": "integer"}}}},
    },
    "required": ["url"],
    "additionalProperties": False,
}


def test_value_that_fits_has_no_violation() -> None:
    assert violation(SCHEMA, {"url": "x", "items": [{"size": 1}]}, "inputs") is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"url": 5}, "inputs.url: 5 is not of type 'string'"),
        ({"url": "x", "items": [{"size": 1}, {"size": "b"}]}, "inputs.items[1].size: 'b' is not of type 'integer'"),
        ({}, "inputs: 'url' is a required property"),
        ({"url": "x", "verify": False}, "inputs: Additional properties are not allowed ('verify' was unexpected)"),
        ([], "inputs: [] is not of type 'object'"),
    ],
)
def test_violation_names_the_field(value: Any, expected: str) -> None:
    assert violation(SCHEMA, value, "inputs") == expected


def test_several_violations_are_named_at_once() -> None:
    assert violation(SCHEMA, {"url": 5, "items": 6}, "result") == (
        "result.items: 6 is not of type 'array'; result.url: 5 is not of type 'string'"
    )


def test_violations_are_few_and_short() -> None:
    found = violation({"items": {"type": "string", "maxLength": 1}}, ["x" * 100_000] * 1000, "inputs")
    assert found is not None
    assert found.endswith("; and more")
    assert found.count(";") == MAX_ERRORS
    assert len(found) < 2500


def test_changed_schema_is_not_served_from_the_cache() -> None:
    schema: dict[str, Any] = {"type": "string"}
    assert violation(schema, "x", "inputs") is None
    schema["type"] = "integer"
    assert violation(schema, "x", "inputs") == "inputs: 'x' is not of type 'integer'"


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(levels):
        schema = {"not": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"type": "objct"}, "'objct' is not valid"),
        ({"properties": {"a": 5}}, "5 is not of type"),
        ({"pattern": "("}, "is not a 'regex'"),
        ({"properties": {"a": {"$ref": "#/$defs/missing"}}}, "missing"),
        ({"$dynamicRef": "#nowhere"}, "nowhere"),
        ({"$ref": "#/hidden", "hidden": {"$ref": "http://127.0.0.1:1/x"}}, "http://127.0.0.1:1/x"),
        ({"$ref": "#/hidden/deeper", "hidden": {"deeper": {"properties": 5}}}, "5 is not of type"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "2020-12"),
        ({"enum": [object()]}, "object"),
        (deep(5000), "recursion"),
    ],
)
def test_broken_schema_is_refused_and_says_whose_it_is(schema: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^executor 'x': input_schema is not a usable JSON Schema") as caught:
        check_schema(schema, "executor 'x': input_schema")
    assert reason in str(caught.value)


@pytest.mark.parametrize("schema", [{"type": "objct"}, {"$ref": "http://127.0.0.1:1/x"}, {"pattern": "("}, deep(5000)])
def test_unchecked_schema_that_cannot_be_used_is_a_violation(schema: dict[str, Any]) -> None:
    """A task may bring its own, which no registration has seen."""
    assert str(violation(schema, "x", "inputs")).startswith("inputs: the schema is not a usable JSON Schema: ")


def test_large_schema_is_used_but_not_kept() -> None:
    schema = {"enum": [f"{n:0100}" for n in range(1000)]}
    kept = _validator.cache_info().currsize
    assert violation(schema, f"{7:0100}", "inputs") is None
    assert violation(schema, 7, "inputs") is not None
    assert _validator.cache_info().currsize == kept


def test_schema_may_refer_to_itself_and_to_the_dialect() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"tree": {"type": "object", "additionalProperties": {"$ref": "#/$defs/tree"}}},
        "properties": {"tree": {"$ref": "#/$defs/tree"}, "$ref": {"type": "string"}, "schema": {"$ref": "#/$defs/any"}},
        "examples": [{"$ref": "http://nowhere.example/"}],
    }
    schema["$defs"]["any"] = {"$ref": "https://json-schema.org/draft/2020-12/schema"}  # type: ignore[index]
    check_schema(schema, "it")
    assert violation(schema, {"tree": {"a": {"b": {}}}}, "inputs") is None
    assert violation(schema, {"tree": {"a": {"b": 1}}}, "inputs") == "inputs.tree.a.b: 1 is not of type 'object'"


def test_endless_schema_is_a_violation_and_no_crash() -> None:
    check_schema({"$ref": "#"}, "it")
    assert violation({"$ref": "#"}, 1, "inputs") == (
        "inputs: the schema, or the value, is nested too deeply, or a number is too large"
    )


def test_remote_reference_is_never_fetched() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        for schema in ({"properties": {"a": {"$ref": url}}}, {"$ref": "#/hidden", "hidden": {"$ref": url}}):
            with pytest.raises(ConfigurationError, match="not a usable JSON Schema"):
                check_schema(schema, "it")
            assert "not a usable JSON Schema" in str(violation(schema, {"a": 1}, "inputs"))
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_small_values_are_judged_at_once() -> None:
    assert quick_violation(SCHEMA, {"url": "x" * 5000}, "inputs") is None
    assert quick_violation(SCHEMA, {"url": 5}, "inputs", is_brought=True) == "inputs.url: 5 is not of type 'string'"
    assert str(quick_violation({"type": 5}, {}, "inputs")).startswith("inputs: the schema is not a usable")


# What callers can make costly: many values, much text, many parts, comparing items with each other.
COSTLY = {
    "values": ({"items": {"type": "integer"}}, [0] * 3000),
    "keys": ({"additionalProperties": {"type": "integer"}}, {f"k{n}": 0 for n in range(3000)}),
    "long keys": ({"additionalProperties": False}, {"k" * 2_000_000: 0}),
    "text": ({"type": "integer"}, "x" * 2_000_000),
    "constants": ({"items": {"enum": list(range(2000))}}, [0] * 100),
    "alternatives": ({"items": {"anyOf": [{"minLength": n} for n in range(200)]}}, [""] * 100),
    "levels": ({"items": {"items": {"items": {"type": "integer"}}}}, [[[0] * 50] * 50]),
    "comparing": ({"uniqueItems": True}, [[n] for n in range(200)]),
    "comparing deep": ({"properties": {"a": {"uniqueItems": True}}}, {"a": [{"n": n} for n in range(200)]}),
}


@pytest.mark.parametrize("what", COSTLY)
def test_what_could_take_long_is_not_judged_at_once(what: str) -> None:
    schema, value = COSTLY[what]
    with pytest.raises(TooCostly):
        quick_violation(schema, value, "inputs")


def test_schema_that_a_task_brings_is_judged_at_once_only_when_it_is_small() -> None:
    def schema(properties: int) -> dict[str, Any]:
        return {"properties": {f"p{n}": {"type": "string"} for n in range(properties)}}

    assert quick_violation(schema(10), {}, "inputs", is_brought=True) is None
    assert quick_violation(schema(100), {}, "inputs") is None
    with pytest.raises(TooCostly):
        quick_violation(schema(100), {}, "inputs", is_brought=True)


@pytest.mark.parametrize(
    ("value", "size"),
    [(None, 1), (5, 1), ("", 1), ("x" * 256, 2), ([], 1), ([1, 2], 3), ({}, 1), ({"a": 1}, 4), ([[1], {"a": "b"}], 7)],
)
def test_size_of_a_value_is_counted(value: Any, size: int) -> None:
    assert has_few_values(value, size) and not has_few_values(value, size - 1)


def test_counting_stops_when_it_is_too_much() -> None:
    """Else counting would be what takes long."""
    endless: list[Any] = []
    endless.append(endless)
    assert not has_few_values(endless, 1000)


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("maxProperties", {f"k{n}": "" for n in range(100)}, "inputs: has 100 properties, more than 2"),
        ("maxItems", ["x"] * 100, "inputs: has 100 items, more than 2"),
        ("maxLength", "x" * 1000, "inputs: has 1000 characters, more than 2"),
        ("maxLength", "xyz", "inputs: 'xyz' is too long"),
    ],
)
def test_text_of_what_is_too_long_says_how_long_it_is_and_may_be(keyword: str, value: Any, text: str) -> None:
    assert violation({keyword: 2}, value, "inputs") == text
