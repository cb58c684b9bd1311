"""Sessions of programs that forget them, make a loop for each job, use threads or fork: no lock-out and no noise.

Real programs in processes of their own, since what Python says at their end is part of it.
"""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

from core import home
from core.home import LINGER, PATIENCE, Home, Lingering
from core.model.errors import StorageUnavailable
from tests.core.cores import virtual_time

ROOT = Path(__file__).parents[2]
PROGRAM = """
import asyncio, contextlib, gc, multiprocessing, os, sys, threading, time
from core import *

@executor("hi")
async def hi(inputs, context):
    return 1

@executor("plain")
def plain(inputs, context):
    return 1

async def job(url="sqlite:///a.db", name="hi"):
    manager = TaskManager(create_session(url))
    tree = TaskTreeNode(await manager.task_repository.create_task(name=name))
    return (await manager.distribute_task_tree(tree)).task.status.value

def on_a_new_loop(*arguments, close=True):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(job(*arguments))
    finally:
        if close:
            loop.close()
"""

FORGOTTEN = """
async def main():
    for n in range({count}):
        assert await job({url}) == "completed"
        if n % {every} == 0:
            gc.collect()
asyncio.run(main())
"""

COLLECTED = """
import core.home
core.home.LINGER = 0.0
async def main():
    for _ in range(30):
        assert await job() == "completed"
        await asyncio.sleep(0)
        gc.collect()
asyncio.run(main())
"""

LOOPS = """
kept = [on_a_new_loop({arguments}close={close}) for _ in range(20)]
assert kept == ["completed"] * 20
"""

ONE_FOR_ALL_LOOPS = """
manager = TaskManager(create_session({url}))
async def use():
    tree = TaskTreeNode(await manager.task_repository.create_task(name="plain"))
    return (await manager.distribute_task_tree(tree)).task.status.value
for n in range(12):
    if n % 3:
        loop = asyncio.new_event_loop()
        assert loop.run_until_complete(use()) == "completed"
        loop.close()
    else:
        assert asyncio.run(use()) == "completed"
"""

LET_GO = """
assert on_a_new_loop() == "completed"
gc.collect()
import fcntl
file = os.open("a.db.lock", os.O_RDWR)
ends_at = time.monotonic() + 20
while True:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        break
    except OSError:
        assert time.monotonic() < ends_at, "the lock is still held"
"""

THREADS = """
failed = []
def work():
    for _ in range(10):
        try:
            assert on_a_new_loop() == "completed"
        except Exception as error:
            failed.append(error)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert failed == [], failed
"""

FORKS = """
def child(name):
    status = asyncio.run(job(":memory:", name))
    gc.collect()
    os._exit(0 if status == "completed" else 1)
for name in ("plain", "hi", "plain"):
    assert asyncio.run(job(":memory:", name)) == "completed"
    pid = os.fork()
    if not pid:
        child(name)
    assert os.waitpid(pid, 0)[1] == 0
"""

FORKED_USER = """
held = create_session("sqlite:///a.db")
async def main():
    await held.ensure_started()
    pid = os.fork()
    if not pid:
        try:
            asyncio._set_running_loop(None)
            on_a_new_loop()
        except Exception as error:
            code = 0 if type(error).__name__ == "DatabaseInUse" and str(os.getppid()) in str(error) else 1
        os._exit(code)
    assert (await asyncio.to_thread(os.waitpid, pid, 0))[1] == 0
    assert await job() == "completed"
asyncio.run(main())
"""

FORK_AFTER_USE = """
assert on_a_new_loop() == "completed"
asyncio.run(job())
pid = os.fork()
if not pid:
    os._exit(0 if on_a_new_loop() == "completed" else 1)
assert os.waitpid(pid, 0)[1] == 0
assert on_a_new_loop() == "completed"
"""

NOTEBOOK = """
loop = asyncio.new_event_loop()  # IPython: one loop, which runs a cell and rests
for n in range(30):
    assert loop.run_until_complete(job()) == "completed"
    if n % 3 == 0:
        gc.collect()
loop.run_until_complete(loop.shutdown_asyncgens())
loop.close()
"""

PROGRAMS = {
    "forgotten": FORGOTTEN.format(url='"sqlite:///a.db"', every=7, count=60),
    "forgotten, in memory": FORGOTTEN.format(url='":memory:"', every=3, count=60),
    "collected at once": COLLECTED,
    "a loop for each job": LOOPS.format(arguments="", close=True),
    "a loop for each job, in memory": LOOPS.format(arguments='":memory:", ', close=True),
    "loops that stay": LOOPS.format(arguments="", close=False),
    "one session, many loops": ONE_FOR_ALL_LOOPS.format(url='"sqlite:///a.db"'),
    "one session in memory, many loops": ONE_FOR_ALL_LOOPS.format(url='":memory:"'),
    "the lock is let go": LET_GO,
    "threads": THREADS,
    "forks": FORKS,
    "a fork of a program that uses the file": FORKED_USER,
    "a fork after a program used the file": FORK_AFTER_USE,
    "a notebook": NOTEBOOK,
}


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "program.py"
    file.write_text(PROGRAM + program)
    return subprocess.run(
        [sys.executable, str(file)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100,
    )  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS.keys())
def test_a_session_is_there_wherever_a_program_makes_it(program: str, tmp_path: Path) -> None:
    """Found from outside: a fork, a new loop for each job or a lost session hung or failed for ever."""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize("url", ['"sqlite:///a.db"', '":memory:"'], ids=["file", "memory"])
def test_a_thousand_functions_each_make_a_session(url: str, tmp_path: Path) -> None:
    """Found from outside: a program that made a session in each function locked itself out."""
    done = run(FORGOTTEN.format(url=url, every=7, count=1_000), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


BUSY = """
async def hold():
    await create_session("sqlite:///a.db").ensure_started()
    inside.set()
    await asyncio.to_thread(done.wait)
inside, done = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: asyncio.run(hold()))
thread.start()
inside.wait()
try:
    on_a_new_loop()
except Exception as error:
    print(type(error).__name__, error)
done.set()
thread.join()
assert on_a_new_loop() == "completed"
"""


def test_a_loop_that_goes_on_in_another_thread_is_one_clear_line(tmp_path: Path) -> None:
    """After a while, and before anything is done."""
    done = run(BUSY, tmp_path)
    assert done.stdout.startswith("StorageUnavailable this session belongs to another event loop"), done.stderr
    assert (done.returncode, len(done.stdout.splitlines()), done.stderr) == (0, 1, "")
    assert PATIENCE <= 10


# Whose turn it is


async def nothing() -> None:
    """Opens, and closes."""


class Watched(Home):
    """Tells when somebody had to wait."""

    def __init__(self) -> None:
        super().__init__(nothing, nothing, lambda: None)
        self.waits = threading.Event()

    def _claimed(self, *arguments: Any, **named: Any) -> asyncio.Future[None] | None:
        if (opening := super()._claimed(*arguments, **named)) is None:
            self.waits.set()
        return opening


def test_who_waits_comes_before_a_thread_that_makes_loop_after_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found later: such a thread kept the others out until they gave up after 5 seconds.

    Else it waits until that thread has nothing left to do, and gives up.
    """
    monkeypatch.setattr(home, "ABSENT", 60.0)
    watched, order = Watched(), []

    async def use(name: str) -> None:
        await watched.enter(until_loop_ends=True)
        order.append(name)
        if name == "first":
            thread.start()
            assert await asyncio.to_thread(watched.waits.wait, 30), "nobody waits"

    thread = threading.Thread(target=lambda: asyncio.run(use("waits")))
    for name in ("first", "second"):
        asyncio.run(use(name))
    thread.join()
    assert order == ["first", "waits", "second"]


def test_a_loop_that_stopped_while_it_waited_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home, "ABSENT", 0.1)
    watched, stopped = Watched(), asyncio.new_event_loop()

    async def hold() -> None:
        await watched.enter(until_loop_ends=True)
        await asyncio.to_thread(wait_and_stop)

    def wait_and_stop() -> None:
        left.append(stopped.create_task(watched.enter(until_loop_ends=True)))
        stopped.call_soon(stopped.stop)
        stopped.run_forever()
        assert watched.waits.is_set()

    left: list[asyncio.Task[None]] = []
    asyncio.run(hold())
    asyncio.run(watched.enter(until_loop_ends=True))
    left[0].cancel()
    stopped.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    stopped.close()


class Busy:
    """Stands for a loop that goes on in another thread."""

    def is_running(self) -> bool:
        return True


@virtual_time
async def test_patience_is_with_one_loop_not_with_all_that_come_before() -> None:
    watched, now = Watched(), asyncio.get_running_loop().time
    watched._opening = asyncio.get_running_loop().create_future()
    watched.place.process = os.getpid()
    waiting = asyncio.create_task(watched.enter(until_loop_ends=False))
    for _ in range(5):
        watched.place.loop = Busy()  # type: ignore[assignment]
        await asyncio.wait([waiting], timeout=PATIENCE - 1)
        assert not waiting.done()
    since = now() - (PATIENCE - 1)
    with pytest.raises(StorageUnavailable, match="another event loop"):
        await waiting
    assert now() - since == pytest.approx(PATIENCE, abs=0.1)


# After its last use


class Owner:
    """Stands for a session."""


@virtual_time
async def test_an_owner_is_kept_for_a_while_after_its_last_use() -> None:
    lingering, owner = Lingering(), Owner()
    kept = weakref.ref(owner)
    lingering.keep(owner)
    await asyncio.sleep(LINGER - 1)
    lingering.keep(owner)
    del owner
    await asyncio.sleep(LINGER - 1)
    gc.collect()
    assert kept() is not None
    await asyncio.sleep(2)
    gc.collect()
    assert kept() is None


@virtual_time
async def test_an_owner_that_was_let_go_is_kept_by_nothing() -> None:
    lingering, owner = Lingering(), Owner()
    kept = weakref.ref(owner)
    lingering.keep(owner)
    lingering.stop()
    lingering.stop()
    del owner
    await asyncio.sleep(0)
    gc.collect()
    assert kept() is None
