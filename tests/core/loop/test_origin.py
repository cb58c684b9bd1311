"""Tests of core.loop.origin: for which attempt something runs, seen from a frame and from a traceback."""

import asyncio
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from core.loop.origin import ORIGIN, Origin, callback_of, origin_of, origin_of_traceback

ME = Origin("tree", "task", 2, "work")


def test_an_origin_is_told_by_its_attempt_task_and_executor() -> None:
    assert str(ME) == "attempt 2 of task task (executor work)"


def frame() -> FrameType:
    return sys._getframe(1)


def seen_in(start: Callable[[Callable[[], None]], object]) -> Origin | None:
    """What is seen from a callback that is started so by code of an attempt."""
    seen: list[Origin | None] = []

    async def main() -> None:
        done = asyncio.Event()

        def look() -> None:
            seen.append(origin_of(frame()))
            done.set()

        async def attempt() -> None:
            ORIGIN.set(ME)
            start(look)

        await asyncio.create_task(attempt())
        await done.wait()
        assert origin_of(frame()) is None, "what runs for nobody has no origin"

    asyncio.run(main())
    return seen[0]


async def _as_task(call: Callable[[], None]) -> None:
    call()


WAYS: dict[str, Callable[[Callable[[], None]], object]] = {
    "in the attempt itself": lambda call: call(),
    "a callback": lambda call: asyncio.get_running_loop().call_soon(call),
    "a timer": lambda call: asyncio.get_running_loop().call_later(0.001, call),
    "a task": lambda call: asyncio.create_task(_as_task(call)),
    "from its thread": lambda call: asyncio.create_task(
        asyncio.to_thread(asyncio.get_running_loop().call_soon_threadsafe, call)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_whatever_an_attempt_starts_is_known_to_be_its_own(way: str) -> None:
    assert seen_in(WAYS[way]) == ME


def test_outside_of_an_event_loop_there_is_no_callback_and_no_origin() -> None:
    assert callback_of(frame()) is None
    assert origin_of(frame()) is None


def told_of_an_exit(context_has: Origin | None) -> Origin | None:
    """What is read from the error that gets out of the loop when a task exits."""

    async def leave() -> None:
        raise SystemExit(3)

    async def main() -> None:
        ORIGIN.set(context_has)
        await asyncio.create_task(leave())

    with asyncio.Runner() as runner:
        with pytest.raises(SystemExit) as raised:
            runner.get_loop().run_until_complete(main())
        return origin_of_traceback(raised.value.__traceback__)


@pytest.mark.parametrize("origin", [ME, None])
def test_the_origin_of_an_error_is_read_from_its_traceback(origin: Origin | None) -> None:
    assert told_of_an_exit(origin) == origin


def test_an_error_from_elsewhere_has_no_origin() -> None:
    assert origin_of_traceback(None) is None
    with pytest.raises(SystemExit) as raised:
        raise SystemExit
    assert origin_of_traceback(raised.value.__traceback__) is None
