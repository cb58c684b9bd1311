"""Tests of core.loop.alarms: each alarm rings once, in order, and many at one moment leave the event loop free."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from core.loop.alarms import MANY_ALARMS, RUNG_TOGETHER, SWEPT, Alarms
from core.outside.clock import SystemClock
from core.run.due import Timer

NOW = 1_000_000.0


class SetClock(SystemClock):
    """A clock that stands where a test puts it."""

    def __init__(self) -> None:
        super().__init__()
        self.time = NOW

    def now(self) -> float:
        return self.time


class Bells:
    """Timers, and what has rung by turns of the event loop."""

    def __init__(self) -> None:
        self.clock = SetClock()
        self.turns: list[list[Timer]] = []
        self.ended = asyncio.Event()
        self.wanted = 0
        self.timers: Alarms[Timer] = Alarms(self.clock.now, lambda timer: True, self.ring)

    def ring(self, due: Sequence[Timer]) -> None:
        self.turns.append(list(due))
        if len(self.rung) >= self.wanted:
            self.ended.set()

    @property
    def rung(self) -> list[Timer]:
        return [timer for turn in self.turns for timer in turn]

    async def hear(self, wanted: int) -> list[Timer]:
        """What has rung as soon as it is so many."""
        self.wanted = wanted
        async with asyncio.timeout(10):
            await self.ended.wait()
        return self.rung


@pytest_asyncio.fixture
async def bells() -> AsyncIterator[Bells]:
    made = Bells()
    yield made
    made.timers.close()


def due(count: int) -> list[Timer]:
    return [(NOW - 1, "tree", f"{n:05}") for n in range(count)]


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, RUNG_TOGETHER, RUNG_TOGETHER + 1, 10 * RUNG_TOGETHER])
async def test_timers_of_one_moment_ring_in_order_and_so_many_in_a_turn(bells: Bells, count: int) -> None:
    """Found later: thousands of deadlines of one moment were handled in one callback."""
    for timer in reversed(due(count)):
        bells.timers.set(timer)
    assert await bells.hear(count) == due(count)
    assert [len(turn) for turn in bells.turns if turn] == [
        min(RUNG_TOGETHER, count - begun) for begun in range(0, count, RUNG_TOGETHER)
    ]
    assert len(bells.timers) == 0


@pytest.mark.asyncio
async def test_the_event_loop_serves_others_between_two_turns(bells: Bells) -> None:
    for timer in due(5 * RUNG_TOGETHER):
        bells.timers.set(timer)
    seen: set[int] = set()

    async def other() -> None:
        while not bells.ended.is_set():
            seen.add(len(bells.rung))
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await bells.hear(5 * RUNG_TOGETHER)
    await beside
    assert seen >= {turn * RUNG_TOGETHER for turn in range(5)}


@pytest.mark.asyncio
async def test_what_is_set_between_two_turns_has_its_place_by_its_time(bells: Bells) -> None:
    early, late = (NOW - 2, "tree", "early"), (NOW - 0.5, "tree", "late")
    first = due(RUNG_TOGETHER + 1)
    for timer in first:
        bells.timers.set(timer)
    bells.wanted = RUNG_TOGETHER
    await bells.ended.wait()
    bells.ended.clear()
    bells.timers.set(late)
    bells.timers.set(early)
    assert (await bells.hear(RUNG_TOGETHER + 3))[RUNG_TOGETHER:] == [early, first[-1], late]


@pytest.mark.asyncio
async def test_closed_timers_ring_no_more_also_between_two_turns(bells: Bells) -> None:
    for timer in due(2 * RUNG_TOGETHER):
        bells.timers.set(timer)
    bells.wanted = RUNG_TOGETHER
    await bells.ended.wait()
    bells.timers.close()
    bells.timers.set((NOW - 3, "tree", "late"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(bells.rung) == RUNG_TOGETHER


@pytest.mark.asyncio
async def test_what_is_not_due_does_not_ring(bells: Bells) -> None:
    later = (NOW + 30, "tree", "later")
    bells.timers.set(later)
    for timer in due(RUNG_TOGETHER):
        bells.timers.set(timer)
    await bells.hear(RUNG_TOGETHER)
    assert bells.rung == due(RUNG_TOGETHER)
    assert len(bells.timers) == 1


@given(st.lists(st.floats(-1000, 0), max_size=3 * RUNG_TOGETHER))
def test_nothing_is_lost_and_all_ring_by_their_time(times: list[float]) -> None:
    async def rung() -> list[Timer]:
        bells = Bells()
        for n, time in enumerate(times):
            bells.timers.set((NOW + time, "tree", str(n)))
        found = await bells.hear(len(times)) if times else []
        bells.timers.close()
        return found

    assert asyncio.run(rung()) == sorted((NOW + time, "tree", str(n)) for n, time in enumerate(times))


class Needed:
    """Alarms of which those in `needed` are, and at how many of them each `set` looks."""

    def __init__(self) -> None:
        self.looked = 0
        self.needed: set[str] = set()
        self.clock = SetClock()
        self.rung: list[Timer] = []
        self.timers: Alarms[Timer] = Alarms(self.clock.now, self.is_needed, self.rung.extend)

    def is_needed(self, timer: Timer) -> bool:
        self.looked += 1
        return timer[2] in self.needed

    def set(self, when: float, name: str) -> int:
        """Set it; how many alarms that looked at."""
        before = self.looked
        self.timers.set((NOW + when, "tree", name))
        if len(self.timers) < 100 or not len(self.timers) % 100:  # it looks at all of them
            self.timers.check()
        return self.looked - before


@pytest.mark.asyncio
@pytest.mark.parametrize("kept", [0, 1, 10, 3 * MANY_ALARMS])
async def test_what_nobody_needs_is_thrown_away_a_few_at_a_time(kept: int) -> None:
    """All at once held the loop for 0.43 s where a tree of 5,000 tasks had timers."""
    alarms = Needed()
    alarms.needed = {f"kept {n}" for n in range(kept)}
    looks = [alarms.set(2 * n + 1, f"kept {n}") for n in range(kept)]
    looks += [alarms.set(n % 7_001, f"{n}") for n in range(12 * MANY_ALARMS)]
    assert max(looks) == SWEPT
    assert sum(looks) <= 2 * len(looks), "each is looked at about once"
    assert len(alarms.timers) <= 3 * max(MANY_ALARMS, kept)
    assert alarms.needed <= {name for _, _, name in alarms.timers}
    alarms.timers.close()


@pytest.mark.asyncio
async def test_while_they_are_swept_they_ring_in_their_order() -> None:
    alarms = Needed()
    times = [(n * 7919) % 2_003 for n in range(MANY_ALARMS + 50)]
    alarms.needed = {str(n) for n in range(len(times))}
    for n, when in enumerate(times):
        alarms.set(when + 1, str(n))
    assert alarms.timers._unswept, "it is under way"
    alarms.clock.time += 3_000
    while len(alarms.timers):
        alarms.timers._look()
        alarms.timers.check()
    assert alarms.rung == sorted((NOW + when + 1, "tree", str(n)) for n, when in enumerate(times))
    alarms.timers.close()


@given(st.lists(st.tuples(st.floats(1, 50), st.booleans()), max_size=60))
def test_first_alarm_is_always_the_next_one(given_: list[tuple[float, bool]]) -> None:
    async def run() -> None:
        alarms = Needed()
        alarms.timers._sweep_at = 5
        for n, (when, is_needed) in enumerate(given_):
            alarms.needed |= {str(n)} if is_needed else set()
            alarms.set(when, str(n))
        assert alarms.needed <= {name for _, _, name in alarms.timers}
        alarms.timers.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.loop.alarms.MANY_ALARMS", 5)
        asyncio.run(run())
