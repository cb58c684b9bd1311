"""The reading connections: what a failure means, and what lists may take of them."""

import asyncio
import sqlite3
import sys

import pytest

from core.model.errors import QueryTooLong, StorageError, StorageUnavailable
from core.storage.sqlite.read_pool import CONNECTIONS, LIST_CONNECTIONS
from core.storage.sqlite.reader import Reader
from core.storage.sqlite.sql import SqlStorage


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY, StorageUnavailable),
        (sqlite3.SQLITE_IOERR_READ, StorageUnavailable),
        (sqlite3.SQLITE_CORRUPT, StorageError),
        (sqlite3.SQLITE_NOTADB, StorageError),
    ],
)
@pytest.mark.asyncio
async def test_a_database_that_cannot_be_read_now_is_told_from_one_that_is_broken(
    storage: SqlStorage, code: int, kind: type[StorageError]
) -> None:
    error = sqlite3.OperationalError("/a/path")
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_X"
    assert storage._reader is not None

    with pytest.raises(StorageError, match="SQLITE_X") as caught:
        async with storage._reader.pool.connection():
            raise error

    assert type(caught.value) is kind
    assert await storage.head("t") is None, "the connection is back"


@pytest.mark.asyncio
async def test_a_connection_that_is_closed_under_a_read_is_no_damage(storage: SqlStorage) -> None:
    """sqlite3's own error for it has no code."""
    reader = Reader(storage.path)
    await reader.open()
    with pytest.raises(StorageUnavailable, match="The database is closed"):
        async with reader.pool.connection():
            await reader.close()
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")


@pytest.mark.asyncio
async def test_a_reader_that_is_not_open_says_so(storage: SqlStorage) -> None:
    reader = Reader(storage.path)
    with pytest.raises(StorageUnavailable, match="The database is closed"):
        await reader.rows(("SELECT 1", ()))
    await reader.open()
    assert await reader.rows(("SELECT 1", ())) == [(1,)]
    await reader.close()
    with pytest.raises(StorageUnavailable, match="The database is closed"):
        await reader.rows(("SELECT 1", ()))


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n", ()


@pytest.mark.asyncio
async def test_a_list_that_takes_too_long_is_refused_and_its_connection_serves_the_next(storage: SqlStorage) -> None:
    reader = Reader(storage.path, list_seconds=0.05)
    await reader.open()
    for _ in range(LIST_CONNECTIONS + 1):
        with pytest.raises(QueryTooLong, match=r"took longer than 0\.05 s"):
            await reader.list_page(ENDLESS, 100)
        with pytest.raises(QueryTooLong):
            await reader.count_and_page(ENDLESS, ("SELECT 1", ()), 100)
    assert (await reader.list_page(("SELECT 1", ()), 100)).rows == [(1,)]
    await reader.close()


@pytest.mark.asyncio
async def test_reads_by_key_do_not_wait_for_lists(storage: SqlStorage) -> None:
    reader = Reader(storage.path, list_seconds=60.0)
    await reader.open()
    lists = [asyncio.create_task(reader.list_page(ENDLESS, 100)) for _ in range(20)]
    async with asyncio.timeout(30):
        assert [await reader.rows(("SELECT 1", ())) for _ in range(100)] == [[(1,)]] * 100
    assert not any(each.done() for each in lists)
    async with asyncio.timeout(30):
        await reader.close()
        for each in asyncio.as_completed(lists):
            with pytest.raises(StorageUnavailable, match="The database is closed"):
                await each


CANCELLED = {
    "one statement": lambda reader: reader.list_page(ENDLESS, 100),
    "two at one moment": lambda reader: reader.count_and_page(ENDLESS, ("SELECT 1", ()), 100),
    "the second of two": lambda reader: reader.count_and_page(("SELECT 1", ()), ENDLESS, 100),
}


@pytest.mark.parametrize("name", CANCELLED)
@pytest.mark.parametrize("visits", [1, 2, 5, 50])
@pytest.mark.asyncio
async def test_a_list_whose_caller_left_ends_at_once_and_its_connection_serves_the_next(
    storage: SqlStorage, name: str, visits: int
) -> None:
    """Found by reading: an endless list ran on in its thread, and whoever took the connection waited for it."""
    reader = Reader(storage.path, list_seconds=60.0)
    await reader.open()
    reads = [asyncio.ensure_future(CANCELLED[name](reader)) for _ in range(CONNECTIONS + 1)]
    for _ in range(visits):  # of the loop: before the statement is with its thread, or after
        await asyncio.sleep(0)
    async with asyncio.timeout(30):
        for each in reads:
            each.cancel()
        await asyncio.wait(reads)
        assert all(each.cancelled() for each in reads)
        for _ in range(CONNECTIONS + LIST_CONNECTIONS):
            assert await reader.rows(("SELECT 1", ())) == [(1,)]
            assert (await reader.list_page(("SELECT 1", ()), 100)).rows == [(1,)]
        await reader.close()


@pytest.mark.asyncio
async def test_no_idle_connection_keeps_the_page_that_it_read(storage: SqlStorage) -> None:
    """Found by the census after hostile requests: 12 MiB stayed, the rows of the last list."""
    reader = Reader(storage.path)
    await reader.open()
    page = await reader.list_page(("SELECT zeroblob(100000)", ()), 1_000_000)
    blob = page.rows[0][0]
    del page
    ours = bytes(10)
    assert sys.getrefcount(blob) == sys.getrefcount(ours), "only this test has it"
    await reader.close()
