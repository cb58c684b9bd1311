"""Work over many values in pieces, between which the event loop serves others."""

import asyncio
from collections.abc import Callable, Iterable
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
