"""What a cancel says and does: kind of executor × plain or forced × every way in which it can be asked for.

Each cell is judged by the answer, by what is stored, and by what the executor saw of it.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from core.executors.base import TaskContext
from core.executors.function import executor
from core.run import cancelling
from tests.a2a_server import cancelled_functions
from tests.a2a_server.conftest import RunningServer, message, running

WAIT = 0.4  # seconds that a cancel waits for the work here


class Kinds:
    """Executors of every kind, and what they saw."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.begun = asyncio.Event()
        self.release = threading.Event()
        self.saw: list[bool] = []  # whether `context.cancelled` was seen
        self._loop = asyncio.get_running_loop()
        register = {"registry": server.lab.registry}
        for run in (self.coroutine, self.obeying_thread, self.deaf_thread, self.raising_thread):
            executor(run.__name__, **register)(run)  # type: ignore[arg-type]
        executor("solid_coroutine", cancelable=False, **register)(self.solid_coroutine)  # type: ignore[arg-type]
        for name in ("killed_process", "solid_process"):
            function = getattr(cancelled_functions, name)
            cancelable = None if name == "killed_process" else False
            executor(name, isolation="process", cancelable=cancelable, **register)(function)  # type: ignore[arg-type]

    async def coroutine(self, inputs: Any, context: TaskContext) -> Any:
        self.begun.set()
        await asyncio.Event().wait()

    async def solid_coroutine(self, inputs: Any, context: TaskContext) -> Any:
        self.begun.set()
        while not context.cancelled:  # noqa: ASYNC110 - as executors look
            await asyncio.sleep(0.01)
        self.saw.append(True)
        return "stopped by itself"

    def _work(self, context: Any, *, obeys: bool) -> None:
        self._loop.call_soon_threadsafe(self.begun.set)
        while not (self.release.is_set() or (obeys and context.cancelled)):
            self.release.wait(0.01)
        self.saw.append(context.cancelled)

    def obeying_thread(self, inputs: Any, context: Any) -> Any:
        self._work(context, obeys=True)
        return "stopped by itself"

    def deaf_thread(self, inputs: Any, context: Any) -> Any:
        self._work(context, obeys=False)
        return "ran to its end"

    def raising_thread(self, inputs: Any, context: Any) -> Any:
        self._work(context, obeys=True)
        raise RuntimeError("stopped")

    async def start(self, kind: str) -> str:
        """The id of a task of this kind that runs."""
        async with self.server.client() as client:
            params = message(kind, {"data": {}}) | {"configuration": {"returnImmediately": True}}
            answer = await client.post("/", json=rpc("SendMessage", params), headers={"A2A-Version": "1.0"})
        task_id = answer.json()["result"]["task"]["id"]
        if "process" in kind:
            async for recorded in self.server.application.session.follow(task_id):
                if getattr(recorded.event, "fraction", None) == 0.5:
                    break
        else:
            await asyncio.wait_for(self.begun.wait(), 20)
        return str(task_id)


def rpc(method: str, params: Any) -> Any:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


@asynccontextmanager
async def kinds() -> AsyncIterator[Kinds]:
    async with running() as server:
        it = Kinds(server)
        try:
            yield it
        finally:
            it.release.set()


async def _post(it: Kinds, path: str, body: Any, version: str) -> dict[str, Any]:
    async with it.server.client() as client:
        answer = await client.post(path, json=body, headers={"A2A-Version": version})
    return dict(answer.json())


async def by_rpc(it: Kinds, task_id: str) -> tuple[str, Any]:
    answer = await _post(it, "/", rpc("CancelTask", {"id": task_id}), "1.0")
    return ("error", answer["error"]["code"]) if "error" in answer else ("task", answer["result"]["status"]["state"])


async def by_rest(it: Kinds, task_id: str) -> tuple[str, Any]:
    answer = await _post(it, f"/tasks/{task_id}:cancel", {}, "1.0")
    if "error" in answer:
        assert answer["error"]["details"][0]["reason"] == "TASK_NOT_CANCELABLE", answer
        return "error", -32002
    return "task", answer["status"]["state"]


async def by_v0_3(it: Kinds, task_id: str) -> tuple[str, Any]:
    answer = await _post(it, "/", rpc("tasks/cancel", {"id": task_id}), "0.3")
    if "error" in answer:
        return "error", answer["error"]["code"]
    return "task", f"TASK_STATE_{answer['result']['status']['state'].upper()}"


async def by_tasks(it: Kinds, task_id: str, *, force: bool = False) -> tuple[str, Any]:
    answer = await _post(it, "/", rpc("tasks.cancel", {"task_ids": [task_id], "force": force}), "1.0")
    (one,) = answer["result"]
    return one["status"], (one.get("not_cancelable"), one.get("still_running"))


async def by_force(it: Kinds, task_id: str) -> tuple[str, Any]:
    return await by_tasks(it, task_id, force=True)


A2A: dict[str, Callable[[Kinds, str], Awaitable[tuple[str, Any]]]] = {
    "CancelTask": by_rpc, "tasks/id:cancel": by_rest, "tasks/cancel": by_v0_3,
}  # fmt: skip
CANCELED, NOT_CANCELABLE = ("task", "TASK_STATE_CANCELED"), ("error", -32002)
# Kind -> what A2A answers, `tasks.cancel` (status, not cancelable, still running), the same with force; then the
# task's own status and the tree's when everything has ended, for a plain cancel.
TABLE: dict[str, tuple[Any, Any, Any, str, str]] = {
    "coroutine": (CANCELED, ("cancelled", 0, 0), ("cancelled", 0, 0), "cancelled", "cancelled"),
    "solid_coroutine": (CANCELED, ("cancelled", 0, 0), ("cancelled", 0, 0), "completed", "cancelled"),
    "obeying_thread": (CANCELED, ("cancelled", 0, 0), ("cancelled", 0, 0), "completed", "cancelled"),
    "raising_thread": (CANCELED, ("cancelled", 0, 0), ("cancelled", 0, 0), "cancelled", "cancelled"),
    "deaf_thread": (NOT_CANCELABLE, ("failed", 1, 0), ("cancelled", 0, 1), "completed", "cancelled"),
    "killed_process": (CANCELED, ("cancelled", 0, 0), ("cancelled", 0, 0), "cancelled", "cancelled"),
    "solid_process": (CANCELED, ("cancelled", 0, 0), ("cancelled", 0, 0), "completed", "cancelled"),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Where the work goes on, the cancel is not waited for long; where it ends, there is time enough."""
    monkeypatch.setattr(cancelling, "STOP_LIMIT", WAIT if "deaf" in request.node.name else 20.0)


async def _ended(it: Kinds, task_id: str) -> tuple[str, str]:
    it.release.set()
    session = it.server.application.session
    head = await session.wait(task_id, lambda head: not head.is_live)
    task = await session.storage.task(task_id)
    assert task is not None
    return task.status.value, head.status.value


@pytest.mark.asyncio
@pytest.mark.parametrize("way", A2A)
@pytest.mark.parametrize("kind", TABLE)
async def test_a2a_says_canceled_where_it_is_and_not_cancelable_where_nothing_was(kind: str, way: str) -> None:
    """Found from outside: CancelTask of a plain function answered WORKING."""
    expected, _, _, task, tree = TABLE[kind]
    async with kinds() as it:
        task_id = await it.start(kind)
        assert await A2A[way](it, task_id) == expected
        assert await _ended(it, task_id) == (task, tree)
        assert all(it.saw), "context.cancelled is true without force"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", TABLE)
async def test_tasks_cancel_says_what_still_runs(kind: str) -> None:
    """Found from outside: with `force`, a thread that still wrote was called cancelled."""
    _, (status, not_cancelable, still_running), _, task, tree = TABLE[kind]
    async with kinds() as it:
        task_id = await it.start(kind)
        answer = await by_tasks(it, task_id)
        assert answer == (status, ([task_id] if not_cancelable else None, [task_id] if still_running else None))
        assert await _ended(it, task_id) == (task, tree)


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", TABLE)
async def test_force_drops_the_result_and_says_what_still_runs(kind: str) -> None:
    _, _, (status, not_cancelable, still_running), _, _ = TABLE[kind]
    async with kinds() as it:
        task_id = await it.start(kind)
        answer = await by_force(it, task_id)
        assert answer == (status, ([task_id] if not_cancelable else None, [task_id] if still_running else None))
        assert await _ended(it, task_id) == ("cancelled", "cancelled")


@pytest.mark.asyncio
@pytest.mark.parametrize("way", [*A2A, "tasks.cancel"])
async def test_a_task_that_ends_otherwise_while_it_is_asked_says_so(way: str) -> None:
    """Below a root: the tree goes on, and the task was not cancelled."""
    async with kinds() as it:
        tree = [{"id": "r", "name": "hold"}, {"id": "a", "name": "obeying_thread", "parent_id": "r"}]
        params = message(None, {"data": {"tasks": tree}}) | {"configuration": {"returnImmediately": True}}
        answer = await _post(it, "/", rpc("SendMessage", params), "1.0")
        root_id = answer["result"]["task"]["id"]
        await asyncio.wait_for(it.begun.wait(), 20)
        _, tasks = await it.server.application.session.storage.load(root_id)  # type: ignore[misc]
        child = next(task.id for task in tasks if task.ref == "a")
        if way == "tasks.cancel":
            assert (await by_tasks(it, child))[0] == "failed"
        else:
            assert await A2A[way](it, child) == NOT_CANCELABLE
        stored = await it.server.application.session.storage.task(child)
        assert stored is not None and (stored.status, stored.result) == ("completed", "stopped by itself")
        it.server.lab.released["hold"].set()
        assert await _ended(it, root_id) == ("completed", "completed")
