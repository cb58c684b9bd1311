"""What a server does from SIGTERM to its end, seen from outside: a real process, real signals."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from core.storage.sqlite.sql import SqlStorage

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
EXECUTORS = """
import asyncio
from core import executor

@executor("nap")
async def nap(inputs, context):
    print("began", context.task_id, flush=True)
    await asyncio.sleep(inputs["seconds"])
    return "woke up"
"""


class Process:
    """A server, and what is said to it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.client = httpx2.AsyncClient(base_url=url, trust_env=False, timeout=20)

    async def call(self, method: str, params: dict[str, Any]) -> Any:
        answer = (
            await self.client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        ).json()
        assert "result" in answer, answer
        return answer["result"]

    async def begin(self, seconds: float) -> str:
        """The id of a task that runs for so long."""
        made = await self.call("tasks.execute", {"tasks": [{"name": "nap", "inputs": {"seconds": seconds}}]})
        assert self.process.stdout is not None
        assert (await self.process.stdout.readline()).split() == [b"began", made["task_id"].encode()]
        return str(made["task_id"])

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def server(folder: Path, **settings: float) -> AsyncIterator[Process]:
    (folder / "naps.py").write_text(EXECUTORS)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "a2a_server", "serve", str(folder / "naps.py"), "--port", "0",
        "--database", f"sqlite:///{folder}/t.db",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder,
        env=os.environ | {f"A2A_SERVER_{name.upper()}": str(value) for name, value in settings.items()},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while b"listening on" not in (line := await process.stderr.readline()):
            assert line, "the server did not start"
        made = Process(process, line.decode().split()[3])
        async with made.client:
            yield made
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def stored(folder: Path, task_id: str) -> tuple[str, int]:
    """How the task is, and how many attempts it had."""
    storage = SqlStorage(str(folder / "t.db"))
    await storage.open()
    task = await storage.task(task_id)
    await storage.close()
    assert task is not None
    return task.status.value, task.attempt


@pytest.mark.asyncio
async def test_calls_are_served_while_readyz_says_draining(tmp_path: Path) -> None:
    """For `drain_delay` seconds, which a load balancer needs; then the listener closes."""
    async with server(tmp_path, drain_delay=1.5, drain=5) as it:
        told_at = time.monotonic()
        it.process.terminate()
        while (ready := await it.client.get("/readyz")).status_code == 200:
            pass
        assert (ready.status_code, ready.json()) == (503, {"status": "draining"})
        made = await it.call("tasks.execute", {"tasks": [{"name": "nap", "inputs": {"seconds": 0}}], "wait": True})
        assert (made["status"], made["result"]) == ("completed", "woke up")
        looks = 0
        with pytest.raises(httpx2.TransportError):
            while True:
                async with httpx2.AsyncClient(base_url=it.client.base_url, trust_env=False, timeout=20) as other:
                    answer = await other.get("/readyz")
                assert answer.status_code == 503
                looks += 1
        assert looks > 5
        assert time.monotonic() - told_at >= 1.5
        assert await it.ended() == 0


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
@pytest.mark.asyncio
async def test_a_running_task_ends_and_its_callers_are_told(tmp_path: Path, number: signal.Signals) -> None:
    """A blocking call, a stream, and a task that nobody waits for."""
    async with server(tmp_path, drain=10) as it:
        execute = {"tasks": [{"name": "nap", "inputs": {"seconds": 1}}]}
        waiting = asyncio.create_task(it.call("tasks.execute", {**execute, "wait": True}))
        assert it.process.stdout is not None
        await it.process.stdout.readline()
        task_id = await it.begin(1)
        text = ""
        async with it.client.stream("GET", f"/tasks/{task_id}/events") as stream:
            async for chunk in stream.aiter_text():
                if not text:
                    it.process.send_signal(number)
                text += chunk
        assert '"type":"stream_end"' in text.replace(" ", "")
        assert (await waiting)["status"] == "completed"
        assert await it.ended() == 0
    assert await stored(tmp_path, task_id) == ("completed", 1)


@pytest.mark.asyncio
async def test_what_is_left_after_the_drain_is_interrupted_and_the_process_ends_in_time(tmp_path: Path) -> None:
    async with server(tmp_path, drain_delay=0.5, drain=1) as it:
        task_id = await it.begin(60)
        told_at = time.monotonic()
        it.process.terminate()
        assert await it.ended() == 0
        assert 1.5 <= time.monotonic() - told_at < 1.5 + 2
    assert await stored(tmp_path, task_id) == ("in_progress", 1)
    async with server(tmp_path, drain=1) as it:
        assert it.process.stdout is not None
        assert await it.process.stdout.readline(), "the next process resumes it"
        (task,) = [await it.call("tasks.get", {"task_id": task_id})]
        assert (task["status"], task["attempt"]) == ("in_progress", 2)
        it.process.kill()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.asyncio
async def test_a_second_signal_ends_the_process_at_once(tmp_path: Path, second: signal.Signals) -> None:
    async with server(tmp_path, drain_delay=30, drain=30) as it:
        await it.begin(60)
        it.process.terminate()
        while (await it.client.get("/readyz")).status_code == 200:
            pass
        it.process.send_signal(second)
        assert await it.ended() == 128 + second


@pytest.mark.parametrize("first", SIGNALS, ids=lambda number: number.name)
@pytest.mark.asyncio
async def test_a_hangup_is_no_second_signal(tmp_path: Path, first: signal.Signals) -> None:
    """A closed terminal hangs up twice, the shell and the kernel; systemd's SendSIGHUP does behind its SIGTERM."""
    async with server(tmp_path, drain=10) as it:
        task_id = await it.begin(1)
        for number in (signal.SIGHUP, first, signal.SIGHUP):
            it.process.send_signal(number)
        assert await it.ended() == 0
    assert await stored(tmp_path, task_id) == ("completed", 1)


@pytest.mark.asyncio
async def test_the_log_says_at_once_that_it_stops_and_at_the_end_that_it_has(tmp_path: Path) -> None:
    """Found by an operator: for `drain_delay` seconds after SIGTERM the log said nothing, and its end was no line."""
    async with server(tmp_path, drain_delay=1, drain=2) as made:
        made.process.terminate()
        _, said = await made.process.communicate()
    first, *_, last = said.decode().splitlines()
    assert ": stopping, within 4.75 s: calls are served for 1 s, then 0 running attempts have 2 s" in first
    assert last.endswith(": stopped")


@pytest.mark.asyncio
async def test_stopping_is_said_while_calls_are_still_served(tmp_path: Path) -> None:
    async with server(tmp_path, drain_delay=600) as made:
        made.process.terminate()
        assert made.process.stderr is not None
        assert b": stopping, within " in await made.process.stderr.readline()
        assert (await made.call("system.health", {}))["status"]
