"""What is PostgreSQL's own in the storage (`core.storage.postgres.storage` and `reader`); the rest is conformance."""

import asyncio
import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from core.model.errors import AnswerTooLarge, DatabaseInUse
from core.model.owners import owner_of
from core.storage.base import EventQuery, TaskQuery, TreeQuery
from core.storage.postgres.connect import cut
from core.storage.postgres.dialect import EVENT_QUERIES, QUERIES
from core.storage.postgres.storage import PostgresStorage
from core.storage.relational import storage as relational
from tests.core.storage.samples import created
from tests.core.storage.test_abandon import in_a_loop_that_is_closed
from tests.postgres_cluster import Cluster

ROOT = Path(__file__).parents[4]


def large(name: str, size: int, characters: int, **fields: Any) -> Any:
    """A tree whose tasks have inputs of so many characters."""
    append = created(name, size, **fields)
    return replace(append, tasks=tuple(replace(task, inputs={"x": "y" * characters}) for task in append.tasks))


def test_a_storage_whose_event_loop_is_gone_lets_go_and_opens_in_another(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    storage = PostgresStorage(postgres_url)
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
    gc.collect()
    assert caplog.messages == []


def test_a_forked_child_leaves_its_parents_connections_alone(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = PostgresStorage(postgres_url)
    in_a_loop_that_is_closed(storage, "t")
    lease, holder, writer, reader = storage._lease, storage._holder, storage._writer, storage._reader
    assert lease is not None and holder is not None and reader is not None
    connections = [lease._engine._connection, holder._connection, *[slot._connection for slot in reader.pool._slots]]
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: -1)
        storage.abandon()
    with pytest.raises(DatabaseInUse):
        asyncio.run(PostgresStorage(postgres_url).open())
    for connection in connections:
        if connection is not None:
            cut(connection)
    del writer


@pytest.mark.asyncio
async def test_a_page_ends_behind_the_bytes_that_it_may_have(
    storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        await storage.append(large(f"t{n}", 3, 1_000, created_at=float(n)))
    monkeypatch.setattr(relational, "LIST_BYTES", 3_000)

    with pytest.raises(AnswerTooLarge):
        await storage.tasks(TaskQuery(owner=None, tenant="", root_only=False))
    assert len(await storage.tasks(TaskQuery(owner=None, tenant="", limit=2))) == 2
    monkeypatch.setattr(relational, "LIST_BYTES", 500)
    with pytest.raises(AnswerTooLarge):
        await storage.children("t0")
    assert await storage.load("t0", most=1_000_000) is not None
    with pytest.raises(AnswerTooLarge):
        await storage.load("t0", most=1_000)


@pytest.mark.asyncio
async def test_a_page_of_trees_ends_early_and_has_more(
    storage: PostgresStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(3):
        await storage.append(created(f"t{n}", context_id="c" * 1_000, created_at=float(n)))
    monkeypatch.setattr(relational, "LIST_BYTES", 1_500)
    page = await storage.trees(TreeQuery(owner=None))
    assert ([head.id for head in page.heads], page.total, page.has_more) == (["t2", "t1"], 3, True)


@pytest.mark.asyncio
async def test_a_corrupt_row_is_left_out_of_lists(
    storage: PostgresStorage, postgres: Cluster, postgres_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "ab":
        await storage.append(created(name, 1, owner=owner_of("t", "ann")))
    harm = "UPDATE tasks SET state = 'x' WHERE id = 'a'; UPDATE trees SET body = 'x' WHERE id = 'a'"
    await asyncio.to_thread(postgres.sql, harm, postgres_database)
    assert [task.id for task in await storage.tasks(TaskQuery(owner=None))] == ["b"]
    assert [head.id for head in (await storage.trees(TreeQuery(owner=None, limit=1))).heads] == ["b"]
    assert "The stored task a is corrupt; it is left out" in caplog.text


@pytest.mark.parametrize("kind", ["head", "task"])
@pytest.mark.asyncio
async def test_a_row_that_does_not_exist_is_looked_up_as_a_foreign_one_is(storage: PostgresStorage, kind: str) -> None:
    """One plan for both: the row is found by its place, which is some other row's where no row has the id."""
    for name in "abc":
        await storage.append(created(name, 2, owner="ann"))
    one = QUERIES.one_head if kind == "head" else QUERIES.one_task

    async def buffers(row_id: str) -> int:
        sql, parameters = one(row_id, "eve", None)
        rows = await storage._reading().rows((f"EXPLAIN (ANALYZE, BUFFERS, FORMAT TEXT) {sql}", parameters))
        text = "\n".join(row[0] for row in rows)
        assert "Tid Scan" in text
        return text.count("actual rows=")

    await buffers("b")
    assert abs(await buffers("b") - await buffers("nosuch")) <= 1


@pytest.mark.parametrize(
    ("bound", "index"),
    [
        ((QUERIES.tree_tasks.sql, ("t",)), "tasks_by_tree"),
        ((QUERIES.children.sql, ("t",)), "tasks_by_parent"),
        ((QUERIES.live_trees.sql, ()), "trees_live"),
        (QUERIES.task_list(TaskQuery(owner="ann")), "tasks_roots"),
        (QUERIES.tree_list(TreeQuery(owner="ann", before=(1.0, "a"))), "trees_by_change"),
        (EVENT_QUERIES.page(EventQuery(tree_id="t", limit=9)), "events_pkey"),
        (EVENT_QUERIES.places(EventQuery(tree_id="t", until=9, kinds=["x"], limit=9)), "events_pkey"),
        (EVENT_QUERIES.at("t", [1, 2]), "events_pkey"),
        (QUERIES.any_dropped, "compactions_dropped"),
    ],
)
@pytest.mark.asyncio
async def test_reads_use_the_indexes(storage: PostgresStorage, bound: tuple[str, tuple[Any, ...]], index: str) -> None:
    rows = await storage._reading().rows((f"EXPLAIN {bound[0]}", bound[1]))
    plan = "\n".join(row[0] for row in rows)
    assert index in plan and "Seq Scan" not in plan


def test_nothing_of_postgresql_is_loaded_for_a_file(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from core import create_session\n"
        "async def use():\n"
        f"    async with create_session('sqlite:///{tmp_path}/tasks.db'):\n"
        "        pass\n"
        "asyncio.run(use())\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('asyncpg', 'pgqueuer', 'greenlet', 'pydantic')"
        " or 'postgres' in n))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
