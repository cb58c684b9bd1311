"""Two processes that change one document at the same time (`core.storage.postgres.documents`)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from core.model.errors import TaskNotFound
from core.storage.base import Document
from core.storage.postgres import documents, retirement
from core.storage.postgres.connect import Connection
from core.storage.postgres.storage import PostgresStorage
from tests.core.storage.samples import created, finished

BLOCKED = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def note(at: float, tree_id: str = "") -> Document:
    return Document(kind="note", id="a", at=at, tree_id=tree_id, body=b"{}")


@pytest_asyncio.fixture
async def others(storage: PostgresStorage, postgres_url: str) -> AsyncIterator[tuple[Connection, Connection]]:
    """The connections of two more processes; a third one, of the storage itself, can look."""
    made = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
    yield made
    for connection in made:
        await connection.close()


async def until_blocked(postgres_url: str) -> None:
    """Until one waits for the other's transaction."""
    look = await asyncpg.connect(postgres_url)
    try:
        while await look.fetchval(BLOCKED) == 0:
            pass
    finally:
        await look.close()


async def beside(connection: Connection, work: Any) -> Any:
    """What the work gives, in a transaction of its own."""
    async with connection.transaction():
        return await work


@pytest.mark.parametrize("is_kept", [True, False], ids=["committed", "rolled back"])
@pytest.mark.asyncio
async def test_a_new_document_waits_for_the_one_of_another_process(
    others: tuple[Connection, Connection], postgres_url: str, is_kept: bool
) -> None:
    first, second = others
    transaction = first.transaction()
    await transaction.start()
    assert await documents.put_new(first, note(1.0)) == note(1.0)
    waiting = asyncio.create_task(beside(second, documents.put_new(second, note(2.0))))
    await until_blocked(postgres_url)

    await (transaction.commit() if is_kept else transaction.rollback())

    assert await waiting == note(1.0 if is_kept else 2.0)


@pytest.mark.asyncio
async def test_a_document_that_went_while_it_was_looked_for_is_stored_anew(
    storage: PostgresStorage, others: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.put_documents(note(1.0))
    first, second = others
    insert = documents._insert

    async def removed_after(connection: Connection, document: Document) -> bool:
        monkeypatch.undo()
        is_stored = await insert(connection, document)
        await documents.delete(second, [("note", "a")])
        return is_stored

    monkeypatch.setattr(documents, "_insert", removed_after)

    assert await documents.put_new(first, note(2.0)) == note(2.0)


@pytest.mark.parametrize("expected", [None, note(1.0)], ids=["none", "one"])
@pytest.mark.asyncio
async def test_of_two_swaps_at_once_one_is_refused(
    storage: PostgresStorage,
    others: tuple[Connection, Connection],
    postgres_url: str,
    expected: Document | None,
) -> None:
    if expected is not None:
        await storage.put_documents(expected)
    first, second = others
    transaction = first.transaction()
    await transaction.start()
    assert await documents.swap(first, note(2.0), expected, [])
    waiting = asyncio.create_task(beside(second, documents.swap(second, note(3.0), expected, [])))
    await until_blocked(postgres_url)

    await transaction.commit()

    assert await waiting is False
    assert await storage.document("note", "a") == note(2.0)


@pytest.mark.asyncio
async def test_what_another_process_changes_meanwhile_is_not_deleted_as_what_it_was(
    storage: PostgresStorage, others: tuple[Connection, Connection], postgres_url: str
) -> None:
    await storage.put_documents(note(1.0))
    first, second = others
    transaction = first.transaction()
    await transaction.start()
    assert await documents.swap(first, note(2.0), note(1.0), [])
    waiting = asyncio.create_task(beside(second, documents.delete(second, [("note", "a")], note(1.0))))
    await until_blocked(postgres_url)

    await transaction.commit()

    assert await waiting == 0
    assert await storage.document("note", "a") == note(2.0)


@pytest.mark.asyncio
async def test_no_document_outlives_the_tree_that_another_process_removes(
    storage: PostgresStorage, others: tuple[Connection, Connection], postgres_url: str
) -> None:
    """One put while the removal is under way; without a lock on the tree's row it would stay for ever."""
    tree = created("t")
    end = finished(tree.head)
    await storage.append(tree)
    await storage.append(end)
    first, second = others
    transaction = first.transaction()
    await transaction.start()
    assert await retirement.drop_trees(first, [end.head]) == ["t"]
    waiting = asyncio.create_task(beside(second, documents.put(second, [note(1.0, "t")])))
    await until_blocked(postgres_url)

    await transaction.commit()

    with pytest.raises(TaskNotFound):
        await waiting
    assert await storage.document("note", "a") is None
