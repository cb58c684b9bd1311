"""One at a time of those with the same key."""

import asyncio
import gc

import pytest

from core.loop.keyed_locks import KeyedLocks


@pytest.mark.asyncio
async def test_the_same_key_waits_and_another_does_not() -> None:
    locks, order, gate = KeyedLocks(), list[str](), asyncio.Event()

    async def work(name: str, key: str, until: asyncio.Event | None = None) -> None:
        async with locks.of(key):
            if until is not None:
                await until.wait()
            order.append(name)

    first = asyncio.create_task(work("first", "a", gate))
    await asyncio.sleep(0)
    second = asyncio.create_task(work("second", "a"))
    await work("other", "b")
    gate.set()
    await asyncio.gather(first, second)
    assert order == ["other", "first", "second"]


def test_a_lock_that_nobody_has_is_forgotten() -> None:
    locks = KeyedLocks()
    held = locks.of("a")
    assert locks.of("a") is held
    locks.of("b")
    gc.collect()
    assert len(locks) == 1
    del held
    gc.collect()
    assert len(locks) == 0
