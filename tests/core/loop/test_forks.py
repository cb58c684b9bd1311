"""What a forked child lets go of (`core.loop.forks`), and that a database is among it."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core.loop.forks import let_go
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created


def told_by_child(say: Callable[[], str]) -> str:
    """What the function says in a forked child of this process."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:  # pragma: no cover - the child
        try:
            os.write(writing, say().encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading) as pipe:
        return pipe.read()


def names() -> list[str]:
    """Which files this process holds open."""
    numbers = os.listdir("/proc/self/fd")
    return [os.readlink(f"/proc/self/fd/{number}") for number in numbers if os.path.exists(f"/proc/self/fd/{number}")]


def test_what_matches_becomes_nothing_and_the_rest_stays(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("gone", "kept")]
    gone, kept = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
    identity = os.fstat(gone).st_ino

    def say() -> str:
        let_go(lambda number, found: found.st_ino == identity)
        here = [os.path.realpath(f"/proc/self/fd/{number}") for number in (gone, kept)]
        return f"{here} {os.get_inheritable(gone)}"

    assert told_by_child(say) == f"{['/dev/null', str(paths[1])]} False"
    os.close(gone)
    os.close(kept)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.asyncio
async def test_a_forked_child_holds_nothing_of_the_database(tmp_path: Path) -> None:
    """Nor do its parent's connections work on: SQLite would tidy the log up."""
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    await storage.append(created("a"))
    ours = {name for name in names() if "tasks.db" in name}
    assert {Path(name).name for name in ours} == {
        "tasks.db", "tasks.db-wal", "tasks.db-shm", "tasks.db.lock", "tasks.db.commits",
    }  # fmt: skip

    assert told_by_child(lambda: str([name for name in names() if "tasks.db" in name])) == "[]"

    assert {name for name in names() if "tasks.db" in name} == ours
    await storage.append(created("b"))
    await storage.close()
