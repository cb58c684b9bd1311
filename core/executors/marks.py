"""Marks of child processes: a variable in their environment, by which they are found wherever they went.

A mark is `<database>/<process>/<number>`: the database's identity, the process that started the child, and the child.
What a marked process starts inherits the mark, in whatever session or group it is, unless it clears its environment.
Run as a script, this is the warden: it waits until its server is gone and then ends what carries the server's mark. It
imports nothing but the standard library, so that it starts quickly. Where there is no /proc (macOS) nothing is found.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

VARIABLE = "A2A_CHILD_OF"  # not a name that the server's settings have
LONGEST = 30.0  # seconds of killing what is found: a process may start others in between, faster than it is seen
PAUSE = 0.01  # seconds between two rounds
CLEAN_LOOKS = 2  # in a row that find nobody: one alone may miss a process that appears behind it


class Mark(NamedTuple):
    """What a child's environment says of it."""

    database: str
    process: str
    number: str

    def text(self) -> str:
        """The variable's value."""
        return "/".join(self)


Wanted = Callable[[Mark], bool]


def marked(wanted: Wanted) -> Iterator[int]:
    """The ids of the processes with such a mark, the highest first: a process that forks and exits is seen in time."""
    for pid in _processes():
        if _carries(pid, wanted):
            yield pid


def end_marked(wanted: Wanted) -> int:
    """Kill those processes and all that they start meanwhile; how many there were. Blocks until they are gone."""
    killed: set[int] = set()
    clean = 0
    ends_at = time.monotonic() + LONGEST
    while time.monotonic() < ends_at:
        before = _processes()
        found = [pid for pid in before if _carries(pid, wanted) and _kill(pid, wanted)]
        killed.update(found)
        # One that was gone before it could be looked at may have left another one behind.
        is_clean = not found and set(before) <= set(_processes())
        clean = clean + 1 if is_clean else 0
        if clean == CLEAN_LOOKS:
            break
        if found:
            time.sleep(PAUSE)
    return len(killed)


def _processes() -> list[int]:
    """The ids of all processes, the highest first, which are the newest ones until the numbers start again."""
    try:
        return sorted((int(name) for name in os.listdir("/proc") if name.isdecimal()), reverse=True)
    except OSError:
        return []


def _carries(pid: int, wanted: Wanted) -> bool:
    """Whether the process has such a mark. A zombie has no environment; one of another user shows none."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environment = b"\0" + file.read()
    except OSError:
        return False
    _, _, rest = environment.partition(f"\0{VARIABLE}=".encode())
    parts = rest.partition(b"\0")[0].decode("ascii", "replace").split("/")
    return len(parts) == len(Mark._fields) and wanted(Mark(*parts))


def _kill(pid: int, wanted: Wanted) -> bool:
    """Kill the process if it is still the one that was found: its number may belong to another one by now."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _carries(pid, wanted):
            return False
        with suppress(PermissionError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)


def main() -> None:  # pragma: no cover - runs in a process of its own
    """Wait for the end of the input, which the server holds open as long as it lives."""
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes after its server, never before
    while os.read(0, 1):
        pass
    end_marked(lambda mark: mark.process == sys.argv[1])


if __name__ == "__main__":  # pragma: no cover
    main()
