"""What the tests of PostgreSQL's bus have in common."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from core.cluster.postgres.bus import PostgresBus
from core.storage.postgres.storage import PostgresStorage
from tests.postgres_cluster import Cluster

PATIENCE = 30.0  # seconds: far more than anything here takes


async def until(holds: Callable[[], bool]) -> None:
    """Come back when it does."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # noqa: ASYNC110 - it may depend on another process
            await asyncio.sleep(0.005)


async def end_buses(postgres: Cluster, database: str) -> None:
    """End the sessions of all buses of this database, as an operator might."""
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a2a-server bus'"
    await asyncio.to_thread(postgres.sql, f"{ended} AND datname = current_database()", database)


@pytest_asyncio.fixture
async def buses(postgres_url: str) -> AsyncIterator[tuple[PostgresBus, PostgresBus]]:
    """Those of two members."""
    both = PostgresBus(postgres_url), PostgresBus(postgres_url)
    for bus in both:
        await bus.open()
    yield both
    for bus in both:
        await bus.close()


@pytest_asyncio.fixture
async def storage(postgres_url: str) -> AsyncIterator[PostgresStorage]:
    """That of the server that has the database."""
    made = PostgresStorage(postgres_url)
    await made.open()
    yield made
    await made.close()
