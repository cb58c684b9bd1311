"""Documents that a command reads and changes while a server has the database (`core.storage.postgres.beside`)."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from core.model.errors import ConfigurationError, DatabaseInUse, StorageError, StorageUnavailable
from core.storage.base import Document, DocumentQuery
from core.storage.postgres.beside import Beside
from core.storage.postgres.storage import PostgresStorage
from tests.postgres_cluster import Cluster


def note(at: float, document_id: str = "a") -> Document:
    return Document(kind="note", id=document_id, at=at, body=b"{}")


@pytest_asyncio.fixture
async def beside(storage: PostgresStorage, postgres_url: str) -> AsyncIterator[Beside]:
    made = Beside(postgres_url)
    await made.open()
    yield made
    await made.close()


@pytest.mark.asyncio
async def test_what_one_of_them_stores_the_other_one_reads(storage: PostgresStorage, beside: Beside) -> None:
    await storage.put_documents(note(1.0))
    assert await beside.document("note", "a") == await beside.put_new(note(2.0)) == note(1.0)
    assert not await beside.swap(note(3.0), note(2.0))
    assert await beside.swap(note(3.0), note(1.0), note(4.0, "b"))
    await beside.put_documents(note(5.0, "c"))
    found = await storage.documents(DocumentQuery(kind="note"))
    assert found == await beside.documents(DocumentQuery(kind="note")) == [note(3.0), note(4.0, "b"), note(5.0, "c")]
    assert await beside.delete_documents(("note", "a"), ("note", "b"), expected=note(3.0)) == 2
    assert await storage.document("note", "a") is None
    assert await beside.document("note", "a") is None


@pytest.mark.asyncio
async def test_a_closed_one_does_nothing(beside: Beside) -> None:
    await beside.close()
    await beside.close()
    with pytest.raises(StorageUnavailable):
        await beside.put_documents(note(1.0))


@pytest.mark.asyncio
async def test_a_lost_connection_is_told_in_one_line(beside: Beside, postgres: Cluster, postgres_database: str) -> None:
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'a2a-server command'"
    postgres.sql(end, postgres_database)
    with pytest.raises(StorageError, match=r"^[^\n]+$"):
        await beside.document("note", "a")


@pytest.mark.asyncio
async def test_an_empty_database_gets_its_tables_and_one_that_is_held_is_not_migrated(
    postgres: Cluster, postgres_template: str
) -> None:
    name = postgres.database()
    beside = Beside(postgres.url(name))
    await beside.open()
    await beside.put_documents(note(1.0))
    await beside.close()
    storage = PostgresStorage(postgres.url(name))
    await storage.open()
    postgres.sql("UPDATE alembic_version SET version_num = '0007'", name)
    with pytest.raises(DatabaseInUse):
        await beside.open()
    await storage.close()
    postgres.drop(name)


@pytest.mark.asyncio
async def test_a_database_that_cannot_be_opened_is_named(
    postgres: Cluster, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        await Beside(postgres.url("nowhere")).open()

    async def cut(*_: object) -> None:
        raise ConnectionResetError("cut")

    monkeypatch.setattr("core.storage.postgres.beside.stored_revision", cut)
    with pytest.raises(StorageUnavailable, match="cut"):
        await Beside(postgres_url).open()
