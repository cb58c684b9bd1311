"""Which storage a URL means (`core.databases`)."""

import asyncio
import sys
from pathlib import Path

import pytest

from core import TaskManager, create_session, databases
from core.model.errors import ConfigurationError, StorageUnavailable
from core.storage.memory import MemoryStorage
from core.storage.sqlite.sql import SqlStorage

URL = "postgresql://ann:secret@h:5433/db?sslmode=disable"


@pytest.mark.parametrize("url", [URL, "postgres://h/db", "postgresql+asyncpg://h/db"])
def test_postgresql_is_known_by_its_scheme(url: str) -> None:
    assert databases.is_postgres(url)
    assert type(databases.storage_of(url)).__name__ == "PostgresStorage"


@pytest.mark.parametrize("url", ["sqlite:///a.db", "a.db", "./postgresql/a.db", "sqlite+aiosqlite:///a.db"])
def test_all_else_is_a_file(url: str) -> None:
    assert not databases.is_postgres(url)
    assert type(databases.storage_of(url)) is SqlStorage


def test_a_name_has_no_password_and_a_key_is_the_databases() -> None:
    assert databases.name_of(URL) == "postgresql://h:5433/db"
    assert databases.key_of("postgres://h/db") == databases.key_of("postgresql://h/db")
    assert databases.key_of("sqlite:///a.db") == databases.key_of("a.db") == databases.name_of("a.db")


def test_a_missing_package_is_told_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("core.storage.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(ConfigurationError, match=r"needs the package asyncpg: .*pip install 'durable-a2a\[postgres\]'"):
        databases.storage_of(URL)


def test_the_librarys_program_runs_on_postgresql(postgres_url: str) -> None:
    """As the guide writes it; sessions of one database are one, also in the next loop."""

    async def run(number: int) -> str | None:
        session = create_session(postgres_url)
        assert create_session(postgres_url) is session
        manager = TaskManager(session)
        tree = await manager.task_repository.create_tree(
            [{"id": f"a{number}", "name": "system_info_executor", "inputs": {"resource": "cpu"}}]
        )
        await manager.distribute_task_tree(tree)
        return tree.calculate_status().value

    assert [asyncio.run(run(number)) for number in range(2)] == ["completed", "completed"]


def test_a_file_or_memory_is_shared_with_nobody(tmp_path: Path) -> None:
    for storage in (MemoryStorage(), SqlStorage(str(tmp_path / "a.db"))):
        assert storage.address == "" and databases.Database(storage).bus.is_alone


@pytest.mark.asyncio
async def test_a_database_whose_bus_cannot_be_opened_is_not_open(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the next start does not find it in use."""
    storage = databases.storage_of(postgres_url)
    database = databases.Database(storage)
    assert not database.bus.is_alone

    async def refuse() -> None:
        raise ConfigurationError("no notifications")

    with monkeypatch.context() as patched:
        patched.setattr(database.bus, "open", refuse)
        with pytest.raises(ConfigurationError, match="no notifications"):
            await database.open()
    with pytest.raises(StorageUnavailable):
        await storage.head("t")
    await database.open()
    assert await storage.head("t") is None
    await database.close()
    await database.close()
