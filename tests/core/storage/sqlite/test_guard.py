"""Whether a database may be written (`core.storage.sqlite.guard`), and what the writer makes of it."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from core.model.errors import DatabaseLost, DiskReserved, StorageUnavailable
from core.storage.sqlite import writer_thread as writer_module
from core.storage.sqlite.guard import COPIES, SMALL, Guard
from core.storage.sqlite.migrate import migrate
from core.storage.sqlite.writer_thread import WriterThread
from core.storage.write_queue import WriteQueue
from tests.core.storage.samples import created, started

RESERVE = 1_000_000


class Disk:
    """As many free bytes as one says."""

    def __init__(self, free: int) -> None:
        self.free = free

    def guard(self, path: Path) -> Guard:
        return Guard(path, reserve=RESERVE, free=lambda directory: self.free)


@pytest.mark.parametrize(
    ("free", "size", "is_new", "is_taken"),
    [
        (RESERVE, 0, True, True),
        (RESERVE - 1, 0, True, False),
        (RESERVE - 1, 0, False, True),
        (RESERVE + COPIES * 100, 100, True, True),
        (RESERVE + COPIES * 100 - 1, 100, True, False),
        (0, SMALL, False, True),
        (RESERVE - 1, SMALL + 1, False, False),
        (RESERVE + COPIES * (SMALL + 1), SMALL + 1, False, True),
    ],
)
def test_only_small_appends_to_what_is_there_may_use_the_reserve(
    free: int, size: int, is_new: bool, is_taken: bool
) -> None:
    guard = Disk(free).guard(Path("tasks.db"))
    if is_taken:
        guard.require_room(size, is_new=is_new)
        return
    with pytest.raises(DiskReserved, match=r"less than 1000000 bytes free\); delete tasks"):
        guard.require_room(size, is_new=is_new)


def test_without_a_reserve_a_full_disk_is_full_all_the_same() -> None:
    for free, is_full in ((SMALL - 1, True), (SMALL, False)):
        guard = Guard(Path("tasks.db"), reserve=0, free=lambda directory, free=free: free)
        assert (guard.refusal() is not None) is is_full


def test_a_disk_that_does_not_tell_is_left_to_the_write(tmp_path: Path) -> None:
    guard = Guard(tmp_path / "nowhere" / "tasks.db")
    guard.require_room(0, is_new=True)
    assert guard.refusal() is None


def test_the_reason_stands_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    disk = Disk(0)
    guard = disk.guard(Path("tasks.db"))
    for _ in range(3):
        assert guard.refusal() == "The disk of tasks.db has less than 1000000 bytes free: new work is refused"
    disk.free = RESERVE
    assert guard.refusal() is None
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_a_lost_file_comes_first() -> None:
    guard = Guard(Path("tasks.db"), loss=lambda: "it is gone", reserve=2**62)
    guard.failure = "disk full"
    assert guard.refusal() == "it is gone"
    with pytest.raises(DatabaseLost, match="it is gone"):
        guard.require_file()


@pytest.mark.asyncio
async def test_on_a_nearly_full_disk_work_ends_and_is_deleted_but_none_begins(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    migrate(path)
    disk = Disk(2 * RESERVE)
    writer = WriteQueue(WriterThread(path, guard=disk.guard(path)))
    await writer.start()
    first = created("a")
    await writer.submit(first)
    disk.free = RESERVE - 1
    small, new, job = started(first.head, first.tasks[0]), created("b"), writer.submit(lambda connection: "deleted")

    answers = await asyncio.gather(writer.submit(small), writer.submit(new), job, return_exceptions=True)

    assert (answers[0], answers[2]) == (None, "deleted")
    assert isinstance(answers[1], DiskReserved)
    disk.free = 2 * RESERVE
    await writer.submit(created("b"))
    await writer.close()


@pytest.mark.asyncio
async def test_after_a_failed_write_one_is_tried_until_it_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else would try: `readyz` keeps callers away."""
    path = tmp_path / "tasks.db"
    migrate(path)
    monkeypatch.setattr(writer_module, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(writer_module, "BUSY_TIMEOUT", "PRAGMA busy_timeout=0")
    monkeypatch.setattr(writer_module, "PRAGMAS", (writer_module.BUSY_TIMEOUT, *writer_module.PRAGMAS[1:]))
    tried, recovered, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    class Watched(Guard):
        def refusal(self) -> str | None:
            reason = super().refusal()
            if self._was_refused:
                loop.call_soon_threadsafe(recovered.set if reason is None else tried.set)
            self._was_refused = reason is not None
            return reason

        _was_refused = False

    guard = Watched(path)
    writer = WriteQueue(WriterThread(path, guard=guard))
    await writer.start()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable):
        await writer.submit(created("a"))
    assert guard.refusal() == "The database cannot be written at this moment (SQLITE_BUSY)"
    await asyncio.wait_for(tried.wait(), 10)
    other.execute("ROLLBACK")
    other.close()
    async with asyncio.timeout(10):
        await recovered.wait()
    await writer.submit(created("a"))
    await writer.close()
