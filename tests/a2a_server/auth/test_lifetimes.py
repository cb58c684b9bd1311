"""Streams end with the credential that opened them (reliability T6)."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from a2a_server.auth.lifetimes import Lifetimes
from a2a_server.auth.principal import Principal
from core.outside.clock import SystemClock
from tests.a2a_server.auth.clocks import SetClock


class Source:
    """Gives one item at once, and then waits for as long as anybody does."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.is_closed = False

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            yield 1
            self.waits.set()
            await asyncio.get_running_loop().create_future()
        finally:
            self.is_closed = True


async def collect(items: AsyncGenerator[int, None]) -> list[int]:
    return [item async for item in items]


def holder(credential: str = "k", expires_at: float | None = None) -> Principal:
    return Principal(id="ann", credential=credential, expires_at=expires_at)


@pytest.mark.asyncio
async def test_a_revoked_key_ends_its_streams_and_no_others() -> None:
    lifetimes = Lifetimes(SystemClock())
    sources = [Source(), Source(), Source()]
    readers = [
        asyncio.create_task(collect(lifetimes.guarded(source.items(), holder(key))))
        for source, key in zip(sources, ("k", "k", "other"), strict=True)
    ]
    for source in sources:
        await source.waits.wait()

    lifetimes.end("k")

    assert await asyncio.gather(*readers[:2]) == [[1], [1]]
    assert [source.is_closed for source in sources] == [True, True, False]
    lifetimes.end("other")
    assert await readers[2] == [1]


@pytest.mark.asyncio
async def test_a_stream_ends_when_its_credential_expires() -> None:
    source, lifetimes = Source(), Lifetimes(clock := SystemClock())

    assert await collect(lifetimes.guarded(source.items(), holder(expires_at=clock.now() + 0.05))) == [1]
    assert source.is_closed


@pytest.mark.asyncio
async def test_nothing_is_given_after_the_end_even_if_it_is_there() -> None:
    """The clock decides, not only a timer: a machine may have slept."""
    clock = SetClock()
    lifetimes = Lifetimes(clock)

    async def numbers() -> AsyncGenerator[int, None]:
        for number in range(10):
            yield number

    guarded = lifetimes.guarded(numbers(), holder(expires_at=clock.time + 5))
    assert await anext(guarded) == 0
    clock.time += 5
    assert await collect(guarded) == []


@pytest.mark.asyncio
async def test_a_reader_that_is_busy_when_the_key_is_revoked_is_not_cancelled() -> None:
    source, lifetimes = Source(), Lifetimes(SystemClock())
    guarded = lifetimes.guarded(source.items(), holder())
    assert await anext(guarded) == 1

    lifetimes.end("k")

    assert await collect(guarded) == []
    assert source.is_closed


@pytest.mark.asyncio
async def test_a_rotated_key_ends_its_streams_after_the_grace() -> None:
    clock = SetClock()
    lifetimes = Lifetimes(clock)
    source = Source()
    reader = asyncio.create_task(collect(lifetimes.guarded(source.items(), holder())))
    await source.waits.wait()

    lifetimes.end("k", grace=60.0)
    lifetimes.end("k", grace=0.01)  # a later end does not win
    lifetimes.end("k", grace=60.0)

    assert await reader == [1]


@pytest.mark.asyncio
async def test_a_streams_own_timeout_is_not_taken_for_the_end() -> None:
    async def failing() -> AsyncGenerator[int, None]:
        yield 1
        raise TimeoutError("its own")

    with pytest.raises(TimeoutError, match="its own"):
        await collect(Lifetimes(SystemClock()).guarded(failing(), holder()))


@pytest.mark.asyncio
async def test_what_has_ended_is_forgotten() -> None:
    lifetimes = Lifetimes(SystemClock())

    async def one() -> AsyncGenerator[int, None]:
        yield 1

    assert await collect(lifetimes.guarded(one(), holder())) == [1]
    assert not lifetimes._open
    lifetimes.end("k")
    assert not lifetimes._open


@pytest.mark.asyncio
async def test_an_end_that_is_far_does_not_end_a_stream_that_goes_on_before_it() -> None:
    clock = SetClock()
    lifetimes = Lifetimes(clock)
    source = Source()
    reader = asyncio.create_task(collect(lifetimes.guarded(source.items(), holder())))
    await source.waits.wait()

    lifetimes.end("k", grace=3600.0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not reader.done()

    lifetimes.end("k")
    assert await reader == [1]


@pytest.mark.asyncio
async def test_without_grace_a_stream_ends_now() -> None:
    clock = SetClock()
    lifetimes = Lifetimes(clock)
    guarded = lifetimes.guarded(Source().items(), holder())
    assert await anext(guarded) == 1
    lifetimes.end("k")
    (lifetime,) = lifetimes._open["k"]
    assert lifetime.ends_at == clock.time
    lifetimes.end("k", grace=60.0)
    assert lifetime.ends_at == clock.time
    assert await collect(guarded) == []


@pytest.mark.asyncio
async def test_a_stream_that_ends_leaves_the_others_of_its_key() -> None:
    lifetimes = Lifetimes(SystemClock())

    async def one() -> AsyncGenerator[int, None]:
        yield 1

    waiting = Source()
    reader = asyncio.create_task(collect(lifetimes.guarded(waiting.items(), holder())))
    await waiting.waits.wait()
    assert await collect(lifetimes.guarded(one(), holder())) == [1]
    assert not reader.done()

    lifetimes.end("k")
    assert await reader == [1]
