"""Counting the values of a JSON text before it is decoded."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model import jsonscan
from core.model.jsonscan import (
    LONGEST_NUMBER,
    has_few_values,
    has_short_numbers,
    is_shallow,
    most_values,
    values_by_piece,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def count(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 1
    return 1 + (sum(map(count, value.values() if isinstance(value, dict) else value)) or 1)


def depth(value: Any) -> int:
    if not isinstance(value, list | dict):
        return 0
    return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)


@given(JSON)
def test_values_and_levels_are_those_of_the_decoded_document(value: Any) -> None:
    body = json.dumps(value).encode()
    values, levels = count(value), depth(value)
    assert 1 + sum(values_by_piece(body)) == values <= most_values(body)
    assert has_few_values(body, values) and not has_few_values(body, values - 1)
    assert is_shallow(body, levels) and (levels == 0 or not is_shallow(body, levels - 1))


@pytest.mark.parametrize(("body", "values"), [(b"1", 1), (b"{}", 2), (b'["[{,"]', 2), (b'["\\"",1]', 3)])
def test_values_are_counted_outside_of_strings(body: bytes, values: int) -> None:
    assert 1 + sum(values_by_piece(body)) == values


@pytest.mark.parametrize(
    ("body", "is_short"),
    [
        (b"1" * LONGEST_NUMBER, True),
        (b"1" * (LONGEST_NUMBER + 1), False),
        (b"[0," + b"9" * (LONGEST_NUMBER + 1) + b"]", False),
        (b"-0." + b"5" * (LONGEST_NUMBER + 1), False),
        (b'["' + b"1" * 10_000 + b'"]', True),
        (b'["\\"' + b"1" * 10_000 + b'"]', True),
        (b'["\\\\",' + b"1" * 10_000 + b"]", False),
        (b"[" + b"123456789," * 1_000 + b"1]", True),
    ],
    ids=lambda value: str(value)[:12],
)
def test_long_numbers_are_found_outside_of_strings(body: bytes, is_short: bool) -> None:
    """Each takes time with the square of its digits: ten megabytes of them took seconds of every reader."""
    assert has_short_numbers(body) is is_short


@given(st.text('\\",[{x', max_size=60), st.integers(2, 9))
def test_it_does_not_matter_where_a_text_is_cut_into_pieces(text: str, piece: int) -> None:
    body = b'["' + text.encode() + b'",[{}]]'
    whole = b"".join(jsonscan._outside_of_strings(body))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonscan, "PIECE", piece)
        assert b"".join(jsonscan._outside_of_strings(body)) == whole


class Whole(bytes):
    """A body that can only be looked at in pieces."""

    def replace(self, *_: Any) -> bytes:
        raise AssertionError("all of it is copied at once")

    split = translate = count = replace


def test_values_are_counted_piece_by_piece() -> None:
    """Others have their turn between two pieces: what is done to a whole large body keeps them waiting."""
    body = Whole(b'["' + b"x\\\\" * 100_000 + b'"]')
    assert 1 + sum(values_by_piece(body)) == most_values(body) == 2
    assert has_few_values(body, 2) and has_short_numbers(body)


@pytest.mark.parametrize("digits", [LONGEST_NUMBER, LONGEST_NUMBER + 1])
@pytest.mark.parametrize("before", range(jsonscan.PIECE - LONGEST_NUMBER - 2, jsonscan.PIECE + 2, 50))
def test_a_long_number_is_found_wherever_pieces_end(before: int, digits: int) -> None:
    assert has_short_numbers(b" " * before + b"1" * digits) is (digits == LONGEST_NUMBER)


def test_a_body_is_read_once_to_see_that_it_cannot_have_many_values() -> None:
    passes = []

    class Counted(bytes):
        def translate(self, *arguments: Any) -> bytes:
            passes.append(arguments)
            return bytes(self).translate(*arguments)

        def __getitem__(self, index: Any) -> Any:
            return Counted(bytes(self)[index])

        def count(self, *_: Any) -> int:
            raise AssertionError("one pass for each kind of character")

    assert most_values(Counted(b'{"a":[1,2]}')) == 4
    assert len(passes) == 1
