"""Tests of a2a_server.protocol.base64url."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2a_server.protocol.base64url import decoded, encoded


@given(st.binary(max_size=40))
def test_every_text_stands_for_its_bytes_and_needs_no_escapes(data: bytes) -> None:
    text = encoded(data)
    assert decoded(text) == data
    assert all(character.isalnum() or character in "-_" for character in text)


@pytest.mark.parametrize("text", ["é", "A", "AAAAA"])
def test_what_stands_for_no_bytes_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decoded(text)
