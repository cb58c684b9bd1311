"""What the tests of PostgreSQL's storage have in common."""

from collections.abc import AsyncIterator

import pytest_asyncio

from core.storage.postgres.storage import PostgresStorage


@pytest_asyncio.fixture
async def storage(postgres_url: str) -> AsyncIterator[PostgresStorage]:
    made = PostgresStorage(postgres_url)
    await made.open()
    yield made
    await made.close()
