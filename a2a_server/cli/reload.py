"""`serve --reload`: the server as a child process that is started anew whenever a file of its executors changes.

For development. The database stays, so tasks that were interrupted go on in the new process.
"""

import fnmatch
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from a2a_server.cli.output import say
from core.executors.family import Family
from core.executors.marks import VARIABLE

LOOK_EVERY = 0.3  # seconds
OPTION = "--reload"

_family = Family()

Seen = dict[Path, tuple[int, int]]


def serve_again_and_again(arguments: Sequence[str], folders: Iterable[Path], files: Iterable[Path]) -> int:
    """Run `a2a-server` with these arguments, and again after each change, until a signal ends it; the exit code.

    A second signal ends the server at once, as it does without `--reload`.
    """
    folders, files = list(folders), list(files)
    told_to_end = threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def end(number: int, frame: object) -> None:
        if told_to_end.is_set() and child is not None:
            child.send_signal(number)
        told_to_end.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    while True:
        seen = look(folders, files)
        child = _start(arguments)
        now, code = _wait_for_a_change(child, seen, folders, files, told_to_end)
        if told_to_end.is_set():
            return code
        changed = sorted(str(path) for path in now.keys() | seen.keys() if now.get(path) != seen.get(path))
        say(f"{changed[0]} has changed; restarting")


def look(folders: Iterable[Path], files: Iterable[Path]) -> Seen:
    """Time and size of every Python file below the folders, and of the other files."""
    seen: Seen = {}
    for folder in folders:
        for place, inner, names in os.walk(folder):
            inner[:] = [each for each in inner if not (each.startswith((".", "__")) or _is_environment(place, each))]
            for name in fnmatch.filter(names, "*.py"):
                _note(Path(place, name), seen)
    for file in files:
        _note(file, seen)
    return seen


def _note(path: Path, seen: Seen) -> None:
    try:
        found = path.stat()
    except OSError:  # it has just been removed
        return
    seen[path] = (found.st_mtime_ns, found.st_size)


def _is_environment(place: str, name: str) -> bool:
    return name in ("node_modules", "site-packages") or os.path.exists(os.path.join(place, name, "pyvenv.cfg"))


def _start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """In a process group of its own: Ctrl-C on the terminal reaches this process only, which passes it on once.

    It has a mark, so that it ends when this process is killed.
    """
    command = [sys.executable, "-P", "-m", "a2a_server", *(each for each in arguments if each != OPTION)]
    environment = {**os.environ, VARIABLE: _family.new_mark().text()}
    return subprocess.Popen(command, process_group=0, env=environment)


def _wait_for_a_change(
    child: subprocess.Popen[bytes], seen: Seen, folders: list[Path], files: list[Path], told_to_end: threading.Event
) -> tuple[Seen, int]:
    """What is seen after a change, with the child ended; a child that ended by itself waits for one, too."""
    has_told = False
    while not told_to_end.wait(LOOK_EVERY):
        if child.poll() is not None and not has_told:
            has_told = True
            say(f"the server ended with exit code {child.returncode}; waiting for a file to change")
        if (now := look(folders, files)) != seen:
            _end(child)
            return now, child.returncode
    _end(child)
    return seen, child.returncode


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.terminate()
        child.wait()
