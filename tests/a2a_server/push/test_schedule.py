"""Turns of delivery: who gets one, who waits, and what becomes of a reader whose delivery breaks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from a2a_server.push.configs import DELIVERY_STATE, DeliveryState, PushConfig
from a2a_server.push.deliveries import Step
from a2a_server.push.readers import Reader, Readers
from a2a_server.push.schedule import TURN, Schedule
from core.model.shares import FairShares
from core.storage.base import Document
from tests.core.cores import settle, virtual_time


class Steps:
    """Stands in for the deliveries: each step of a webhook does what the test lists for it, and then stays."""

    def __init__(self) -> None:
        self.of: dict[str, list[Any]] = {}
        self.taken: list[str] = []  # ids of webhooks, in the order of their steps
        self.gate: asyncio.Event | None = None

    async def step(self, reader: Reader, ahead: Any) -> Step | float:
        self.taken.append(reader.config.id)
        if self.gate is not None:
            await self.gate.wait()
        steps = self.of.get(reader.config.id, [])
        step = steps.pop(0) if steps else Step.STAY
        if isinstance(step, Exception):
            raise step
        if step is Step.GO_ON:
            await asyncio.sleep(TURN)  # virtual
        return step  # type: ignore[no-any-return]


class World:
    """A schedule over two places, of which one caller has one."""

    def __init__(self) -> None:
        self.steps, self.readers = Steps(), Readers()
        self.forgotten: list[str] = []
        deliveries: Any = self.steps
        now = asyncio.get_running_loop().time
        self.schedule = Schedule(self.readers, deliveries, FairShares(2, 1), now, self.forgotten.append)

    def reader(self, config_id: str, owner: str = "ann", *steps: Any) -> Reader:
        config = PushConfig(id=config_id, task_id="t", tree_id="t", owner=owner, url="https://e.example", created_at=1)
        reader = Reader(config, DeliveryState(), Document(kind=DELIVERY_STATE, id=config.key, body=b"{}"))
        self.steps.of[config_id] = list(steps)
        self.readers.add(reader)
        return reader


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.schedule.close()


@virtual_time
async def test_a_woken_reader_gets_one_turn() -> None:
    async with world() as it:
        reader = it.reader("a")
        it.schedule.wake(reader)
        await settle()
        assert it.steps.taken == ["a"]
        assert reader.job is None and not it.schedule.jobs


@virtual_time
async def test_a_reader_that_is_woken_during_its_turn_gets_another() -> None:
    async with world() as it:
        it.steps.gate = asyncio.Event()
        reader = it.reader("a")
        it.schedule.wake(reader)
        await settle()
        it.schedule.wake(reader)
        assert len(it.schedule.jobs) == 1, "never two at once"
        it.steps.gate.set()
        await settle()
        assert it.steps.taken == ["a", "a"]


@virtual_time
async def test_one_caller_has_its_share_of_the_places_and_no_more() -> None:
    async with world() as it:
        it.steps.gate = asyncio.Event()
        for name, owner in (("a1", "ann"), ("a2", "ann"), ("b1", "bob"), ("c1", "cem")):
            it.schedule.wake(it.reader(name, owner))
        await settle()
        assert it.steps.taken == ["a1", "b1"]
        it.steps.gate.set()
        await settle()
        assert sorted(it.steps.taken) == ["a1", "a2", "b1", "c1"]


@virtual_time
async def test_a_long_log_gives_way_after_a_turn_only_where_another_waits() -> None:
    async with world() as it:
        it.schedule.wake(it.reader("long", "ann", *[Step.GO_ON] * 3))
        await settle()
        it.schedule.wake(it.reader("short", "ann"))
        await asyncio.sleep(10 * TURN)
        assert it.steps.taken == ["long", "short", "long", "long", "long"]


@virtual_time
async def test_a_failed_delivery_is_tried_at_its_time_and_not_before() -> None:
    async with world() as it:
        at = asyncio.get_running_loop().time() + 60
        reader = it.reader("a", "ann", at)
        it.schedule.wake(reader)
        await asyncio.sleep(59)
        assert it.steps.taken == ["a"] and it.schedule.waiting((at, "t", reader.config.key)) is reader
        await asyncio.sleep(2)
        assert it.steps.taken == ["a", "a"] and reader.waits_until == 0


@virtual_time
async def test_an_alarm_of_a_wait_that_is_over_wakes_no_reader() -> None:
    async with world() as it:
        now = asyncio.get_running_loop().time()
        reader = it.reader("a")
        it.schedule.wait(reader, now + 10)
        it.schedule.wait(reader, now + 100)
        await asyncio.sleep(50)
        assert it.steps.taken == []
        await asyncio.sleep(60)
        assert it.steps.taken == ["a"]


@virtual_time
async def test_a_reader_with_nothing_left_is_forgotten() -> None:
    async with world() as it:
        reader = it.reader("a", "ann", Step.LEAVE)
        it.schedule.wake(reader)
        await settle()
        assert it.forgotten == [reader.config.key] and not it.readers.has(reader)


@virtual_time
async def test_a_forgotten_reader_that_waits_for_a_place_gets_none() -> None:
    async with world() as it:
        it.steps.gate = asyncio.Event()
        first, second = it.reader("a1"), it.reader("a2")
        for each in (first, second):
            it.schedule.wake(each)
        await settle()
        it.schedule.forget(second)
        assert not it.schedule.shares.waiting, "it stands in line no more"
        it.steps.gate.set()
        await settle()
        assert it.steps.taken == ["a1"]


@virtual_time
async def test_a_forgotten_reader_that_is_woken_gets_no_turn_and_holds_no_place() -> None:
    async with world() as it:
        gone = it.reader("gone")
        it.schedule.forget(gone)
        it.schedule.wake(gone)
        it.schedule.wake(it.reader("a"))
        await settle()
        assert it.steps.taken == ["a"]


@virtual_time
async def test_a_long_log_keeps_its_place_while_no_other_waits() -> None:
    async with world() as it:
        reader = it.reader("long", "ann", *[Step.GO_ON] * 5)
        it.schedule.wake(reader)
        await settle()
        job = reader.job
        await asyncio.sleep(3.5 * TURN)
        assert reader.job is job is not None


@virtual_time
async def test_a_bug_in_one_delivery_is_logged_and_delays_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as it:
        broken = it.reader("a", "ann", ZeroDivisionError("bug"))
        it.schedule.wake(broken)
        it.schedule.wake(it.reader("b"))
        await settle()
        assert it.steps.taken == ["a", "b"], "its place is free again"
        assert not it.readers.has(broken) and broken.config.key in caplog.text


@virtual_time
async def test_nothing_begins_behind_the_close() -> None:
    async with world() as it:
        it.steps.gate = asyncio.Event()
        it.schedule.wake(it.reader("a1"))
        it.schedule.wake(it.reader("a2"))
        await settle()
        await it.schedule.close()
        assert it.steps.taken == ["a1"] and not it.schedule.jobs
