"""R9: many ask at the same time to cancel the same running tasks. Each has one end, and nothing happens after it."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.acceptance.process import ServerProcess
from tests.acceptance.test_cancel import LIMIT, Hanging, children_of
from tests.acceptance.threads import serving
from tests.faults.load import quantile
from tests.faults.report import report
from tests.faults.test_failpoints import Sabotaged

SCALE = int(os.environ.get("CANCEL_SCALE", "1"))
TICKING, PROCESSES, CALLS, RACING = 10 * SCALE, 30 * SCALE, 30 * SCALE, 30 * SCALE
ASKERS = 10  # for each task, at the same time
GIANT = 1_000 * SCALE  # tasks of one tree
NOT_CANCELABLE = -32002
CANCELED, COMPLETED = "TASK_STATE_CANCELED", "TASK_STATE_COMPLETED"
NOT_BLOCKING = {"configuration": {"returnImmediately": True}}
ENDS = ("task_cancelled", "task_completed", "task_failed")


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    with serving(Hanging()) as it:
        yield it


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sabotaged]:
    settings = {
        "A2A_SERVER_MAX_RUNNING": str(TICKING + PROCESSES + CALLS + RACING),
        "A2A_SERVER_MAX_PROCESSES": str(PROCESSES),
        "A2A_SERVER_COMMANDS": "sleep",
        "A2A_SERVER_EGRESS_ALLOW": "127.0.0.1",
    }
    process = Sabotaged(tmp_path, env=settings)
    yield process
    process.close()


def message(skill: str, **inputs: Any) -> dict[str, Any]:
    content = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": inputs}], "metadata": {"skillId": skill}}
    return {"message": content, **NOT_BLOCKING}


def start_all(server: ServerProcess, hanging: Hanging) -> list[str]:
    """Return when all of them are at work."""
    url = f"http://127.0.0.1:{hanging.server_port}/"
    wanted = [
        *[message("ticking")] * TICKING,
        *[message("command_executor", argv=["sleep", "600"])] * PROCESSES,
        *[message("rest_executor", url=url, timeout=60)] * CALLS,
    ]
    tasks = [server.call("SendMessage", each)["task"]["id"] for each in wanted]
    for task_id in tasks[:TICKING]:
        assert any(event["type"] == "progress" for _, event in first_events(server, task_id))
    with hanging.changed:
        assert hanging.changed.wait_for(lambda: hanging.open == CALLS, timeout=60), hanging.open
    racing = [message("work", seconds=0.2 + n / RACING) for n in range(RACING)]  # they end while the storm goes on
    return tasks + [server.call("SendMessage", each)["task"]["id"] for each in racing]


def first_events(server: ServerProcess, task_id: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Up to the first progress."""
    for seq, event in server.events(task_id):
        yield seq, event
        if event["type"] == "progress":
            return


async def storm(server: ServerProcess, tasks: list[str], seconds: list[float]) -> Counter[Any]:
    """All ask for all, at once: what they were told, by state or error code. `seconds`: how long each was asked."""
    lines = asyncio.Semaphore(100)
    async with httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as client:

        async def ask(task_id: str) -> Any:
            body = {"jsonrpc": "2.0", "id": 1, "method": "CancelTask", "params": {"id": task_id}}
            async with lines:
                begin = time.monotonic()
                answer = (await client.post("/", json=body)).json()
                seconds.append(time.monotonic() - begin)
            return answer["error"]["code"] if "error" in answer else answer["result"]["status"]["state"]

        return Counter(await asyncio.gather(*(ask(task_id) for _ in range(ASKERS) for task_id in tasks)))


def check_ends(server: ServerProcess, tasks: list[str]) -> None:
    """One end each, the one that is shown, and nothing behind it."""
    for task_id in tasks:
        state = server.call("GetTask", {"id": task_id})["status"]["state"]
        log = server.log_of(task_id)
        ends = [event["type"] for event in log if event["type"] in ENDS]
        assert ends == ["task_cancelled" if state == CANCELED else "task_completed"], (state, ends)
        assert log[-1]["type"] == "final"


def check_silence(server: ServerProcess, sleepers: list[psutil.Process], hanging: Hanging | None) -> None:
    """Whatever the tasks did has ended, and no effect comes while another task lives its life."""
    ledger = (server.folder / "ledger").read_text()
    done = server.call("tasks.execute", {"tasks": [{"name": "work", "inputs": {"seconds": 0.5}}], "wait": True})
    assert done["status"] == "completed"
    assert (server.folder / "ledger").read_text() == ledger, "an effect started after the answer"
    _, alive = psutil.wait_procs(sleepers, timeout=LIMIT)
    assert not alive, "child processes are left"
    if hanging is not None:
        with hanging.changed:
            assert hanging.changed.wait_for(lambda: hanging.open == 0, timeout=LIMIT), "sockets are left"


def sleepers_of(server: ServerProcess) -> list[psutil.Process]:
    return [child for child in children_of(server) if "sleep" in child.name()]


def test_storm_of_cancels_leaves_each_task_one_end(server: Sabotaged, hanging: Hanging) -> None:
    server.start_with()
    tasks = start_all(server, hanging)
    sleepers = sleepers_of(server)
    assert len(sleepers) == PROCESSES

    seconds: list[float] = []
    told = asyncio.run(storm(server, tasks, seconds))

    assert told.total() == ASKERS * len(tasks)
    assert set(told) <= {CANCELED, NOT_CANCELABLE}
    check_silence(server, sleepers, hanging)
    check_ends(server, tasks)
    counted = ", ".join(f"{n} {answer}" for answer, n in told.items())
    waited = f"100 at a time, answered in {1000 * quantile(seconds, 0.99):.0f} ms (p99)"
    figures = f"{ASKERS} cancels of each of {len(tasks)}, one end each; told {counted}; {waited}"
    report("R9", "cancels of running tasks, all at once", figures)


def test_giant_tree_ends_whole_however_many_cancel_it(server: Sabotaged) -> None:
    """Some of it runs, most of it waits for a place."""
    server.start_with()
    items = [{"id": "root", "name": "root"}, *({"name": "ticking", "parent_id": "root"} for _ in range(GIANT - 1))]
    parts = [{"data": {"tasks": items}}]
    sent = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": parts}, **NOT_BLOCKING}
    root = server.call("SendMessage", sent)["task"]["id"]
    assert any(event["type"] == "progress" for _, event in first_events(server, root))

    seconds: list[float] = []
    told = asyncio.run(storm(server, [root], seconds))
    log = server.log_of(root)

    assert told == {CANCELED: ASKERS}
    assert log[-1]["type"] == "final"
    cancelled = Counter(event["task_id"] for event in log if event["type"] == "task_cancelled")
    assert len(cancelled) == GIANT and set(cancelled.values()) == {1}
    check_silence(server, [], None)
    assert server.log_of(root) == log, "nothing comes after the end"
    figures = f"{ASKERS} cancels of a tree of {GIANT} tasks: all of it ended once, {max(seconds):.1f} s at most"
    report("R9", "cancels of a giant tree, all at once", figures)


def test_server_that_does_not_stop_what_it_cancels_is_found_out(server: Sabotaged, hanging: Hanging) -> None:
    """The positive control."""
    server.start_with("go on after a cancel")
    tasks = start_all(server, hanging)
    sleepers = sleepers_of(server)
    asyncio.run(storm(server, tasks, []))
    with pytest.raises(AssertionError, match="after the answer"):
        check_silence(server, sleepers, hanging)
