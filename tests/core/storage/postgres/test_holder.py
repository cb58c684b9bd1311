"""The connection that holds the database (`core.storage.postgres.holder`): lost, taken by another, and back again."""

import asyncio
from collections.abc import Callable

import pytest

from core.model.errors import DatabaseLost, StorageUnavailable
from core.storage.postgres import holder as holder_module
from core.storage.postgres.storage import PostgresStorage
from tests.core.storage.samples import created
from tests.postgres_cluster import Cluster

WRITERS = (
    "datname = current_database() AND application_name LIKE 'a2a-server %' AND application_name NOT LIKE '%reader' "
    "AND application_name NOT LIKE '%engine'"
)


async def end_writer(cluster: Cluster, database: str) -> None:
    ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {WRITERS}"
    assert await asyncio.to_thread(cluster.sql, ends, database) == "t"


async def until(is_so: Callable[[], bool]) -> None:
    """What other processes do has no event here."""
    async with asyncio.timeout(10):
        while True:
            if is_so():
                return
            await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_write_waits_for_a_lost_connection_and_is_stored(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str
) -> None:
    await storage.append(created("before"))
    await end_writer(postgres, postgres_database)
    await until(lambda: storage.refusal() is not None)
    assert "is lost for 0 s; it is tried again" in str(storage.refusal())

    await storage.append(created("after"))

    assert storage.refusal() is None
    assert await storage.head("before") is not None and await storage.head("after") is not None


@pytest.mark.asyncio
async def test_writes_and_reads_are_refused_when_the_database_is_away_for_too_long(
    postgres: Cluster, postgres_template: str
) -> None:
    name = postgres.database(postgres_template)
    storage = PostgresStorage(postgres.url(name), patience=0.3)
    await storage.open()
    assert await storage.head("t") is None
    await asyncio.to_thread(postgres.sql, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await asyncio.to_thread(
        postgres.sql, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )

    with pytest.raises(StorageUnavailable, match="is lost for"):
        await storage.append(created("t"))
    with pytest.raises(StorageUnavailable, match="is lost for"):
        await storage.delete("t")
    with pytest.raises(StorageUnavailable, match="cannot be read"):
        await storage.head("t")

    await asyncio.to_thread(postgres.sql, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    await until(lambda: storage.refusal() is None)
    await storage.append(created("t"))
    assert await storage.head("t") is not None
    await storage.close()
    postgres.drop(name)


@pytest.mark.asyncio
async def test_who_was_away_while_another_held_the_database_writes_no_more(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str, postgres_url: str
) -> None:
    """What it has in memory is not the truth any longer."""
    holder = storage._holder
    assert holder is not None
    gate = asyncio.Event()
    again = holder._claim.again

    async def when_it_may() -> object:
        await gate.wait()
        return await again()

    holder._claim.again = when_it_may  # type: ignore[method-assign, assignment]
    await end_writer(postgres, postgres_database)
    await until(lambda: storage.refusal() is not None)
    other = PostgresStorage(postgres_url)
    await other.open()
    gate.set()

    with pytest.raises(DatabaseLost, match="was taken over by another server"):
        await storage.append(created("t"))
    assert "was taken over by another server" in str(storage.refusal())
    await other.append(created("t"))
    await other.close()
    with pytest.raises(DatabaseLost):
        await storage.append(created("u"))


@pytest.mark.asyncio
async def test_a_lock_that_the_connection_before_still_has_is_taken_from_it(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str
) -> None:
    """The network was cut: the server has not noticed, and keeps the lock for a client that is gone."""
    holder = storage._holder
    assert holder is not None
    before = holder._connection
    assert before is not None
    pid = await before.fetchval("SELECT pg_backend_pid()")
    holder._connection = None  # as if it had gone without a word
    holder._is_there.clear()
    holder._wakes.set()

    await storage.append(created("t"))

    assert holder._connection is not None
    assert await holder._connection.fetchval("SELECT pg_backend_pid()") != pid
    assert before.is_closed()


@pytest.mark.asyncio
async def test_an_idle_connection_that_answers_no_more_is_found_by_the_watch(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holder_module, "LOOK", 0.02)
    storage = PostgresStorage(postgres_url)
    await storage.open()
    holder = storage._holder
    assert holder is not None
    before = holder._connection
    assert before is not None
    before._transport.pause_reading()  # its answers do not arrive

    await until(lambda: holder._connection not in (before, None))
    await storage.append(created("t"))
    await storage.close()
