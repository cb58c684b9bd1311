"""Bytes shared by key (`core.loop.byte_turns`): who may hold how many, whose turn it is, and who goes away."""

import asyncio
from contextlib import suppress

import pytest

from core.loop.byte_turns import ByteTurns
from tests.core.cores import settle, virtual_time


def waiting(turns: ByteTurns, order: list[str], key: str, size: int, name: str = "") -> asyncio.Task[None]:
    async def take() -> None:
        await turns.take(key, size)
        order.append(name or key)

    return asyncio.create_task(take())


@virtual_time
async def test_what_is_free_is_taken_at_once_and_what_is_not_is_waited_for() -> None:
    turns, order = ByteTurns(10, 6), list[str]()
    assert turns.take_now("ann", 6)
    assert not turns.take_now("ann", 1), "her share is used up"
    assert turns.take_now("bob", 4)
    assert not turns.take_now("eve", 1), "so is the whole"
    job = waiting(turns, order, "eve", 3)
    await settle()
    assert (turns.taken, order) == (10, [])
    turns.give("bob", 4)
    await job
    assert (turns.taken, turns.held("eve"), turns.held("bob")) == (9, 3, 0)


@pytest.mark.parametrize("size", [7, 100])
@virtual_time
async def test_what_is_larger_than_a_share_counts_as_a_share(size: int) -> None:
    turns = ByteTurns(10, 6)
    assert turns.take_now("ann", size)
    assert turns.taken == turns.held("ann") == 6
    turns.give("ann", size)
    assert turns.taken == turns.held("ann") == 0


@virtual_time
async def test_keys_that_wait_take_turns_and_one_key_s_own_stay_in_order() -> None:
    turns, order = ByteTurns(4, 4), list[str]()
    assert turns.take_now("zoe", 4)
    jobs = [waiting(turns, order, "ann", 4, f"ann {n}") for n in range(3)]
    jobs += [waiting(turns, order, key, 4) for key in ("bob", "eve")]
    await settle()
    for key in ("zoe", "ann", "bob", "eve", "ann"):
        turns.give(key, 4)
        await settle()
    await asyncio.gather(*jobs)
    assert order == ["ann 0", "bob", "eve", "ann 1", "ann 2"]


@virtual_time
async def test_nobody_overtakes_one_that_waits_for_others_bytes_but_one_that_waits_for_its_own() -> None:
    turns, order = ByteTurns(10, 6), list[str]()
    assert turns.take_now("ann", 6)
    of_its_own = waiting(turns, order, "ann", 1)
    await settle()
    assert turns.take_now("bob", 2), "ann waits for what she holds herself"
    large = waiting(turns, order, "eve", 5)
    await settle()
    assert not turns.take_now("bob", 1), "eve comes first"
    turns.give("bob", 2)
    await settle()
    assert order == []
    turns.give("ann", 6)
    await asyncio.gather(of_its_own, large)
    assert turns.taken == 6


@pytest.mark.parametrize("is_given", [False, True])
@virtual_time
async def test_one_that_goes_away_leaves_its_turn_and_its_bytes(is_given: bool) -> None:
    turns, order = ByteTurns(4, 4), list[str]()
    assert turns.take_now("ann", 2)
    gone = waiting(turns, order, "bob", 4)
    after = waiting(turns, order, "eve", 2)
    await settle()
    if is_given:
        turns.give("ann", 2)  # and it is told so, but does not come to it any more
    gone.cancel()
    with suppress(asyncio.CancelledError):
        await gone
    await after
    assert order == ["eve"]
    assert turns.held("bob") == 0


@virtual_time
async def test_one_that_does_not_get_it_at_once_is_not_in_line() -> None:
    turns = ByteTurns(4, 4)
    assert turns.take_now("ann", 4)
    assert not turns.take_now("bob", 4)
    turns.give("ann", 4)
    assert turns.taken == 0
    with pytest.raises(KeyError):
        turns.give("ann", 1)


@pytest.mark.parametrize(("total", "each"), [(0, 0), (1, 0), (1, 2), (5, -1)])
def test_a_share_has_a_byte_at_least_and_no_more_than_the_whole(total: int, each: int) -> None:
    with pytest.raises(ValueError, match="a share has at least one byte"):
        ByteTurns(total, each)
