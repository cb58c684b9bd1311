"""The database's file held by its inode (`core.storage.sqlite.held`): by whatever name, once; and its loss is seen."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.model.errors import DatabaseInUse, DatabaseLost, StorageError
from core.storage.sqlite.held import HeldFile
from core.storage.sqlite.lock import DatabaseLock
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created

HOLD = """
import sys
from pathlib import Path
from core.model.errors import DatabaseInUse
from core.storage.sqlite.lock import DatabaseLock
try:
    DatabaseLock(Path(sys.argv[1]), creates=True).acquire()
except DatabaseInUse as error:
    print(error)
"""


def other_process(path: Path) -> str:
    """What another process is told that wants the database."""
    done = subprocess.run([sys.executable, "-c", HOLD, str(path)], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def hard_link(database: Path) -> Path:
    other = database.with_name("other.db")
    os.link(database, other)
    return other


def lost_lock(database: Path) -> Path:
    database.with_name(f"{database.name}.lock").unlink()
    return database


@pytest.mark.skipif(sys.platform != "linux", reason="other systems mix flock up with SQLite's own locks")
@pytest.mark.parametrize("way", [hard_link, lost_lock])
@pytest.mark.asyncio
async def test_another_process_is_refused_by_every_name_of_the_file(
    tmp_path: Path, way: Callable[[Path], Path]
) -> None:
    """Found from outside: two servers wrote one file by two names and lost acknowledged tasks."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    name = way(storage.path)
    await storage.append(created("a"))  # SQLite's own locks do not touch ours

    assert other_process(name) == f"The database {name} is in use by another process, under this or another name"

    await storage.append(created("b"))
    await storage.close()
    assert other_process(name) == ""


@pytest.mark.asyncio
async def test_the_same_process_is_refused_by_another_name(tmp_path: Path) -> None:
    """The file is not opened for that: closing it would take SQLite's own locks away."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    other = hard_link(storage.path)
    with pytest.raises(DatabaseInUse, match=f"is in use by process {os.getpid()}"):
        await SqlStorage(str(other)).open()
    await storage.close()


def test_a_refused_lock_leaves_nothing_held(tmp_path: Path) -> None:
    first, second = DatabaseLock(tmp_path / "a.db", creates=True), DatabaseLock(tmp_path / "b.db", creates=True)
    first.acquire()
    os.link(tmp_path / "a.db", tmp_path / "b.db")
    with pytest.raises(DatabaseInUse):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_file_that_cannot_be_made_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"tasks\.db cannot be opened: No such file or directory"):
        HeldFile(tmp_path / "nowhere" / "tasks.db").hold()


def test_a_file_that_is_not_held_is_not_lost(tmp_path: Path) -> None:
    held = HeldFile(tmp_path / "tasks.db")
    assert (held.identity, held.loss()) == ("", None)
    held.release()
    held.release()


def remove(file: Path) -> None:
    file.unlink()


def rename(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))


def replace(file: Path) -> None:
    copy = file.with_name("copy")
    copy.write_bytes(file.read_bytes())
    os.replace(copy, file)


def link_away(file: Path) -> None:
    """A link in its place that leads to another file."""
    file.rename(file.with_name("elsewhere"))
    file.with_name("copy").write_bytes(b"")
    file.symlink_to(file.with_name("copy"))


@pytest.mark.parametrize(
    ("way", "told"),
    [
        (remove, "was removed"),
        (rename, "was removed"),
        (replace, "was replaced by another file"),
        (link_away, "was replaced by another file"),
    ],
)
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.asyncio
async def test_writes_are_refused_once_a_file_of_the_database_is_gone(
    tmp_path: Path, way: Callable[[Path], None], told: str, suffix: str
) -> None:
    """Found from outside: with the file removed, work was acknowledged and lost."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    await storage.append(created("kept"))
    assert storage.refusal() is None

    way(tmp_path / f"tasks.db{suffix}")

    message = f"The file tasks.db{suffix} {told} while the server was using it; put it back, or restart the server"
    assert storage.refusal() == message
    for write in (storage.append(created("lost")), storage.delete("kept")):
        with pytest.raises(DatabaseLost) as caught:
            await write
        assert str(caught.value) == message
    await storage.close()


@pytest.mark.asyncio
async def test_writes_go_on_when_the_file_is_put_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    storage.path.rename(tmp_path / "away")
    for _ in range(3):
        with pytest.raises(DatabaseLost):
            await storage.append(created("a"))
    (tmp_path / "away").rename(storage.path)
    await storage.append(created("a"))
    assert storage.refusal() is None
    await storage.close()
    assert [record.levelname for record in caplog.records if "writes to" in record.message] == ["ERROR", "WARNING"]


@pytest.mark.asyncio
async def test_the_log_of_a_replaced_database_is_not_left_to_the_one_in_its_place(tmp_path: Path) -> None:
    """SQLite would apply it to whatever file has the name at the next start."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    await storage.append(created("a"))
    assert (tmp_path / "tasks.db-wal").stat().st_size > 0
    replace(storage.path)
    with pytest.raises(DatabaseLost):
        await storage.append(created("b"))
    assert (tmp_path / "tasks.db-wal").stat().st_size == 0
    await storage.close()


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nowhere/t\.db cannot be opened: No such file"):
        HeldFile(tmp_path / "nowhere" / "t.db").hold()


def test_a_file_that_another_descriptor_has_locked_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.db"
    with path.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DatabaseInUse, match="under this or another name"):
            HeldFile(path).hold()
        monkeypatch.setattr(sys, "platform", "darwin")  # where flock and SQLite's own locks are one
        held = HeldFile(path)
        held.hold()
        found = os.stat(path)
        assert held.identities() == [(found.st_dev, found.st_ino)]
        held.release()
