"""The quota of stored bytes (`core.run.stored`): counted once, added to, and counted again only where it matters."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from core.model.errors import QuotaExceeded
from core.run.stored import RECOUNT, StoredBytes
from core.storage.memory import MemoryStorage
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created


class Sizes(MemoryStorage):
    """Says how much each owner has, and counts who asks."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Counter[str] = Counter()
        self.appended: Counter[str] = Counter()
        self.asked: list[str] = []

    def written(self, owner: str) -> int:
        return self.appended[owner]

    async def stored(self, owner: str) -> int:
        self.asked.append(owner)
        await asyncio.sleep(0)
        return self.kept[owner]

    def append_bytes(self, owner: str, size: int) -> None:
        self.kept[owner] += size
        self.appended[owner] += size


class Bench:
    def __init__(self, most: int = 1000) -> None:
        self.now = 0.0
        self.storage = Sizes()
        self.stored = StoredBytes(self.storage, most, lambda: self.now)


@pytest.mark.asyncio
async def test_an_owner_at_its_quota_is_refused_and_others_are_not() -> None:
    bench = Bench()
    await bench.stored.require_room("ada")
    bench.storage.append_bytes("ada", 999)
    await bench.stored.require_room("ada")
    assert not bench.stored.is_full("ada")
    bench.storage.append_bytes("ada", 1)
    assert bench.stored.is_full("ada")
    with pytest.raises(QuotaExceeded, match=r"about 1000 bytes of 1000 allowed .*; delete tasks"):
        await bench.stored.require_room("ada")
    await bench.stored.require_room("bob")
    assert not bench.stored.is_full("nobody was counted")


@pytest.mark.asyncio
async def test_each_owner_is_counted_once_until_it_is_full() -> None:
    bench = Bench()
    for _ in range(100):
        await asyncio.gather(bench.stored.require_room("ada"), bench.stored.require_room("bob"))
        bench.storage.append_bytes("ada", 9)
    assert sorted(bench.storage.asked) == ["ada", "bob"]


@pytest.mark.asyncio
async def test_what_was_deleted_is_seen_after_a_while_and_refusals_count_nothing_before() -> None:
    bench = Bench()
    bench.storage.kept["ada"] = 2000
    for _ in range(50):
        with pytest.raises(QuotaExceeded):
            await bench.stored.require_room("ada")
    bench.storage.kept["ada"] = 10
    bench.now = RECOUNT - 0.1
    with pytest.raises(QuotaExceeded):
        await bench.stored.require_room("ada")
    assert len(bench.storage.asked) == 1
    bench.now = RECOUNT
    await asyncio.gather(*[bench.stored.require_room("ada") for _ in range(10)])
    assert len(bench.storage.asked) == 2
    assert not bench.stored.is_full("ada")


@pytest.mark.asyncio
async def test_without_a_quota_nobody_is_counted() -> None:
    bench = Bench(most=0)
    bench.storage.kept["ada"] = 10**18
    await bench.stored.require_room("ada")
    assert (bench.storage.asked, bench.stored.is_full("ada")) == ([], False)


@pytest.mark.asyncio
async def test_what_is_written_and_what_is_counted_agree(tmp_path: Path) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    assert (storage.written("ada"), await storage.stored("ada")) == (0, 0)
    for name in ("a", "b"):
        await storage.append(created(name, 3, owner="ada", metadata={"big": "x" * 1000}))
    await storage.append(created("c", 1, owner="bob"))
    ada, bob = await storage.stored("ada"), await storage.stored("bob")
    assert (storage.written("ada"), storage.written("bob")) == (ada, bob)
    assert ada > bob > 0
    await storage.delete("a")
    assert await storage.stored("ada") == ada // 2
    await storage.close()
    assert storage.written("ada") == ada
