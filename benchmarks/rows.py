"""What a measurement hands to the table."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Row(NamedTuple):
    """One bar: what was to hold, what was measured, beside what, and whether it holds (None: nothing to compare)."""

    bar: str
    measured: str
    beside: str
    holds: bool | None

    @property
    def verdict(self) -> str:
        return "–" if self.holds is None else "holds" if self.holds else "**missed**"


class Effort(NamedTuple):
    """How much is measured."""

    rounds: int
    seconds: int  # of load in one round
    is_quick: bool


QUICK = Effort(rounds=1, seconds=2, is_quick=True)
FULL = Effort(rounds=3, seconds=4, is_quick=False)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], unit: str = "", digits: int = 0) -> str:
    """The median and, of several values, between which it lies."""
    middle = f"{median(values):,.{digits}f}{unit}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f}–{max(values):,.{digits}f})"


def absent(bar: str, subject: str) -> Row:
    return Row(bar, "", f"{subject} is not installed in .peers", None)
