"""Every storage there is, for the tests of what all of them promise."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from core.storage.base import Storage
from core.storage.memory import MemoryStorage
from core.storage.sqlite.sql import SqlStorage


@pytest_asyncio.fixture(params=["memory", "sql"])
async def storage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Storage]:
    made: Storage = MemoryStorage() if request.param == "memory" else SqlStorage(f"sqlite:///{tmp_path}/tasks.db")
    await made.open()
    yield made
    await made.close()
