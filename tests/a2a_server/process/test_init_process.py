"""As process 1 of a container: orphans are collected, signals arrive, the exit code is the program's."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from a2a_server.process.init_process import run_below_init

PROGRAM = """
import os, signal, subprocess, sys
from a2a_server.process.init_process import run_below_init
run_below_init()
assert os.getpid() != 1 and os.getppid() == 1
"""
ORPHANS = """
reading, writing = os.pipe()
for _ in range(5):  # daemons, which end when the pipe is read
    subprocess.run(["setsid", "sh", "-c", "(read x <&0; echo over >&2) <&%d &" % reading], pass_fds=[reading], stderr=2)
os.close(reading)
os.close(writing)
while True:  # until process 1 has collected them
    found = subprocess.run(["ps", "--ppid", "1", "-o", "stat="], capture_output=True, text=True).stdout.split()
    if len(found) == 1:
        break
sys.exit(7)
"""
SIGNALLED = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
os.kill(1, signal.SIGTERM)
signal.pause()
"""
KILLED = """
os.kill(os.getpid(), signal.SIGKILL)
"""

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def may_unshare() -> bool:
    return (
        shutil.which("unshare") is not None and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.skipif(not may_unshare(), reason="namespaces of processes are not permitted here")
@pytest.mark.parametrize(
    ("program", "code"),
    [(ORPHANS, 7), (SIGNALLED, 9), (KILLED, 128 + signal.SIGKILL)],
    ids=["orphans", "signalled", "killed"],
)
def test_process_1_does_what_is_its_duty(program: str, code: int) -> None:
    """Found from outside: as process 1 of a container the server left zombies."""
    command = [*UNSHARE, sys.executable, "-c", PROGRAM + program]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    assert subprocess.run(command, env=env, timeout=60).returncode == code


def test_any_other_process_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("it forked"))
    run_below_init()
