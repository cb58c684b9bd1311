"""Tests of core.clock."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from core.clock import LASTING, SteadyTime, SystemClock, boot_seconds


def test_ids_are_version_7_and_carry_the_time() -> None:
    before = time.time_ns() // 1_000_000
    found = UUID(SystemClock().new_id())
    after = time.time_ns() // 1_000_000
    assert (found.version, found.variant) == (7, RFC_4122)
    assert before <= found.int >> 80 <= after


def test_ids_of_a_process_increase() -> None:
    """Inserts stay local in the index only when text order is the order of creation."""
    clock = SystemClock()
    ids = [clock.new_id() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)


def test_ids_increase_when_the_clock_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    first = clock.new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert clock.new_id() > first


def test_ids_are_unique_over_threads() -> None:
    clock = SystemClock()
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: clock.new_id(), range(4_000)))
    assert len(set(ids)) == 4_000


def test_chance_is_within_zero_and_one() -> None:
    clock = SystemClock()
    assert all(0 <= clock.chance() < 1 for _ in range(1_000))
    assert abs(clock.now() - time.time()) < 60


class Moment:
    """A wall clock and the seconds that really pass."""

    def __init__(self) -> None:
        self.wall, self.uptime = 1_000_000.0, 50.0
        self.time = SteadyTime(lambda: self.wall, lambda: self.uptime)
        self.time.now()

    def passes(self, seconds: float, steps: int = 1) -> None:
        for _ in range(steps):
            self.wall += seconds / steps
            self.uptime += seconds / steps
            self.time.now()


DAY, YEARS = 86_400.0, 3e8


@pytest.mark.parametrize("jump", [YEARS, DAY, 2.0, -2.0, -DAY, -YEARS / 1000])
def test_a_jump_of_the_clock_is_believed_after_an_hour(jump: float) -> None:
    moment = Moment()
    moment.passes(100)
    moment.wall += jump
    moment.time.now()
    moment.passes(LASTING - 1, steps=100)
    assert moment.time.now() == pytest.approx(moment.wall - jump)
    assert moment.time.passed() == pytest.approx(moment.wall - max(0.0, jump))
    moment.passes(2)
    assert moment.time.now() == pytest.approx(moment.wall)
    assert moment.time.passed() == pytest.approx(moment.wall)


def test_a_jump_that_ends_was_none() -> None:
    moment = Moment()
    for _ in range(5):
        moment.wall += YEARS
        moment.passes(LASTING - 1)
        moment.wall -= YEARS
        moment.passes(1)
    assert moment.time.now() == pytest.approx(moment.wall)
    assert moment.time.passed() == pytest.approx(1_000_000.0 + 5 * LASTING)


def test_a_clock_that_jumps_again_and_again_is_not_believed() -> None:
    moment = Moment()
    for _ in range(10):
        moment.wall += DAY
        moment.passes(LASTING / 2)
    assert moment.time.now() == pytest.approx(1_000_000.0 + 5 * LASTING)


def test_small_corrections_are_followed_at_once() -> None:
    moment = Moment()
    for correction in (0.5, -0.9, 0.3):
        moment.wall += correction
        assert moment.time.now() == pytest.approx(moment.wall)


def test_a_machine_that_slept_is_as_late_as_it_is() -> None:
    """Both clocks go on meanwhile: that is no jump."""
    moment = Moment()
    moment.passes(3 * DAY)
    assert moment.time.passed() == pytest.approx(moment.wall)


def test_boot_seconds_pass() -> None:
    before = boot_seconds()
    assert boot_seconds() >= before > 0
