"""Large values a piece at a time (`core.loop.large_values`): the same as in one call, and no call that takes long."""

import json
from collections import OrderedDict
from enum import StrEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.loop import large_values
from core.loop.large_values import (
    CHARACTERS,
    ITEMS,
    VALUES,
    copied_in_pieces,
    encoded,
    encoded_text,
    is_small,
    measured_in_pieces,
)
from core.model.jsonvalue import MAX_DEPTH, NotJson, copied, measured


class Word(StrEnum):
    YES = "yes"


def deep(levels: int, value: Any = None) -> Any:
    for _ in range(levels):
        value = [value]
    return value


TEXT = "x" * (CHARACTERS + 1)
MANY = [{"id": n, "name": "naïve", "on": True, "at": 1.5, "no": None} for n in range(VALUES)]
LARGE: dict[str, Any] = {
    "text": TEXT,
    "text of all kinds": ('quo"te \\ \n é 😀 ' * CHARACTERS)[: CHARACTERS + 3],
    "objects": [{} for _ in range(VALUES + 1)],
    "numbers": [1.5] * (VALUES + 1),
    "many rows": MANY,
    "an object of many": {f"key {n}": n for n in range(VALUES + 1)},
    "a large one among small ones": [1, "two", MANY, None, {}],
    "a large one of an object": {"a": 1, 'q"uoted': MANY, "b": [], "c": {"d": TEXT}},
    "a large one behind many": {**{f"key {n}": n for n in range(ITEMS + 3)}, "": MANY},
    "deep": {"a": deep(60, MANY), "b": deep(60)},
    "tuples": (tuple(range(VALUES)), (TEXT,)),
    "large integers": [10**30] * (VALUES + 1),
    "long integers": [10**398, -(10**398)] * (VALUES // 4),
}
SMALL: dict[str, Any] = {
    "nothing": None,
    "text": "x" * CHARACTERS,
    "a list": [0] * (VALUES - 1),
    "an object": {"a": {}},
    "integers": [10**18, -(10**18)] * (VALUES // 3),
}
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that everything is large."""
    for name, most in (("VALUES", 3), ("CHARACTERS", 8), ("ITEMS", 2)):
        monkeypatch.setattr(large_values, name, most)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_small_is_known_as_such(name: str) -> None:
    assert is_small(SMALL[name])


@pytest.mark.parametrize("name", LARGE)
def test_what_is_large_is_known_as_such_and_told_as_ever(name: str) -> None:
    value = LARGE[name]
    assert not is_small(value)
    assert (measured_in_pieces(value, "value", 10**9) == measured(value, "value", 10**9)) is True
    assert (copied_in_pieces(value) == copied(value)) is True
    assert (encoded(value) == msgspec.json.encode(value)) is True


@pytest.mark.parametrize(
    "value",
    [OrderedDict({str(n): n for n in range(VALUES + 1)}), [Word.YES] * (VALUES + 1), [Word.YES, "x" * CHARACTERS]],
)
def test_classes_made_from_json_s_own_are_looked_into(value: Any) -> None:
    assert not is_small(value)
    assert encoded(value) == msgspec.json.encode(value)


@pytest.mark.parametrize("text", ["", "x", "ü" * 3, "a\udfffb" * CHARACTERS])
def test_text_is_that_of_one_call(text: str) -> None:
    assert (encoded_text(text) == text.encode("utf-8", "replace")) is True


class Holder(msgspec.Struct):
    """Of any value."""

    name: str
    value: Any


@pytest.mark.parametrize(
    "value", ["x" * (CHARACTERS + 1), [1] * (VALUES + 1), {"a": Holder("b", ["x"] * (VALUES + 1))}]
)
def test_what_structs_hold_is_looked_into(value: Any) -> None:
    assert not is_small(Holder("a", value))
    assert not is_small([Holder("a", (Holder("b", value),))])
    assert is_small([Holder("a", (Holder("b", "x"),))])


@given(value=values)
def test_pieces_of_any_size_are_the_same_value(value: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name, most in (("VALUES", 3), ("CHARACTERS", 8), ("ITEMS", 2)):
            patch.setattr(large_values, name, most)
        assert encoded(value) == msgspec.json.encode(value)
        found, data = measured_in_pieces(value, "value", 10**9)
        assert (found, data) == measured(value, "value", 10**9)
        assert copied_in_pieces(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": MANY, 1: 2}, "the key 1, which is not a string"),
        ({None: MANY}, "the key 'None', which is not a string"),
        ([*MANY, {2: 1}], "the key 2, which is not a string"),
        ([*MANY, {1, 2}], "a set is not a JSON value"),
        ([*MANY, float("nan")], "Out of range float values are not JSON compliant"),
        ([*MANY, "\ud800"], "text that is not valid Unicode"),
        (TEXT + "\udfff", "text that is not valid Unicode"),
        ({"a": MANY, "b": deep(MAX_DEPTH)}, f"nested more than {MAX_DEPTH} levels deep"),
        (deep(MAX_DEPTH, MANY), f"nested more than {MAX_DEPTH} levels deep"),
        (deep(5_000, MANY), "not JSON"),
    ],
)
def test_what_is_no_json_is_refused_as_ever(value: Any, text: str) -> None:
    for measure in (measured, measured_in_pieces):
        with pytest.raises(NotJson, match=text):
            measure(value, "value", 10**9)


def test_a_value_that_is_inside_of_itself_is_refused() -> None:
    value: list[Any] = [*MANY]
    value.append(value)
    with pytest.raises(NotJson, match="Circular reference"):
        measured_in_pieces(value, "value", 10**9)


@pytest.mark.parametrize("name", LARGE)
def test_what_has_too_many_bytes_is_refused_and_what_has_just_as_many_is_not(name: str) -> None:
    size = len(json.dumps(LARGE[name], ensure_ascii=False).encode())
    assert len(measured_in_pieces(LARGE[name], "value", size + 2)[1]) == size
    with pytest.raises(NotJson, match=f"the value has .*[0-9]+ bytes of JSON; {size // 2} are allowed"):
        measured_in_pieces(LARGE[name], "value", size // 2)


@pytest.mark.usefixtures("tiny")
def test_no_call_has_more_than_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call holds the interpreter, in whichever thread, for as long as its value is large."""
    seen: list[Any] = []

    def watched(value: Any, *rest: Any) -> Any:
        seen.append(value)
        return measured(value, *rest)

    monkeypatch.setattr(large_values, "measured", watched)
    measured_in_pieces([[{"a": n, "b": [n]} for n in range(50)], {str(n): "y" * 8 for n in range(50)}], "value", 10**9)
    assert len(seen) > 100
    assert all(is_small(value) for value in seen)
