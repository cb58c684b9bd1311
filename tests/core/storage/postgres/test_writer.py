"""Batches and refusals of the writer (`core.storage.postgres.writer`)."""

import asyncio

import pytest
from msgspec.structs import replace

from core.model.errors import InvalidPlan, StorageError, StorageUnavailable, VersionConflict
from core.model.task import TreeHead
from core.storage.base import Append, Document, TaskQuery, TreeQuery
from core.storage.postgres.storage import PostgresStorage
from core.storage.postgres.writer import BatchWriter
from tests.core.storage.samples import created, finished, make_tasks, started, updated
from tests.postgres_cluster import Cluster


@pytest.mark.asyncio
async def test_a_foreign_lease_refuses_the_append(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str
) -> None:
    """The fence: compared in the statement that every append makes anyway."""
    first = created("t", 2)
    await storage.append(first)
    postgres.sql("UPDATE trees SET lease = 'another'", postgres_database)
    second = started(first.head, first.tasks[0])

    with pytest.raises(VersionConflict):
        await storage.append(second)
    assert await storage.head("t") == first.head
    await storage.append(replace(second, lease="another"))

    assert await storage.head("t") == second.head


@pytest.mark.asyncio
async def test_a_tree_has_the_writers_lease_while_it_lives(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str
) -> None:
    writer = storage._writer._writer  # type: ignore[union-attr]
    assert isinstance(writer, BatchWriter)
    writer._lease = "mine"

    async def lease_after(append: Append) -> str:
        await storage.append(append)
        return await asyncio.to_thread(postgres.sql, "SELECT lease FROM trees", postgres_database)

    first = created("t", 2)
    begun = started(first.head, first.tasks[0])
    more = replace(started(begun.head, first.tasks[1]), lease="mine")
    assert await lease_after(first) == ""
    assert await lease_after(begun) == "mine"
    assert await lease_after(more) == "mine"
    assert await lease_after(replace(finished(more.head), lease="mine")) == ""


@pytest.mark.asyncio
async def test_one_task_may_change_in_all_its_parts_in_one_batch(storage: PostgresStorage) -> None:
    """A statement writes each row once, however many steps have something to say of it."""
    first = created("t", 2)
    await storage.append(first)
    renamed = updated(first.head, first.tasks[1], name="other", inputs={"n": 9})
    begun = started(replace(renamed.head, metadata={"a": 1}), renamed.tasks[0])

    await asyncio.gather(storage.append(renamed), storage.append(begun))

    assert await storage.load("t") == (begun.head, [first.tasks[0], begun.tasks[0]])
    assert begun.tasks[0].name == "other"


@pytest.mark.asyncio
async def test_texts_with_what_the_database_lacks_are_found(storage: PostgresStorage) -> None:
    odd = "a\0b\1c"
    append = created("t", 1, context_id=odd)
    append = replace(append, tasks=(replace(append.tasks[0], name=odd, user_id=odd),))
    await storage.append(append)

    assert await storage.load("t") == (append.head, list(append.tasks))
    assert [node.name for node in await storage.nodes("t", 9)] == [odd]
    for fields in ({"name": odd}, {"user_id": odd}, {"context_id": odd}):
        assert [task.id for task in await storage.tasks(TaskQuery(owner=None, **fields))] == ["t"]
    assert [head.id for head in (await storage.trees(TreeQuery(owner=None, context_id=odd))).heads] == ["t"]


@pytest.mark.asyncio
async def test_nothing_has_a_key_that_the_database_cannot_have(storage: PostgresStorage) -> None:
    assert await storage.task("a\0") is None
    assert await storage.load("a\0") is None
    assert await storage.document("k", "a\0") is None
    with pytest.raises(StorageError, match=r"^A value cannot be stored: it is not JSON$"):
        await storage.put_documents(Document(kind="k", id="a\0", body=b"1"))


@pytest.mark.asyncio
async def test_only_the_guilty_of_a_batch_is_refused_for_its_value(
    storage: PostgresStorage, caplog: pytest.LogCaptureFixture
) -> None:
    bad, good = created("b\0"), created("g")
    results = await asyncio.gather(*[storage.append(each) for each in (bad, good)], return_exceptions=True)
    assert [type(result) for result in results] == [StorageError, type(None)]
    assert await storage.head("g") == good.head


@pytest.mark.asyncio
async def test_a_job_that_is_refused_does_not_undo_its_neighbours(storage: PostgresStorage) -> None:
    draft = replace(make_tasks("d", 1)[0], tree_id="")
    puts = [storage.put_draft(draft), storage.put_draft(draft), storage.put_draft(replace(draft, id="e"))]

    results = await asyncio.gather(*puts, return_exceptions=True)

    assert [type(result) for result in results] == [type(None), InvalidPlan, type(None)]
    assert await storage.task("e") is not None


@pytest.mark.asyncio
async def test_an_unexpected_error_fails_its_batch_and_the_writer_lives_on(
    storage: PostgresStorage, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(connection: object) -> None:
        raise ZeroDivisionError

    assert storage._writer is not None
    with pytest.raises(StorageUnavailable, match=r"^The database cannot be written at this moment$"):
        await storage._writer.submit(broken)
    assert "ZeroDivisionError" in caplog.text
    await storage.append(created("t"))


@pytest.mark.asyncio
async def test_a_large_tree_lets_others_have_their_turns(storage: PostgresStorage) -> None:
    large, small = created("large", 6_000, owner="a"), created("small", 1, owner="b")
    order: list[str] = []
    futures = [asyncio.ensure_future(storage.append(large)), asyncio.ensure_future(storage.append(small))]
    for name, future in zip(("large", "small"), futures, strict=True):
        future.add_done_callback(lambda _, name=name: order.append(name))
    await asyncio.gather(*futures)
    assert order == ["small", "large"]
    loaded = await storage.load("large")
    assert loaded is not None and len(loaded[1]) == 6_000 and isinstance(loaded[0], TreeHead)
