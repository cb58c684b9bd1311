"""Tests of core.model.timestamps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.timestamps import from_timestamp, to_timestamp


def test_timestamps_are_utc_with_milliseconds() -> None:
    assert to_timestamp(0.0) == "1970-01-01T00:00:00.000Z"
    assert to_timestamp(1_800_000_000.5) == "2027-01-15T08:00:00.500Z"


def test_any_zone_is_read_as_the_same_moment() -> None:
    assert from_timestamp("2027-01-15T08:00:00Z") == 1_800_000_000
    assert from_timestamp("2027-01-15T10:00:00.250+02:00") == 1_800_000_000.25


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_survive_the_round_trip(milliseconds: int) -> None:
    assert round(from_timestamp(to_timestamp(milliseconds / 1000)) * 1000) - milliseconds in (0, -1)


@pytest.mark.parametrize("text", ["2027-01-15T08:00:00", "2027-01-15", "tomorrow", "", "2027-13-01T00:00:00Z"])
def test_text_without_a_zone_or_sense_is_refused(text: str) -> None:
    """Without a zone nobody knows which moment is meant."""
    with pytest.raises(ValueError):
        from_timestamp(text)
