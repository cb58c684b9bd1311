"""Leases: which member owns a live tree, and what becomes of the trees of one that is gone."""

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from core.model.errors import DatabaseInUse, DatabaseLost, VersionConflict
from core.storage.base import OF_NOBODY, Append
from core.storage.postgres import lease as lease_module
from core.storage.postgres.storage import PostgresStorage
from tests.core.storage.postgres.leased import polled
from tests.core.storage.samples import created, finished, started
from tests.postgres_cluster import Cluster

LASTS = 0.3  # seconds


@asynccontextmanager
async def member(url: str, lasts: float = LASTS) -> AsyncIterator[PostgresStorage]:
    """One of those that share the database; nothing is left for it to adopt."""
    storage = PostgresStorage(url, lease_lasts=lasts, is_shared=True)
    await storage.open()
    assert await storage.lapsed() == OF_NOBODY
    await storage.settle(OF_NOBODY)
    yield storage
    await storage.close()


async def live(storage: PostgresStorage, tree_id: str) -> Append:
    """A tree that runs, as its owner left it."""
    tree = created(tree_id, 2)
    await storage.append(tree)
    begun = started(tree.head, tree.tasks[0])
    await storage.append(begun)
    assert await storage.owner_of(tree_id) == storage.lease != ""
    return begun


async def kill(storage: PostgresStorage) -> None:
    """It ends without a word: nobody renews its lease, and nobody hands it back."""
    lease = storage._lease
    assert lease is not None and lease._renewing is not None
    lease._renewing.cancel()
    lease._job = None
    await storage.close()


@pytest.mark.asyncio
async def test_only_the_owner_of_a_live_tree_changes_it(postgres_url: str) -> None:
    async with member(postgres_url) as one, member(postgres_url) as other:
        begun = await live(one, "t")
        end = finished(begun.head)
        for lease in ("", other.lease):
            with pytest.raises(VersionConflict):
                await other.append(replace(end, lease=lease))
        assert await other.head("t") == begun.head

        await one.append(replace(end, lease=one.lease))
        assert await one.owner_of("t") == OF_NOBODY, "at rest it is nobody's"
        again = started(end.head, begun.tasks[0])
        await other.append(again)
        assert await one.owner_of("t") == other.lease, "whoever starts it, owns it"


@pytest.mark.asyncio
async def test_the_trees_of_a_member_that_is_gone_are_adopted_once(postgres_url: str) -> None:
    async with member(postgres_url) as one, member(postgres_url) as other, member(postgres_url) as third:
        gone = one.lease
        await live(one, "a")
        await live(one, "b")
        await kill(one)

        finders = [asyncio.ensure_future(polled(each.lapsed)) for each in (other, third)]
        done, waiting = await asyncio.wait(finders, return_when=asyncio.FIRST_COMPLETED)
        heir = (other, third)[finders.index(next(iter(done)))]
        assert [task.result() for task in done] == [gone] and len(waiting) == 1
        assert await heir.adopt(gone) == ["a", "b"]
        assert await heir.adopt(gone) == []
        await heir.settle(gone)
        assert await heir.lapsed() is None and await heir.owner_of("a") == heir.lease
        for task in waiting:
            task.cancel()
        await asyncio.wait(finders)


@pytest.mark.asyncio
async def test_what_a_member_hands_back_is_adopted_at_once(postgres_url: str) -> None:
    async with member(postgres_url, lasts=600) as other:
        async with member(postgres_url, lasts=600) as one:
            await live(one, "t")
        assert await other.lapsed() == one.lease
        assert await other.adopt(one.lease) == ["t"]
        await other.settle(one.lease)
        async with member(postgres_url, lasts=600):
            pass  # without a tree, nothing is handed back
        assert await other.lapsed() is None


@pytest.mark.asyncio
async def test_a_member_that_dies_over_an_adoption_leaves_it_to_the_next(postgres_url: str) -> None:
    async with member(postgres_url) as one, member(postgres_url) as other, member(postgres_url) as third:
        await live(one, "t")
        await kill(one)
        assert await polled(other.lapsed) == one.lease
        await live(other, "u")
        await kill(other)

        adopted: list[str] = []
        leases = {one.lease, other.lease}
        while leases:
            lease = await polled(third.lapsed)
            leases.remove(lease)
            adopted += await third.adopt(lease)
            await third.settle(lease)
        assert sorted(adopted) == ["t", "u"]


@pytest.mark.asyncio
async def test_a_member_that_gave_no_sign_of_life_writes_no_more(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As a process that was stopped (SIGSTOP) and goes on."""
    async with member(postgres_url) as one, member(postgres_url) as other:
        begun = await live(one, "t")
        assert one._lease is not None and one._lease._renewing is not None
        one._lease._renewing.cancel()
        assert await polled(other.lapsed) == one.lease
        await other.adopt(one.lease)
        with pytest.raises(VersionConflict):
            await one.append(replace(finished(begun.head), lease=one.lease))
        assert not one.is_fenced

        one._lease._renewing = asyncio.create_task(one._lease._keep_renewing())

        async def fenced() -> bool | None:
            return one.is_fenced or None

        await polled(fenced)
        with pytest.raises(DatabaseLost, match=r"were given to another one, since it gave no sign of life"):
            await one.append(created("new"))
        await other.settle(one.lease)
        assert "gave no sign of life to the PostgreSQL database" in str(one.refusal())


@pytest.mark.asyncio
async def test_after_an_outage_nobody_adopts_before_all_could_renew(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "PAUSE", 0.01)
    async with member(postgres_url, lasts=0.2) as one:
        lease = one._lease
        assert lease is not None
        run, fails = lease._engine.run, True

        async def failing(work: Callable[..., Awaitable[object]]) -> object:
            if fails:
                raise ConnectionResetError
            return await run(work)

        monkeypatch.setattr(lease._engine, "run", failing)

        async def away() -> bool | None:
            return lease._adopts_from == math.inf or None

        await polled(away)
        assert await one.lapsed() is None, "it is not even asked"
        fails = False

        async def back() -> bool | None:
            return lease._adopts_from < math.inf or None

        await polled(back)
        assert await one.lapsed() is None and not one.is_fenced


@pytest.mark.asyncio
async def test_members_that_share_and_one_that_is_alone_exclude_each_other(postgres_url: str) -> None:
    async with member(postgres_url), member(postgres_url):
        with pytest.raises(DatabaseInUse):
            await PostgresStorage(postgres_url).open()
    alone = PostgresStorage(postgres_url)
    await alone.open()
    with pytest.raises(DatabaseInUse):
        await PostgresStorage(postgres_url, is_shared=True).open()
    await alone.close()


@pytest.mark.asyncio
async def test_who_has_the_database_alone_adopts_at_its_start_whatever_lives(
    postgres_url: str, postgres: Cluster, postgres_database: str
) -> None:
    """Also trees of a time before leases, and without waiting for the end of a lease."""
    killed = PostgresStorage(postgres_url, lease_lasts=600)
    await killed.open()
    await live(killed, "a")
    await live(killed, "b")
    await kill(killed)
    await asyncio.to_thread(postgres.sql, "UPDATE trees SET lease = '' WHERE id = 'b'", postgres_database)

    storage = PostgresStorage(postgres_url, lease_lasts=600)
    await storage.open()
    adopted = []
    while (lease := await storage.lapsed()) is not None:
        adopted.append((lease, await storage.adopt(lease)))
        await storage.settle(lease)
    assert adopted == [(OF_NOBODY, ["b"]), (killed.lease, ["a"])]
    assert await asyncio.to_thread(postgres.sql, "SELECT count(*) FROM a2a_pgqueuer", postgres_database) == "1"
    await storage.close()
    assert await asyncio.to_thread(postgres.sql, "SELECT count(*) FROM members", postgres_database) == "0"
