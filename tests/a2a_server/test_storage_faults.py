"""What callers are told when the database is broken in one place, or out of reach for a moment."""

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from core.model.errors import StorageUnavailable
from core.storage.sqlite.sql import SqlStorage
from tests.a2a_server.conftest import RunningServer, message, running

CORRUPT_HEAD = "UPDATE trees SET body = x'7b22' WHERE id = ?"
CORRUPT_TASK = "UPDATE tasks SET spec = x'7b22' WHERE id = ?"
CORRUPT_EVENTS = "UPDATE events SET body = x'7b22' WHERE tree_id = ?"


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running(storage=SqlStorage(str(tmp_path / "tasks.db"))) as it:
        yield it


async def raw(client: httpx2.AsyncClient, method: str, params: Any) -> httpx2.Response:
    return await client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})


async def two_tasks(client: httpx2.AsyncClient) -> tuple[str, str]:
    """The ids of two trees that have ended."""
    ids = [(await raw(client, "SendMessage", message("echo"))).json()["result"]["task"]["id"] for _ in range(2)]
    return ids[0], ids[1]


def corrupt(server: RunningServer, sql: str, tree_id: str) -> None:
    storage = server.application.session.storage
    assert isinstance(storage, SqlStorage)
    foreign = sqlite3.connect(storage.path, isolation_level=None)
    assert foreign.execute(sql, (tree_id,)).rowcount > 0
    foreign.close()


@pytest.mark.parametrize("sql", [CORRUPT_HEAD, CORRUPT_TASK, CORRUPT_EVENTS], ids=["head", "task", "events"])
@pytest.mark.asyncio
async def test_a_corrupt_row_does_not_keep_the_lists_from_the_rest(server: RunningServer, sql: str) -> None:
    async with server.client() as client:
        broken, whole = await two_tasks(client)
        corrupt(server, sql, broken)

        listed = (await raw(client, "ListTasks", {})).json()["result"]["tasks"]
        assert [task["id"] for task in listed] == ([whole] if sql is not CORRUPT_TASK else [whole, broken])
        tasks = (await raw(client, "tasks.list", {})).json()["result"]
        assert [task["id"] for task in tasks] == ([whole] if sql is CORRUPT_TASK else [whole, broken])
        if sql is CORRUPT_HEAD:
            assert "tree_status" not in tasks[1], "nothing is told that cannot be read"


@pytest.mark.parametrize(
    ("sql", "method", "name"),
    [
        (CORRUPT_HEAD, "GetTask", "id"),
        (CORRUPT_EVENTS, "GetTask", "id"),
        (CORRUPT_HEAD, "tasks.tree", "task_id"),
        (CORRUPT_TASK, "tasks.get", "task_id"),
        (CORRUPT_EVENTS, "tasks.events", "task_id"),
    ],
)
@pytest.mark.asyncio
async def test_a_corrupt_row_is_an_internal_error_with_an_id(
    server: RunningServer, sql: str, method: str, name: str
) -> None:
    async with server.client() as client:
        broken, _ = await two_tasks(client)
        corrupt(server, sql, broken)

        error = (await raw(client, method, {name: broken})).json()["error"]

        assert error["code"] == -32603
        assert error["data"][0]["metadata"]["errorId"]


@pytest.mark.asyncio
async def test_the_event_stream_of_a_corrupt_tree_answers_with_an_error(server: RunningServer) -> None:
    async with server.client() as client:
        broken, other = await two_tasks(client)
        corrupt(server, CORRUPT_HEAD, broken)
        corrupt(server, CORRUPT_EVENTS, other)

        refused = await client.get(f"/tasks/{broken}/events")
        assert (refused.status_code, refused.json()["error"]["code"]) == (500, -32603)
        ended = await client.get(f"/tasks/{other}/events")
        (line,) = [line for line in ended.text.splitlines() if line.startswith("data:")]
        assert json.loads(line[5:])["error"]["code"] == -32603


@pytest.mark.asyncio
async def test_a_database_out_of_reach_asks_the_caller_to_come_back(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unavailable(*_: object, **__: object) -> None:
        raise StorageUnavailable("The database cannot be read (SQLITE_BUSY)")

    async with server.client() as client:
        task_id, _ = await two_tasks(client)
        monkeypatch.setattr(server.application.session.storage, "head", unavailable)

        for answer in (
            await raw(client, "GetTask", {"id": task_id}),
            await raw(client, "tasks.list", {}),
            await client.get(f"/tasks/{task_id}/events"),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, -32051)
            assert answer.headers["Retry-After"] == "1"
