"""Processes that a real server starts, or that its executors fork: what is left of them when the server ends."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.acceptance.process import ServerProcess

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="marks are read in /proc")

FORKER = """
import multiprocessing
import time

from core import executor


@executor("fork")
async def fork(inputs, context):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    child.start()
    return child.pid
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "forker.py").write_text(FORKER)
    process = ServerProcess(tmp_path, str(tmp_path / "forker.py"), "--command", "sh")
    yield process
    process.close()


def run_daemon(server: ServerProcess) -> psutil.Process:
    """A process of a command that has left its process group."""
    fifo = server.folder / "fifo"
    os.mkfifo(fifo)
    script = f"setsid sh -c 'echo $$ > {fifo}; exec sleep 1000' & sleep 1000"
    server.call("tasks.execute", {"tasks": [{"name": "command_executor", "inputs": {"argv": ["sh", "-c", script]}}]})
    pid = int(fifo.read_text())
    fifo.unlink()
    return psutil.Process(pid)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_no_child_outlives_its_server(server: ServerProcess, number: int) -> None:
    server.start()
    daemon = run_daemon(server)
    assert server.process is not None
    server.process.send_signal(number)
    assert server._end(40) == (-number if number == signal.SIGKILL else 0)
    daemon.wait(10)


def test_a_forked_child_holds_neither_the_port_nor_the_database(server: ServerProcess) -> None:
    server.start()
    tree = server.call("tasks.execute", {"tasks": [{"name": "fork"}], "wait": True})
    child = psutil.Process(tree["result"])
    follower = socket.create_connection(("127.0.0.1", server.port))
    follower.settimeout(10)
    again = ServerProcess(server.folder)
    again.command = server.command
    assert server.process is not None
    try:
        server.process.kill()
        server.process.wait()  # the child has its output, as any program's
        assert child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        assert follower.recv(1) == b"", "the end of the server is heard"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        again.start()
        assert again.terminate() == 0
    finally:
        child.kill()
        follower.close()
        again.close()
        server._end()
