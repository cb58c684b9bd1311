"""A real server process, as its operator starts it, and a plain client for it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).resolve().parents[2]
EXECUTORS = ROOT / "tests" / "acceptance" / "executors.py"
# Shorter than the server's `keep_alive` (5 s): else a call may go out on a connection that is closed at that moment.
LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=2)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class ServerProcess:
    """`a2a-server serve`, started again and again with the same command."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        env: dict[str, str] | None = None,
        executors: Path = EXECUTORS,
        database: str | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [
            sys.executable, "-m", "a2a_server", "serve", str(executors), "--port", str(self.port),
            "--database", database or f"sqlite:///{folder}/server.db", *arguments,
        ]  # fmt: skip
        self.env = {**os.environ, "LEDGER": str(folder / "ledger"), "A2A_SERVER_DRAIN": "2", **(env or {})}
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self.log: list[str] = []
        self.client = httpx2.Client(base_url=self.url, timeout=60, trust_env=False, limits=LIMITS)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> "ServerProcess":
        """Start it, and return when it says that it listens."""
        self.process = subprocess.Popen(
            self.command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=self.folder, env=self.env
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if "listening on" in line:
                break
        else:
            raise AssertionError("the server did not start:\n" + "".join(self.log))
        self._reader = threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        return self

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self._end()

    def terminate(self, timeout: float = 40) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self._end(timeout)

    def _end(self, timeout: float | None = None) -> int:
        assert self.process is not None and self.process.stderr is not None
        code = self.process.wait(timeout)
        if self._reader is not None:
            self._reader.join()
        self.process.stderr.close()
        return code

    def close(self) -> None:
        self.client.close()
        if self.process is not None and self.process.returncode is None:
            self.kill()

    def call(self, method: str, params: Any = None, path: str = "/") -> Any:
        """The result of a JSON-RPC call. Raises AssertionError with the error object."""
        answer = self.raw(method, params, path)
        assert "error" not in answer, answer
        return answer["result"]

    def raw(self, method: str, params: Any = None, path: str = "/") -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method} | ({"params": params} if params is not None else {})
        return self.client.post(path, json=body).json()

    def log_of(self, task_id: str, after: int = 0) -> list[dict[str, Any]]:
        """All stored events of the tree after that one, page by page."""
        found: list[dict[str, Any]] = []
        while page := self.call("tasks.events", {"task_id": task_id, "after": after}):
            found += page
            after = page[-1]["seq"]
        return found

    def events(self, task_id: str, after: int | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, data) of each event of the tree's stream, until it ends or the connection breaks."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        try:
            with self.client.stream("GET", f"/tasks/{task_id}/events", headers=headers) as response:
                if response.status_code == 204:  # it has ended, and all of it was told
                    return
                assert response.status_code == 200, response.read()
                yield from sse_events(response.iter_lines())
        except httpx2.TransportError:
            return


def sse_events(lines: Iterator[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Parse server-sent events that carry one line of JSON each."""
    seq = 0
    for line in lines:
        if line.startswith("id:"):
            seq = int(line[3:])
        elif line.startswith("data:"):
            yield seq, json.loads(line[5:])
