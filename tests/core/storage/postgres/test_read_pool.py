"""Reads that take too long, are cut off or are cancelled (`core.storage.postgres.read_pool`)."""

import asyncio

import pytest

from core.model.errors import QueryTooLong, StorageUnavailable
from core.storage.postgres.reader import Reader
from core.storage.postgres.storage import PostgresStorage
from tests.core.storage.samples import created
from tests.postgres_cluster import Cluster


@pytest.mark.asyncio
async def test_a_list_that_takes_too_long_is_refused_and_its_connection_serves_the_next(
    storage: PostgresStorage,
) -> None:
    reader = Reader(storage.place, lambda: 0.0, list_seconds=0.05)
    with pytest.raises(QueryTooLong):
        await reader.list_rows(("SELECT pg_sleep(30)", ()))
    assert [row[0] for row in await reader.list_rows(("SELECT 1", ()))] == [1]
    await reader.pool.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        await reader.rows(("SELECT 1", ()))


@pytest.mark.asyncio
async def test_a_read_whose_connection_ends_is_repeated(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str
) -> None:
    await storage.append(created("t"))
    assert await storage.head("t") is not None
    ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a2a-server reader'"
    assert "t" in await asyncio.to_thread(postgres.sql, f"{ends} AND datname = current_database()", postgres_database)
    assert await storage.head("t") is not None


@pytest.mark.asyncio
async def test_a_cancelled_read_leaves_its_connection_usable(storage: PostgresStorage) -> None:
    reader = storage._reading()
    for _ in range(2 * 3):
        reading = asyncio.ensure_future(reader.rows(("SELECT pg_sleep(30)", ())))
        await asyncio.wait([reading], timeout=0.02)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert [row[0] for row in await reader.rows(("SELECT 1", ()))] == [1]
