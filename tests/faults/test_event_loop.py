"""R8: how long one body keeps the event loop: the processor time of the longest callback of its request.

Processor time, so that a machine that is busy with something else changes little. The bound is three times what is
promised, because a cold cache can double it; the report has the figure itself.
"""

import asyncio
import json
import time
from asyncio import events
from pathlib import Path
from typing import Any

import pytest

from core.storage.sqlite.sql import SqlStorage
from tests.a2a_server.conftest import message, running
from tests.a2a_server.views.test_streams import rpc
from tests.faults.report import report

PROMISED = 0.020  # seconds
MIB = 1024 * 1024


def sent(*parts: dict[str, Any]) -> dict[str, Any]:
    given = rpc("SendMessage", message("echo", *parts))
    given["params"]["configuration"] = {"returnImmediately": True}
    return given


def tree(size: int, **fields: Any) -> dict[str, Any]:
    tasks = [{"id": str(n), "name": "echo", "parent_id": "r", **fields} for n in range(size - 1)]
    return sent({"data": {"tasks": [{"id": "r", "name": "r"}, *tasks]}})


def edges(size: int, each: int) -> dict[str, Any]:
    tasks = [
        {"id": f"{n}", "name": "none", "parent_id": "r", "dependencies": [f"{m}" for m in range(max(0, n - each), n)]}
        for n in range(size - 1)
    ]
    return sent({"data": {"tasks": [{"id": "r", "name": "r"}, *tasks]}})


BODIES: dict[str, dict[str, Any]] = {
    "85,000 keys": sent({"data": {f"k{n}": 0 for n in range(85_000)}}),
    "99,000 numbers": sent({"data": {"a": [1.5] * 99_000}}),
    "49,000 empty objects": sent({"data": {"a": [{}] * 49_000}}),
    "1 MiB of text": sent({"text": "x" * (MIB - 1000)}),
    "1 MiB of escapes": sent({"text": "\u0001" * 170_000}),
    "24,000 parts": sent(*[{"text": "x"}] * 24_000),
    "40,000 wrong parts": sent(*[{"text": 1}] * 40_000),
    "10,000 tasks": tree(10_000),
    "90,000 edges": edges(950, 95),
    "90,000 wrong fields": sent({"data": {"tasks": [{"name": "x", **{f"f{n}": 1 for n in range(60)}}] * 1_200}}),
    "4,000 own schemas": tree(
        4_000, schemas={"input_schema": {"properties": {"p": {"type": "string", "minLength": 1}}}}
    ),
}

V0_3 = {"kind": "message", "messageId": "n", "role": "user", "metadata": {"skillId": "echo"}}
NEIGHBOURS: dict[str, tuple[str, str, Any]] = {  # other methods and bindings: path, version, body
    "v0.3, 20,000 parts": (
        "/",
        "0.3",
        rpc("message/send", {"message": {**V0_3, "parts": [{"kind": "text", "text": "x"}] * 20_000}}),
    ),
    "v0.3, 30,000 wrong parts": (
        "/",
        "0.3",
        rpc("message/send", {"message": {**V0_3, "parts": [{"kind": "x"}] * 30_000}}),
    ),
    "HTTP+JSON, 24,000 parts": ("/message:send", "1.0", message("echo", *[{"text": "x"}] * 24_000)),
    "tasks.cancel, 90,000 ids": ("/tasks", "1.0", rpc("tasks.cancel", {"task_ids": ["x"] * 90_000})),
    "tasks.get, 70,000 unknown fields": ("/tasks", "1.0", rpc("tasks.get", {f"k{n}": 1 for n in range(70_000)})),
    "a batch of 50": ("/", "1.0", [rpc("tasks.get", {f"k{n}": 1 for n in range(1_500)})] * 50),
}


class Longest:
    """The longest callback of the loop since it was asked last, those of attempts and clients aside."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._seconds = 0.0
        run = events.Handle._run

        def timed(handle: Any) -> None:
            begin = time.thread_time()
            run(handle)
            spent = time.thread_time() - begin
            if spent > self._seconds and not _is_others(handle):
                self._seconds = spent

        monkeypatch.setattr(events.Handle, "_run", timed)

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


def _is_others(handle: Any) -> bool:
    """Whether it is a step of an attempt, or of the test itself, which is the client."""
    task = getattr(handle._callback, "__self__", None)
    return isinstance(task, asyncio.Task) and task.get_coro().__qualname__.startswith(("Runner.", "test_"))


@pytest.mark.asyncio
async def test_no_callback_of_a_request_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longest = Longest(monkeypatch)
    told: dict[str, float] = {}
    async with running(storage=SqlStorage(f"sqlite:///{tmp_path}/t.db")) as server, server.client() as client:
        calls = {name: ("/", "1.0", value) for name, value in BODIES.items()} | NEIGHBOURS
        for name, (path, spoken, value) in calls.items():
            body = json.dumps(value, separators=(",", ":")).encode()
            assert len(body) <= MIB + 1000, name
            longest.take()
            headers = {"Content-Type": "application/json", "A2A-Version": spoken}
            answer = await client.post(path, content=body, headers=headers)
            assert "values" not in answer.text[:200], name
            told[name] = longest.take()
            told_of = answer.json()
            if isinstance(told_of, dict) and (task := told_of.get("result", {}).get("task")) is not None:
                await client.post("/", json=rpc("CancelTask", {"id": task["id"]}), headers={"A2A-Version": "1.0"})
    worst = sorted(told.items(), key=lambda item: -item[1])
    report(
        "R8",
        "longest callback of the event loop for a body of up to 1 MiB, attempts aside",
        "; ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in worst),
    )
    assert worst[0][1] < 3 * PROMISED, worst


@pytest.mark.asyncio
async def test_no_callback_of_an_answer_takes_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does it for answers of 1 MiB; those of a whole tree of 10,000 tasks and of a page of lists are larger."""
    longest = Longest(monkeypatch)
    told: dict[str, float] = {}
    async with running(storage=SqlStorage(f"sqlite:///{tmp_path}/t.db")) as server, server.client() as client:

        async def call(method: str, params: Any) -> Any:
            longest.take()
            answer = await client.post("/", json=rpc(method, params), headers={"A2A-Version": "1.0"})
            name = f"{method} ({len(answer.content) / MIB:.1f} MiB)"
            told[name] = max(told.get(name, 0.0), longest.take())
            return answer.json()["result"]

        keys = message("echo", {"data": {f"k{n}": 0 for n in range(45_000)}})
        ids = [(await call("SendMessage", keys))["task"]["id"] for _ in range(5)]
        for method in ("GetTask", "ListTasks"):
            await call(method, {"id": ids[0]} if method == "GetTask" else {"pageSize": 100, "includeArtifacts": True})
        for method in ("tasks.get", "tasks.tree", "tasks.events"):
            await call(method, {"task_id": ids[0]})
        tree_id = (await call("tasks.create", BODIES["10,000 tasks"]["params"]["message"]["parts"][0]["data"]))["id"]
        await call("tasks.tree", {"task_id": tree_id})
        await call("tasks.children", {"parent_id": tree_id})
        await call("tasks.list", {"limit": 100})
    worst = sorted(told.items(), key=lambda item: -item[1])
    report(
        "R8",
        "longest callback of the event loop for an answer, attempts aside",
        "; ".join(f"{name} {1000 * seconds:.0f} ms" for name, seconds in worst),
    )
    assert worst[0][1] < 3 * PROMISED, worst


@pytest.mark.asyncio
async def test_a_callback_that_takes_long_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the thread."""
    monkeypatch.setattr("a2a_server.bindings.endpoint.LARGE", 2**30)
    longest = Longest(monkeypatch)
    async with running() as server, server.client() as client:
        await client.post("/", json=BODIES["10,000 tasks"], headers={"A2A-Version": "1.0"})
    assert longest.take() > PROMISED
