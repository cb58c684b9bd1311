"""What the measured server runs: `a2a-server serve benchmarks/agents.py`. Peers' agents do the same."""

import asyncio
import time
from typing import Any

from core import TaskContext, executor

CHUNKS, CHUNK = 400, "x" * 200
TICK = 0.01  # seconds between two events of `ticks`


@executor("noop")
async def noop(inputs: dict[str, Any], context: TaskContext) -> None:
    """Returns at once."""


@executor("chunks")
async def chunks(inputs: dict[str, Any], context: TaskContext) -> None:
    """Gives its output in many small pieces."""
    for _ in range(CHUNKS):
        await context.artifact(CHUNK)


@executor("ticks")
async def ticks(inputs: dict[str, Any], context: TaskContext) -> None:
    """Says what time it is, a hundred times a second."""
    at = time.monotonic()
    for _ in range(int(inputs["ticks"])):
        at += TICK
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        await context.message(str(time.monotonic_ns()))


@executor("ask")
async def ask(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Waits for an answer of its caller."""
    return await context.ask("Yes?")


@executor("waits")
async def waits(inputs: dict[str, Any], context: TaskContext) -> None:
    """Runs until it is cancelled."""
    await asyncio.Event().wait()


@executor("census")
async def census(inputs: dict[str, Any], context: TaskContext) -> str:
    """How many asyncio tasks the process has."""
    return str(len(asyncio.all_tasks()))
