"""The children of a session (`core.executors.family`): none outlives the process, and a start ends what did."""

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from core.executors import family as family_module
from core.executors.family import Family, end_all
from core.executors.marks import VARIABLE, Mark
from core.session import Session
from core.storage.sqlite.sql import SqlStorage
from tests.core.executors.test_marks import child

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="marks are read in /proc")

SERVER = """
import os, signal, subprocess, sys
from core.executors.family import Family
from core.executors.marks import VARIABLE
mark = Family("database").new_mark()
child = subprocess.Popen(["setsid", "sleep", "1000"], env={**os.environ, VARIABLE: mark.text()})
if FORKS and os.fork() == 0:
    os.write(1, f"{os.getpid()}\\n".encode())
    os.execvp("sleep", ["sleep", "1000"]) if FORKS == "exec" else signal.pause()
os.write(1, f"{child.pid}\\n".encode())
sys.stdin.read()
"""


def test_each_mark_is_another() -> None:
    one, two = Family("a"), Family("")
    marks = [one.new_mark(), one.new_mark(), two.new_mark()]
    assert len(set(marks)) == 3
    assert [mark.database for mark in marks] == ["a", "a", "memory"]
    assert len({mark.process for mark in marks}) == 1


@pytest.mark.parametrize("forks", ["", "exec", "fork"])
def test_a_child_ends_when_its_server_is_killed(forks: str) -> None:
    """Also when a forked child of the server lives on."""
    server = subprocess.Popen(
        [sys.executable, "-c", f"FORKS = {forks!r}\n{SERVER}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdout is not None
    pids = [int(server.stdout.readline()) for _ in range(2 if forks else 1)]
    sleeping = [pid for pid in pids if VARIABLE in psutil.Process(pid).environ()]
    assert len(sleeping) == 1
    server.kill()
    psutil.Process(sleeping[0]).wait(10)
    for pid in set(pids) - set(sleeping):
        psutil.Process(pid).kill()
    server.communicate()


@pytest.mark.asyncio
async def test_all_of_one_mark_end_and_no_others() -> None:
    family = Family("a")
    mark, other = family.new_mark(), family.new_mark()
    with child(mark.text()) as first, child(mark.text()) as second, child(other.text()) as third:
        await end_all(mark)
        assert (first.wait(10), second.wait(10), third.poll()) == (-9, -9, None)


@pytest.mark.asyncio
async def test_a_start_ends_what_an_earlier_process_of_its_database_left_before_anything_runs(tmp_path: Path) -> None:
    storage = SqlStorage(str(tmp_path / "tasks.db"))
    await storage.open()
    identity = storage.identity
    await storage.close()
    marks = [
        Mark(identity, "an earlier one", "1"),
        Mark(identity, family_module._warden.process, "1"),
        Mark("another database", "an earlier one", "1"),
    ]
    with child(marks[0].text()) as left, child(marks[1].text()) as ours, child(marks[2].text()) as foreign:
        async with Session(storage):
            assert (left.wait(10), ours.poll(), foreign.poll()) == (-9, None, None)


@pytest.mark.asyncio
async def test_what_does_not_last_has_no_orphans() -> None:
    with child(Mark("memory", "an earlier one", "1").text()) as other:
        assert await Family().end_orphans("") == 0
        assert other.poll() is None
