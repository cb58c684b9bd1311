"""Work over many values, so that the event loop serves others meanwhile: in pieces, or some at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import perf_counter
from typing import TypeVar

Given = TypeVar("Given")
Value = TypeVar("Value")

PIECE = 0.005  # seconds of it at a time


async def in_pieces(given: Iterable[Given], make: Callable[[Given], Value]) -> list[Value]:
    """What `make` makes of each value, in their order. Raises what it raises."""
    made: list[Value] = []
    ends_at = perf_counter() + PIECE
    for each in given:
        made += (make(each),)
        if perf_counter() >= ends_at:
            await asyncio.sleep(0)
            ends_at = perf_counter() + PIECE
    return made


async def some_at_a_time(most: int, given: Sequence[Given], make: Callable[[Given], Awaitable[Value]]) -> list[Value]:
    """What `make` makes of each value, in their order; `most` of them are being made at any moment.

    Raises the first error of `make`; what is being made meanwhile goes on.
    """
    made: dict[int, Value] = {}
    left = iter(enumerate(given))

    async def work() -> None:
        for n, each in left:
            made[n] = await make(each)

    await asyncio.gather(*(work() for _ in range(min(most, len(given)))))
    return [made[n] for n in range(len(given))]
