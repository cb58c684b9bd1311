"""Tests of core.model.integral: `2.0` is an integer where one is wanted, and only there."""

from typing import Annotated, Any

import pytest
from msgspec import UNSET, Meta, Struct, UnsetType

from core.model.integral import integral, plain_type, struct_of


class Inner(Struct):
    n: int = 0
    free: Any = None


class Outer(Struct, rename="camel"):
    n_of: Annotated[int, Meta(ge=1)] | None = None
    seconds: float = 0.0
    items: list[Inner | str] = []
    numbers: list[int] | UnsetType = UNSET
    inner: Inner | None = None
    free: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"nOf": 2.0}, {"nOf": 2}),
        ({"nOf": -0.0}, {"nOf": 0}),
        ({"nOf": 1e300}, {"nOf": int(1e300)}),
        ({"inner": {"n": 2.0, "free": 2.0}}, {"inner": {"n": 2, "free": 2.0}}),
        ({"items": ["a", {"n": 3.0}, 4.0]}, {"items": ["a", {"n": 3}, 4.0]}),
        ({"numbers": [1.0, 2, 2.5]}, {"numbers": [1, 2, 2.5]}),
    ],
)
def test_a_number_without_a_fraction_is_an_integer_where_one_is_wanted(value: Any, expected: Any) -> None:
    found = integral(value, Outer)
    assert found == expected and repr(found) == repr(expected)  # 2.0 == 2


@pytest.mark.parametrize(
    "value",
    [
        *({"nOf": each} for each in (2.5, "2", "2.0", True, None, [2.0], float("inf"), float("nan"), 2)),
        {"n_of": 2.0},  # not its name
        {"seconds": 2.0},
        {"free": {"n": 2.0}},
        {"unknown": 2.0},
        {"numbers": {"n": 2.0}},
        {"inner": [2.0]},
        [{"nOf": 2.0}],
        "text",
        2.0,
    ],
)
def test_all_else_stays_as_it_is(value: Any) -> None:
    assert repr(integral(value, Outer)) == repr(value)


def test_a_type_is_known_without_its_constraints_and_alternatives() -> None:
    assert plain_type(Annotated[int, Meta(ge=1)] | None) is int
    assert plain_type(list[int] | UnsetType) == list[int]
    assert plain_type(int | str) == int | str
    assert (struct_of(Inner), struct_of(Inner | str), struct_of(Inner | Outer), struct_of(int)) == (
        Inner,
        Inner,
        None,
        None,
    )
