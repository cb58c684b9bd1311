"""What counts as the load, when it is too much, and which calls are refused then."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from a2a_server import overload
from a2a_server.config import load
from a2a_server.overload import (
    KEPT,
    METHODS,
    SEEN,
    YOUNG,
    YOUNG_WHILE_LATE,
    Kind,
    Load,
    Thresholds,
    kind_of_body,
    kind_of_path,
)
from core.errors import ConfigurationError, StorageUnavailable
from tests.a2a_server.conftest import Caller, calling, until

SOFT, HARD, WAIT = 4, 8, 2**-6  # which floating point has exactly


@dataclass
class FakeClock:
    time: float = 1000.0

    def __call__(self) -> float:
        return self.time


class Reads:
    """A database whose reads end when the test says so."""

    def __init__(self) -> None:
        self.waiting: list[asyncio.Future[None]] = []
        self.begun = asyncio.Event()

    async def __call__(self) -> None:
        future = asyncio.get_running_loop().create_future()
        self.waiting.append(future)
        self.begun.set()
        await future

    async def end(self) -> None:
        """Let the next read end, when it has begun."""
        await self.begun.wait()
        self.begun.clear()
        self.waiting.pop().set_result(None)


@dataclass
class Scene:
    load: Load
    clock: FakeClock
    reads: Reads

    def call(self, count: int) -> None:
        for _ in range(count):
            self.load.begin(object())

    def be_late(self) -> None:
        for _ in range(SEEN):
            self.load.waited(WAIT)

    async def read(self, seconds: float = 0.0) -> None:
        """One read, that takes so long."""
        await self.reads.begun.wait()
        self.clock.time += seconds
        await self.reads.end()


@pytest_asyncio.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    monkeypatch.setattr(overload, "PAUSE", 0.0)
    clock, reads = FakeClock(), Reads()
    load = Load(Thresholds(soft=SOFT, hard=HARD, wait=WAIT), reads, clock)
    yield Scene(load, clock, reads)
    await load.close()


def refused(load: Load) -> list[Kind]:
    return [kind for kind in Kind if load.refuses(kind)]


@pytest.mark.asyncio
async def test_new_work_is_refused_from_the_soft_threshold_on_and_the_rest_from_the_hard_one(scene: Scene) -> None:
    scene.be_late()
    for busy, expected in (
        (SOFT - 1, []),
        (SOFT, [Kind.WORK]),
        (HARD - 1, [Kind.WORK]),
        (HARD, [Kind.OTHER, Kind.WORK]),
    ):
        scene.call(busy - scene.load.busy)
        assert refused(scene.load) == expected, busy


@pytest.mark.asyncio
async def test_busy_alone_is_no_overload_until_there_is_a_burst(scene: Scene) -> None:
    """Reads are as quick as ever; but so many at once that the hard threshold is passed are not waited for."""
    scene.call(HARD - 1)
    assert refused(scene.load) == []
    scene.call(1)
    assert refused(scene.load) == [Kind.WORK]


@pytest.mark.asyncio
async def test_late_alone_is_no_overload(scene: Scene) -> None:
    scene.be_late()
    assert refused(scene.load) == []


@pytest.mark.asyncio
async def test_one_slow_read_says_nothing_and_what_is_late_is_so_for_a_while(scene: Scene) -> None:
    scene.call(SOFT)
    for seconds in (WAIT, 0.0, 0.0, WAIT, 0.0):
        scene.load.waited(seconds)
        assert refused(scene.load) == []
    scene.load.waited(WAIT)
    assert refused(scene.load) == [Kind.WORK]
    scene.clock.time += KEPT - 2**-10
    assert refused(scene.load) == [Kind.WORK]
    scene.clock.time += 2**-10
    assert refused(scene.load) == []


@pytest.mark.asyncio
async def test_read_that_does_not_end_is_late_at_once(scene: Scene) -> None:
    scene.call(SOFT)
    await scene.reads.begun.wait()
    assert refused(scene.load) == []
    scene.clock.time += WAIT
    assert refused(scene.load) == [Kind.WORK]


@pytest.mark.asyncio
async def test_calls_that_wait_for_longer_are_no_load(scene: Scene) -> None:
    """A thousand of them; and nothing is read any more."""
    scene.call(1000)
    await scene.read()
    assert scene.load.busy == 1000
    scene.clock.time += YOUNG
    await scene.read()
    await until(lambda: scene.load.busy == 0)
    scene.call(SOFT // 2 - 1)
    await asyncio.sleep(0)
    assert not scene.reads.waiting


@pytest.mark.asyncio
async def test_calls_stay_young_for_longer_while_reads_are_late(scene: Scene) -> None:
    """What waits then may wait for us: forgetting it would let in more and more."""
    scene.call(SOFT)
    await scene.read(YOUNG)
    assert scene.load.busy == SOFT
    await scene.read(YOUNG_WHILE_LATE - YOUNG - 2**-10)
    assert scene.load.busy == SOFT
    await scene.read(2**-10)
    await until(lambda: scene.load.busy == 0)


@pytest.mark.asyncio
async def test_answered_call_and_ended_run_are_no_load() -> None:
    async with calling() as call:
        load = call.application.load
        load.begin("a call")
        load.end("a call")
        load.end("a call")
        assert load.busy == 0
        task_id = await call.begin("hold")
        assert load.busy == 1
        call.lab.released["hold"].set()
        await call.session.wait(task_id, lambda head: not head.is_live)
        assert load.busy == 0


@pytest.mark.asyncio
async def test_database_that_fails_is_read_again(scene: Scene) -> None:
    scene.call(SOFT)
    await scene.reads.begun.wait()
    scene.reads.begun.clear()
    scene.reads.waiting.pop().set_exception(StorageUnavailable("not now"))
    await scene.read()


BODIES = {
    '{"method":"SendMessage","id":"a"}': (Kind.WORK, "a"),
    '{"id":7,"params":{"method":"CancelTask"},"method":"tasks.create"}': (Kind.WORK, 7),
    '{"jsonrpc":"2.0","method":"CancelTask","params":{"method":"SendMessage"}}': (Kind.SPARED, None),
    '{"m\\u0065thod":"\\u0053endMessage"}': (Kind.WORK, None),
    '{"method":"CancelTask","method":"SendMessage"}': (Kind.WORK, None),
    '{"method":"GetTask","id":1}': (Kind.OTHER, 1),
    '{"method":"no such"}': (Kind.OTHER, None),
    "{}": (Kind.OTHER, None),
    "[]": (Kind.OTHER, None),
    '[{"method":"CancelTask"},{"method":"system.health"}]': (Kind.SPARED, None),
    '[{"method":"CancelTask"},{"method":"message/send","id":1}]': (Kind.WORK, None),
    '{"method":7}': (Kind.WORK, None),
    '{"method":"SendMessage"': (Kind.WORK, None),
    "[" * 100_000: (Kind.WORK, None),
    "": (Kind.WORK, None),
}


@pytest.mark.parametrize("body", BODIES)
def test_method_that_a_body_calls_is_found_as_the_door_finds_it(body: str) -> None:
    assert kind_of_body(body.encode()) == BODIES[body]


PATHS: dict[tuple[str, str], Kind | None] = {
    ("GET", "/healthz"): Kind.SPARED,
    ("GET", "/below/readyz"): Kind.SPARED,
    ("GET", "/tasks/1"): Kind.OTHER,
    ("GET", "/message:send"): Kind.OTHER,
    ("POST", "/message:send"): Kind.WORK,
    ("POST", "/tenant/message:stream"): Kind.WORK,
    ("POST", "/tasks/1:cancel"): Kind.SPARED,
    ("POST", "/tasks/1:subscribe"): Kind.OTHER,
    ("POST", "/tasks/1/pushNotificationConfigs"): Kind.OTHER,
    ("POST", "/"): None,
    ("POST", "/tasks"): None,
}


@pytest.mark.parametrize("request_line", PATHS)
def test_path_tells_what_is_asked_for_where_the_body_does_not(request_line: tuple[str, str]) -> None:
    assert kind_of_path(*request_line) == PATHS[request_line]


@pytest.mark.asyncio
async def test_methods_of_the_table_exist(call: Caller) -> None:
    assert METHODS.keys() <= call.application.door.methods.keys()


def test_hard_threshold_below_the_soft_one_stops_the_start(tmp_path: Any) -> None:
    assert load({"overload_soft": 7, "overload_hard": 7}, {}, tmp_path).overload_hard == 7
    with pytest.raises(ConfigurationError, match="overload-hard"):
        load({"overload_soft": 8, "overload_hard": 7}, {}, tmp_path)
