"""One step of a delivery: what is sent, where the cursor stands then, and what a failure makes of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from a2a_server.push.configs import CONFIG, DEAD, DELIVERY_STATE, STORAGE_PAUSE, DeadLetter, DeliveryState
from a2a_server.push.deliveries import Deliveries, DeliveryRetry, Step
from a2a_server.push.parcels import Ahead
from a2a_server.push.readers import Reader
from a2a_server.push.sender import Failed
from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from tests.a2a_server.push.receivers import DOWN, PATIENCE, Post, Receiver, SteadyClock
from tests.a2a_server.push.test_outbox import documents, finish
from tests.core.cores import Bench, virtual_time


class World:
    """A tree that has ended, and a webhook of it that the test leads step by step."""

    def __init__(self, post: Post, reader: Reader) -> None:
        self.post = post
        self.reader = reader
        self.deliveries: Deliveries = post.outbox.deliveries
        self.receiver = post.receiver

    async def step(self) -> Step | float:
        return await self.deliveries.step(self.reader, Ahead())

    async def until_sent(self, count: int) -> Step | float:
        """Steps until so many attempts were made: events without a body are stepped over."""
        step: Step | float = Step.GO_ON
        while len(self.receiver.attempts) < count:
            step = await self.step()
        return step

    async def kept(self) -> list[DeliveryState]:
        """What is stored of the delivery."""
        found = await documents(self.post.session, DELIVERY_STATE)
        return [msgspec.json.decode(each.body, type=DeliveryState) for each in found]


@asynccontextmanager
async def world(*outcomes: Failed | None) -> AsyncIterator[World]:
    async with Bench(clock=SteadyClock()).session() as session:
        post = Post(session, Receiver())
        tree_id = await finish(session)
        config = await post.hook(tree_id)
        await post.outbox.close()  # the test leads the reader
        post.receiver.attempts.clear()
        post.receiver.outcomes[:] = outcomes
        found = await post.store.read(config.key)
        assert found is not None
        at_the_beginning = DeliveryState(shown="pending", registered=found.delivery.registered)
        yield World(post, Reader(config, at_the_beginning, found.stored))


@virtual_time
async def test_the_cursor_moves_behind_what_was_taken() -> None:
    async with world() as it:
        assert await it.until_sent(1) is Step.GO_ON
        (kept,) = await it.kept()
        assert kept == it.reader.delivery and kept.cursor > 0 and kept.shown == "in_progress"


@virtual_time
async def test_a_failure_leaves_the_cursor_and_says_when_it_is_tried_again() -> None:
    async with world(DOWN, DOWN) as it:
        at = await it.until_sent(1)
        before, now = it.reader.delivery, it.post.session.clock.now()
        assert (at, before.retry_at - now) == (before.retry_at, PATIENCE.initial)
        assert (before.attempts, before.error) == (1, "down")
        assert await it.step() == now + 2 * PATIENCE.initial, "each wait is twice the last one"
        assert it.reader.delivery.cursor == before.cursor
        assert it.receiver.attempts[0][1] == it.receiver.attempts[1][1], "the same id, so that receivers know it"
        assert await it.kept() == [it.reader.delivery]


@virtual_time
async def test_success_clears_what_failed_before() -> None:
    async with world(DOWN) as it:
        await it.until_sent(1)
        await it.step()
        assert (it.reader.delivery.attempts, it.reader.delivery.error, it.reader.delivery.retry_at) == (0, "", 0.0)


@pytest.mark.parametrize(("retry_after", "waits"), [(30.0, 30.0), (0.1, PATIENCE.initial), (1e6, PATIENCE.longest)])
def test_a_receiver_may_ask_for_a_longer_wait_up_to_the_longest(retry_after: float, waits: float) -> None:
    @virtual_time
    async def run() -> None:
        async with world(Failed(error="busy", retry_after=retry_after)) as it:
            at = await it.until_sent(1)
            assert at == it.post.session.clock.now() + waits

    run()


@virtual_time
async def test_what_would_fail_again_becomes_a_dead_letter_at_once() -> None:
    async with world(Failed(error="refused", is_final=True)) as it:
        assert await it.until_sent(1) is Step.GO_ON
        (document,) = await documents(it.post.session, DEAD)
        letter = msgspec.json.decode(document.body, type=DeadLetter)
        assert (letter.seq, letter.attempts, letter.error) == (it.reader.delivery.cursor, 1, "refused")
        assert it.reader.delivery.attempts == 0, "the next event begins anew"


@virtual_time
async def test_what_fails_for_longer_than_an_event_is_tried_becomes_one_too() -> None:
    async with world(DOWN, DOWN) as it:
        await it.until_sent(1)
        assert await documents(it.post.session, DEAD) == []
        await asyncio.sleep(PATIENCE.max_age + 1)
        assert await it.step() is Step.GO_ON
        assert len(await documents(it.post.session, DEAD)) == 1


@virtual_time
async def test_a_receiver_that_is_gone_ends_its_webhook() -> None:
    async with world(Failed(error="410", is_gone=True)) as it:
        assert await it.until_sent(1) is Step.LEAVE
        assert it.reader.is_gone
        assert await documents(it.post.session, CONFIG) == await documents(it.post.session, DELIVERY_STATE) == []


@virtual_time
async def test_the_removal_of_a_webhook_is_tried_again_without_asking_its_receiver() -> None:
    async with world() as it:
        it.reader.is_gone = True
        assert await it.step() is Step.LEAVE
        assert it.receiver.attempts == [] and await documents(it.post.session, CONFIG) == []


@virtual_time
async def test_the_end_of_an_ended_tree_is_rest() -> None:
    async with world() as it:
        while (step := await it.step()) is Step.GO_ON:
            pass
        assert step is Step.LEAVE


@virtual_time
async def test_a_reader_that_is_woken_at_the_end_stays() -> None:
    async with world() as it:
        it.reader.is_woken = True
        while (step := await it.step()) is Step.GO_ON:
            pass
        assert step is Step.STAY


@pytest.mark.parametrize("error", [TaskNotFound("t"), StorageError("damaged")])
def test_a_log_that_cannot_be_read_any_more_ends_the_reader(error: Exception) -> None:
    @virtual_time
    async def run() -> None:
        async with world() as it:
            it.deliveries.parcels = Broken(error)  # type: ignore[assignment]
            assert await it.step() is Step.LEAVE

    run()


@virtual_time
async def test_storage_that_is_away_is_waited_for() -> None:
    async with world() as it:
        it.deliveries.parcels = Broken(StorageUnavailable("away"))  # type: ignore[assignment]
        assert await it.step() == it.post.session.clock.now() + STORAGE_PAUSE
        assert it.reader.delivery.attempts == 0, "the receiver is not to blame"


class Broken:
    """Parcels that cannot be read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def next(self, *_: Any) -> Any:
        raise self._error


@pytest.mark.parametrize(("attempts", "delay"), [(1, 1), (2, 2), (6, 32), (7, 60), (10_000, 60)])
def test_waits_double_up_to_the_longest(attempts: int, delay: float) -> None:
    policy = DeliveryRetry(initial=1, longest=60, max_age=600)
    assert policy.delay(attempts, 1.0) == delay
    assert policy.delay(attempts, 0.25) == delay / 4, "chance takes any part of it"
