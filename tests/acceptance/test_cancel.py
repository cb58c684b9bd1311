"""Cancelling a thousand tasks at work: coroutines, child processes and HTTP calls (reliability G6)."""

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Condition
from typing import Any

import psutil
import pytest

from tests.acceptance.process import ServerProcess
from tests.acceptance.threads import serving

COROUTINES, PROCESSES, CALLS = 700, 150, 150
TASKS = COROUTINES + PROCESSES + CALLS
LIMIT = 5.0  # seconds (reliability G6)


class Hanging(ThreadingHTTPServer):
    """Accepts requests, never answers, and notices when a caller goes away."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Silent)
        self.changed = Condition()
        self.open = 0

    def count(self, difference: int) -> None:
        with self.changed:
            self.open += difference
            self.changed.notify_all()


class _Silent(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Hanging)
        server.count(1)
        try:
            self.connection.recv(1)  # returns when the caller hangs up
        finally:
            server.count(-1)


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    with serving(Hanging()) as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    settings = {
        "A2A_SERVER_MAX_RUNNING": str(TASKS + 10),
        "A2A_SERVER_MAX_PROCESSES": str(PROCESSES),
        "A2A_SERVER_COMMANDS": "sleep",
        "A2A_SERVER_EGRESS_ALLOW": "127.0.0.1",
    }
    process = ServerProcess(tmp_path, env=settings).start()
    yield process
    process.close()


def plan(url: str) -> list[dict[str, Any]]:
    kinds = (
        [{"name": "hang"}] * COROUTINES
        + [{"name": "command_executor", "inputs": {"argv": ["sleep", "600"]}}] * PROCESSES
        + [{"name": "rest_executor", "inputs": {"url": url, "timeout": 30}}] * CALLS
    )
    return [
        {"id": "root", "name": "root"},
        *({"id": f"t{n}", "parent_id": "root", **kind} for n, kind in enumerate(kinds)),
    ]


def children_of(server: ServerProcess) -> list[psutil.Process]:
    return psutil.Process(server.pid).children(recursive=True)


def test_a_thousand_running_tasks_stop_within_five_seconds(server: ServerProcess, hanging: Hanging) -> None:
    """All stopped, no process and no socket left, and no effect after the answer."""
    root = server.call("tasks.create", plan(f"http://127.0.0.1:{hanging.server_port}/"))["root_task_id"]
    server.call("tasks.execute", {"task_id": root})
    started: set[str] = set()
    for _, event in server.events(root):
        if event["type"] == "task_start" and event["name"] != "root":
            started.add(event["task_id"])
        assert event["type"] != "task_failed", event
        if len(started) == TASKS:
            break
    with hanging.changed:
        assert hanging.changed.wait_for(lambda: hanging.open == CALLS, timeout=20), hanging.open
    sleepers = [child for child in children_of(server) if "sleep" in child.name()]
    assert len(sleepers) == PROCESSES

    begin = time.monotonic()
    answer = server.call("tasks.cancel", {"task_ids": [root]})
    seconds = time.monotonic() - begin
    print(f"{TASKS} tasks cancelled in {seconds:.2f} s")
    assert answer[0]["status"] == "cancelled" and "still_running" not in answer[0], answer
    assert seconds < LIMIT

    _, alive = psutil.wait_procs(sleepers, timeout=0)
    assert not alive, "child processes are left"
    with hanging.changed:
        assert hanging.changed.wait_for(lambda: hanging.open == 0, timeout=LIMIT), "sockets are left"
    tree = server.call("tasks.tree", {"task_id": root})
    assert tree["tree_status"] == "cancelled"
    assert {task["status"] for task in tree["children"]} == {"cancelled"}
    last = server.log_of(root)[-1]
    assert last["type"] == "final"
    assert not (server.folder / "ledger").exists(), "an effect started after the answer"
    assert server.call("tasks.running.count")["count"] == 0
