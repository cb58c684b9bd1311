"""R27: one caller does at once all that hangs, fills or starves a server; another caller hardly notices it."""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.process import ROOT, ServerProcess
from tests.faults.load import quantile
from tests.faults.report import report

SECONDS = float(os.environ.get("SIEGE_SECONDS", "15"))
DRAIN = 5.0
MOST_MEMORY = 600  # MiB
# What another caller may wait, at the 99th percentile: the target, and so many times what the bare echo took beside it.
# A machine that does other things, too, moves both.
TASK, HEALTH, ECHOES = 1.0, 0.1, 3
# The attacker has a machine of its own: here its program gets the processors that the server leaves (steps of nice).
BEHIND = "15"
EXECUTORS = ROOT / "tests" / "faults" / "siege_executors.py"


def key_of(folder: Path, caller: str) -> str:
    command = [sys.executable, "-m", "a2a_server", "keys", "create", caller, "--tenant", f"tenant-{caller}"]
    command += ["--database", f"sqlite:///{folder}/server.db"]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def ask(port: int, path: str, body: Any = None, **headers: str) -> bytes:
    """The answer on a connection of its own, from a client that costs little: it is not what is measured.

    Raises OSError or HTTPException.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **headers})
        return connection.getresponse().read()
    finally:
        connection.close()


UNREACHED = (OSError, http.client.HTTPException)


class Bystander:
    """The other caller: how long its trivial tasks and the health check take, and the server's memory.

    Beside it the same question to a program that only echoes: what the machine itself takes under this load.
    """

    def __init__(self, server: ServerProcess, key: str, echo: int = 0) -> None:
        self._server, self._key, self._echo = server, key, echo
        self._done = threading.Event()
        self.some = threading.Event()  # set after five tasks
        self.tasks: list[float] = []
        self.health: list[float] = []
        self.floor: list[float] = []
        self.memory = 0  # MiB
        self.failures: list[str] = []

    def task(self) -> float:
        """The seconds of one trivial task. Raises AssertionError, and what `ask` raises."""
        said = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}], "metadata": {"skillId": "quick"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": said}}
        headers = {"Authorization": f"Bearer {self._key}", "A2A-Version": "1.0"}
        begin = time.monotonic()
        answer = json.loads(ask(self._server.port, "/", body, **headers))
        assert answer.get("result", {}).get("task", {}).get("status", {}).get("state") == "TASK_STATE_COMPLETED", answer
        return time.monotonic() - begin

    def _tasks(self) -> None:
        while not self._done.wait(0.1):
            try:
                self.tasks.append(self.task())
                if len(self.tasks) == 5:
                    self.some.set()
            except (*UNREACHED, ValueError, AssertionError) as error:
                self.failures.append(str(error)[:200])

    def _health(self) -> None:
        process = psutil.Process(self._server.pid)
        while not self._done.wait(0.05):
            begin = time.monotonic()
            with suppress(*UNREACHED, psutil.Error):
                ask(self._server.port, "/healthz")
                self.memory = max(self.memory, process.memory_info().rss >> 20)
            self.health.append(time.monotonic() - begin)

    def _floor(self) -> None:
        while self._echo and not self._done.wait(0.05):
            begin = time.monotonic()
            ask(self._echo, "/")
            self.floor.append(time.monotonic() - begin)

    @contextmanager
    def watching(self) -> Iterator[None]:
        threads = [threading.Thread(target=each) for each in (self._tasks, self._health, self._floor)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            for thread in threads:
                thread.join()


ECHO = """
import asyncio
async def answer(reader, writer):
    await reader.readuntil(b"\\r\\n\\r\\n")
    writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    writer.close()
async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


@contextmanager
def echoing() -> Iterator[int]:
    """The port of a program that does nothing but answer."""
    echo = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    assert echo.stdout is not None
    try:
        yield int(echo.stdout.readline())
    finally:
        echo.kill()
        echo.wait()
        echo.stdout.close()


@contextmanager
def besieged(server: ServerProcess, key: str, seconds: float) -> Iterator[subprocess.Popen[str]]:
    command = ["nice", "-n", BEHIND, sys.executable, "-m", "tests.faults.siege", server.url, key, str(seconds)]
    attack = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert attack.stdout is not None and attack.stdout.readline() == "begun\n"
        yield attack
    finally:
        attack.kill()
        attack.wait()
        assert attack.stdout is not None
        attack.stdout.close()


def figures(seconds: list[float]) -> str:
    p50, p99, worst = (1000 * quantile(seconds, share) for share in (0.5, 0.99, 1.0))
    return f"p50 {p50:.0f}, p99 {p99:.0f}, worst {worst:.0f} ms ({len(seconds)})"


@pytest.mark.slow
def test_a_caller_who_does_all_at_once_neither_freezes_nor_fills_nor_starves_the_server(tmp_path: Path) -> None:
    """The figures are in the report; the bars have room for a busy machine, which the echo beside it measures."""
    server = ServerProcess(
        tmp_path, str(EXECUTORS), "--auth", "keys", "--egress-allow", "127.0.0.1", env={"A2A_SERVER_DRAIN": str(DRAIN)}
    )
    attacker, other = key_of(tmp_path, "attacker"), key_of(tmp_path, "other")
    server.start()
    try:
        with echoing() as echo:
            bystander = Bystander(server, other, echo)
            bystander.task()
            with besieged(server, attacker, SECONDS) as attack, bystander.watching():
                assert attack.stdout is not None
                seen: Any = json.loads(attack.stdout.readline())
        begin = time.monotonic()
        code = server.terminate()
        ended = time.monotonic() - begin
        server.start()
        again = Bystander(server, other)
        with besieged(server, attacker, SECONDS), again.watching():
            assert again.some.wait(60)
            server.kill()
        begin = time.monotonic()
        server.start()
        started = time.monotonic() - begin
        after = max(again.task() for _ in range(20))
        told = f"another caller's tasks {figures(bystander.tasks)}; health {figures(bystander.health)}"
        told += f"; a bare asyncio echo beside it {figures(bystander.floor)}"
        told += f"; memory {bystander.memory} MiB; SIGTERM {ended:.1f} s with drain {DRAIN:g}"
        told += f"; after kill -9 start {started:.1f} s, slowest task {1000 * after:.0f} ms"
        report("R27", f"one caller's attack of {len(seen)} kinds at once, {SECONDS:g} s", told)
        print(json.dumps(seen, indent=1))
        assert not bystander.failures, bystander.failures[:5]
        assert len(bystander.tasks) >= SECONDS / 3
        floor = ECHOES * quantile(bystander.floor, 0.99)
        assert quantile(bystander.tasks, 0.99) < TASK + floor, told
        assert quantile(bystander.health, 0.99) < HEALTH + floor, told
        assert bystander.memory < MOST_MEMORY
        assert (code, ended < DRAIN + 3) == (0, True)
        assert after < 5
    finally:
        server.close()
