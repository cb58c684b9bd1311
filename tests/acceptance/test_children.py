"""Processes that a real server starts, or that its executors fork: what is left of them when the server ends."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.acceptance.process import EXECUTORS as EXECUTORS_OF_ALL
from tests.acceptance.process import ServerProcess

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="marks are read in /proc")

SAMPLE, MANY = 2, 50  # children of each way

EXECUTORS = """
import asyncio
import multiprocessing
import os
import subprocess
import sys
import time

from core import executor

HANG = [sys.executable, "-c", "import time; time.sleep(1000)"]


def daemonise(file, then):
    \"\"\"A grandchild in a session of its own, with no descriptor; its process id becomes a line of `file`.\"\"\"
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 1000)
            with open(file, "a") as told:
                told.write(f"{os.getpid()}\\n")
            then()
        os._exit(0)
    os.waitpid(child, 0)


def sleep():
    time.sleep(1000)


@executor("fork")
async def fork(inputs, context):
    child = multiprocessing.get_context("fork").Process(target=sleep)
    child.start()
    return child.pid


@executor("forked")
async def forked(inputs, context):
    child = multiprocessing.get_context("fork").Process(target=daemonise, args=(inputs["file"], sleep))
    child.start()
    child.join()
    await asyncio.sleep(1000)


@executor("forked_by_a_thread")
def forked_by_a_thread(inputs, context):
    daemonise(inputs["file"], sleep)


@executor("started")
async def started(inputs, context):
    child = subprocess.Popen(HANG, start_new_session=True)
    with open(inputs["file"], "a") as told:
        told.write(f"{child.pid}\\n")
    await asyncio.sleep(1000)


@executor("spawned")
async def spawned(inputs, context):
    child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1000,))
    child.start()
    with open(inputs["file"], "a") as told:
        told.write(f"{child.pid}\\n")
    await asyncio.sleep(1000)


@executor("isolated", isolation="process")
def isolated(inputs, context):
    daemonise(inputs["file"], sleep)
    time.sleep(1000)


@executor("isolated_and_started", isolation="process")
def isolated_and_started(inputs, context):
    daemonise(inputs["file"], lambda: os.execv(sys.executable, HANG))
    time.sleep(1000)
"""
COMMAND = "(setsid sh -c 'echo $$ >> {file}; exec sleep 1000' &); sleep 1000"
WAYS = ("command", "isolated", "isolated_and_started", "forked", "forked_by_a_thread", "started", "spawned")
SOME = pytest.mark.parametrize("count", [SAMPLE, pytest.param(MANY, marks=pytest.mark.slow)])
LIMITS = ("RUNNING", "RUNNING_PER_CALLER", "RUNNING_PER_TREE", "PROCESSES")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "forker.py").write_text(EXECUTORS)
    env = {f"A2A_SERVER_MAX_{name}": "500" for name in LIMITS}
    process = ServerProcess(tmp_path, str(tmp_path / "forker.py"), "--command", "sh", env=env)
    yield process
    process.close()


def task(way: str, file: Path) -> dict[str, Any]:
    """A task that leaves a process behind in this way; its process id will be a line of the file."""
    if way == "command":
        return {"name": "command_executor", "inputs": {"argv": ["sh", "-c", COMMAND.format(file=file)]}}
    return {"name": way, "inputs": {"file": str(file)}}


def tasks(file: Path, count: int) -> list[dict[str, Any]]:
    """One tree of so many tasks of each way, and one that keeps it at work."""
    each = [task(way, file) for way in WAYS for _ in range(count)] + [{"name": "hang"}]
    return [{"name": "root", "id": "root"}, *({**one, "parent_id": "root"} for one in each)]


@contextmanager
def told(folder: Path) -> Iterator[tuple[Path, Callable[[int], list[psutil.Process]]]]:
    """Where processes tell their ids, and what waits for so many of them."""
    file = folder / "fifo"
    os.mkfifo(file)
    with file.open("r+b", buffering=0) as reader:  # for writing as well: it does not end between two writers
        yield file, lambda count: [psutil.Process(int(reader.readline())) for _ in range(count)]


def lived_on(left: list[psutil.Process], seconds: float) -> list[str]:
    """What those are that have not ended so many seconds later; who reaps them is not the question."""
    _, remaining = psutil.wait_procs(left, seconds)
    found = []
    for process in remaining:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found.append(" ".join(process.cmdline()))
            process.kill()
    return found


def wardens(pid: int) -> list[psutil.Process]:
    return [each for each in psutil.Process(pid).children() if any("marks.py" in word for word in each.cmdline())]


@SOME
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_no_child_outlives_its_server(server: ServerProcess, number: int, count: int) -> None:
    """Found from outside: after kill -9 a command ran on beside its second copy."""
    server.start()
    with told(server.folder) as (file, wait_for):
        server.call("tasks.execute", {"tasks": tasks(file, count)})
        left = wait_for(count * len(WAYS))
    assert server.process is not None
    server.process.send_signal(number)
    assert server._end(40) == (-number if number == signal.SIGKILL else 0)
    assert lived_on(left, 30) == []


@SOME
def test_the_next_start_ends_what_is_left_when_nobody_else_could(server: ServerProcess, count: int) -> None:
    """Found later: a process that an executor had forked outlived the server after kill -9."""
    server.start()
    with told(server.folder) as (file, wait_for):
        root = server.call("tasks.execute", {"tasks": tasks(file, count)})["task_id"]
        left = wait_for(count * len(WAYS))
    server.call("tasks.cancel", {"task_ids": [root], "force": True})  # what forks left behind lives on
    forks = [process for process in left if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    assert len(forks) >= 4 * count
    (warden,) = wardens(server.pid)
    warden.kill()
    again = ServerProcess(server.folder)
    again.command, again.env = server.command, server.env
    assert server.process is not None
    try:
        server.process.kill()
        server.process.wait()  # forks have its output, as any program's
        assert all(process.is_running() for process in forks)
        again.start()
        assert lived_on(left, 1) == []
        assert "processes of an earlier server" in "".join(again.log)
    finally:
        lived_on(left, 0)
        again.close()
        server._end()


@SOME
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_no_child_outlives_the_command_that_runs_a_tree(server: ServerProcess, number: int, count: int) -> None:
    """Found from outside: `run` died at SIGTERM and left its command running."""
    executors = [str(server.folder / "forker.py"), str(EXECUTORS_OF_ALL)]
    command = [sys.executable, "-m", "a2a_server", "run", "tree.json", *(f"--executors={each}" for each in executors)]
    with told(server.folder) as (file, wait_for):
        (server.folder / "tree.json").write_text(json.dumps(tasks(file, count)))
        process = subprocess.Popen(
            command, cwd=server.folder, env={**server.env, "A2A_SERVER_COMMANDS": "sh"},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        left = wait_for(count * len(WAYS))
    process.send_signal(number)
    assert process.wait(40) == (-number if number == signal.SIGKILL else 128 + number)
    assert lived_on(left, 30) == []


def test_a_forked_child_holds_neither_the_port_nor_the_database(server: ServerProcess) -> None:
    """Found from outside: forked children held the port: no server could start after a kill."""
    server.start()
    tree = server.call("tasks.execute", {"tasks": [{"name": "fork"}], "wait": True})
    child = psutil.Process(tree["result"])
    follower = socket.create_connection(("127.0.0.1", server.port))
    follower.settimeout(10)
    again = ServerProcess(server.folder)
    again.command = server.command
    assert server.process is not None
    try:
        for warden in wardens(server.pid):  # else the child would end as well
            warden.kill()
        server.process.kill()
        server.process.wait()  # the child has its output, as any program's
        assert child.is_running() and child.status() != psutil.STATUS_ZOMBIE
        assert follower.recv(1) == b"", "the end of the server is heard"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port))
        again.start()
        assert lived_on([child], 1) == []
        assert again.terminate() == 0
    finally:
        with suppress(psutil.NoSuchProcess):
            child.kill()
        follower.close()
        again.close()
        server._end()
