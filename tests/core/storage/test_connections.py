"""Reading connections are shared by callers: no caller holds all, and those who wait take turns."""

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.storage.connections import OWN, SharedConnections


def shared(count: int, each: int) -> SharedConnections[int]:
    made: SharedConnections[int] = SharedConnections(each)
    for number in range(count):
        made.add(number)
    return made


@pytest.mark.asyncio
async def test_a_caller_with_many_reads_leaves_a_connection_to_another() -> None:
    connections = shared(3, each=2)
    held = [await connections.take("many") for _ in range(2)]
    waiting = [asyncio.ensure_future(connections.take("many")) for _ in range(50)]
    await asyncio.sleep(0)
    other = await asyncio.wait_for(connections.take("other"), 1)
    assert not any(each.done() for each in waiting)
    connections.give("other", other)
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    connections.give("many", held[0])
    await asyncio.sleep(0)
    assert [each.done() for each in waiting] == [True, *[False] * 49]
    for each in waiting:
        each.cancel()


@pytest.mark.asyncio
async def test_callers_that_wait_take_turns_and_the_process_itself_may_hold_all() -> None:
    connections = shared(2, each=1)
    own = [await connections.take(OWN), await connections.take(OWN)]
    order: list[str] = []

    async def read(key: str) -> None:
        connection = await connections.take(key)
        order.append(key)
        connections.give(key, connection)

    reads = [asyncio.ensure_future(read(key)) for key in ("a", "a", "a", "b", "c", "b")]
    await asyncio.sleep(0)
    for connection in own:
        connections.give(OWN, connection)
    await asyncio.gather(*reads)
    assert sorted(order[:3]) == ["a", "b", "c"] and order[3:] in (["a", "b", "a"], ["b", "a", "a"])


@pytest.mark.asyncio
async def test_who_stops_waiting_takes_nothing_with_it() -> None:
    connections = shared(1, each=1)
    first = await connections.take("a")
    gone = asyncio.ensure_future(connections.take("b"))
    late = asyncio.ensure_future(connections.take("c"))
    await asyncio.sleep(0)
    gone.cancel()
    connections.give("a", first)
    late.cancel()  # in the turn in which it was given its connection
    await asyncio.gather(gone, late, return_exceptions=True)
    assert await asyncio.wait_for(connections.take("d"), 1) == first


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_limits_hold_and_no_connection_is_idle_while_somebody_may_have_it(steps: list[tuple[str, bool]]) -> None:
    async def play() -> None:
        connections = shared(3, each=2)
        held: list[tuple[str, int]] = []
        waiting: list[tuple[str, asyncio.Task[int]]] = []
        for key, gives in steps:
            if gives and held:
                connections.give(*held.pop(0))
            else:
                waiting.append((key, asyncio.ensure_future(connections.take(key))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            held += [(each, task.result()) for each, task in waiting if task.done()]
            waiting = [(each, task) for each, task in waiting if not task.done()]
            counts = Counter(each for each, _ in held)
            assert len({connection for _, connection in held}) == len(held) <= 3
            assert all(count <= 2 for count in counts.values())
            assert len(held) == 3 or all(counts[each] == 2 for each, _ in waiting)
        for _, task in waiting:
            task.cancel()

    asyncio.run(play())
