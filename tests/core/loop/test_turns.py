"""Places of an event loop, shared fairly by key."""

import asyncio

import pytest

from core.loop.turns import Turns


async def held(turns: Turns, key: str, began: asyncio.Queue[str], end: asyncio.Event) -> None:
    async with turns.of(key):
        began.put_nowait(key)
        await end.wait()


@pytest.mark.asyncio
async def test_a_caller_with_many_calls_leaves_the_other_place_to_others() -> None:
    turns, began, end = Turns(2, 1), asyncio.Queue[str](), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(50):
            group.create_task(held(turns, "ann", began, end))
        assert await began.get() == "ann"
        group.create_task(held(turns, "bob", began, end))
        assert await began.get() == "bob"
        end.set()


@pytest.mark.asyncio
async def test_one_who_is_cancelled_while_waiting_takes_no_place() -> None:
    turns = Turns(1, 1)
    await turns.enter("ann")
    waiting = asyncio.create_task(turns.enter("bob"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    turns.leave("ann")
    async with asyncio.timeout(5):
        await turns.enter("cy")


@pytest.mark.asyncio
async def test_one_who_is_cancelled_with_a_place_in_hand_gives_it_back() -> None:
    turns = Turns(1, 1)
    await turns.enter("ann")
    waiting = asyncio.create_task(turns.enter("bob"))
    await asyncio.sleep(0)
    turns.leave("ann")  # bob has the place now, and has not run yet
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await turns.enter("cy")


@pytest.mark.asyncio
async def test_one_who_was_cancelled_just_before_a_place_is_free_leaves_it_to_the_next() -> None:
    turns = Turns(1, 1)
    await turns.enter("ann")
    waiting = [asyncio.create_task(turns.enter(key)) for key in ("bob", "cy")]
    await asyncio.sleep(0)
    waiting[0].cancel()
    turns.leave("ann")  # before bob's task has seen that it is cancelled
    async with asyncio.timeout(5):
        await waiting[1]
    assert waiting[0].cancelled()
    turns.leave("cy")
    async with asyncio.timeout(5), turns.of("dan"):
        pass


@pytest.mark.asyncio
async def test_a_place_is_given_back_when_what_was_done_in_it_fails() -> None:
    turns = Turns(1, 1)
    with pytest.raises(ZeroDivisionError):
        async with turns.of("ann"):
            raise ZeroDivisionError
    async with asyncio.timeout(5), turns.of("bob"):
        pass
