"""Tests of core.model.problems: all that is wrong with a value, each with its path, in the words of JSON."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Meta, Struct, UnsetType

from core.model.errors import Problem
from core.model.problems import (
    LONGEST_NAME,
    LONGEST_WORDS,
    MAX_KEPT,
    MAX_PROBLEMS,
    Misfit,
    Problems,
    Unfit,
    convert,
    problem_of,
    readable,
    unknown_fields,
    wrong_fields,
)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Point(Struct, rename="camel", forbid_unknown_fields=True):
    x_of: int
    label: Annotated[str, Meta(min_length=1, max_length=3)] = "p"


class Side(Struct, tag_field="kind", tag="side"):
    length: float


class Corner(Struct, tag_field="kind", tag="corner"):
    angle: float


class Range(Struct, frozen=True, forbid_unknown_fields=True):
    low: int = 0
    high: int = 9

    INSTEAD: ClassVar[Mapping[str, str]] = {"from": "use low"}

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class Tolerant(Struct):
    low: int = 0
    range: Range | None = None


class Empty(Struct):
    pass


class Shape(Struct, forbid_unknown_fields=True):
    name: str
    colour: Colour | UnsetType = UNSET
    points: list[Point | str] = []
    by_name: dict[str, Point] = {}
    free: dict[str, Any] | None = None
    anything: list[Any] = []
    range: Range = Range()
    outline: Side | Corner | None = None
    at: datetime | None = None
    is_open: bool = False
    size: float = 1.0
    pair: tuple[int, int] = (0, 0)


def wrong(value: Any, path: str = "") -> list[tuple[str, str]]:
    with pytest.raises(Misfit) as misfit:
        convert(value, Shape, path)
    return [(problem.field, problem.message) for problem in misfit.value.problems]


FIELDS = "name, colour, points, by_name, free, anything, range, outline, at, is_open, size, pair"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # Every type in the words of JSON
        ({"name": 5}, [("name", "expected `string`, got `integer`")]),
        ({"name": 2.5}, [("name", "expected `string`, got `number`")]),
        ({"name": None}, [("name", "expected `string`, got `null`")]),
        ({"name": True}, [("name", "expected `string`, got `boolean`")]),
        ({"name": []}, [("name", "expected `string`, got `array`")]),
        ({"name": {}}, [("name", "expected `string`, got `object`")]),
        ({"size": "big"}, [("size", "expected `number`, got `string`")]),
        ({"is_open": 1}, [("is_open", "expected `boolean`, got `integer`")]),
        ({"free": 1}, [("free", "expected `object | null`, got `integer`")]),
        ({"at": 5}, [("at", "expected `timestamp | null`, got `integer`")]),
        ({"at": "now"}, [("at", "invalid RFC3339 encoded datetime")]),
        # A field is named once, innermost first, and one that holds wrong fields is not named itself
        ({"points": 5}, [("points", "expected `array`, got `integer`")]),
        (
            {"points": [{"xOf": 1}, "a", 5, {"xOf": 1, "label": "long"}, {}]},
            [
                ("points[2]", "expected `string | object`, got `integer`"),
                ("points[3].label", "expected `string` of length <= 3"),
                ("points[4].xOf", "is required"),
            ],
        ),
        ({"by_name": {"a": {"xOf": "1"}, "b": {"xOf": 2}}}, [("by_name.a.xOf", "expected `integer`, got `string`")]),
        ({"colour": "green"}, [("colour", "must be one of red, blue")]),
        ({"colour": None}, [("colour", "must be one of red, blue")]),
        ({"range": {"low": 5, "high": 1}}, [("range", "low is above high")]),
        ({"range": {"low": "x", "high": []}}, [
            ("range.low", "expected `integer`, got `string`"), ("range.high", "expected `integer`, got `array`"),
        ]),
        ({"pair": [1, "2"]}, [("pair[1]", "expected `integer`, got `string`")]),
        ({"outline": {"kind": "corner", "angle": "x"}}, [("outline.angle", "expected `number`, got `string`")]),
        ({"outline": {"kind": []}}, [("outline.kind", "expected `string`, got `array`")]),
        # Fields that the type does not have, in the caller's spelling; the known ones in JSON's
        ({"points": [{"x_of": 1}]}, [
            ("points[0].x_of", "unknown field; the known ones are: xOf, label"), ("points[0].xOf", "is required"),
        ]),
        ({"range": {"from": 1, "to": 2}}, [
            ("range.from", "unknown field; use low"), ("range.to", "unknown field; the known ones are: low, high"),
        ]),
        ({"nam": 1, "size": []}, [
            ("nam", f"unknown field; the known ones are: {FIELDS}"), ("size", "expected `number`, got `array`"),
        ]),
    ],
)  # fmt: skip
def test_every_wrong_field_is_told_once_with_its_path(value: Any, expected: list[tuple[str, str]]) -> None:
    value = {"name": "s"} | value
    assert wrong(value) == expected
    assert wrong(value, "shapes[3]") == [(f"shapes[3].{field}", message) for field, message in expected]


@pytest.mark.parametrize(("value", "word"), [(None, "null"), ([], "array"), ("x", "string"), (5, "integer")])
def test_what_is_wrong_with_the_whole_has_the_path_of_the_whole(value: Any, word: str) -> None:
    assert wrong(value) == [("", f"expected `object`, got `{word}`")]
    assert wrong(value, "tasks[2]") == [("tasks[2]", f"expected `object`, got `{word}`")]


def test_what_fits_is_converted_with_the_integers_that_json_may_write() -> None:
    free = {"deep": [1.0, {"any": None}]}
    made = convert({"name": "s", "points": [{"xOf": 2.0}, "a"], "free": free, "anything": [free]}, Shape)
    assert made == Shape("s", points=[Point(2), "a"], free=free, anything=[free])


def test_only_a_type_that_forbids_unknown_fields_refuses_them() -> None:
    assert convert({"low": 1, "other": 2}, Tolerant) == Tolerant(1)
    with pytest.raises(Misfit) as misfit:
        convert({"low": "x", "other": 2, "range": {"no": 1}}, Tolerant)
    assert [problem.field for problem in misfit.value.problems] == ["low", "range.no"]
    assert list(wrong_fields({"low": 1, "other": 2}, Tolerant, "r")) == []
    told = Problem("r.other", "unknown field; the known ones are: low, range")
    assert list(wrong_fields({"low": 1, "other": 2}, Tolerant, "r", is_strict=True)) == [told]
    assert list(unknown_fields({"": 1}, Empty)) == [Problem('""', "unknown field; the known ones are: none")]
    assert list(unknown_fields({"a": 1}, Empty)) == [Problem("a", "unknown field; the known ones are: none")]


def test_unknown_fields_are_found_at_any_depth_and_never_in_a_callers_own_json() -> None:
    value = {
        "points": [{"xOf": "wrong, but known"}, {"y": 1}, "text"], "by_name": {"a": {"z": 1}, "b": 5},
        "free": {"x": {"y": 1}}, "anything": [{"x": 1}], "range": [], "more": 1,
    }  # fmt: skip
    assert [problem.field for problem in unknown_fields(value, Shape)] == ["more", "points[1].y", "by_name.a.z"]


def test_a_value_may_say_itself_what_is_wrong_with_it() -> None:
    assert wrong({"name": Unfit("is given twice")}) == [("name", "is given twice")]


@pytest.mark.parametrize(
    "value",
    [
        {"x" * 10_000: 1},
        {"by_name": {"x" * 10_000: {"y" * 10_000: 1}}},
        {"outline": {"kind": "x" * 10_000}},
        {"colour": "x" * 10_000},
    ],
)
def test_of_what_a_caller_sent_little_is_repeated(value: Any) -> None:
    for field, message in wrong({"name": "s"} | value):
        assert len(field) <= 2 * LONGEST_NAME + len("by_name..") and len(message) <= LONGEST_WORDS


def test_a_long_field_is_cut_where_it_is_repeated() -> None:
    assert wrong({"name": "s", "x" * 10_000: 1})[0][0] == "x" * LONGEST_NAME
    long = "x" * 10_000
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert({"kind": long}, Side | Corner)
    assert problem_of(refused.value) == Problem("kind", f"invalid value 'xxx{long}"[: LONGEST_WORDS - 1] + "…")


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (int, "x", Problem("", "expected `integer`, got `string`")),
        (int | None, [], Problem("", "expected `integer | null`, got `array`")),
        (dict[str, int], {"a": "x"}, Problem("", "expected `integer`, got `string`")),
        (dict[str, list[int]], {"a": [1, "x"]}, Problem("[1]", "expected `integer`, got `string`")),
        (dict[int, int], {"a": 1}, Problem("", "expected `integer`, got `string`")),
        (Literal["a", "b"], "c", Problem("", "invalid enum value 'c'")),
        (Shape, {"name": 1}, Problem("name", "expected `string`, got `integer`")),
    ],
)
def test_the_validators_words_are_told_in_jsons(type_: Any, value: Any, expected: Problem) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.convert(value, type_)
    assert problem_of(refused.value) == expected
    place = expected.field if expected.field.startswith("[") or not expected.field else f".{expected.field}"
    assert problem_of(refused.value, "inputs").field == f"inputs{place}"


def test_the_words_of_a_rule_are_kept_whatever_they_hold() -> None:
    error = msgspec.ValidationError("Either - at `noon` - or\nexpected never - at `$.when`")
    assert problem_of(error) == Problem("when", "either - at `noon` - or\nexpected never")


def test_what_can_be_read_of_a_wrong_value_is_read() -> None:
    value = {"name": 5, "size": 2, "points": [{"xOf": 2.0}], "pair": "x", "unknown": 1}
    assert readable(value, Shape, {"name": "?"}) == Shape("?", size=2.0, points=[Point(2)])
    assert readable({"name": "s", "pair": [1.0, 2]}, Shape, {"name": "?"}).name == "s"
    assert readable({"xOf": 3.0, "label": "long"}, Point, {}) == Point(3)
    for value in (None, [], "text", 5):
        assert readable(value, Shape, {"name": "?"}) == Shape("?")


def numbered(count: int) -> Iterator[Problem]:
    return (Problem(f"f{n}", "is wrong") for n in range(count))


@pytest.mark.parametrize("count", [0, 1, MAX_PROBLEMS, MAX_PROBLEMS + 1, MAX_KEPT, MAX_KEPT + 1, 3 * MAX_KEPT])
def test_the_first_problems_are_told_and_the_others_counted(count: int) -> None:
    problems = Problems()
    problems += numbered(count)
    assert (len(problems), problems.dropped) == (min(count, MAX_KEPT), max(count - MAX_KEPT, 0))
    more = [Problem("", f"and {count - MAX_PROBLEMS} more problems")] if count > MAX_PROBLEMS else []
    assert problems.told() == [*numbered(min(count, MAX_PROBLEMS)), *more]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["red", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "points", "xOf", "range", "low", "kind", "by_name", "x"]), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_a_value_fits_or_something_is_told(value: Any) -> None:
    """And no place is told that lies within another one that is told: the innermost says it all."""
    try:
        made = convert(value, Shape)
    except Misfit as misfit:
        fields = [problem.field for problem in misfit.problems]
        assert fields and len(set(fields)) == len(fields)
        assert not any(a != b and b.startswith((f"{a}.", f"{a}[")) for a in fields for b in fields)
    else:
        assert isinstance(made, Shape)
