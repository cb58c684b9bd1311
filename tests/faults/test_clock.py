"""R14: the machine's clock is set under a running server, in the middle of every kind of wait.

Nothing is deleted, fires or expires that the seconds since then do not justify, and nothing waits longer than its
pause.
"""

import json
import random
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.model.timestamps import to_timestamp
from tests.acceptance.process import ServerProcess
from tests.acceptance.threads import serving
from tests.faults.report import report
from tests.faults.test_failpoints import seeded

LIBRARY = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")  # Debian's faketime
JUMPS, AT_A_TIME = 60, 3
YEAR = 365 * 86_400
SIZES = (1, 2, 10, 60, 3_600, 86_400, 30 * 86_400, YEAR, 10 * YEAR)  # seconds, in both directions
PAUSE, KEPT = 2.0, 4.0  # seconds: of a wait; that a task and an idempotency key are kept
LATE = 1.0  # seconds, beyond what the machine itself is late in that round
LOOKS = 1.5  # seconds: retention looks once a second, and what it did is found by asking again and again
EARLY = 0.1  # what the two processes' readings of one clock may differ by
EXECUTORS = """
import asyncio

from core import executor


@executor("one_at_a_time", concurrency=1)
async def one_at_a_time(inputs, context):
    await asyncio.Event().wait()
"""

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="faketime is not installed")


class Hook(ThreadingHTTPServer):
    """A webhook's receiver that asks to be called again after the pause, once for each path."""

    daemon_threads = True

    def __init__(self) -> None:
        self.calls: dict[str, list[float]] = defaultdict(list)
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.changed:
            calls = self.server.calls[self.path]
            calls.append(time.monotonic())
            self.server.changed.notify_all()
        self.send_response(503 if len(calls) == 1 else 200)
        self.send_header("Retry-After", f"{PAUSE:g}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


class Clocked:
    """A server whose clock is set, its callers, and how far off each wait was."""

    def __init__(self, folder: Path, hook: Hook, seed: int) -> None:
        folder.mkdir()
        self.chance = random.Random(seed)
        self.hook = hook
        self.file = folder / "clock"
        self.offset = 0
        self.rounds = 0
        self.late: dict[str, dict[int, float]] = defaultdict(dict)  # seconds, by the round
        self.put_off: list[str] = []  # tasks whose deletion waits for the right clock
        self.wrong: list[str] = []
        database = f"sqlite:///{folder}/server.db"
        command = [sys.executable, "-m", "a2a_server", "keys", "create", "op", "--operator", "-o", "json"]
        made = subprocess.run([*command, "--database", database], check=True, capture_output=True, cwd=folder)
        (folder / "more.py").write_text(EXECUTORS)
        self.server = ServerProcess(folder, "more.py", "--auth", "keys", "--egress-allow", "127.0.0.1", env={
            "LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
            # Else it replaces waits for a condition by ones of its own, which spin and last: the interpreter's threads
            # took up to a second to hand over to each other, and an idle server half a processor.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "A2A_SERVER_DELETE_AFTER": f"{KEPT:g}", "A2A_SERVER_IDEMPOTENCY_KEEP": f"{KEPT:g}",
            "A2A_SERVER_COMPACT_AFTER": "0", "A2A_SERVER_PUSH_RETRY_LONGEST": f"{PAUSE:g}", "A2A_SERVER_DRAIN": "1",
        })  # fmt: skip
        self.server.client.headers["Authorization"] = f"Bearer {json.loads(made.stdout)['key']}"

    def set_clock(self, offset: int) -> None:
        self.offset = offset
        self.file.write_text(f"{offset:+d}\n")

    def run(self, jumps: list[int]) -> None:
        """Jump away and back again, each in the middle of all waits."""
        self.set_clock(0)
        self.server.start()
        try:
            self.server.call("tasks.execute", {"tasks": [{"name": "one_at_a_time"}]})  # others wait for its slot
            for jump in jumps:
                for offset in (jump, 0):
                    self.round(offset)
        finally:
            self.server.close()

    def round(self, offset: int) -> None:
        self.rounds += 1
        waits: list[Callable[[], None]] = [
            self.machine, self.retry, self.timeout, self.timeout_of_a_group, self.queue_timeout, self.deadline,
            self.patient, self.webhook, self.expiry, self.deletion, self.idempotency,
        ]  # fmt: skip
        with ThreadPoolExecutor(len(waits)) as pool:
            running = [pool.submit(wait) for wait in waits]
            self.execute("work", inputs={"seconds": self.chance.uniform(0.2, 1.0)})
            self.set_clock(offset)
            for wait in running:
                wait.result()

    def execute(self, name: str, **fields: Any) -> dict[str, Any]:
        """Run one task to its end; the task."""
        return self.execute_all([{"name": name, **fields}])

    def execute_all(self, tasks: list[dict[str, Any]]) -> dict[str, Any]:
        """The same for a tree."""
        tree: dict[str, Any] = self.server.call("tasks.execute", {"tasks": tasks, "wait": True})
        times = [tree[name] for name in ("created_at", "started_at", "completed_at") if tree[name] is not None]
        self.check(times == sorted(times), f"times go back: {tree}")
        return tree

    def check(self, is_right: bool, otherwise: str) -> None:
        if not is_right:
            self.wrong.append(f"round {self.rounds}, clock {self.offset:+d} s: {otherwise}")

    def took(self, wait: str, began: float, pause: float = PAUSE) -> None:
        self.late[wait][self.rounds] = time.monotonic() - began - pause

    # The kinds of waits

    def machine(self) -> None:
        """How late the machine itself is."""
        began = time.monotonic()
        self.execute("work", inputs={"seconds": PAUSE})
        self.took("no wait of ours", began)

    def retry(self) -> None:
        began = time.monotonic()
        tree = self.execute("second_try", max_attempts=2, retry={"initial": PAUSE, "jitter": 0})
        self.took("pause before a retry", began)
        self.check(tree["status"] == "completed", f"retry: {tree['status']}")

    def timeout(self) -> None:
        began = time.monotonic()
        tree = self.execute("hang", timeout=PAUSE)
        self.took("timeout of an attempt", began)
        self.check(tree["cause"] == "timeout", f"timeout: {tree['cause']}")

    def timeout_of_a_group(self) -> None:
        began = time.monotonic()
        below = [{"name": "hang", "parent_id": "group"}, {"name": "work", "parent_id": "group"}]
        tree = self.execute_all([{"name": "group", "id": "group", "timeout": PAUSE}, *below])
        self.took("timeout of a group", began)
        self.check(tree["status"] == "failed", f"timeout of a group: {tree['status']}")

    def queue_timeout(self) -> None:
        began = time.monotonic()
        tree = self.execute("one_at_a_time", queue_timeout=PAUSE)
        self.took("timeout of a wait for a slot", began)
        self.check(tree["cause"] == "queue_timeout", f"queue timeout: {tree['cause']}")

    def deadline(self) -> None:
        began = time.monotonic()
        tree = self.execute("hang", deadline=to_timestamp(time.time() + PAUSE))
        self.took("deadline of a task", began)
        self.check(tree["cause"] == "deadline", f"deadline: {tree['cause']}")

    def patient(self) -> None:
        """What has time enough ends."""
        fields = {"deadline": to_timestamp(time.time() + 60), "timeout": 60, "inputs": {"seconds": PAUSE}}
        tree = self.execute("work", **fields)
        self.check(tree["status"] == "completed", f"a task with a minute left: {tree['error']}")

    def webhook(self) -> None:
        path = f"/{id(self)}/{self.rounds}"
        url = f"http://127.0.0.1:{self.hook.server_address[1]}{path}"
        params = {"tasks": [{"name": "noop"}], "webhook_config": {"url": url}}
        self.server.call("tasks.execute", params)
        with self.hook.changed:
            assert self.hook.changed.wait_for(lambda: len(self.hook.calls[path]) > 1, 60), "no webhook came again"
            first, second = self.hook.calls[path][:2]
        self.late["pause before a webhook's retry"][self.rounds] = second - first - PAUSE

    def expiry(self) -> None:
        """A key, and a stream that was opened with it."""
        began = time.monotonic()
        key = self.server.call("keys.create", {"principal": "guest", "is_operator": True, "expires_in": PAUSE})["key"]
        client = httpx2.Client(base_url=self.server.url, timeout=60, trust_env=False)
        with client as client:
            client.headers["Authorization"] = f"Bearer {key}"
            execute = {"tasks": [{"name": "hang", "timeout": 2 * PAUSE}], "use_streaming": True}
            with client.stream("POST", "/", json=call("tasks.execute", execute)) as stream:
                for _ in stream.iter_lines():
                    pass
            self.took("end of a key's streams", began)
            status = client.post("/", json=call("system.health")).status_code
        self.check(status == 401, f"an expired key: {status}")

    def deletion(self) -> None:
        """An ended task is there until its time is over, and not much longer.

        What cannot be undone waits for both clocks: one that is set back puts it off until it is right again.
        """
        put_off, self.put_off = self.put_off, []
        began = time.monotonic()
        task = self.execute("noop")["id"]
        is_known = True
        while is_known:
            self.execute("work", inputs={"seconds": 0.1})
            is_known = "error" not in self.server.raw("tasks.get", {"task_id": task})
            if self.offset < 0 and time.monotonic() - began > KEPT + PAUSE:
                self.put_off.append(task)
                return
        self.took("deletion of an ended task", began, KEPT)
        for task in put_off:
            self.check("error" in self.server.raw("tasks.get", {"task_id": task}), "what was put off is not deleted")

    def idempotency(self) -> None:
        """A key leads to its task until its time is over, and not much longer."""
        key = {"Idempotency-Key": f"{id(self)}-{self.rounds}"}
        body = call("tasks.execute", {"tasks": [{"name": "hang", "timeout": 2 * KEPT}]})
        ids: list[str] = []
        began = time.monotonic()
        while len(set(ids)) < 2:
            answer = self.server.client.post("/", json=body, headers=key).json()
            ids.append(answer["result"]["task_id"])
            self.execute("work", inputs={"seconds": 0.1})
        self.took("end of an idempotency key", began, KEPT)
        self.server.call("tasks.cancel", {"task_ids": ids[:1] + ids[-1:]})


def call(method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}


def jump(folder: Path, jumps: int, at_a_time: int) -> tuple[int, list[Clocked]]:
    """Servers whose clocks jump so often in all. Raises AssertionError for what that makes of their waits."""
    seed, chance = seeded()
    sizes = [sign * size for size in SIZES for sign in (1, -1)] * (jumps // len(SIZES) + 1)
    chance.shuffle(sizes)
    each = jumps // at_a_time // 2
    with serving(Hook()) as hook:
        servers = [Clocked(folder / f"{n}", hook, chance.getrandbits(32)) for n in range(at_a_time)]
        with ThreadPoolExecutor(at_a_time) as pool:
            list(pool.map(lambda n: servers[n].run(sizes[n * each : (n + 1) * each]), range(at_a_time)))
    assert [wrong for one in servers for wrong in one.wrong] == []
    for one in servers:
        machine = one.late["no wait of ours"]
        for wait, late in one.late.items():
            looks = LOOKS if "deletion" in wait or "idempotency" in wait else 0.0
            for n, seconds in late.items():
                told = f"{wait}, round {n}: {seconds:.2f} s, the machine {machine[n]:.2f} s"
                assert -EARLY <= seconds <= LATE + machine[n] + looks, told
    return seed, servers


def test_clock_that_is_set_ends_and_prolongs_no_wait(tmp_path: Path) -> None:
    """A sample."""
    jump(tmp_path, 2, 1)


@pytest.mark.slow
def test_sixty_jumps_of_the_clock_end_and_prolong_no_wait(tmp_path: Path) -> None:
    seed, servers = jump(tmp_path, JUMPS, AT_A_TIME)
    late = {wait: max(late for one in servers for late in one.late[wait].values()) for wait in servers[0].late}
    early = min(min(late.values()) for one in servers for late in one.late.values())
    rows = "; ".join(f"{wait} {seconds:.2f} s" for wait, seconds in late.items())
    figures = f"{sum(one.rounds for one in servers)} jumps of 1 s to 10 years, in both directions: nothing was early "
    figures += f"({early:+.2f} s), late at most: {rows}; 0 times of a task went back"
    report("R14", "the clock is set in the middle of every wait", figures, seed=seed)


def test_times_of_a_task_do_not_go_back_over_a_restart(tmp_path: Path) -> None:
    """The next process begins with a clock that is a day behind: stored times hold, and what follows comes after."""
    with serving(Hook()) as hook:
        one = Clocked(tmp_path / "0", hook, 0)
        one.set_clock(0)
        one.server.start()
        try:
            task = one.server.call("tasks.execute", {"tasks": [{"name": "nap", "inputs": {"seconds": 60}}]})["task_id"]
            one.execute("noop")
            one.server.kill()
            one.set_clock(-86_400)
            one.server.start()
            one.server.call("tasks.cancel", {"task_ids": [task]})
            times = [datetime.fromisoformat(event["timestamp"]) for event in one.server.log_of(task)]
            assert times == sorted(times) and len(times) > 3
        finally:
            one.server.close()
