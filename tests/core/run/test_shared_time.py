"""Sessions go by the clock of a shared database (`core.run.shared_time`; F9)."""

import asyncio
import time
from typing import Any

import pytest

from core.model.errors import StorageUnavailable
from core.outside.clock import SharedClock, SystemClock
from core.run import shared_time
from core.run.shared_time import SharedTime, clock_of
from core.session import Session
from core.storage.base import Storage, TaskQuery, TreeQuery
from core.storage.memory import MemoryStorage
from core.storage.postgres.storage import PostgresStorage
from tests.core.cores import Bench, settle

YEARS = 10 * 365 * 86_400


class Shared(MemoryStorage):
    """Its clock is what the test says."""

    is_exclusive = False

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000_000.0
        self.delays: list[float] = []  # of looks, in nanoseconds of the machine
        self.errors: list[Exception] = []
        self.uptime = 0
        self.looks = 0

    async def time(self) -> float:
        self.looks += 1
        if self.errors:
            raise self.errors.pop()
        delay = self.delays.pop(0) if self.delays else 0
        self.uptime += int(delay)
        return self.now + delay / 2e9


def clock(storage: Shared) -> SharedClock:
    return SharedClock(lambda: 5, lambda: storage.uptime)


async def until(storage: Shared, looks: int) -> None:
    async with asyncio.timeout(10):
        while storage.looks < looks:
            await settle()


def test_only_a_shared_storage_has_a_shared_clock() -> None:
    assert isinstance(clock_of(Shared()), SharedClock)
    assert not isinstance(clock_of(MemoryStorage()), SharedClock)


@pytest.mark.asyncio
async def test_another_clock_is_left_alone() -> None:
    storage = Shared()
    keeper = SharedTime(storage, SystemClock())
    await keeper.begin()
    await keeper.close()
    assert storage.looks == 0


@pytest.mark.asyncio
async def test_of_the_first_looks_the_shortest_counts() -> None:
    storage = Shared()
    storage.delays = [4e8, 2e6, 9e8]
    keeper = SharedTime(storage, own := clock(storage))
    await keeper.begin()
    # The last look took most of a second, which has not passed for the database here.
    assert own.now() == pytest.approx(storage.now + 0.9, abs=0.003)
    await keeper.close()
    await keeper.close()


@pytest.mark.asyncio
async def test_the_clock_is_looked_at_again_and_a_look_that_fails_or_lasts_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_time, "PAUSE", 0.0)
    storage = Shared()
    keeper = SharedTime(storage, own := clock(storage))
    await keeper.begin()
    storage.errors = [StorageUnavailable("away")]
    await until(storage, 5)
    storage.delays = [2e9]
    before = own.now()
    await until(storage, storage.looks + 1)
    assert own.now() == pytest.approx(before + 2.0)  # of the machine's own time
    storage.now += 50.0
    await until(storage, storage.looks + 2)
    assert own.now() == pytest.approx(storage.now)
    await keeper.close()


@pytest.mark.asyncio
async def test_a_storage_whose_clock_cannot_be_read_does_not_stay_open() -> None:
    storage = Shared()
    storage.errors = [StorageUnavailable("away")]
    with pytest.raises(StorageUnavailable):
        await Session(storage, registry=Bench().registry).start()
    assert not storage._is_open


@pytest.mark.parametrize("years", [YEARS, -YEARS])
@pytest.mark.asyncio
async def test_times_of_a_process_with_a_wrong_clock_are_the_databases_and_pages_are_in_order(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    """F9. Its trees would be before or behind all others of every page, and its deadlines over at once, or never."""

    def shared_but_wrong(storage: Storage) -> Any:
        return SharedClock(lambda: time.time_ns() + years * 1_000_000_000)

    made = []
    for is_wrong in (False, True, False):
        with monkeypatch.context() as patch:
            if is_wrong:
                patch.setattr("core.session.clock_of", shared_but_wrong)
            async with Session(PostgresStorage(postgres_url), registry=Bench().registry) as session:
                assert abs(session.clock.now() - await session.storage.time()) < 1.0
                assert abs(session.clock.wall() - await session.storage.time()) < 1.0
                made.append((await session.create(session.plan([{"name": "work"}]))).head)
    assert [head.created_at for head in made] == sorted(head.created_at for head in made)
    assert [head.id for head in made] == sorted(head.id for head in made)
    async with Session(PostgresStorage(postgres_url), registry=Bench().registry) as session:
        page = await session.storage.trees(TreeQuery(owner=None))
        tasks = await session.storage.tasks(TaskQuery(owner=None))
        assert [head.id for head in page.heads] == [head.id for head in reversed(made)]
        assert all(abs(task.created_at - time.time()) < 60 for task in tasks)
