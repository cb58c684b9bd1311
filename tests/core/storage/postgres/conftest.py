"""What the tests of PostgreSQL's storage have in common."""

from collections.abc import AsyncIterator

import pytest_asyncio

from core.storage.postgres.storage import PostgresStorage
from tests.core.storage.postgres.leased import Leased


@pytest_asyncio.fixture
async def storage(postgres_url: str) -> AsyncIterator[PostgresStorage]:
    made = Leased(postgres_url)
    await made.open()
    yield made
    await made.close()
