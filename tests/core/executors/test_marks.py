"""Marks of child processes (`core.executors.marks`): who carries one is found and ended, and nobody else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from core.executors import marks
from core.executors.marks import VARIABLE, Mark, end_marked, marked

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="marks are read in /proc")

MARK = Mark(f"db-{os.getpid()}", "process", "1")
WAITING = "import sys; print(flush=True); sys.stdin.read()"


@contextmanager
def child(value: str | None, code: str = WAITING) -> Iterator[subprocess.Popen[str]]:
    """A process with this value of the variable, as soon as it runs."""
    environment = {} if value is None else {VARIABLE: value}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        end_marked(lambda mark: mark.database == MARK.database)
        process.communicate(timeout=60)


def test_only_processes_with_the_mark_are_found() -> None:
    other = MARK._replace(number="2")
    values = (MARK.text(), other.text(), f"x{MARK.text()}", f"{MARK.text()}/more", MARK.database, "", None)
    with ExitStack() as stack:
        one, two, *others = [stack.enter_context(child(value)) for value in values]
        assert list(marked(lambda mark: mark == MARK)) == [one.pid]
        assert sorted(marked(lambda mark: mark.database == MARK.database)) == sorted([one.pid, two.pid])
        assert end_marked(lambda mark: mark == MARK) == 1
        assert one.wait(10) == -9
        assert [process.poll() for process in (two, *others)] == [None] * 6


def test_what_is_started_while_it_is_looked_for_is_ended_too() -> None:
    """A process that starts another one again and again and ends, each in a session of its own.

    One that lives for less time than reading `/proc` takes may get away; these live for a fifth of a second.
    """
    code = "import os, time\nprint(flush=True)\nwhile True:\n    if os.fork():\n        os._exit(0)\n"
    code += "    os.setsid()\n    time.sleep(0.2)\n"
    with child(MARK.text(), code):
        end_marked(lambda mark: mark == MARK)
        assert list(marked(lambda mark: mark == MARK)) == []


def test_a_number_that_belongs_to_another_process_by_now_is_left_alone() -> None:
    with child(None) as other:
        assert not marks._kill(other.pid, lambda mark: mark == MARK)
        assert other.poll() is None
    assert not marks._kill(other.pid, lambda mark: True), "it is gone"


def test_the_warden_ends_what_its_server_left_and_nothing_else() -> None:
    warden = subprocess.Popen([sys.executable, "-I", "-S", marks.__file__, MARK.process], stdin=subprocess.PIPE, env={})
    with child(MARK.text()) as ours, child(MARK._replace(process="another").text()) as foreign:
        assert warden.poll() is None and ours.poll() is None
        warden.communicate()
        assert (ours.wait(10), foreign.poll()) == (-9, None)
