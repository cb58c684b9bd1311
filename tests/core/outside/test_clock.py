"""Tests of core.outside.clock."""

import time
from concurrent.futures import ThreadPoolExecutor
from uuid import RFC_4122, UUID

import pytest

from core.outside.clock import ClockWatch, SharedClock, SystemClock, boot_nanoseconds


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


def test_ids_are_unique_over_threads() -> None:
    clock = SystemClock()
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: clock.new_id(), range(4_000)))
    assert len(set(ids)) == 4_000


def test_chance_is_within_zero_and_one() -> None:
    clock = SystemClock()
    assert all(0 <= clock.chance() < 1 for _ in range(1_000))
    assert abs(clock.now() - time.time()) < 60


class Machine:
    """A clock that can be set, and the seconds that really pass."""

    def __init__(self) -> None:
        self.wall, self.uptime = 1_000_000.0, 50.0
        self.clock = SystemClock(lambda: int(self.wall * 1e9), lambda: int(self.uptime * 1e9))

    def passes(self, seconds: float) -> None:
        self.wall += seconds
        self.uptime += seconds


class Shared(Machine):
    """A machine whose clock goes by a shared one. `ahead`: by how many seconds its own differs from that."""

    def __init__(self, ahead: float) -> None:
        super().__init__()
        self.wall = 2_000_000_000.0
        self.shared = self.wall - ahead
        self.clock: SharedClock = SharedClock(lambda: int(self.wall * 1e9), lambda: int(self.uptime * 1e9))

    def passes(self, seconds: float) -> None:
        super().passes(seconds)
        self.shared += seconds

    def look(self) -> None:
        self.clock.follow(self.shared, int(self.uptime * 1e9))


JUMPS = [10 * 3.2e7, 86_400.0, 3_600.0, 2.0, 1.0, -1.0, -2.0, -3_600.0, -86_400.0, -10 * 3.2e7]


@pytest.mark.parametrize("jump", JUMPS)
def test_seconds_pass_as_they_do_whatever_the_clock_is_set_to(jump: float) -> None:
    """Found from outside: a clock set back an hour made a retry wait that hour."""
    machine = Machine()
    machine.passes(100)
    machine.wall += jump
    machine.passes(7_200)
    assert machine.clock.now() == pytest.approx(1_007_300, abs=0.001)
    assert machine.clock.wall() == pytest.approx(1_007_300 + jump, abs=0.001)


def test_a_clock_that_goes_back_a_second_each_second_stops_nothing() -> None:
    machine = Machine()
    for _ in range(100):
        machine.passes(1)
        machine.wall -= 1
    assert machine.clock.now() == pytest.approx(1_000_100, abs=0.001)


def test_the_next_process_takes_the_clock_as_it_is_set() -> None:
    machine = Machine()
    machine.wall += 3_600
    assert SystemClock(lambda: int(machine.wall * 1e9), lambda: 0).now() == pytest.approx(1_003_600, abs=0.001)


def test_ids_increase_when_the_clock_is_set_back() -> None:
    machine = Machine()
    first = machine.clock.new_id()
    machine.wall -= 1e6
    assert machine.clock.new_id() > first


def test_the_log_tells_once_that_the_clock_was_set(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    watch = ClockWatch(machine.clock)
    for jump in (0.0, 1.0, -3_600.0, 0.0, 3_599.0):
        machine.wall += jump
        watch.look()
        watch.look()
    assert [record.getMessage().split(" s ")[0] for record in caplog.records] == [
        "the system clock was set: it is -3599",
        "the system clock was set: it is +0",
    ]


def test_boot_nanoseconds_pass() -> None:
    before = boot_nanoseconds()
    assert boot_nanoseconds() >= before > 0


@pytest.mark.parametrize("ahead", JUMPS)
def test_a_shared_clock_is_the_same_whatever_the_machines_is_set_to(ahead: float) -> None:
    machine = Shared(ahead)
    machine.clock.new_id()
    machine.look()
    assert machine.clock.now() == pytest.approx(machine.shared, abs=0.001)
    machine.wall -= 3 * ahead
    machine.passes(7_200)
    machine.look()
    assert machine.clock.now() == machine.clock.wall() == pytest.approx(machine.shared, abs=0.001)
    assert UUID(machine.clock.new_id()).int >> 80 == int(machine.clock.now() * 1_000)


def test_what_the_shared_clock_is_ahead_is_caught_up_with_at_once() -> None:
    machine = Shared(0.0)
    machine.look()
    machine.shared += 100
    machine.look()
    assert machine.clock.now() == pytest.approx(machine.shared, abs=0.001)


def test_a_shared_clock_that_goes_back_is_waited_for_at_half_the_speed() -> None:
    """F9: the time of no task goes back, and no wait stands still."""
    machine = Shared(0.0)
    machine.look()
    began = machine.clock.now()
    first = machine.clock.new_id()
    machine.shared -= 100
    machine.look()
    assert machine.clock.now() == pytest.approx(began, abs=0.001)
    assert machine.clock.wall() == pytest.approx(began - 100, abs=0.001)
    seen = [began]
    for _ in range(150):
        machine.passes(1)
        machine.look()
        seen.append(machine.clock.now())
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(began + 75, abs=0.01)
    assert machine.clock.new_id() > first
    machine.passes(50)
    assert machine.clock.now() == pytest.approx(machine.shared, abs=0.01)
    machine.passes(50)
    assert machine.clock.now() == pytest.approx(machine.shared, abs=0.01)
