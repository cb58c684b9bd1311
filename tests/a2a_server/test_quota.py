"""The quota of stored bytes at the endpoints: what stores more is refused, what frees room or ends work is not."""

from dataclasses import replace
from typing import Any

import pytest

from a2a_server.config import Config
from core.executors.base import OutputRefused, TaskContext
from core.storage.memory import MemoryStorage
from tests.a2a_server.conftest import Caller, RpcError, calling, message, running, tree_message
from tests.core.cores import Bench, finish, item, virtual_time


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How much every owner has stored and written."""
    sizes = {"stored": 0, "written": 0}

    async def stored(self: MemoryStorage, owner: str) -> int:
        return sizes["stored"]

    monkeypatch.setattr(MemoryStorage, "stored", stored)
    monkeypatch.setattr(MemoryStorage, "written", lambda self, owner: sizes["written"])
    return sizes


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("SendMessage", lambda ids: message("echo")),
        ("SendMessage", lambda ids: tree_message({"name": "echo"})),
        ("SendMessage", lambda ids: message(None, task=ids["asks"])),
        ("tasks.create", lambda ids: [{"name": "echo"}]),
        ("tasks.execute", lambda ids: {"tasks": [{"name": "echo"}]}),
        ("tasks.copy", lambda ids: {"task_id": ids["drafted"]}),
    ],
)
@pytest.mark.asyncio
async def test_whatever_stores_more_is_refused_at_the_quota(used: dict[str, int], method: str, params: Any) -> None:
    """Found from outside: one caller filled the disk, and all callers' tasks were refused."""
    async with calling(max_stored_per_caller=1000) as call:
        ids = {"drafted": await call.tree({"name": "echo"}), "asks": await asking(call)}
        used["written"] = 1000
        with pytest.raises(RpcError) as refused:
            await call(method, params(ids))
        assert refused.value.code == -32050
        assert refused.value.data[0]["reason"] == "STORED_BYTES_EXCEEDED"
        assert refused.value.message == (
            "your tasks take about 1000 bytes of 1000 allowed (max_stored_per_caller); delete tasks"
        )
        # What frees room, ends work or only reads goes on.
        await call("GetTask", {"id": ids["asks"]})
        await call("CancelTask", {"id": ids["asks"]})
        await call("tasks.delete", {"task_id": ids["drafted"]})


async def asking(call: Caller) -> str:
    """The id of a task that waits for an answer."""
    return str((await call("SendMessage", message("ask")))["task"]["id"])


@pytest.mark.asyncio
async def test_the_refusal_has_its_http_status_in_both_bindings(used: dict[str, int]) -> None:
    used["stored"] = 1000
    call = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("echo")}
    async with running(max_stored_per_caller=1000) as server, server.client() as client:
        rpc = await client.post("/", json=call)
        rest = await client.post("/message:send", json=message("echo"))
        older = await client.post("/", json={**call, "method": "message/send", "params": v0_3("echo")})
    assert [answer.status_code for answer in (rpc, rest, older)] == [429, 429, 429]
    assert rpc.json()["error"]["code"] == older.json()["error"]["code"] == -32050
    assert rest.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert "retry-after" not in rpc.headers, "waiting does not help"


def v0_3(skill: str) -> dict[str, Any]:
    part = {"kind": "text", "text": "hi"}
    said = {"kind": "message", "messageId": "m1", "role": "user", "parts": [part], "metadata": {"skillId": skill}}
    return {"message": said}


@virtual_time
async def test_what_runs_gives_no_more_than_a_short_result_at_the_quota() -> None:
    bench = Bench()
    refused: list[str] = []

    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        try:
            await context.artifact("x")
        except OutputRefused as error:
            refused.append(str(error))
        return "x" * inputs["size"]

    bench.add("give", give)
    async with bench.session() as session:
        session.runner.attempts._means = replace(session.runner.attempts._means, is_full=lambda owner: True)
        short, long = item("short", "give", inputs={"size": 100}), item("long", "give", inputs={"size": 100_000})
        tasks = await finish(session, short, long)
    assert tasks["short"].result == "x" * 100
    assert "the result has 100002 bytes of JSON" in (tasks["long"].error or "")
    assert refused == ["this caller's tasks use the whole storage quota (max_stored_per_caller); delete tasks"] * 2


def test_the_quota_is_a_gibibyte_and_can_be_switched_off() -> None:
    assert Config().max_stored_per_caller == 2**30
    assert Config(max_stored_per_caller=0).max_stored_per_caller == 0
