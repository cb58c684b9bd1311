"""The program's beginning (`a2a_server.__main__`)."""

import subprocess
import sys


def test_garbage_is_searched_for_less_often_than_python_does_by_itself() -> None:
    """In a process of its own: it holds for the whole process."""
    script = (
        "import atexit, gc, sys; from a2a_server.__main__ import main; sys.argv = ['a2a-server', 'version'];"
        "atexit.register(lambda: print(gc.get_threshold()[0])); main()"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert int(answer.stdout.splitlines()[-1]) >= 10_000
