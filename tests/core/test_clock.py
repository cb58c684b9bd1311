"""Tests of core.clock."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from core.clock import SystemClock


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
