"""Tasks with long logs: the same answers in every method and binding, within a bound of bytes, and told if there is
no room for them."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from a2a_server.views import selection, snapshots
from core.executors.base import ExecutorSpec, Rejected, TaskContext
from core.model.task import ANONYMOUS
from tests.a2a_server.conftest import RunningServer, _Executor, message, running, tree_message, until
from tests.a2a_server.views.test_streams import rpc

MIB = 1024 * 1024
V1, V03 = {"A2A-Version": "1.0"}, {"A2A-Version": "0.3"}

Ask = tuple[str, str, Any, dict[str, str]]  # HTTP method, path, body, headers


def old(method: str, params: Any) -> Any:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


# One way to read a task, and where the task is in the answer.
READS: dict[str, tuple[Callable[[str], Ask], Callable[[Any], Any]]] = {
    "GetTask": (lambda task: ("POST", "/", rpc("GetTask", {"id": task}), V1), lambda a: a["result"]),
    "GET /tasks/{id}": (lambda task: ("GET", f"/tasks/{task}", None, V1), lambda a: a),
    "ListTasks": (
        lambda task: ("POST", "/", rpc("ListTasks", {"includeArtifacts": True}), V1),
        lambda a: a["result"]["tasks"][0],
    ),
    "GET /tasks": (lambda task: ("GET", "/tasks?includeArtifacts=true", None, V1), lambda a: a["tasks"][0]),
    "tasks/get": (lambda task: ("POST", "/", old("tasks/get", {"id": task}), V03), lambda a: a["result"]),
}


def said(task: str, text: str, key: str) -> Any:
    return message(None, {"text": text}, task=task) | {"configuration": {"returnImmediately": True}}


def old_message(task: str, text: str) -> Any:
    parts = [{"kind": "text", "text": text}]
    given = {"kind": "message", "messageId": "m", "role": "user", "taskId": task, "parts": parts}
    return {"message": given, "configuration": {"blocking": False}}


# One way to end or to go on with a task; it is asked twice, under a key where it takes one.
WORKS: dict[str, tuple[Callable[[str], Ask], Callable[[Any], Any]]] = {
    "CancelTask": (lambda task: ("POST", "/", rpc("CancelTask", {"id": task}), V1), lambda a: a["result"]),
    "POST /tasks/{id}:cancel": (lambda task: ("POST", f"/tasks/{task}:cancel", {}, V1), lambda a: a),
    "tasks/cancel": (lambda task: ("POST", "/", old("tasks/cancel", {"id": task}), V03), lambda a: a["result"]),
    "SendMessage": (
        lambda task: ("POST", "/", rpc("SendMessage", said(task, "x", "k")), V1 | {"Idempotency-Key": "k"}),
        lambda a: a["result"]["task"],
    ),
    "POST /message:send": (
        lambda task: ("POST", "/message:send", said(task, "x", "k"), V1 | {"Idempotency-Key": "k"}),
        lambda a: a["task"],
    ),
    "message/send": (
        lambda task: ("POST", "/", old("message/send", old_message(task, "x")), V03 | {"Idempotency-Key": "k"}),
        lambda a: a["result"],
    ),
}


class Long:
    """A server and a task of its whose log is long."""

    def __init__(self, server: RunningServer, client: Any, task: str) -> None:
        self.server = server
        self.client = client
        self.task = task

    async def ask(self, ask: Ask) -> Any:
        verb, path, body, headers = ask
        given = {} if body is None else {"json": body}
        return await self.client.request(verb, path, headers=headers, **given)

    async def say(self, text: str) -> None:
        sent = rpc("SendMessage", said(self.task, text, ""))
        answer = (await self.client.post("/", json=sent, headers=V1)).json()
        assert "result" in answer, answer

    def fill(self, left: int = 0) -> None:
        """Leave so many bytes of room to the caller."""
        inflight = self.server.application.inflight
        inflight.take(ANONYMOUS, self.server.application.config.max_http_bytes_per_caller - inflight.total - left)


@asynccontextmanager
async def long_task(skill: str = "hold", **settings: Any) -> AsyncIterator[Long]:
    async with running(**settings) as server, server.client() as client:
        sent = rpc("SendMessage", message(skill) | {"configuration": {"returnImmediately": True}})
        answer = (await client.post("/", json=sent, headers=V1)).json()
        it = Long(server, client, answer["result"]["task"]["id"])
        if skill == "hold":
            await server.lab.started["hold"].wait()
        yield it
        server.lab.released["hold"].set()


@pytest.mark.parametrize("how", [*READS, *WORKS])
@pytest.mark.asyncio
async def test_a_long_log_is_told_as_a_short_one(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything fits, nothing tells how it was read."""
    ask, found = (READS | WORKS)[how]
    async with long_task() as it:
        await it.say("one")
        await it.say("two")
        if how.startswith(("Cancel", "POST /tasks", "tasks/cancel")):
            before = found((await it.ask(ask(it.task))).json())
            ask, found = READS["tasks/get"] if how == "tasks/cancel" else READS["GetTask"]
        else:
            before = found((await it.ask(ask(it.task))).json())
        assert len(before["history"]) >= 3
        monkeypatch.setattr(snapshots, "SHORT", 0)
        assert found((await it.ask(ask(it.task))).json()) == before


@pytest.mark.parametrize("how", READS)
@pytest.mark.asyncio
async def test_what_is_cut_is_said(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SHORT", 10_000)
    monkeypatch.setattr(selection, "HISTORY_BYTES", 50_000)
    ask, found = READS[how]
    async with long_task() as it:
        for n in range(5):
            await it.say(str(n) * 20_000)
        task = found((await it.ask(ask(it.task))).json())
        assert [each["parts"][0]["text"][0] for each in task["history"]] == ["3", "4"]
        assert task["metadata"]["cut"] == ["history"]
        assert task["metadata"]["progress"] == 0.0


@pytest.mark.parametrize("how", READS)
@pytest.mark.asyncio
async def test_what_may_not_be_held_is_not_read(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SHORT", 10_000)
    ask, _ = READS[how]
    async with long_task() as it:
        await it.say("x" * 60_000)
        it.fill(left=50_000)
        storage = it.server.application.session.storage

        async def events_at(*_: Any) -> Any:
            raise AssertionError("nothing is to be read")

        monkeypatch.setattr(storage, "events_at", events_at)
        refused = await it.ask(ask(it.task))
        assert refused.status_code == 429 and refused.headers["Retry-After"] == "1"
        assert it.server.application.inflight.total == 64 * MIB - 50_000


@pytest.mark.parametrize("short", [0, 10**9], ids=["long log", "short log"])
@pytest.mark.parametrize("how", WORKS)
@pytest.mark.asyncio
async def test_what_ends_or_begins_work_is_told_in_few_bytes_without_room(
    how: str, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "SHORT", short)
    ask, found = WORKS[how]
    async with long_task() as it:
        await it.say("x" * 60_000)
        it.fill(left=30_000)
        for _ in range(2):
            answer = await it.ask(ask(it.task))
            assert answer.status_code == 200 and len(answer.content) < 1000, answer.text[:500]
            assert it.server.application.inflight.total <= 64 * MIB
            if how == "tasks/cancel":  # the second time it is refused, as v0.3 has it
                break
            task = found(answer.json())
            is_cancel = "cancel" in how.lower()
            said = task["status"].get("message")
            assert task["id"] == it.task
            assert task["metadata"]["cut"] == ["artifacts", "history"] + ["message"] * (not is_cancel)
            assert said["parts"][0]["text"].startswith("cancelled") if is_cancel else said is None
            assert (task["status"]["state"] == "TASK_STATE_CANCELED") == is_cancel or how == "message/send"


@pytest.mark.asyncio
async def test_a_batch_is_told_as_far_as_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with long_task() as it:
        await it.say("x" * 60_000)
        it.fill(left=100_000)
        reads = [rpc("GetTask", {"id": it.task}) | {"id": n} for n in range(3)]
        batch = [*reads, rpc("CancelTask", {"id": it.task}) | {"id": 3}]
        answers = {each["id"]: each for each in (await it.client.post("/", json=batch, headers=V1)).json()}
        assert sum("result" in answers[n] for n in range(3)) == 1
        assert {answers[n]["error"]["code"] for n in range(3) if "error" in answers[n]} == {-32050}
        assert answers[3]["result"]["id"] == it.task


@pytest.mark.asyncio
async def test_a_stream_opens_with_a_long_task_and_then_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SHORT", 10_000)
    async with long_task() as it:
        await it.say("x" * 60_000)
        path = f"/tasks/{it.task}:subscribe"
        async with it.client.stream("GET", path, headers=V1) as answer:
            lines = answer.aiter_lines()
            first = [await anext(lines) async for _ in _two()]
            opening = json.loads(next(line for line in first if line.startswith("data:"))[5:])
            assert opening["task"]["history"][-1]["parts"][0]["text"] == "x" * 60_000
            await until(lambda: it.server.application.inflight.total == 0)
        it.fill(left=50_000)
        refused = await it.client.get(path, headers=V1)
        assert refused.status_code == 429, "before it begins"


async def _two() -> AsyncIterator[int]:
    for n in range(2):
        yield n


@pytest.mark.asyncio
async def test_a_stream_that_a_message_opens_tells_the_task_though_there_is_no_room() -> None:
    """Else its caller would not know the task that has begun."""
    async with running() as server, server.client() as client:
        sent = rpc("SendStreamingMessage", message("nothing", {"data": {"x": "y" * 60_000}}))
        inflight = server.application.inflight
        inflight.take(ANONYMOUS, 64 * MIB - 90_000)
        answer = await client.post("/", json=sent, headers=V1)
        frames = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
        opening = frames[0]["result"]["task"]
        assert opening["metadata"]["cut"] == ["artifacts", "history", "message"] and opening["id"]
        assert frames[-1]["result"]["statusUpdate"]["status"]["state"] == "TASK_STATE_COMPLETED"


@pytest.mark.asyncio
async def test_of_one_caller_one_long_log_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SHORT", 0)
    async with long_task() as it:
        storage = it.server.application.session.storage
        real, reading, most = storage.events_at, 0, 0

        async def events_at(*given: Any) -> Any:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            await asyncio.sleep(0)
            found = await real(*given)
            reading -= 1
            return found

        monkeypatch.setattr(storage, "events_at", events_at)
        answers = await asyncio.gather(*(it.ask(READS["GetTask"][0](it.task)) for _ in range(10)))
        assert {answer.status_code for answer in answers} == {200} and most == 1


@pytest.mark.parametrize("text", ["not my job", "x" * 20_000], ids=["short", "long"])
@pytest.mark.parametrize("is_node", [False, True], ids=["root", "node"])
@pytest.mark.asyncio
async def test_why_a_task_ended_is_told_without_room_where_it_is_short(
    monkeypatch: pytest.MonkeyPatch, text: str, is_node: bool
) -> None:
    """A message under the same key again: its task has ended meanwhile."""
    monkeypatch.setattr(snapshots, "SHORT", 0)
    async with running() as server, server.client() as client:

        async def fails(inputs: dict[str, Any], context: TaskContext) -> Any:
            await context.artifact("y" * 60_000)
            await context.ask("why?")
            raise Rejected(text)

        server.lab.registry.register(ExecutorSpec(id="fails", make=lambda: _Executor(fails)))
        below = tree_message({"id": "r", "name": "g"}, {"name": "fails", "parent_id": "r"})
        asked = (
            await client.post("/", json=rpc("SendMessage", below if is_node else message("fails")), headers=V1)
        ).json()
        task_id = asked["result"]["task"]["id"]
        if is_node:
            root = (await client.get(f"/tasks/{task_id}", headers=V1)).json()
            task_id = root["metadata"]["nodes"][0]["id"]
        inflight = server.application.inflight
        inflight.take(ANONYMOUS, 64 * MIB - 30_000)
        answer = await client.post("/", json=rpc("SendMessage", message(text="because", task=task_id)), headers=V1)
        told = answer.json()["result"]["task"]
    assert (told["id"], told["status"]["state"], len(answer.content) < 1000) == (task_id, "TASK_STATE_REJECTED", True)
    assert told["metadata"]["cut"] == ["artifacts", "history"] + ["message"] * (len(text) > 100)
    assert ("parentTaskId" in told["metadata"]) is is_node
    said = told["status"].get("message")
    assert said is None if len(text) > 100 else said["parts"] == [{"text": text}]
