"""R2: what was acknowledged survives a power cut, at every moment of the writer's work. The control loses some."""

import os
import random
import sqlite3
from pathlib import Path

import pytest

from core.storage.base import EventQuery
from core.storage.sqlite import writer_thread as writer_module
from core.storage.sqlite.migrate import migrate
from core.storage.sqlite.sql import SqlStorage
from core.storage.write_queue import WriteQueue
from tests.core.storage.samples import created, finished, started
from tests.faults.power import Cut, Disk, PoweredWriter, PowerVfs
from tests.faults.report import report

CUTS = int(os.environ.get("POWER_CUTS", "100"))
TREES = 150
FILE = "tasks.db"


async def work(path: Path, disk: Disk) -> None:
    """Trees are created, started and finished, a few at a time, over several checkpoints."""
    migrate(path)
    vfs = PowerVfs(disk)
    writer = WriteQueue(PoweredWriter(path, disk))
    await writer.start()
    for n in range(TREES):
        tree = created(f"tree {n}", 1 + n % 4)
        start = started(tree.head, tree.tasks[0])
        futures = [writer.submit(append) for append in (tree, start, finished(start.head))]
        if n % 3 == 0:
            for future in futures:
                await future
    await writer.close()
    vfs.unregister()


async def survivors(folder: Path) -> dict[str, int]:
    """The version of every tree that a server finds in the file; raises when it is corrupt."""
    path = folder / FILE
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ids = [tree_id for (tree_id,) in connection.execute("SELECT id FROM trees")]
    connection.close()
    storage = SqlStorage(str(path))
    await storage.open()
    try:
        found = {}
        for tree_id in ids:
            stored = await storage.load(tree_id)
            assert stored is not None
            head, tasks = stored
            assert len(tasks) == head.size
            assert [recorded.seq for recorded in await storage.events(EventQuery(tree_id=tree_id))] == list(
                range(1, head.version + 1)
            )
            found[tree_id] = head.version
        return found
    finally:
        await storage.close()


async def cuts_of(tmp_path: Path, chance: random.Random, *, fewest_syncs: float = TREES / 3) -> list[Cut]:
    """The disk at moments spread over all the work."""
    disk = Disk(())
    await work(tmp_path / "rehearsal.db", disk)
    assert disk.syncs >= fewest_syncs, "the writer hardly ever synced"
    disk = Disk(chance.sample(range(disk.operations // 20, disk.operations), CUTS))
    await work(tmp_path / FILE, disk)
    return disk.cuts


async def lost_at(cut: Cut, folder: Path, chance: random.Random, *, torn: bool) -> int:
    """How many acknowledged appends are not there after the cut."""
    cut.restore(folder, chance, torn=torn)
    found = await survivors(folder)
    return sum(found.get(tree_id, 0) < version for tree_id, version in cut.acknowledged)


@pytest.mark.asyncio
async def test_no_acknowledged_append_is_lost_and_nothing_is_corrupt(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed={seed}")
    chance = random.Random(seed)
    cuts = await cuts_of(tmp_path, chance)

    lost = [await lost_at(cut, tmp_path / str(n), chance, torn=n % 2 == 1) for n, cut in enumerate(cuts)]

    acknowledged = sum(len(cut.acknowledged) for cut in cuts)
    figures = f"{len(cuts)} cuts, {acknowledged} acknowledged appends, {sum(lost)} lost, 0 corrupt"
    report("R2", "power cuts, half of them torn", figures, seed=seed)
    assert len(cuts) > 0.9 * CUTS and acknowledged > 10 * CUTS
    assert sum(lost) == 0


@pytest.mark.asyncio
async def test_without_full_sync_the_cuts_lose_acknowledged_appends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The positive control: the same cuts tell synchronous=NORMAL from FULL."""
    normal = [pragma.replace("synchronous=FULL", "synchronous=NORMAL") for pragma in writer_module.PRAGMAS]
    monkeypatch.setattr(writer_module, "PRAGMAS", normal)
    chance = random.Random(1)
    cuts = (await cuts_of(tmp_path, chance, fewest_syncs=0))[:40]
    for cut in cuts:
        del cut.files[f"{FILE}.commits"]  # with the note of the commits a start would refuse such a file

    lost = [await lost_at(cut, tmp_path / str(n), chance, torn=n % 2 == 1) for n, cut in enumerate(cuts)]

    report("R2", "control with synchronous=NORMAL", f"{len(cuts)} cuts, {sum(each > 0 for each in lost)} with loss")
    assert sum(lost) > 0
