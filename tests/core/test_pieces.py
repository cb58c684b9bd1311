"""Work over many values in pieces (`core.pieces`)."""

import asyncio
from itertools import pairwise

import pytest

from core import pieces
from core.pieces import PIECE, in_pieces


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
