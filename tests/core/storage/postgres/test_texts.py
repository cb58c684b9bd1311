"""Texts of columns (`core.storage.postgres.texts`)."""

from hypothesis import given
from hypothesis import strategies as st

from core.storage.postgres.texts import read, written


@given(st.text(st.sampled_from("\0\1\2\3a")))
def test_each_text_is_read_as_it_was_and_has_no_zero(text: str) -> None:
    assert "\0" not in written(text)
    assert read(written(text)) == text


@given(st.text(st.sampled_from("\0\1\2\3a"), max_size=4), st.text(st.sampled_from("\0\1\2\3a"), max_size=4))
def test_two_texts_stay_two(one: str, other: str) -> None:
    assert (written(one) == written(other)) is (one == other)


def test_what_is_not_there_stays_so() -> None:
    assert written(None) is None
