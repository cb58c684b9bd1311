"""Every storage there is, for the tests of what all of them promise."""

from collections.abc import AsyncIterator
from importlib import import_module

import pytest
import pytest_asyncio

from core.storage.base import Storage
from core.storage.memory import MemoryStorage
from core.storage.sqlite.sql import SqlStorage


def made(kind: str, request: pytest.FixtureRequest) -> Storage:
    """An empty storage of this kind."""
    if kind == "memory":
        return MemoryStorage()
    if kind == "sql":
        return SqlStorage(f"sqlite:///{request.getfixturevalue('tmp_path')}/tasks.db")
    storage: Storage = import_module("tests.core.storage.postgres.leased").Leased(
        request.getfixturevalue("postgres_url")
    )
    return storage


@pytest.fixture(params=["memory", "sql", "postgres"])
def empty(request: pytest.FixtureRequest) -> Storage:
    return made(request.param, request)


@pytest_asyncio.fixture
async def storage(empty: Storage) -> AsyncIterator[Storage]:
    await empty.open()
    yield empty
    await empty.close()
