"""Which storage a URL means (`core.databases`)."""

import asyncio
import sys

import pytest

from core import TaskManager, create_session, databases
from core.model.errors import ConfigurationError
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
