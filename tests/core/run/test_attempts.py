"""Tests of core.run.attempts: nothing keeps an attempt, with its inputs and results, when it is over."""

import asyncio
import gc
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from core.executors.base import Rejected, Suspend, TaskContext
from core.model import events as e
from core.model.commands import Cancel
from core.run.attempts import ABANDON_AFTER
from core.session import Session
from tests.core.cores import Bench, begin, item, settle, virtual_time

Work = Callable[[dict[str, Any], TaskContext], Awaitable[Any]]
NEVER_AGAIN = {"initial": 1e6, "maximum": 1e6, "jitter": 0}


async def completes(inputs: dict[str, Any], context: TaskContext) -> None:
    """End well."""


async def fails(inputs: dict[str, Any], context: TaskContext) -> None:
    raise RuntimeError("no")


async def rejects(inputs: dict[str, Any], context: TaskContext) -> None:
    raise Rejected("no")


async def asks(inputs: dict[str, Any], context: TaskContext) -> None:
    raise Suspend("what?")


async def gives_no_json(inputs: dict[str, Any], context: TaskContext) -> object:
    return object()


async def goes_on(inputs: dict[str, Any], context: TaskContext) -> None:
    await asyncio.Event().wait()


async def cleans_up_slowly(inputs: dict[str, Any], context: TaskContext) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(1)


# What the executor does, more fields of its task, and whether the task is cancelled.
ENDS: dict[str, tuple[Work, dict[str, Any], bool]] = {
    "it completes": (completes, {}, False),
    "it fails for good": (fails, {}, False),
    "it fails and is tried again later": (fails, {"max_attempts": 2, "retry": NEVER_AGAIN}, False),
    "it rejects its task": (rejects, {}, False),
    "it asks": (asks, {}, False),
    "its result is no JSON": (gives_no_json, {}, False),
    "its time is up": (goes_on, {"timeout": 1}, False),
    "its time is up, and it stops slowly": (cleans_up_slowly, {"timeout": 1}, False),
    "its task is cancelled": (goes_on, {}, True),
    "its task is cancelled, and it stops slowly": (cleans_up_slowly, {}, True),
}


@pytest.mark.parametrize("way", ENDS)
@virtual_time
async def test_an_attempt_that_is_over_is_kept_by_nothing(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """A timer that had to watch over its interruption kept each failed one, with its inputs, for 30 seconds."""
    caplog.set_level(logging.CRITICAL)  # what is caught has tracebacks, and they have frames
    work, fields, is_cancelled = ENDS[way]
    bench, loop, gate = Bench(), asyncio.get_running_loop(), asyncio.Event()

    async def tried(inputs: dict[str, Any], context: TaskContext) -> Any:
        await gate.wait()
        return await work(inputs, context)

    bench.add("tried", tried)
    async with bench.session() as session:
        ids = [await begun(session, fields) for _ in range(5)]
        attempts = session.runner.books.attempts
        held = [weakref.ref(each.job) for each in attempts.values() if each.job is not None]  # which it has for ever
        assert len(held) == 5, "else this looks for nothing"
        gate.set()
        await settle(40)
        if is_cancelled:
            for tree_id, task_id in ids:
                await session.runner.cancel(tree_id, Cancel(task_id), {})
        if attempts:
            await asyncio.wait([each.job for each in attempts.values() if each.job is not None])
        await settle(40)
        bench.contexts.clear()
        bench.inputs.clear()
        assert loop.time() < ABANDON_AFTER / 2, "no timer has had to let go of it"
        gc.collect()
        assert [each() for each in held] == [None] * 5


async def begun(session: Session, fields: dict[str, Any]) -> tuple[str, str]:
    """A tree whose one task has an attempt; the ids of both."""
    head = await begin(session, item("a", "tried", **fields))
    async for recorded in session.follow(head.id):
        if isinstance(recorded.event, e.TaskStarted):
            return head.id, recorded.event.task_id
    raise AssertionError("the task never started")
