"""Batches, refusals and lost answers of the writer (`core.storage.postgres.writer`)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from msgspec.structs import replace

from core.model.errors import InvalidPlan, StorageError, StorageUnavailable, VersionConflict
from core.model.task import TreeHead
from core.storage.base import Append, Document, EventQuery, TaskQuery, TreeQuery
from core.storage.postgres.holder import ConnectionLost, Holder
from core.storage.postgres.storage import PostgresStorage
from core.storage.postgres.writer import BatchWriter
from tests.core.storage.samples import created, finished, make_tasks, started, updated
from tests.postgres_cluster import Cluster


@pytest_asyncio.fixture
async def storage(postgres_url: str) -> AsyncIterator[PostgresStorage]:
    made = PostgresStorage(postgres_url)
    await made.open()
    yield made
    await made.close()


def holder_of(storage: PostgresStorage) -> Holder:
    assert storage._holder is not None
    return storage._holder


def lose_next(storage: PostgresStorage, *, after: bool) -> None:
    """The connection ends at the next work: after it was done, whose answer is lost, or before."""
    holder = holder_of(storage)
    run = holder.run

    async def losing(work: Callable[[Any], Awaitable[Any]]) -> Any:
        holder.run = run  # type: ignore[method-assign]
        if after:
            await run(work)
        holder._lose(holder._connection, ConnectionResetError())
        raise ConnectionLost

    holder.run = losing  # type: ignore[method-assign]


@pytest.mark.parametrize("after", [True, False], ids=["stored", "not stored"])
@pytest.mark.asyncio
async def test_an_append_whose_answer_was_lost_is_stored_once(storage: PostgresStorage, after: bool) -> None:
    first = created("t", 2)
    await storage.append(first)
    second = started(first.head, first.tasks[0])
    lose_next(storage, after=after)

    await storage.append(second)

    assert await storage.head("t") == second.head
    assert [each.seq for each in await storage.events(EventQuery(tree_id="t"))] == [1, 2]
    await storage.append(started(second.head, first.tasks[1]))


@pytest.mark.asyncio
async def test_a_batch_whose_answer_was_lost_is_stored_once(storage: PostgresStorage) -> None:
    trees = [created(f"t{n}", 3) for n in range(5)]
    lose_next(storage, after=True)

    await asyncio.gather(*[storage.append(tree) for tree in trees])

    assert [len(await storage.events(EventQuery(tree_id=f"t{n}"))) for n in range(5)] == [1] * 5


@pytest.mark.asyncio
async def test_an_append_that_was_refused_and_whose_answer_was_lost_is_refused(storage: PostgresStorage) -> None:
    first = created("t", 2)
    await storage.append(first)
    lose_next(storage, after=False)

    with pytest.raises(VersionConflict):
        await storage.append(started(replace(first.head, version=7), first.tasks[0]))

    assert await storage.head("t") == first.head


@pytest.mark.parametrize("after", [True, False], ids=["stored", "not stored"])
@pytest.mark.asyncio
async def test_a_job_whose_answer_was_lost_gives_what_it_gave(storage: PostgresStorage, after: bool) -> None:
    """Done once more it would find nothing to delete, or an id that is taken."""
    await storage.append(created("t"))
    await storage.put_documents(Document(kind="k", id="a", body=b"1"))

    lose_next(storage, after=after)
    assert await storage.delete("t") is True
    lose_next(storage, after=after)
    await storage.put_draft(replace(make_tasks("d", 1)[0], tree_id=""))
    lose_next(storage, after=after)
    assert await storage.delete_documents(("k", "a"), ("k", "b")) == 1

    assert await storage.head("t") is None and await storage.document("k", "a") is None
    with pytest.raises(InvalidPlan):
        await storage.put_draft(replace(make_tasks("d", 1)[0], tree_id=""))


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
async def test_a_lock_in_the_way_is_tried_three_times(
    storage: PostgresStorage, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    async def locked(connection: object) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise asyncpg.DeadlockDetectedError("x")

    assert storage._writer is not None
    await storage._writer.submit(locked)
    assert tries == 3
    tries = -9
    with pytest.raises(StorageUnavailable, match=r"^The database cannot be written at this moment \(40P01\)$"):
        await storage._writer.submit(locked)


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
