"""Lost answers, and locks in the way (`core.storage.postgres.sender`)."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from core.model.errors import InvalidPlan, StorageUnavailable, VersionConflict
from core.storage.base import Document, EventQuery
from core.storage.postgres.holder import ConnectionLost, Holder
from core.storage.postgres.storage import PostgresStorage
from tests.core.storage.samples import created, make_tasks, started


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
