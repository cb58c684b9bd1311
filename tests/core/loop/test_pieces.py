"""Work over many values in pieces (`core.loop.pieces`)."""

import asyncio
from itertools import pairwise

import pytest

from core.loop import pieces
from core.loop.pieces import PIECE, in_pieces, some_at_a_time


class Watch:
    """A clock that each value takes a millisecond of."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def work(self, value: int) -> int:
        self.time += 0.001
        return value * 2


@pytest.mark.asyncio
async def test_others_have_their_turn_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch()
    monkeypatch.setattr(pieces, "perf_counter", watch)
    turns: list[float] = []
    ended = asyncio.Event()

    async def other() -> None:
        while not ended.is_set():
            turns.append(watch.time)
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    assert await in_pieces(range(100), watch.work) == [n * 2 for n in range(100)]
    ended.set()
    await beside
    assert len(turns) > 15
    assert max(b - a for a, b in pairwise(turns)) <= PIECE + 0.0011


@pytest.mark.asyncio
async def test_what_cannot_be_made_is_told() -> None:
    with pytest.raises(ZeroDivisionError):
        await in_pieces([1, 0], lambda n: 1 // n)


@pytest.mark.asyncio
@pytest.mark.parametrize(("most", "count"), [(3, 0), (3, 1), (3, 3), (3, 10), (1, 5), (20, 5)])
async def test_so_many_are_made_at_a_time_and_all_come_in_their_order(most: int, count: int) -> None:
    at_work, busiest = 0, 0

    async def make(n: int) -> int:
        nonlocal at_work, busiest
        at_work += 1
        busiest = max(busiest, at_work)
        for _ in range(count - n):  # the last ones are ready first
            await asyncio.sleep(0)
        at_work -= 1
        return n * 2

    assert await some_at_a_time(most, range(count), make) == [n * 2 for n in range(count)]
    assert busiest == min(most, count)


@pytest.mark.asyncio
async def test_an_error_is_raised_and_what_is_being_made_goes_on() -> None:
    made: list[int] = []
    ended = asyncio.Event()

    async def make(n: int) -> None:
        await asyncio.sleep(0)
        made.append(1 // n)
        if len(made) == 3:
            ended.set()

    with pytest.raises(ZeroDivisionError):
        await some_at_a_time(2, [1, 0, 1, 1], make)
    async with asyncio.timeout(10):
        await ended.wait()
