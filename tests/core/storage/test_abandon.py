"""A storage whose event loop is gone lets go of its file, and another loop opens it again."""

import asyncio
import os
from pathlib import Path

import pytest

from core.model.errors import DatabaseInUse
from core.storage.base import Storage
from core.storage.memory import MemoryStorage
from core.storage.sqlite.sql import SqlStorage
from tests.core.storage.samples import created


def in_a_loop_that_is_closed(storage: Storage, tree_id: str) -> None:
    async def use() -> None:
        await storage.open()
        await storage.append(created(tree_id))
        assert await storage.head(tree_id) is not None

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    loop.close()


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_what_was_acknowledged_is_there_in_the_next_loop(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    storage: Storage = SqlStorage(str(tmp_path / "tasks.db")) if kind == "file" else MemoryStorage()
    for n in range(3):
        in_a_loop_that_is_closed(storage, f"t{n}")
        storage.abandon()
        storage.abandon()

    async def look() -> list[str]:
        await storage.open()
        found = [n for n in ("t0", "t1", "t2") if await storage.head(n) is not None]
        await storage.close()
        return found

    assert asyncio.run(look()) == ["t0", "t1", "t2"]
    assert caplog.messages == []


def test_a_forked_child_leaves_its_parents_connections_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    in_a_loop_that_is_closed(storage, "t")
    writer, reader = storage._writer, storage._reader
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        storage.abandon()
    with pytest.raises(DatabaseInUse) as refusal:
        asyncio.run(SqlStorage(str(tmp_path / "tasks.db")).open())
    assert refusal.value.is_own
    storage._writer, storage._reader = writer, reader
    storage.abandon()
