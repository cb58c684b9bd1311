"""The counted costs: what differs from the accepted figures is found, down to one call of our own code."""

from pathlib import Path

import pytest

from benchmarks.cost import STREAM, differences
from benchmarks.cost_page import PAGE, Cost, held, with_costs

ACCEPTED = {"GetTask": Cost(own=336.0, calls=840, commits=0), STREAM: Cost(own=150.0, calls=240, commits=0.02)}


@pytest.mark.parametrize(
    ("name", "cost", "expected"),
    [
        ("GetTask", Cost(336.5, 845, 0.02), []),
        ("GetTask", Cost(337.0, 840, 0), ["GetTask: own 337, accepted are 336 (+1)"]),
        ("GetTask", Cost(335.0, 840, 0), ["GetTask: own 335, accepted are 336 (-1)"]),
        ("GetTask", Cost(336.0, 890, 0), ["GetTask: calls 890, accepted are 840 (+50)"]),
        ("GetTask", Cost(336.0, 840, 1), ["GetTask: commits 1, accepted are 0 (+1)"]),
        (STREAM, Cost(152.0, 240, 0.02), []),
        (STREAM, Cost(155.0, 240, 0.02), [f"{STREAM}: own 155, accepted are 150 (+5)"]),
    ],
)
def test_what_differs_is_named_with_both_figures(name: str, cost: Cost, expected: list[str]) -> None:
    assert differences(ACCEPTED | {name: cost}, ACCEPTED) == expected


def test_work_that_is_not_counted_any_more_is_named() -> None:
    assert differences({"GetTask": ACCEPTED["GetTask"]}, ACCEPTED) == [f"{STREAM}: stands on one side only"]


def test_the_page_shows_the_accepted_figures() -> None:
    """`scripts/cost --write` and `scripts/bench` both write the page."""
    page = Path(PAGE).read_text("utf-8")
    assert with_costs(page) == page
    assert all(f"| {name} |" in page for name in held()[1])
