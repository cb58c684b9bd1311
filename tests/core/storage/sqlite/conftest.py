"""What the tests of SQLite's storage have in common."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from core.storage.sqlite.sql import SqlStorage


@pytest_asyncio.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SqlStorage]:
    made = SqlStorage(str(tmp_path / "tasks.db"))
    await made.open()
    yield made
    await made.close()
