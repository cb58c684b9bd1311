"""Copies of a database and their return (`core.storage.sqlite.backup`)."""

import asyncio
import errno
import os
import resource
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile
from typing import Any

import pytest

from core.model.errors import DatabaseInUse, StorageError
from core.storage.sqlite import backup
from core.storage.sqlite.backup import back_up, restore
from core.storage.sqlite.integrity import examine
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created, harm
from tests.faults.report import report

ROUNDS = 5
MANY = 50  # trees that are written between two copies, at least; a checkpoint is due after some hundreds


async def backed_up(folder: Path) -> tuple[Path, Path]:
    """A stopped database with one tree, `kept`, and its backup."""
    storage = SqlStorage(str(folder / "tasks.db"))
    await storage.open()
    await storage.append(created("kept"))
    back_up(storage.path, folder / "copy.db")
    await storage.close()
    return storage.path, folder / "copy.db"


async def trees(path: Path) -> set[str]:
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.close()
    connection = sqlite3.connect(path)
    ids = {tree_id for (tree_id,) in connection.execute("SELECT id FROM trees")}
    connection.close()
    return ids


async def round_trips(folder: Path, copy_to: Callable[[Path, Path], Any]) -> int:
    """Copied while trees are written, put back after the end, served as it was; how many trees were written."""
    storage = SqlStorage(str(folder / "tasks.db"))
    await storage.open()
    acknowledged: list[str] = []
    is_over = False
    news = asyncio.Event()

    async def load(worker: int) -> None:
        n = 0
        while not is_over:
            await storage.append(created(f"{worker}.{n}", 3))
            acknowledged.append(f"{worker}.{n}")
            news.set()
            n += 1

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(load(worker)) for worker in range(8)]
        copies = []
        for n in range(ROUNDS):
            while len(acknowledged) < MANY * (n + 1):
                news.clear()
                await news.wait()
            before = set(acknowledged)
            verdict = await asyncio.to_thread(examine, storage.path)
            assert (verdict.problems, verdict.is_complete) == ((), True), "a check beside the writer"
            await asyncio.to_thread(copy_to, storage.path, folder / f"copy{n}.db")
            copies.append((folder / f"copy{n}.db", before, set(acknowledged)))
        is_over = True
    assert all(worker.done() for worker in workers)
    with pytest.raises(DatabaseInUse):
        restore(copies[0][0], storage.path)
    await storage.close()

    for copy, before, after in copies:
        restore(copy, storage.path)
        found = await trees(storage.path)
        # What was written last may be in the copy before its maker has heard of it.
        assert before <= found and len(found - after) <= 8
    return len(acknowledged)


@pytest.mark.asyncio
async def test_a_backup_under_load_has_all_that_was_acknowledged_before_it(tmp_path: Path) -> None:
    written = await round_trips(tmp_path, back_up)
    report("R13", "backup and restore under load", f"{ROUNDS} of {ROUNDS} round trips, {written} trees written")


@pytest.mark.asyncio
async def test_a_copy_of_the_file_alone_is_no_backup(tmp_path: Path) -> None:
    """The positive control: it lacks what is in the log, and may be torn."""
    with pytest.raises((AssertionError, StorageError)):
        await round_trips(tmp_path, copyfile)


@pytest.mark.asyncio
async def test_what_is_restored_has_nothing_of_the_logs_of_what_it_replaces(tmp_path: Path) -> None:
    path, copy = tmp_path / "tasks.db", tmp_path / "copy.db"
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.append(created("old"))
    back_up(path, copy)
    await storage.append(created("new"))
    log = (tmp_path / "tasks.db-wal").read_bytes()
    await storage.close()
    (tmp_path / "tasks.db-wal").write_bytes(log)  # as a kill would have left it

    restore(copy, path)

    assert await trees(path) == {"old"}


@pytest.mark.asyncio
async def test_a_damaged_backup_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path, copy = await backed_up(tmp_path)
    harm(copy, "UPDATE tasks SET owner = 'eve'")
    before = path.read_bytes()

    with pytest.raises(StorageError, match="damaged"):
        restore(copy, path)

    assert path.read_bytes() == before
    assert not any("part" in name for name in os.listdir(tmp_path))


@pytest.mark.asyncio
async def test_a_restore_that_fails_at_its_last_step_leaves_what_was_only_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log goes before the file is replaced, and its commits must not go with it."""
    path, copy = tmp_path / "tasks.db", tmp_path / "copy.db"
    storage = SqlStorage(str(path))
    await storage.open()
    back_up(path, copy)
    await storage.append(created("logged"))
    image, log = path.read_bytes(), (tmp_path / "tasks.db-wal").read_bytes()
    await storage.close()
    path.write_bytes(image)  # as a kill would have left them
    (tmp_path / "tasks.db-wal").write_bytes(log)

    def full(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match=r"tasks\.db cannot be restored: Input/output error"):
            restore(copy, path)

    assert await trees(path) == {"logged"}


@pytest.mark.asyncio
async def test_what_a_killed_backup_or_restore_left_is_taken_away(tmp_path: Path) -> None:
    """Found by a mutant: files that a killed restore had left made the next one fail."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    await storage.append(created("kept"))
    before = set(os.listdir(tmp_path))
    killed = await asyncio.create_subprocess_exec("true")
    await killed.wait()
    for pid in (killed.pid, os.getpid()):  # in a container each process may have the number of the one before
        for suffix in ("", "-journal", "-wal", "-shm"):
            (tmp_path / f"copy.db.{pid}.part{suffix}").write_bytes(b"left" * 500)
    others = {"copy.db.notes.part", f"copy.db.{os.getppid()}.part"}
    for name in others:
        (tmp_path / name).touch()

    back_up(storage.path, tmp_path / "copy.db")

    assert set(os.listdir(tmp_path)) == {*before, "copy.db", *others}
    for name in others:
        (tmp_path / name).unlink()
    await storage.close()
    for suffix in ("", "-journal", "-shm"):
        (tmp_path / f"tasks.db.part{suffix}").write_bytes(b"left" * 500)

    restore(tmp_path / "copy.db", storage.path)

    assert {name for name in os.listdir(tmp_path) if "part" in name} == set()
    assert await trees(storage.path) == {"kept"}


@pytest.mark.asyncio
async def test_a_damaged_database_is_replaced(tmp_path: Path) -> None:
    path, copy = await backed_up(tmp_path)
    path.write_bytes(b"nothing of use" * 1000)

    restore(copy, path)

    assert await trees(path) == {"kept"}


def test_what_is_no_database_of_ours_is_neither_copied_nor_restored(tmp_path: Path) -> None:
    foreign, text, absent = tmp_path / "foreign.db", tmp_path / "text.db", tmp_path / "absent.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    text.write_text("not a database, although it is long enough for one" * 100)
    path, not_ours = (
        tmp_path / "tasks.db",
        "The source is not a database of this program, or has a newer version",
    )
    for source, uncopied, unrestored in (
        (foreign, not_ours, not_ours),
        (
            text,
            f"The database {text} cannot be copied: file is not a database",
            "The copy would be damaged: the file cannot be read: file is not a database",
        ),
        (
            absent,
            f"The database {absent} cannot be copied: unable to open database file",
            f"The backup does not exist: {absent}",
        ),
    ):
        with pytest.raises(StorageError) as told:
            back_up(source, tmp_path / "copy.db")
        assert str(told.value) == uncopied
        with pytest.raises(StorageError) as told:
            restore(source, path)
        assert str(told.value) == unrestored
    assert {path.name for path in tmp_path.iterdir()} <= {"foreign.db", "text.db", "tasks.db.lock"}


@pytest.mark.asyncio
async def test_a_backup_takes_nobodys_place(tmp_path: Path) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    await storage.close()
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(StorageError, match="exists already"):
        back_up(storage.path, tmp_path / "copy.db")
    with pytest.raises(StorageError, match="cannot be written"):
        back_up(storage.path, tmp_path / "no such folder" / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"


@pytest.mark.asyncio
async def test_a_backup_may_be_put_where_there_is_no_database_yet(tmp_path: Path) -> None:
    path, copy, new = tmp_path / "tasks.db", tmp_path / "copy.db", tmp_path / "new" / "tasks.db"
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.append(created("kept"))
    size = back_up(path, copy)
    await storage.close()
    assert size == copy.stat().st_size
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    new.parent.mkdir()

    assert restore(copy, new) == size
    assert stat.S_IMODE(new.stat().st_mode) == 0o600

    assert await trees(new) == {"kept"}
    assert set(os.listdir(tmp_path)) == {
        "tasks.db",
        "tasks.db.lock",
        "tasks.db.commits",
        "copy.db",
        "new",
    }


@pytest.mark.asyncio
async def test_a_restore_for_which_the_disk_has_no_room_leaves_the_database_as_it_was(tmp_path: Path) -> None:
    path, copy = await backed_up(tmp_path)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match=r"tasks\.db cannot be restored: File too large"):
            restore(copy, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert path.read_bytes() == before
    assert not any("part" in name for name in os.listdir(tmp_path))
    assert await trees(path) == {"kept"}


@pytest.mark.asyncio
async def test_a_database_whose_log_is_needed_is_no_backup(tmp_path: Path) -> None:
    """What a killed server leaves: without the log the last commits would be gone, and nobody told."""
    path, copy = tmp_path / "tasks.db", tmp_path / "raw.db"
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.append(created("kept"))
    for suffix in ("", "-wal"):
        copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    await storage.close()

    for given in (copy, path):
        with pytest.raises(StorageError, match="is a database in use, not a backup"):
            restore(given, path)
    assert await trees(path) == {"kept"}


@pytest.mark.asyncio
async def test_a_database_that_lacks_its_last_commits_is_not_copied(tmp_path: Path) -> None:
    """The copy would be whole, and nobody would know of what it lacks."""
    path = tmp_path / "tasks.db"
    storage = SqlStorage(str(path))
    await storage.open()
    await storage.append(created("first"))
    files = (path, tmp_path / "tasks.db-wal")
    saved = [file.read_bytes() for file in files]
    await storage.append(created("last"))
    noted = (tmp_path / "tasks.db.commits").read_bytes()
    await storage.close()
    for file, content in zip(files, saved, strict=True):  # a log that ends before what was acknowledged
        file.write_bytes(content)
    (tmp_path / "tasks.db.commits").write_bytes(noted)

    with pytest.raises(StorageError, match="lacks its last commits; run `a2a-server db check`"):
        back_up(path, tmp_path / "copy.db")

    assert not (tmp_path / "copy.db").exists()


def test_a_copy_that_another_one_has_made_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by a reader of the code: two backups into one file wrote into each other."""
    path, copy = asyncio.run(backed_up(tmp_path))
    other = tmp_path / "other.db"

    def made_meanwhile(part: Path) -> None:
        copyfile(copy, other)

    monkeypatch.setattr(backup, "_require_sound", made_meanwhile)
    with pytest.raises(StorageError, match="exists already"):
        back_up(path, other)
    assert other.read_bytes() == copy.read_bytes()


def test_processes_of_other_users_are_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int, signal: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert backup._is_alive(1)
