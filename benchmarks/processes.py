"""Servers as processes of their own, pinned to one core, each on a fresh database; the load runs on the other core."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import http_request

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / ".peers"
HERE = Path(__file__).resolve().parent
START_LIMIT = 30.0  # seconds that a server may take until it answers
POLL = 0.005
FIRST = http_request(b'{"jsonrpc":"2.0","id":1,"method":"GetTask","params":{"id":"none"}}', "Connection: close\r\n")


class Subject(NamedTuple):
    """One of those that are measured: how it is started, and what its promise is worth."""

    name: str
    command: tuple[str, ...]  # {port} and {folder} are filled in
    durability: str
    venv: str = ""  # of a peer, below .peers

    @property
    def is_installed(self) -> bool:
        return not self.venv or (PEERS / self.venv / "bin" / "python").exists()


def python_of(venv: str) -> str:
    return str(PEERS / venv / "bin" / "python")


OURS = Subject(
    "a2a-server",
    (
        sys.executable, "-m", "a2a_server", "serve", str(HERE / "agents.py"), "--port", "{port}",
        "--database", "sqlite:///{folder}/server.db", "--default-skill", "noop", "--log-level", "warning",
    ),
    "SQLite, WAL, FULL",
)  # fmt: skip
SDK_SQLITE = Subject(
    "a2a-sdk, SQLite store",
    (python_of("sdk"), str(HERE / "peers/sdk_server.py"), "--port", "{port}", "--database", "{folder}/sdk.db"),
    "SQLite, WAL, FULL",
    "sdk",
)
SDK_MEMORY = Subject(
    "a2a-sdk, in-memory store",
    (python_of("sdk"), str(HERE / "peers/sdk_server.py"), "--port", "{port}"),
    "none",
    "sdk",
)
FASTA2A = Subject(
    "fasta2a, in-memory storage",
    (python_of("fasta2a"), str(HERE / "peers/fasta2a_server.py"), "--port", "{port}"),
    "none",
    "fasta2a",
)
ECHO = Subject(
    "bare Starlette + jsonrpcserver echo",
    (sys.executable, str(HERE / "floors/echo.py"), "--port", "{port}"),
    "none",
)


def cores() -> tuple[int, int]:
    """The core of the servers, and that of the load (the same one where there is only one)."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


SERVER_CORE, LOAD_CORE = cores()


class Running(NamedTuple):
    """A server that takes work."""

    subject: Subject
    port: int
    pid: int
    answered_after: float  # seconds from the start of the process to its first answer


def resident(pid: int) -> int:
    """KiB of memory that the process has in use."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def running(subject: Subject, folder: Path, more: Sequence[str] = ()) -> Iterator[Running]:
    """The subject's server, from the moment at which it takes work; killed at the end by its pid."""
    port = free_port()
    command = [part.format(port=port, folder=folder) for part in subject.command] + list(more)
    begin = time.perf_counter()
    with (folder / f"{subject.name.split(',')[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=log, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE})
        )
    try:
        _await_answer(process, port, Path(log.name))
        yield Running(subject, port, process.pid, time.perf_counter() - begin)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def _await_answer(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    """Return as soon as the server answers a call, be it with an error: it takes work."""
    ends_at = time.monotonic() + START_LIMIT
    while time.monotonic() < ends_at:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=START_LIMIT) as connection:
                connection.sendall(FIRST)
                if connection.recv(1 << 16)[:12] in (b"HTTP/1.1 200", b"HTTP/1.1 404"):
                    return
        except OSError:
            if process.poll() is not None:
                break
        time.sleep(POLL)
    raise SystemExit(f"{process.args} did not start:\n{log.read_text()[-2_000:]}")
