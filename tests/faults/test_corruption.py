"""R13: a file damaged while stopped is refused, or has errors in its rows, or serves what it served before."""

import asyncio
import logging
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.model.errors import StorageError
from core.storage.base import DocumentQuery, EventQuery, TaskQuery, TreeQuery
from core.storage.sqlite import sql
from core.storage.sqlite.sql import SqlStorage
from tests.faults.report import report
from tests.faults.test_failpoints import seeded

DAMAGES = int(os.environ.get("CORRUPTIONS", "100"))
OWNERS = ("ann", "bob")
TREES = 30
LARGE = 8  # files that count as large
FILE, LOG = "tasks.db", "tasks.db-wal"
PAGE = 4096
LOG_HEADER, FRAME_HEADER = 32, 24  # bytes: SQLite's WAL file format

# Trees in the database, more in the log, and an end without goodbye.
WORK = """
import asyncio, os, sys
from core.storage.base import Document
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created, finished, started

async def main():
    for half in (0, 1):
        storage = SqlStorage(sys.argv[1])
        await storage.open()
        for n in range(15 * half, 15 * half + 15):
            tree = created(f"tree{n}", 1 + n % 4, owner=("ann", "bob")[n % 2], created_at=1000.0 + n)
            start = started(tree.head, tree.tasks[0])
            await storage.append(tree)
            await storage.append(start)
            owner, tree_id = tree.head.owner, tree.head.id
            note = Document(kind="note", id=f"note{n}", owner=owner, tree_id=tree_id, at=float(n), body=b"1")
            await storage.put_documents(note)
            await storage.append(finished(start.head))
        if half == 0:
            await storage.close()
    os._exit(0)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a server left it that was killed: a database, its log and the note of its commits."""
    folder = tmp_path_factory.mktemp("stopped")
    subprocess.run([sys.executable, "-c", WORK, str(folder / FILE)], check=True)
    assert (folder / FILE).stat().st_size > 10 * PAGE and (folder / LOG).stat().st_size > 10 * PAGE
    (folder / f"{FILE}-shm").unlink()
    return folder


async def served(path: Path) -> dict[str, Any]:
    """Everything that callers can read, by whose call; a row error in place of what has one. Raises StorageError."""
    storage = SqlStorage(str(path))
    await storage.open()
    found: dict[str, Any] = {}
    try:
        for owner in OWNERS:
            found[f"trees of {owner}"] = await storage.trees(TreeQuery(owner=owner, limit=100))
            found[f"tasks of {owner}"] = await storage.tasks(TaskQuery(owner=owner, root_only=False, limit=200))
            found[f"notes of {owner}"] = await storage.documents(DocumentQuery(kind="note", owner=owner))
            for n in range(TREES):
                found[f"{owner}'s tree {n}"] = await told(storage.head(f"tree{n}", owner=owner))
                found[f"{owner}'s task {n}"] = await told(storage.task(f"tree{n}", owner=owner))
        found["live"] = await storage.live_trees()
        for n in range(TREES):
            found[f"tree {n}"] = await told(storage.load(f"tree{n}"))
            found[f"log {n}"] = await told(storage.events(EventQuery(tree_id=f"tree{n}")))
            found[f"note {n}"] = await told(storage.document("note", f"note{n}"))
        return found
    finally:
        await storage.close()


ROW_ERROR = "an error"


async def told(read: Any) -> Any:
    try:
        return await read
    except StorageError:
        return ROW_ERROR


def flip(image: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8))):
        image[chance.randrange(len(image))] ^= 1 << chance.randrange(8)


def truncate(image: bytearray, chance: random.Random) -> None:
    del image[chance.randrange(len(image)) :]


def swap(image: bytearray, chance: random.Random) -> None:
    one, other = (PAGE * n for n in chance.sample(range(len(image) // PAGE), 2))
    image[one : one + PAGE], image[other : other + PAGE] = image[other : other + PAGE], image[one : one + PAGE]


HARMS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, flip, truncate, swap)


async def outcomes(stopped: Path, folder: Path, chance: random.Random, caplog: pytest.LogCaptureFixture) -> list[str]:
    """For each damage: refused, row error, harmless, or what was told wrongly."""
    whole = folder / "whole"
    shutil.copytree(stopped, whole)
    truth = await served(whole / FILE)
    found = []
    for n in range(DAMAGES):
        harm, name = chance.choice(HARMS), chance.choice((FILE, LOG))
        copy = folder / str(n)
        shutil.copytree(stopped, copy)
        image = bytearray((copy / name).read_bytes())
        harm(image, chance)
        (copy / name).write_bytes(image)
        caplog.clear()
        try:
            now = await served(copy / FILE)
        except StorageError:
            found.append("refused")
            continue
        wrong = [what for what, value in now.items() if value not in (ROW_ERROR, truth[what])]
        has_errors = ROW_ERROR in now.values() or "corrupt" in caplog.text
        if not wrong:
            found.append("row error" if has_errors else "harmless")
        elif has_errors and all("of " in what for what in wrong):
            found.append("row error")  # a corrupt row is left out of the lists, with an error in the log
        else:
            found.append(f"{harm.__name__} of {name}: {', '.join(wrong[:3])}")
        shutil.rmtree(copy)
    return found


VERDICTS = ("refused", "row error", "harmless")


@pytest.mark.asyncio
async def test_damage_is_told_or_harmless(stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    caplog.set_level(logging.ERROR)

    found = await outcomes(stopped, tmp_path, random.Random(seed), caplog)

    silent = [each for each in found if each not in VERDICTS]
    counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in VERDICTS)
    report(
        "R13",
        "damage while stopped, of a file that is checked at the start (8 MiB at most)",
        f"{len(found)} damages: {counts}, {len(silent)} silently wrong",
        seed=seed,
    )
    assert silent == []
    assert found.count("refused") > DAMAGES / 4


@pytest.mark.asyncio
async def test_without_the_check_at_start_damage_is_served(
    stopped: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: checksums of rows alone do not see lost rows."""
    monkeypatch.setattr(sql, "require_whole", lambda path, seconds: True)
    caplog.set_level(logging.ERROR)

    found = await outcomes(stopped, tmp_path, random.Random(1), caplog)

    silent = [each for each in found if each not in VERDICTS]
    report("R13", "control without the check at start", f"{len(silent)} of {len(found)} silently wrong")
    assert silent != []


async def whole_copy(stopped: Path, folder: Path) -> Path:
    """A database without a log."""
    shutil.copytree(stopped, folder)
    storage = SqlStorage(str(folder / FILE))
    await storage.open()
    await storage.close()
    return folder / FILE


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            "UPDATE trees SET owner = 'eve' WHERE id = 'tree2'",
            "the owner of tree2 in trees|stored tree tree2 is corrupt",
        ),
        ("UPDATE trees SET is_live = 1 WHERE id = 'tree2'", "the is_live of tree2"),
        ("UPDATE tasks SET owner = 'eve' WHERE id = 'tree2'", "stored task tree2 is corrupt"),
        ("UPDATE tasks SET owner = CAST(x'ff' AS TEXT) WHERE id = 'tree2'", "stored task tree2 is corrupt"),
        ("UPDATE tasks SET tree_id = 'tree3' WHERE id = 'tree2'", "the tree_id of tree2"),
        ("UPDATE tasks SET status = 'failed' WHERE id = 'tree2'", "the status of tree2"),
        ("UPDATE documents SET owner = 'eve' WHERE id = 'note2'", "stored note note2 is corrupt"),
        ("UPDATE documents SET at = 77 WHERE id = 'note2'", "stored note note2 is corrupt"),
        ("UPDATE events SET kind = 'x' WHERE tree_id = 'tree2' AND seq = 2", "the kind of tree2 2 in events"),
        ("DELETE FROM events WHERE tree_id = 'tree2' AND seq = 2", "log of tree tree2 has gaps"),
        ("DELETE FROM tasks WHERE id = 'tree2'", "tree tree2 has 2 tasks of 3"),
        ("DELETE FROM trees WHERE id = 'tree2'", "rows of tasks belong to no tree"),
        ("PRAGMA user_version = 3", "last commits are missing"),
    ],
)
@pytest.mark.asyncio
async def test_a_column_that_decides_something_cannot_change_unnoticed(
    stopped: Path, tmp_path: Path, statement: str, told: str
) -> None:
    path = await whole_copy(stopped, tmp_path / "copy")
    connection = sqlite3.connect(path)
    connection.execute(statement)
    connection.commit()
    connection.close()

    with pytest.raises(StorageError, match=told):
        await SqlStorage(str(path)).open()


@pytest.mark.asyncio
async def test_a_row_of_another_owner_is_not_served_although_its_column_says_so(stopped: Path, tmp_path: Path) -> None:
    """A flip that happens while the server runs, after the check at start."""
    storage = SqlStorage(str(await whole_copy(stopped, tmp_path / "copy")))
    await storage.open()
    foreign = sqlite3.connect(storage.path, isolation_level=None)
    for table in ("trees", "tasks", "documents"):
        assert foreign.execute(f"UPDATE {table} SET owner = 'eve' WHERE owner = 'ann'").rowcount > 0
    foreign.close()

    with pytest.raises(StorageError, match="corrupt"):
        await storage.head("tree2", owner="eve")
    with pytest.raises(StorageError, match="corrupt"):
        await storage.task("tree2", owner="eve")
    assert (await storage.trees(TreeQuery(owner="eve"))).heads == ()
    assert await storage.tasks(TaskQuery(owner="eve")) == []
    assert await storage.documents(DocumentQuery(kind="note", owner="eve")) == []
    await storage.close()


@pytest.mark.asyncio
async def test_a_text_that_is_no_utf8_keeps_nobody_from_the_other_rows(stopped: Path, tmp_path: Path) -> None:
    """sqlite3 itself refuses the whole list, with an error that has no code."""
    storage = SqlStorage(str(await whole_copy(stopped, tmp_path / "copy")))
    await storage.open()
    everyone = TreeQuery(owner=None, limit=100)
    before = (await storage.trees(everyone)).heads
    foreign = sqlite3.connect(storage.path, isolation_level=None)
    assert foreign.execute("UPDATE trees SET owner = CAST(x'ff' AS TEXT) WHERE id = 'tree2'").rowcount == 1
    foreign.close()

    assert (await storage.trees(everyone)).heads == tuple(head for head in before if head.id != "tree2")
    with pytest.raises(StorageError, match="tree2 is corrupt"):
        await storage.head("tree2")
    await storage.close()


@pytest.mark.asyncio
async def test_the_last_acknowledged_commit_cannot_vanish_from_the_log(stopped: Path, tmp_path: Path) -> None:
    """SQLite itself takes a log with a damaged end for one that a power cut left unfinished."""
    copy = tmp_path / "copy"
    shutil.copytree(stopped, copy)
    log = copy / LOG
    log.write_bytes(log.read_bytes()[:-1])

    with pytest.raises(StorageError, match="its last commits are missing"):
        await SqlStorage(str(copy / FILE)).open()

    (copy / f"{FILE}.commits").unlink()
    storage = SqlStorage(str(copy / FILE))
    await storage.open()
    assert await storage.head("tree29") is not None
    (tree,) = [head for head in (await storage.trees(TreeQuery(owner="bob", limit=100))).heads if head.id == "tree29"]
    assert tree.is_live, "the loss of its end is accepted"
    await storage.close()


@pytest.mark.asyncio
async def test_a_note_that_is_damaged_or_old_accuses_nobody(stopped: Path, tmp_path: Path) -> None:
    for n, note in enumerate((b"", b"12345678", b"\0" * 8)):
        copy = tmp_path / str(n)
        shutil.copytree(stopped, copy)
        (copy / f"{FILE}.commits").write_bytes(note)
        storage = SqlStorage(str(copy / FILE))
        await storage.open()
        assert (head := await storage.head("tree29")) is not None and not head.is_live
        await storage.close()


@pytest.mark.asyncio
async def test_damage_of_a_large_file_is_found_beside_the_work(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What keeps a small one from being opened: either at once, or as soon as the file was read."""
    _, chance = seeded()
    logged = pages_of_the_log(stopped / LOG)
    of_the_file = range(1, (stopped / FILE).stat().st_size // PAGE)
    kept = [page for page in of_the_file if page not in logged]
    for n in range(LARGE):
        is_kept = n % 2 == 0  # the log has a newer one of each other page, unless it is drawn by chance
        small = tmp_path / f"small{n}"
        shutil.copytree(stopped, small)
        harm_page(small / FILE, chance.choice(kept if is_kept else of_the_file))
        large = tmp_path / f"large{n}"
        shutil.copytree(small, large)
        was_refused = await refuses(small / FILE)
        with monkeypatch.context() as patch:
            patch.setattr(sql, "SMALL_FILE", 0)
            assert await refuses(large / FILE) is was_refused
        assert was_refused or not is_kept


async def refuses(path: Path) -> bool:
    """Whether the storage does not open, or is not ready once it was checked."""
    storage = SqlStorage(str(path))
    try:
        await storage.open()
    except StorageError:
        return True
    await asyncio.to_thread(storage.inspection.ended)
    found = storage.refusal()
    await storage.close()
    return found is not None


def pages_of_the_log(path: Path) -> set[int]:
    """The pages, counted from 0, that SQLite reads from the log in place of the database's."""
    log = path.read_bytes()
    return {int.from_bytes(log[at : at + 4], "big") - 1 for at in range(LOG_HEADER, len(log), FRAME_HEADER + PAGE)}


def harm_page(path: Path, page: int) -> None:
    """Turn a page of the database around."""
    written = bytearray(path.read_bytes())
    at = page * PAGE
    written[at : at + PAGE] = written[at : at + PAGE][::-1]
    path.write_bytes(written)
