"""Tests of core.model.retry."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.retry import RetryPolicy


def test_delays_grow_by_the_factor_up_to_the_maximum() -> None:
    policy = RetryPolicy(initial=1, factor=3, maximum=10, jitter=0)
    assert [policy.delay(failures, 0.9) for failures in (1, 2, 3, 4)] == [1, 3, 9, 10]


def test_jitter_takes_its_share_of_the_delay() -> None:
    policy = RetryPolicy(initial=8, jitter=0.25)
    assert policy.delay(1, 0.0) == 8
    assert policy.delay(1, 0.5) == 7


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_finite_and_at_most_the_maximum(failures: int, chance: float) -> None:
    """Also where the power overflows a float."""
    delay = RetryPolicy(factor=100).delay(failures, chance)
    assert math.isfinite(delay)
    assert 0 <= delay <= 300


@pytest.mark.parametrize(
    ("given_policy", "path"),
    [
        ({"initial": 0}, "initial"),
        ({"initial": -1}, "initial"),
        ({"factor": 0.5}, "factor"),
        ({"maximum": 1e12}, "maximum"),
        ({"jitter": 1.5}, "jitter"),
        ({"jitter": math.nan}, "jitter"),
        ({"first": 1}, "first"),
    ],
)
def test_a_wrong_policy_is_refused_naming_the_field(given_policy: dict[str, float], path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=path):
        msgspec.convert(given_policy, RetryPolicy)
