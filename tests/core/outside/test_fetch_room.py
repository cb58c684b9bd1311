"""Room for fetched answers: who waits, who is refused, and that nobody waits for ever."""

import asyncio
import contextlib
import gc
from typing import Any

import pytest

from core.model.errors import NoRoom
from core.model.in_flight import ByteBudget
from core.outside.fetch_room import COPIES, FREE, FetchRoom, FetchRooms
from tests.core.cores import virtual_time

LARGE = 1024 * 1024
MANY = 3 * COPIES * LARGE  # bytes: three large answers


def rooms(per_owner: int | None = None, total: int | None = None) -> FetchRooms:
    return FetchRooms(ByteBudget(per_owner, total), LARGE)


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def later(room: FetchRoom, size: int = LARGE) -> asyncio.Future[Any]:
    return asyncio.ensure_future(room.reserve(size))


@virtual_time
async def test_small_answers_need_no_room() -> None:
    made = rooms(0, 0)
    for _ in range(100):
        await made.room("a").reserve(FREE)
    assert made.budget.taken == 0


@virtual_time
async def test_room_grows_in_steps_up_to_the_largest_answer_and_is_given_back() -> None:
    made = rooms()
    room = made.room("a")
    taken = []
    for size in range(0, LARGE + 1, 16 * 1024):
        await room.reserve(size)
        taken.append(made.budget.taken)
    assert sorted(set(taken)) == [0, COPIES * 4 * FREE, COPIES * LARGE]
    room.shrink(1000)
    assert made.budget.taken == 1000
    room.close()
    room.close()
    assert made.budget.taken == 0


@virtual_time
async def test_those_beyond_the_share_wait_in_order() -> None:
    made = rooms(per_owner=MANY)
    first = [made.room("a") for _ in range(3)]
    for room in first:
        await room.reserve(LARGE)
    second = [made.room("a") for _ in range(2)]
    waiting = [later(room) for room in second]
    other = later(made.room("b"))
    await settle()
    assert other.done() and not any(each.done() for each in waiting)
    first[0].close()
    await settle()
    assert [each.done() for each in waiting] == [True, False]
    first[1].close()
    await asyncio.gather(*waiting)


@virtual_time
async def test_nobody_waits_for_what_open_trees_hold() -> None:
    """They may need that very answer to end."""
    made = rooms(per_owner=MANY)
    made.budget.take("a", MANY)
    with pytest.raises(NoRoom, match="more would exceed your"):
        await made.room("a").reserve(LARGE)


@virtual_time
async def test_last_one_is_refused_when_all_wait_for_each_other() -> None:
    made = rooms(per_owner=MANY)
    small = [made.room("a") for _ in range(12)]
    for room in small:
        await room.reserve(4 * FREE)
    growing = [later(room) for room in small]
    ended: list[str] = []

    async def run(room: FetchRoom, grows: asyncio.Future[Any]) -> None:
        try:
            await grows
            ended.append("fits")
        except NoRoom:
            ended.append("refused")
        finally:
            room.close()

    await asyncio.gather(*(run(*each) for each in zip(small, growing, strict=True)))
    assert ended.count("fits") >= 6 and len(ended) == 12
    assert made.budget.taken == 0


@virtual_time
async def test_total_is_shared_by_all_owners() -> None:
    made = rooms(total=MANY)
    held = [made.room(owner) for owner in "abc"]
    for room in held:
        await room.reserve(LARGE)
    waiting = later(made.room("d"))
    await settle()
    assert not waiting.done()
    held[0].close()
    await waiting
    made.budget.force("e", MANY)
    for room in held[1:]:
        room.close()


@virtual_time
async def test_one_that_gives_up_waiting_takes_nothing() -> None:
    made = rooms(per_owner=COPIES * LARGE)
    first = made.room("a")
    await first.reserve(LARGE)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await made.room("a").reserve(LARGE)
    first.close()
    assert made.budget.taken == 0
    await made.room("a").reserve(LARGE)


@virtual_time
async def test_refusal_keeps_nothing() -> None:
    """An error that its own frame refers to stays until the collector finds it, with all that the frames hold."""
    made = rooms(per_owner=1)
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(NoRoom):
            await made.room("a").reserve(LARGE)
        assert not [each for each in gc.get_objects() if isinstance(each, NoRoom)]
    finally:
        gc.enable()


# Copies of values


@virtual_time
async def test_copies_take_room_beside_an_answer_and_give_back_theirs_alone() -> None:
    made = rooms()
    room = made.room("a")
    await room.hold(1_000)
    await room.hold(500)
    assert made.budget.taken == 1_000, "in all"
    await room.reserve(LARGE)
    assert made.budget.taken == COPIES * LARGE + 1_000
    await room.hold(3_000)
    room.shrink(2_000)
    assert made.budget.taken == 2_000 + 3_000
    await room.reserve(LARGE)
    assert made.budget.taken == COPIES * LARGE + 3_000
    room.drop_copies()
    room.drop_copies()
    assert made.budget.taken == COPIES * LARGE
    await room.hold(7)
    room.close()
    assert made.budget.taken == 0


@virtual_time
async def test_copies_beyond_the_share_wait_for_others_and_the_last_of_those_that_wait_is_refused() -> None:
    made = rooms(per_owner=1_000)
    first, second = made.room("a"), made.room("a")
    await first.hold(600)
    waiting = asyncio.ensure_future(second.hold(600))
    await settle()
    assert not waiting.done()
    first.drop_copies()
    await waiting
    with pytest.raises(NoRoom, match="more would exceed your 1000"):
        await second.hold(1_001)
    second.close()
    assert made.budget.taken == 0
