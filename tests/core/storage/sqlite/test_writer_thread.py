"""Group commit, faults of the disk, and the order of writes (`core.storage.write_queue` and `writer_thread`)."""

import asyncio
import gc
import queue
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import Connection, bindparam
from sqlalchemy.dialects.sqlite import insert

from core.model.errors import StorageError, StorageUnavailable, VersionConflict
from core.storage import tables, write_queue, writes
from core.storage.base import Append, EventQuery, TaskQuery
from core.storage.sqlite import statements, writer_thread
from core.storage.sqlite.commit_marker import Note, noted_commit
from core.storage.sqlite.sql import SqlStorage
from core.storage.sqlite.writer_thread import WriterThread
from core.storage.write_queue import WriteQueue
from tests.core.storage.samples import created, finished, make_tasks, started


class _Harmed(sqlite3.Cursor):
    """Fails at statements with a word in them, as the disk would make them fail."""

    word = ""
    code = 0

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if _Harmed.word and _Harmed.word in sql:
            error = sqlite3.OperationalError("a disk that fails")
            if _Harmed.code:
                error.sqlite_errorcode, error.sqlite_errorname = _Harmed.code, f"SQLITE_{_Harmed.code}"
            raise error
        return super().execute(sql, *parameters)


class _Harmable(sqlite3.Connection):
    def cursor(self, factory: Any = _Harmed) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        cursor: sqlite3.Cursor = self.cursor().execute(sql, *parameters)
        return cursor


@pytest.fixture
def harm(monkeypatch: pytest.MonkeyPatch) -> type[_Harmed]:
    """Every connection that is made from now on fails at `word` with `code`; set them to harm."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, factory=_Harmable, **options))
    monkeypatch.setattr(_Harmed, "word", "")
    return _Harmed


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "storage-writer"]


def on_connection(storage: SqlStorage, sql: str) -> asyncio.Future[Any]:
    """Execute a statement in the writer's thread."""
    assert storage._writer is not None
    return storage._writer.submit(lambda connection: connection.exec_driver_sql(sql) and None)


async def traced(storage: SqlStorage) -> list[str]:
    """The statements that the writer executes from now on."""
    seen: list[str] = []

    def trace(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(lambda sql: seen.append(" ".join(sql.split()[:3])))

    assert storage._writer is not None
    await storage._writer.submit(trace)
    seen.clear()
    return seen


def running(first: Append) -> list[Append]:
    """One append for each task of the tree, each decided on top of the one before."""
    appends, head = [], first.head
    for task in first.tasks:
        appends.append(started(head, task))
        head = appends[-1].head
    return appends


@pytest.mark.asyncio
async def test_appends_that_wait_share_one_transaction_and_few_statements(storage: SqlStorage) -> None:
    """256 appends of one tree: its head once, events and tasks in one statement each."""
    first = created("t", 256)
    await storage.append(first)
    seen = await traced(storage)

    await asyncio.gather(*[storage.append(append) for append in running(first)])

    assert seen.count("BEGIN IMMEDIATE") == seen.count("COMMIT") == 1
    writes = [sql for sql in seen if not sql.startswith(("BEGIN", "COMMIT", "PRAGMA"))]
    assert len(writes) == 4  # head, its bulk (first time), events, tasks


@pytest.mark.asyncio
async def test_a_row_that_changes_twice_in_a_batch_is_written_once(storage: SqlStorage) -> None:
    first = created("t", 1)
    again = started(first.head, first.tasks[0])
    twice = started(again.head, again.tasks[0])
    seen = await traced(storage)

    await asyncio.gather(*[storage.append(append) for append in (first, again, twice)])

    assert [sql for sql in seen if "tasks" in sql] == ["INSERT INTO tasks"]
    assert [sql for sql in seen if "trees" in sql] == ["INSERT INTO trees"]
    assert await storage.load("t") == (twice.head, list(twice.tasks))


@pytest.mark.asyncio
async def test_the_bulk_of_a_head_is_written_only_when_it_changes(storage: SqlStorage) -> None:
    first = created("t", 3, metadata={"big": "x"})
    appends = running(first)
    await storage.append(first)
    await storage.append(appends[0])
    seen = await traced(storage)

    decoded = replace(appends[1].head, metadata={"big": "x"}, scope=None)  # equal, and not the same objects
    await storage.append(replace(appends[1], head=decoded))
    assert not any("bulk" in sql for sql in seen)

    rescoped = replace(appends[2], head=replace(appends[2].head, scope=("t",)))
    await storage.append(rescoped)
    assert any("bulk" in sql for sql in seen)
    assert (await storage.load("t") or ((), ()))[0] == rescoped.head


@pytest.mark.asyncio
async def test_more_appends_than_a_batch_holds_all_arrive(storage: SqlStorage) -> None:
    first = created("t", writes.MAX_BATCH * 2 + 77)
    await storage.append(first)
    appends = running(first)

    await asyncio.gather(*[storage.append(append) for append in appends])

    assert await storage.head("t") == appends[-1].head
    events = await storage.events(EventQuery(tree_id="t", limit=10_000))
    assert [r.seq for r in events] == list(range(1, len(appends) + 2))


@pytest.mark.asyncio
async def test_a_value_that_is_no_json_fails_its_append_alone(
    storage: SqlStorage, caplog: pytest.LogCaptureFixture
) -> None:
    first, other = created("t", 2), created("u", 2)
    await storage.append(first)
    bad = started(first.head, replace(first.tasks[0], result=object()))
    surrogate = created("s")
    surrogate = replace(surrogate, tasks=(replace(surrogate.tasks[0], name="\ud800"),))

    results = await asyncio.gather(*[storage.append(x) for x in (bad, other, surrogate)], return_exceptions=True)

    assert [type(r) for r in results] == [StorageError, type(None), StorageError]
    assert {str(r) for r in results if r} == {"A value cannot be stored: it is not JSON"}
    told = f"a write to {storage.path} cannot be stored: Encoding objects of type object is unsupported"
    assert caplog.messages[0] == told
    assert await storage.head("t") == first.head
    assert await storage.head("s") is None


@pytest.mark.asyncio
async def test_an_append_decided_before_a_failure_was_known_fails_in_a_later_batch_too(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "MAX_BATCH", 1)
    first = created("t", 2)
    await storage.append(first)
    wrong = started(replace(first.head, version=9), first.tasks[0])
    on_top = started(first.head, first.tasks[1])

    results = await asyncio.gather(storage.append(wrong), storage.append(on_top), return_exceptions=True)

    assert [type(r) for r in results] == [VersionConflict, VersionConflict]
    await storage.append(on_top)


@pytest.mark.asyncio
async def test_what_was_decided_before_a_failure_was_known_fails_in_the_first_batch_of_a_start_too(
    storage: SqlStorage,
) -> None:
    first = created("t", 2)
    await storage.append(first)
    await storage.close()
    await storage.open()
    wrong = started(replace(first.head, version=9), first.tasks[0])
    on_top = started(first.head, first.tasks[1])

    results = await asyncio.gather(storage.append(wrong), storage.append(on_top), return_exceptions=True)

    assert [type(result) for result in results] == [VersionConflict, VersionConflict]


@pytest.mark.asyncio
async def test_an_append_of_another_tree_between_does_not_make_a_failure_forgotten(storage: SqlStorage) -> None:
    first, other = created("t", 2), created("u")
    await storage.append(first)
    wrong = started(replace(first.head, version=9), first.tasks[0])
    on_top = started(first.head, first.tasks[1])

    results = await asyncio.gather(*[storage.append(x) for x in (wrong, other, on_top)], return_exceptions=True)

    assert [type(r) for r in results] == [VersionConflict, type(None), VersionConflict]


@pytest.mark.asyncio
async def test_a_job_that_breaks_a_constraint_is_a_conflict_of_no_tree(storage: SqlStorage) -> None:
    await storage.append(created("t"))

    with pytest.raises(VersionConflict) as caught:
        await on_connection(storage, "INSERT INTO trees SELECT * FROM trees")

    assert caught.value.tree_id == ""
    await storage.append(created("u"))


@pytest.mark.asyncio
async def test_a_full_queue_refuses_at_once(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING", 2)
    waiting = [storage.append(created(name)) for name in "ab"]

    with pytest.raises(StorageUnavailable, match="behind"):
        await storage.append(created("c"))

    await asyncio.gather(*waiting)
    await storage.append(created("c"))


@pytest.mark.asyncio
async def test_drafts_and_deletes_wait_for_room_instead_of_failing(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING", 4)
    drafts = [replace(make_tasks(f"d{n}", 1)[0], tree_id="") for n in range(30)]

    await asyncio.gather(*[storage.put_draft(draft) for draft in drafts])

    assert await storage.count(TaskQuery(owner=None)) == 30
    assert await asyncio.gather(*[storage.delete(draft.id) for draft in drafts]) == [True] * 30


@pytest.mark.asyncio
async def test_an_append_finds_room_while_drafts_wait(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING", 4)
    drafts = [replace(make_tasks(f"d{n}", 1)[0], tree_id="") for n in range(30)]
    putting = [asyncio.ensure_future(storage.put_draft(draft)) for draft in drafts]
    await asyncio.sleep(0)  # all of them have asked
    assert storage._writer is not None and storage._writer._waiting == 2, "half of the room"

    await storage.append(created("t"))

    assert not all(put.done() for put in putting)
    await asyncio.gather(*putting)


@pytest.mark.asyncio
async def test_close_writes_the_drafts_that_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_queue, "MAX_WAITING", 4)
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    drafts = [replace(make_tasks(f"d{n}", 1)[0], tree_id="") for n in range(30)]
    putting = [asyncio.ensure_future(storage.put_draft(draft)) for draft in drafts]
    await asyncio.sleep(0)
    putting[-1].cancel()  # nobody waits for that one any more

    await storage.close()

    assert [put.exception() for put in putting[:-1]] == [None] * 29
    await storage.open()
    assert await storage.count(TaskQuery(owner=None)) == 29
    await storage.close()


@pytest.mark.asyncio
async def test_a_full_disk_fails_the_batch_and_the_writer_lives_on(storage: SqlStorage) -> None:
    await storage.append(created("t"))
    await on_connection(storage, "PRAGMA max_page_count=1")  # SQLite takes the present size as the least
    big = created("big", 1000)

    with pytest.raises(StorageUnavailable, match="SQLITE_FULL"):
        await storage.append(big)
    assert await storage.head("big") is None

    await on_connection(storage, "PRAGMA max_page_count=1000000")
    await storage.append(big)
    assert await storage.load("big") == (big.head, list(big.tasks))


@pytest.mark.asyncio
async def test_a_read_only_database_fails_the_batch(storage: SqlStorage) -> None:
    with pytest.raises(StorageUnavailable, match="SQLITE_READONLY"):
        await on_connection(storage, "PRAGMA query_only=1")  # this very commit is the first that cannot be numbered
    with pytest.raises(StorageUnavailable, match="SQLITE_READONLY"):
        await storage.append(created("t"))


@pytest.mark.asyncio
async def test_a_locked_database_fails_the_batch_and_the_next_one_succeeds(
    storage: SqlStorage, caplog: pytest.LogCaptureFixture
) -> None:
    await on_connection(storage, "PRAGMA busy_timeout=0")
    foreign = sqlite3.connect(storage.path, isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")

    with pytest.raises(StorageUnavailable, match=r"^The database cannot be written at this moment \(SQLITE_BUSY\)$"):
        await storage.append(created("t"))

    assert caplog.messages == [f"a batch of 1 writes to {storage.path} failed: database is locked"]
    foreign.close()
    await storage.append(created("t"))


@pytest.mark.asyncio
async def test_an_unexpected_error_fails_the_batch_and_the_writer_lives_on(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(statements.INSERT_EVENTS, "run", broken)
        with pytest.raises(StorageUnavailable, match=r"^The database cannot be written at this moment$"):
            await storage.append(created("t"))

    assert caplog.messages == [f"a batch of 1 writes to {storage.path} failed"]
    assert "ZeroDivisionError" in caplog.text
    await storage.append(created("t"))


FULL_FILE_SYSTEM = """
import asyncio, resource, sys
from core.storage.sqlite.sql import SqlStorage
from core.storage.sqlite.commit_marker import Note, noted_commit
from tests.core.storage.samples import created

async def main():
    storage = SqlStorage(sys.argv[1])
    await storage.open()
    await storage.append(created("t"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))  # a write beyond it is an I/O error
    await storage.append(created("big", 5000))

asyncio.run(main())
"""


def test_an_io_error_of_a_commit_ends_the_process(tmp_path: Path) -> None:
    """What a failed sync left on the disk is unknown, so nobody may go on from it."""
    path = tmp_path / "tasks.db"
    done = subprocess.run([sys.executable, "-c", FULL_FILE_SYSTEM, str(path)], capture_output=True, timeout=60)

    assert done.returncode == writer_thread.EXIT_CODE, done.stderr
    assert b"SQLITE_IOERR" in done.stderr


@pytest.mark.asyncio
async def test_the_log_is_moved_into_the_database_while_writing_and_emptied_at_the_end(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_thread, "CHECKPOINT_PAGES", 50)
    seen = await traced(storage)
    log = storage.path.with_name(storage.path.name + "-wal")

    await storage.append(created("t", 500))
    await storage.append(created("u"))  # the checkpoint comes after the answer, before the next batch
    assert any("PASSIVE" in sql for sql in seen)
    assert log.stat().st_size > 0

    await storage.close()
    assert not log.exists() or log.stat().st_size == 0


@pytest.mark.asyncio
async def test_a_long_log_begins_anew_although_reads_overlap(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is always a reader while something is written; only a checkpoint that waits for readers sees one end."""
    monkeypatch.setattr(writer_thread, "CHECKPOINT_PAGES", 50)
    monkeypatch.setattr(writer_thread, "LONG_LOG", 100)
    readers: list[sqlite3.Connection] = []

    def reading() -> sqlite3.Connection:
        reader = sqlite3.connect(storage.path, isolation_level=None, check_same_thread=False)
        readers.append(reader)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM trees").fetchone()
        return reader

    def trace(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(lambda sql: readers[-1].execute("ROLLBACK") if "RESTART" in sql else None)

    assert storage._writer is not None
    await storage._writer.submit(trace)
    log = storage.path.with_name(storage.path.name + "-wal")
    for n in range(100):
        reading()
        if n and readers[-2].in_transaction:
            readers[-2].execute("ROLLBACK")
        await storage.append(created(f"t{n}", 10))
    for reader in readers:
        reader.close()
    # 193 pages where each checkpoint gets its turn at once; a busy machine may miss one or two. Without: over 1,000.
    assert log.stat().st_size < 500 * 4120


@pytest.mark.parametrize("are_jobs", [False, True])
@pytest.mark.asyncio
async def test_many_small_writes_have_the_log_moved_as_a_large_one_does(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch, are_jobs: bool
) -> None:
    monkeypatch.setattr(writer_thread, "CHECKPOINT_PAGES", 50)
    seen = await traced(storage)

    for n in range(12):
        if are_jobs:
            await storage.put_draft(replace(make_tasks(f"d{n}", 1)[0], tree_id=""))
        else:
            await storage.append(created(f"t{n}"))

    assert "PRAGMA wal_checkpoint(PASSIVE)" in seen


@pytest.mark.parametrize(("limit", "most"), [("MAX_BATCH", 2), ("TRANSACTION_ROWS", 13)])
@pytest.mark.asyncio
async def test_a_transaction_is_kept_short(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch, limit: str, most: int
) -> None:
    """Six appends of three tasks and an event, at most two of them in one transaction."""
    monkeypatch.setattr(writes, limit, most)
    seen = await traced(storage)

    await asyncio.gather(*[storage.append(created(name, 3)) for name in "abcdef"])

    assert seen.count("COMMIT") == 3


@pytest.mark.asyncio
async def test_appends_around_a_job_are_written_together_as_well(storage: SqlStorage) -> None:
    seen = await traced(storage)

    draft = replace(make_tasks("d", 1)[0], tree_id="")
    before = [storage.append(created(name)) for name in "ab"]
    await asyncio.gather(*before, storage.put_draft(draft), storage.append(created("c")))

    assert seen.count("COMMIT") == 1
    assert [sql for sql in seen if "SAVEPOINT" in sql or "ROLLBACK" in sql] == []


@pytest.mark.asyncio
async def test_a_writer_with_nothing_to_do_sleeps_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It wakes once after the last write, to empty the log."""
    waits: list[float | None] = []

    class Recording(queue.SimpleQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().get(block, timeout)

    emptied = observed_checkpoints(monkeypatch)
    monkeypatch.setattr(queue, "SimpleQueue", Recording)
    idle = WriteQueue(WriterThread(tmp_path / "tasks.db"))
    await idle.start()
    await idle.submit(lambda connection: None)
    async with asyncio.timeout(10):
        await emptied.wait()
    await idle.close()

    assert waits == [None, 0.01, None]


def observed_checkpoints(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set at every checkpoint; and the writer is idle soon."""
    done, loop = asyncio.Event(), asyncio.get_running_loop()
    checkpoint = WriterThread._checkpoint

    def observed(self: WriterThread, mode: str) -> int:
        pages = checkpoint(self, mode)
        loop.call_soon_threadsafe(done.set)
        return pages

    monkeypatch.setattr(writer_thread, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(WriterThread, "_checkpoint", observed)
    return done


@pytest.mark.asyncio
async def test_the_log_is_emptied_when_nothing_is_written(storage: SqlStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    emptied = observed_checkpoints(monkeypatch)
    await storage.append(created("t", 100))

    async with asyncio.timeout(10):
        await emptied.wait()

    assert storage.path.with_name(storage.path.name + "-wal").stat().st_size == 0
    assert storage._writer is not None and storage._writer._writer._log_pages == 0, "it is not emptied again"
    assert await storage.head("t") is not None


@pytest.mark.asyncio
async def test_the_log_is_emptied_without_waiting_for_a_reader_and_writes_wait_again_after_it(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await traced(storage)
    emptied = observed_checkpoints(monkeypatch)
    await storage.append(created("t"))

    async with asyncio.timeout(10):
        await emptied.wait()

    there = seen.index("PRAGMA wal_checkpoint(TRUNCATE)")
    assert (seen[there - 1], seen[there + 1]) == ("PRAGMA busy_timeout=0", "PRAGMA busy_timeout=5000")


@pytest.mark.asyncio
async def test_writes_wait_for_a_lock_also_after_a_checkpoint_that_failed(
    tmp_path: Path, harm: type[_Harmed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by a mutant: after a checkpoint that failed, a short lock of another program failed writes."""
    emptied = observed_checkpoints(monkeypatch)
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    harm.word, harm.code = "wal_checkpoint", sqlite3.SQLITE_FULL
    await storage.append(created("t"))
    async with asyncio.timeout(10):
        await emptied.wait()
    harm.word = ""

    assert storage._writer is not None
    waits = await storage._writer.submit(lambda connection: connection.exec_driver_sql("PRAGMA busy_timeout").scalar())

    assert waits == 5000
    await storage.close()


@pytest.mark.asyncio
async def test_a_cancelled_caller_does_not_disturb_the_batch(storage: SqlStorage) -> None:
    impatient = asyncio.ensure_future(storage.append(created("t")))
    patient = storage.append(created("u"))
    impatient.cancel()

    await patient

    assert impatient.cancelled()
    assert await storage.head("u") is not None


@pytest.mark.asyncio
async def test_every_commit_is_synced(storage: SqlStorage) -> None:
    assert storage._writer is not None

    def pragmas(connection: Connection) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys", "wal_autocheckpoint", "busy_timeout")
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await storage._writer.submit(pragmas) == ["wal", 2, 1, 0, 5000]


@pytest.mark.asyncio
async def test_a_run_to_its_end_forgets_the_tree(storage: SqlStorage) -> None:
    """The writer remembers heads of live trees only."""
    first = created("t")
    run = started(first.head, first.tasks[0])
    assert storage._writer is not None
    for append, live in ((first, 0), (run, 1), (finished(run.head), 0)):
        await storage.append(append)
        assert len(storage._writer._writer._stored) == live


@pytest.mark.parametrize("rows", [1, 2, 3, 255, 256, 257, 1000])
def test_a_statement_over_many_rows_keeps_their_order_and_number(rows: int) -> None:
    seen: list[tuple[str, tuple[Any, ...]]] = []

    given = [("t", i, "k", "x", 0.0, b"", 0) for i in range(rows)]
    statements.INSERT_EVENTS.run(lambda sql, parameters: seen.append((sql, parameters)), given)

    assert [seq for _, parameters in seen for seq in parameters[1::7]] == list(range(rows))
    assert all(sql.count("?") == len(parameters) for sql, parameters in seen)
    assert len(seen) <= rows // statements.MAX_ROWS + 8


@pytest.mark.parametrize(("size", "most"), [(100, 256), (statements.MAX_BYTES // 10, 8), (statements.MAX_BYTES, 1)])
def test_a_statement_over_large_rows_has_few_of_them(size: int, most: int) -> None:
    """sqlite3 keeps what each of its prepared statements was last given."""
    seen: list[tuple[Any, ...]] = []

    given = [("t", i, "k", "x", 0.0, b"x" * size, 0) for i in range(300)]
    statements.INSERT_EVENTS.run(lambda sql, parameters: seen.append(parameters), given)

    assert [seq for parameters in seen for seq in parameters[1::7]] == list(range(300))
    assert max(len(parameters) // 7 for parameters in seen) == most


# A disk and a loop that fail


@pytest.mark.parametrize(
    ("code", "exits"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, [writer_thread.EXIT_CODE]),
        (sqlite3.SQLITE_IOERR_WRITE, [writer_thread.EXIT_CODE]),
        (sqlite3.SQLITE_FULL, []),
    ],
)
@pytest.mark.asyncio
async def test_a_commit_of_which_nobody_knows_what_is_stored_ends_the_process(
    tmp_path: Path, harm: type[_Harmed], code: int, exits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """After any I/O error; not when the disk is full, for then nothing is stored."""
    ended: list[int] = []
    storage = SqlStorage(str(tmp_path / "tasks.db"), exit_process=ended.append)
    await storage.open()
    harm.word, harm.code = "COMMIT", code

    with pytest.raises(StorageUnavailable, match=f"SQLITE_{code}"):
        await storage.append(created("t"))

    assert ended == exits
    told = f"COMMIT on {storage.path} failed (SQLITE_{code}); ending the process"
    assert (told in caplog.messages) == bool(exits)
    harm.word = ""
    assert await storage.head("t") is None
    await storage.append(created("t"))
    await storage.close()


@pytest.mark.asyncio
async def test_a_commit_that_fails_without_a_code_fails_its_batch_alone(tmp_path: Path, harm: type[_Harmed]) -> None:
    """An error of the driver itself, of which SQLite knows nothing."""
    ended: list[int] = []
    storage = SqlStorage(str(tmp_path / "tasks.db"), exit_process=ended.append)
    await storage.open()
    harm.word, harm.code = "COMMIT", 0

    with pytest.raises(StorageUnavailable, match=r"^The database cannot be written at this moment \(unknown\)$"):
        await storage.append(created("t"))

    assert ended == []
    harm.word = ""
    await storage.append(created("t"))
    await storage.close()


@pytest.mark.parametrize(
    ("code", "exits"),
    [
        (sqlite3.SQLITE_IOERR_FSYNC, [writer_thread.EXIT_CODE]),
        (sqlite3.SQLITE_IOERR_DIR_FSYNC, [writer_thread.EXIT_CODE]),
        (sqlite3.SQLITE_IOERR_READ, []),
        (sqlite3.SQLITE_FULL, []),
    ],
)
@pytest.mark.asyncio
async def test_a_checkpoint_that_could_not_be_synced_ends_the_process_and_another_failure_waits_for_the_next(
    tmp_path: Path, harm: type[_Harmed], code: int, exits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []
    storage = SqlStorage(str(tmp_path / "tasks.db"), exit_process=ended.append)
    await storage.open()
    await storage.append(created("t"))
    harm.word, harm.code = "wal_checkpoint", code

    await storage.close()

    assert ended == exits
    told = f"A checkpoint on {storage.path} failed (SQLITE_{code}); ending the process"
    assert (told in caplog.messages) == bool(exits)
    assert f"checkpoint of {storage.path} failed: a disk that fails" in caplog.messages
    harm.word = ""
    await storage.open()
    assert await storage.head("t") is not None
    await storage.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.asyncio
async def test_a_writer_that_breaks_off_ends_the_process_for_nobody_would_be_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Found by a mutant: when the writer's thread failed, all callers waited for ever."""

    def broken(self: WriterThread) -> None:
        raise ZeroDivisionError

    ended: list[int] = []
    before = writers()
    storage = SqlStorage(str(tmp_path / "tasks.db"), exit_process=ended.append)
    await storage.open()
    (thread,) = set(writers()) - set(before)
    monkeypatch.setattr(WriterThread, "_checkpoint_if_due", broken)
    await storage.append(created("t"))

    await asyncio.wait_for(storage.close(), 10)
    await asyncio.to_thread(thread.join, 10)

    assert ended == [writer_thread.EXIT_CODE]
    assert f"the writer of {storage.path} has broken off; ending the process" in caplog.messages
    assert "ZeroDivisionError" in caplog.text


def frames(storage: SqlStorage) -> int:
    """How many pages its log has."""
    size = storage.path.with_name(storage.path.name + "-wal").stat().st_size
    return (size - 32) // (4096 + 24)


@pytest.mark.asyncio
async def test_a_reader_that_keeps_the_log_from_being_emptied_is_told_in_the_log(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await storage.append(created("t"))
    foreign = sqlite3.connect(storage.path, isolation_level=None)
    foreign.execute("BEGIN")
    foreign.execute("SELECT * FROM trees").fetchall()
    read = frames(storage)
    await storage.append(created("u", 50))
    written = frames(storage)
    monkeypatch.setattr(writer_thread, "ALARM_PAGES", 1)

    await storage.close()
    foreign.close()

    assert 0 < read < written
    assert caplog.messages == [f"{written - read} pages of the log of {storage.path} wait for a reader to end"]


@pytest.mark.asyncio
async def test_a_log_that_was_moved_whole_alarms_nobody(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writer_thread, "ALARM_PAGES", 1)
    monkeypatch.setattr(writer_thread, "CHECKPOINT_PAGES", 10)
    await storage.append(created("t", 50))
    await storage.append(created("u"))
    await storage.close()
    assert caplog.messages == []


@pytest.mark.asyncio
async def test_a_file_that_is_no_database_ends_the_writer_with_its_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "text.db"
    path.write_text("not a database, although it is long enough for one" * 100)
    started_badly = WriteQueue(WriterThread(path))
    with pytest.raises(StorageError, match=r"text\.db cannot be opened: file is not a database"):
        await started_badly.start()
    with pytest.raises(StorageUnavailable, match="closed"):
        await started_badly.submit(created("t"))
    await started_badly.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        await started_badly.submit(created("t"))
    gc.collect()
    assert caplog.text == "", "its connection was closed by the thread that made it"


@pytest.mark.asyncio
async def test_a_file_that_cannot_be_made_ends_the_writer_with_its_reason(tmp_path: Path) -> None:
    """Found by a mutant: a failed start left its connection to another thread, which SQLite refuses."""
    started_badly = WriteQueue(WriterThread(tmp_path / "no such folder" / "tasks.db"))
    with pytest.raises(StorageError, match=r"tasks\.db cannot be opened: unable to open database file"):
        await started_badly.start()


@pytest.mark.asyncio
async def test_a_start_that_is_broken_off_leaves_no_thread(tmp_path: Path) -> None:
    before = writers()
    begun = WriteQueue(WriterThread(tmp_path / "tasks.db"))
    starting = asyncio.ensure_future(begun.start())
    await asyncio.sleep(0)
    (thread,) = set(writers()) - set(before)
    starting.cancel()
    await asyncio.wait([starting])
    await asyncio.to_thread(thread.join, 10)
    assert not thread.is_alive()
    await begun.close()


def test_a_loop_that_was_closed_before_its_storage_is_told_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread still writes what it was given, and ends."""
    released = threading.Event()
    before = writers()

    async def leave() -> None:
        left = WriteQueue(WriterThread(tmp_path / "tasks.db"))
        await left.start()
        left.submit(lambda connection: released.wait(10) and None)
        closing = asyncio.ensure_future(left.close())
        await asyncio.sleep(0)
        assert not closing.done()

    asyncio.run(leave())
    (thread,) = set(writers()) - set(before)
    released.set()
    thread.join(10)
    assert not thread.is_alive()
    told = f"the event loop of {tmp_path / 'tasks.db'} was closed before its storage"
    assert caplog.messages == [told, told]  # at the answer and at the end


def test_a_statement_whose_rows_have_another_width_is_a_bug() -> None:
    one_row = insert(tables.documents).values([{c: bindparam(c.name) for c in tables.documents.c}])
    width = len(tables.documents.c)
    assert statements.RowsStatement(one_row, width).sql(2).count("?") == 2 * width
    with pytest.raises(AssertionError, match=f"not a statement over rows of {width + 1} values: INSERT"):
        statements.RowsStatement(one_row, width + 1)
    once_more = one_row.on_conflict_do_update(index_elements=["kind", "id"], set_={"owner": bindparam("for_all_rows")})
    with pytest.raises(AssertionError, match=f"not a statement over rows of {width} values: INSERT"):
        statements.RowsStatement(once_more, width)


@pytest.mark.asyncio
async def test_a_commit_of_appends_writes_no_page_for_its_number_and_is_noted_by_its_last_tree(
    storage: SqlStorage, tmp_path: Path
) -> None:
    first = created("t")
    await storage.append(first)
    number = noted_commit(tmp_path / "tasks.db").number  # type: ignore[union-attr]
    seen = await traced(storage)
    await storage.append(started(first.head, first.tasks[0]))
    assert not [sql for sql in seen if sql.startswith("PRAGMA user_version")]
    noted = noted_commit(tmp_path / "tasks.db")
    assert noted == Note(number + 1, "t", first.head.version + 1), "`traced` was a job"

    await on_connection(storage, "SELECT 1")
    assert [sql for sql in seen if sql.startswith("PRAGMA user_version")] == [f"PRAGMA user_version={number + 2}"]
    assert noted_commit(tmp_path / "tasks.db") == Note(number + 2)


@pytest.mark.asyncio
async def test_writes_of_many_turns_share_a_commit_while_each_turn_brings_more(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = await traced(storage)
    loop = asyncio.get_running_loop()

    def later(n: int) -> None:
        writes.append(storage.append(created(f"t{n}")))
        if n < 20:
            loop.call_soon(later, n + 1)

    monkeypatch.setattr(write_queue, "GATHERED", 60.0)
    writes = [storage.append(created("a")), storage.append(created("b"))]
    later(0)
    await asyncio.gather(*writes)
    while len(writes) < 23:
        await asyncio.gather(*writes)
    assert seen.count("COMMIT") == 1

    seen.clear()
    monkeypatch.setattr(write_queue, "GATHERED", 0.0)
    writes = [storage.append(created("c")), storage.append(created("d"))]
    later(100)
    await asyncio.gather(*writes)
    assert seen.count("COMMIT") == 1, "both of one turn"


@pytest.mark.asyncio
async def test_a_single_write_that_is_flushed_is_handed_over_at_once(storage: SqlStorage) -> None:
    assert storage._writer is not None
    append = storage.append(created("t"))
    storage.flush()
    assert storage._writer._gathering.writes == []
    storage.append(created("u"))
    several = storage.append(created("v"))
    storage.flush()
    assert len(storage._writer._gathering.writes) == 2
    await asyncio.gather(append, several)


@pytest.mark.asyncio
async def test_what_was_handed_over_while_the_thread_was_busy_is_one_batch(storage: SqlStorage) -> None:
    seen = await traced(storage)
    is_free = threading.Event()
    assert storage._writer is not None
    busy = storage._writer.submit(lambda _: is_free.wait(10) and None)
    storage._writer._gathering.hand_over()
    writes = []
    for name in ("a", "b"):
        writes.append(storage.append(created(name)))
        storage.flush()
    is_free.set()
    await asyncio.gather(busy, *writes)
    assert seen.count("COMMIT") <= 2


async def behind(storage: SqlStorage, *works: Append) -> list[asyncio.Future[Any]]:
    """These appends, all handed over while the thread is busy, so that all of them wait."""
    is_free = threading.Event()
    assert storage._writer is not None
    busy = storage._writer.submit(lambda _: is_free.wait(10) and None)
    storage._writer._gathering.hand_over()
    futures = [storage.append(work) for work in works]
    storage._writer._gathering.hand_over()
    is_free.set()
    await busy
    return futures


@pytest.mark.asyncio
async def test_behind_one_callers_large_trees_another_callers_write_waits_for_one_of_them(storage: SqlStorage) -> None:
    """Not for all; and a small one shares no transaction with a large one."""
    large = [created(f"large{n}", writes.TRANSACTION_ROWS + 1, owner="heavy") for n in range(4)]
    seen: list[str] = []
    futures = await behind(storage, *large, created("small", owner="light"), created("last", owner="heavy"))
    for name, future in zip([*"1234", "small", "last"], futures, strict=True):
        future.add_done_callback(lambda _, name=name: seen.append(name))  # type: ignore[misc]
    await asyncio.gather(*futures)
    assert seen.index("small") <= 1
    assert [name for name in seen if name != "small"] == [*"1234", "last"]


@pytest.mark.asyncio
async def test_a_job_waits_for_what_its_tree_has_in_line_and_for_nothing_else(storage: SqlStorage) -> None:
    """Found later: one caller's large trees delayed all callers' commits by up to 2 s."""
    large = [created(f"large{n}", writes.TRANSACTION_ROWS + 1, owner="heavy") for n in range(3)]
    futures = await behind(storage, *large, created("t", 2, owner="heavy"))
    deleted = asyncio.ensure_future(storage.delete("t"))
    draft = asyncio.ensure_future(storage.put_draft(replace(make_tasks("d", 1)[0], tree_id="")))
    await draft
    assert not futures[-1].done()
    assert await deleted is True
    await asyncio.gather(*futures)
    assert await storage.head("t") is None


@pytest.mark.asyncio
async def test_what_was_decided_before_a_failure_was_known_fails_also_while_others_wait(
    storage: SqlStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the appends of other trees share their transactions as before."""
    monkeypatch.setattr(writes, "MAX_BATCH", 2)
    first = created("t", 2, owner="a")
    await storage.append(first)
    seen = await traced(storage)
    wrong = started(replace(first.head, version=9), first.tasks[0])
    on_top = started(first.head, first.tasks[1])
    others = [created(f"o{n}", owner="b") for n in range(8)]

    waiting = await behind(storage, wrong, *others, on_top)
    results = await asyncio.gather(*waiting, return_exceptions=True)

    assert [type(result) for result in results] == [VersionConflict, *[type(None)] * 8, VersionConflict]
    assert sum("SAVEPOINT" in sql for sql in seen) <= 4  # two for each batch with one of the guilty tree
    await storage.append(on_top)
    assert storage._writer is not None and not storage._writer._writer._failed


def test_a_storage_that_is_not_open_has_nothing_to_flush(tmp_path: Path) -> None:
    SqlStorage(str(tmp_path / "tasks.db")).flush()
    assert list(tmp_path.iterdir()) == []
