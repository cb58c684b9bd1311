"""What the event loop sees of large bodies: nothing but their bytes. And whose turn it is in the thread beside it."""

import asyncio
import json
import threading
from typing import Any

import pytest

from a2a_server.bindings import jsonrpc, rest
from a2a_server.bindings.aside import LARGE, MANY, Aside
from core import session
from core.loop.beside import Beside
from core.loop.large_values import CHARACTERS
from core.model.in_flight import memory_of
from core.run import attempt, orchestrator
from core.run.decisions import LARGE_TREE
from tests.a2a_server.conftest import RunningServer, message
from tests.a2a_server.views.test_streams import rpc

V0_3 = {"kind": "message", "messageId": "n", "role": "user", "metadata": {"skillId": "echo"}}
CALLS: dict[str, Any] = {  # a path, and a body of any size
    "JSON-RPC": lambda text: ("/", rpc("SendMessage", message("echo", {"text": text}))),
    "a batch": lambda text: ("/", [rpc("SendMessage", message("echo", {"text": text}))]),
    "HTTP+JSON": lambda text: ("/message:send", message("echo", {"text": text})),
    "v0.3": lambda text: ("/", rpc("message/send", {"message": {**V0_3, "parts": [{"kind": "text", "text": text}]}})),
    "tasks.create": lambda text: ("/tasks", rpc("tasks.create", {"name": "echo", "inputs": {"text": text}})),
    "tasks.execute": lambda text: (
        "/tasks",
        rpc("tasks.execute", {"tasks": [{"name": "echo", "inputs": {"t": text}}]}),
    ),
    "a stream": lambda text: ("/", rpc("SendStreamingMessage", message("echo", {"text": text}))),
}


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> dict[str, set[str]]:
    """Where what is done with a body was done."""
    seen: dict[str, set[str]] = {}

    def watch(module: Any, name: str) -> None:
        old = getattr(module, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            seen.setdefault(name, set()).add(threading.current_thread().name.partition("_")[0])
            return old(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    watch(jsonrpc, "parse")
    watch(rest, "parse")
    watch(session, "make_plan")
    watch(orchestrator, "memory_of_tasks")
    return seen


async def ask(server: RunningServer, call: str, size: int) -> Any:
    path, value = CALLS[call]("")
    path, value = CALLS[call]("x" * (size - len(json.dumps(value))))
    body = json.dumps(value).encode()
    assert len(body) == size
    headers = {"Content-Type": "application/json", "A2A-Version": "0.3" if call == "v0.3" else "1.0"}
    async with server.client() as client:
        answer = await client.post(path, content=body, headers=headers)
    assert answer.status_code == 200 and '"error":{' not in answer.text, answer.text[:300]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.asyncio
async def test_a_large_body_is_decoded_and_planned_beside_the_loop(
    server: RunningServer, threads: dict[str, set[str]], call: str
) -> None:
    await ask(server, call, LARGE + 1)
    assert threads == {"parse": {"judge"}, "make_plan": {"judge"}, "memory_of_tasks": {"asyncio"}}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.asyncio
async def test_a_body_that_is_not_large_costs_no_turn_of_a_thread(
    server: RunningServer, threads: dict[str, set[str]], call: str
) -> None:
    await ask(server, call, LARGE)
    assert threads == {each: {"MainThread"} for each in ("parse", "make_plan", "memory_of_tasks")}


@pytest.mark.parametrize("size", [CHARACTERS // 2, CHARACTERS])
@pytest.mark.asyncio
async def test_a_large_result_is_counted_beside_the_loop(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    seen: list[str] = []

    def watched(data: bytes) -> int:
        seen.append(threading.current_thread().name.partition("_")[0])
        return memory_of(data)

    monkeypatch.setattr(attempt, "memory_of", watched)
    await ask(server, "JSON-RPC", size + 1_000)
    assert seen == ["MainThread" if size < CHARACTERS else "values"]


def test_the_loop_sees_few_values_of_one_body() -> None:
    """The smallest value is a digit and a comma; a hundred thousand of them took 6 ms to decode (decision 0013)."""
    assert LARGE // 2 <= 20_000
    assert MANY == LARGE_TREE == 500


@pytest.mark.asyncio
async def test_a_large_tree_is_built_and_told_beside_the_loop(server: RunningServer, monkeypatch: Any) -> None:
    used: list[str] = []
    to_thread, run = asyncio.to_thread, Beside.run

    async def watched(function: Any, *args: Any) -> Any:
        used.append(getattr(function, "func", function).__name__)
        return await to_thread(function, *args)

    async def watched_turn(beside: Beside, caller: str, function: Any, *args: Any) -> Any:
        used.append(getattr(function, "func", function).__name__)
        return await run(beside, caller, function, *args)

    monkeypatch.setattr(asyncio, "to_thread", watched)
    monkeypatch.setattr(Beside, "run", watched_turn)
    for size, expected in ((MANY - 1, ["memory_of_tasks"]), (MANY + 1, ["memory_of_tasks", "new_tree", "nested"])):
        used.clear()
        tasks = [{"id": "r", "name": "r"}, *({"id": str(n), "name": "echo", "parent_id": "r"} for n in range(size - 1))]
        async with server.client() as client:
            made = (await client.post("/", json=rpc("tasks.create", tasks))).json()["result"]
        assert len(made["children"]) == size - 1
        assert used == expected
    used.clear()
    async with server.client() as client:
        copied = (await client.post("/", json=rpc("tasks.copy", {"task_id": made["id"]}))).json()["result"]
    assert len(copied["children"]) == MANY
    assert used == ["TaskTree", "copies", "memory_of_tasks", "new_tree", "nested", "encode_in_pieces"]
    used.clear()
    async with server.client() as client:
        await client.post("/", json=rpc("tasks.execute", {"task_id": copied["id"]}))
    assert used[:4] == ["TaskTree", "memory_of_tasks", "TaskTree", "worked_out"]


# Turns


class Job:
    """A job of the thread that ends when it is told to."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.may_end = threading.Event()

    def __call__(self) -> "Job":
        self.begun.set()
        assert self.may_end.wait(10)
        return self


@pytest.mark.asyncio
async def test_a_caller_with_many_bodies_lets_another_go_between() -> None:
    aside = Aside()
    order: list[str] = []
    first = Job()

    async def run(owner: str, job: Any) -> None:
        await aside.run(owner, job)
        order.append(owner)

    running = [asyncio.create_task(run("ann", first))]
    await asyncio.to_thread(first.begun.wait, 10)
    running += [asyncio.create_task(run("ann", lambda: None)) for _ in range(5)]
    await asyncio.sleep(0)
    running.append(asyncio.create_task(run("bob", lambda: None)))
    await asyncio.sleep(0)
    first.may_end.set()
    await asyncio.gather(*running)
    assert order.index("bob") <= 1
    aside.close()


@pytest.mark.asyncio
async def test_what_a_job_raises_is_raised_where_it_is_awaited() -> None:
    aside = Aside()
    with pytest.raises(ZeroDivisionError):
        await aside.run("ann", lambda: 1 // 0)
    assert await aside.run("ann", int, "7") == 7
    aside.close()
