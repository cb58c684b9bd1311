"""What running a tree costs in SQL statements: O(n), for chains too (semantics §3)."""

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.model.task import TaskStatus
from core.session import Session, has_ended
from core.storage.sqlite.sql import SqlStorage

PER_TASK = 12  # statements, BEGIN and COMMIT among them, when every task of a chain is committed by itself


class NoOp:
    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return None


async def counted(storage: SqlStorage) -> Counter[str]:
    """How often each kind of statement reaches the database from now on."""
    counts: Counter[str] = Counter()

    def count(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(lambda sql: counts.update([" ".join(sql.split()[:2])]))

    assert storage._writer is not None
    await storage._writer.submit(count)
    counts.clear()
    return counts


async def statements_of(shape: str, n: int, folder: Path) -> int:
    registry = ExecutorRegistry()
    registry.register(ExecutorSpec(id="noop", make=NoOp))
    tasks: list[dict[str, Any]] = [{"id": "root", "name": "root"}]
    for i in range(n):
        needs = [f"t{i - 1}"] if shape == "chain" and i else []
        tasks.append({"id": f"t{i}", "name": "noop", "parent_id": "root", "dependencies": needs})
    storage = SqlStorage(f"sqlite:///{folder}/{shape}{n}.db")
    async with Session(storage, registry=registry) as session:
        counts = await counted(storage)
        head = (await session.create(session.plan(tasks), execute=True)).head
        head = await session.wait(head.id, has_ended)
        assert head.status is TaskStatus.COMPLETED
    return sum(counts.values())


@pytest.mark.asyncio
@pytest.mark.parametrize("shape", ["fan", "chain"])
async def test_statements_grow_with_the_tree_and_not_faster(shape: str, tmp_path: Path) -> None:
    small = await statements_of(shape, 100, tmp_path)
    large = await statements_of(shape, 800, tmp_path)
    assert small > 0
    assert large <= 800 * PER_TASK
    assert large <= 8 * small * 1.25, (small, large)
