"""Tests of core.model.jsonvalue."""

import enum
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.events import Recorded, TaskCompleted
from core.model.jsonvalue import MAX_SINGLE, PARTS, NotJson, json_size, plain, refuse_large, to_json_value
from core.model.task import TaskStatus

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_a_json_value_comes_back_as_it_was(value: Any) -> None:
    """Integers stay integers, of any size; floats keep every bit."""
    assert to_json_value(value) == value
    assert repr(to_json_value(value)) == repr(value)


@given(VALUES)
def test_what_was_accepted_survives_the_log(value: Any) -> None:
    """Storage writes and reads events with msgspec: it must know the same integers."""
    event = TaskCompleted("t", 1, to_json_value(value))
    recorded = Recorded(tree_id="t", seq=1, at=0.0, name="t", tree_status=TaskStatus.COMPLETED, event=event)
    assert msgspec.json.decode(msgspec.json.encode(recorded), type=Recorded) == recorded


@pytest.mark.parametrize("number", [2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400])
def test_an_integer_of_any_size_is_kept_exactly(number: int) -> None:
    """A float would round it silently."""
    assert to_json_value({"n": number})["n"] == number
    assert type(to_json_value(number)) is int


def test_tuples_become_lists() -> None:
    """The value is what a reader of the log will find."""
    assert to_json_value({"a": (1, (2,)), "b": None}) == {"a": [1, [2]], "b": None}


@pytest.mark.parametrize("key", [1, 1.5, True, None])
def test_keys_that_are_no_text_are_refused(key: object) -> None:
    """JSON would make text of them, and two keys could become one."""
    with pytest.raises(NotJson, match="which is not a string"):
        to_json_value([{"a": ({key: 1},)}])


def test_the_value_is_a_copy() -> None:
    """An executor that goes on changing its result changes nothing that is kept."""
    given_list: list[int] = [1]
    kept = to_json_value({"list": given_list})
    given_list.append(2)
    assert kept == {"list": [1]}


def test_subclasses_are_reduced_to_plain_values() -> None:
    class Colour(enum.StrEnum):
        RED = "red"

    kept = to_json_value([Colour.RED, enum.IntEnum("Level", "LOW")["LOW"]])
    assert kept == ["red", 1]
    assert [type(each) for each in kept] == [str, int]


def _cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "not JSON"),
        (math.inf, "not JSON"),
        ({"a": [-math.inf]}, "not JSON"),
        ({1, 2}, "a set is not a JSON value"),
        ({"a": frozenset()}, "a frozenset is not a JSON value"),
        (b"raw", "a bytes is not a JSON value"),
        (object(), "a object is not a JSON value"),
        ("\ud800", "not valid Unicode"),
        ({"\udfff": 1}, "not valid Unicode"),
        ({(1, 2): 3}, "keys must be"),
        (10**5000, "not JSON"),
        (_cyclic(), "not JSON"),
        (_deep(50_000), "not JSON"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_json_cannot_say_is_refused_with_a_reason(value: Any, reason: str) -> None:
    """The text names the kind of value, and what was being kept."""
    with pytest.raises(NotJson, match=reason) as refusal:
        to_json_value(value, "result")
    assert "the result" in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_nesting_has_a_limit_that_leaves_room_for_every_reader() -> None:
    """What is accepted near the top of the stack must be readable deep in it, and inside an event."""

    def far_down(frames: int, value: Any) -> Any:
        if frames:
            return far_down(frames - 1, value)
        event = TaskCompleted("t", 1, value)
        return msgspec.json.decode(msgspec.json.encode(event), type=TaskCompleted).result

    kept = to_json_value(_deep(199), "result")
    assert far_down(500, kept) == kept
    assert to_json_value([[]] * 1_000) == [[]] * 1_000, "width is not depth"
    for deep in (_deep(200), _deep(900), {"a": [{"b": _deep(199)}]}):
        with pytest.raises(NotJson, match="the result is nested more than 200 levels deep"):
            to_json_value(deep, "result")


def test_the_limit_counts_the_bytes_of_the_json() -> None:
    """Characters of other alphabets count by their bytes."""
    assert to_json_value("é" * 4, limit=10) == "éééé"
    with pytest.raises(NotJson, match="the artifact has 12 bytes of JSON; 10 are allowed"):
        to_json_value("é" * 5, "artifact", limit=10)


def test_kept_parts_are_a_plain_list_for_others() -> None:
    assert plain({PARTS: [{"text": "hello"}]}) == [{"text": "hello"}]
    assert plain({PARTS: [], "more": 1}) == {PARTS: [], "more": 1}
    assert plain(None) is None
    assert plain("text") == "text"


@given(VALUES)
def test_the_size_is_that_of_the_value_as_it_is_kept(value: Any) -> None:
    assert json_size(value) == len(msgspec.json.encode(value))


@pytest.mark.parametrize(
    "whole", [lambda parts: parts, lambda parts: {"results": parts}, lambda parts: {"a": 1} | parts]
)
@pytest.mark.parametrize("escaped", ["x" * 600, "\u0001" * 100, "é" * 300, "\u2028" * 200, 10**599, {"n": ["x" * 600]}])
def test_a_value_that_is_far_too_large_is_refused_by_its_first_parts(whole: Callable[[Any], Any], escaped: Any) -> None:
    parts = {f"t{n}": escaped for n in range(100)}
    with pytest.raises(NotJson, match=r"the result has at least 1[0-9]{3} bytes of JSON; 1000 are allowed"):
        refuse_large(whole(parts), "result", 1000)


@pytest.mark.parametrize("limit", [0, 10, 599])
def test_nothing_is_encoded_behind_what_is_too_large(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[Any] = []

    def encode(part: Any) -> bytes:
        encoded.append(part)
        return json.dumps(part).encode()

    monkeypatch.setattr("core.model.jsonvalue.msgspec.json.encode", encode)
    with pytest.raises(NotJson):
        refuse_large({"results": {f"t{n}": [1] * 600 for n in range(100)}}, "result", limit)
    assert len(encoded) == 1
    with pytest.raises(NotJson):
        refuse_large({"results": {f"t{n}": {"text": "x" * 600} for n in range(100)}}, "result", limit)
    assert len(encoded) == 1, "texts are not encoded at all"


@pytest.mark.parametrize(
    "value",
    [
        {"results": {"a": "x" * 400, "b": "y" * 400}},
        [["x" * 400], ["y" * 400]],
        "x" * 900,
        None,
        {},
        [0] * (MAX_SINGLE + 1),
        {"a": {1: 2}, "b": object()},
        {"a": "\ud800"},
        {"a": {"b": float("nan")}},
    ],
)
def test_what_fits_or_is_no_json_is_left_to_who_judges_it(value: Any) -> None:
    refuse_large(value, "result", 50_000)


@given(
    VALUES,
    st.integers(0, 200),
)
def test_nothing_is_refused_early_that_would_pass(value: Any, limit: int) -> None:
    try:
        to_json_value(value, "result", limit)
    except NotJson:
        return
    if value is not None and value is not True and value is not False and not isinstance(value, float):
        refuse_large(value, "result", limit)
