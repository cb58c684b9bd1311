"""Marks of child processes: a variable in their environment, by which they are found wherever they went.

A mark is `<database>/<process>/<number>`: the database's identity, the process that started the child, and the child.
What a marked process starts inherits the mark, in whatever session or group it is, unless it clears its environment.
A fork without exec shows the environment that its parent began with; it is known by a mapping that has the mark for a
name (`core.executors.family`). There the number is the id of the process that made the mapping, which is no child.
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
CLEAN_LOOKS = 2  # in a row that find no process: one alone may miss a process that appears behind it


class Mark(NamedTuple):
    """What a child's environment says of it."""

    database: str
    process: str
    number: str

    def text(self) -> str:
        """The variable's value."""
        return "/".join(self)


Wanted = Callable[[Mark], bool]
_MAPPED = f"/memfd:{VARIABLE}=".encode()  # the name of a mapping, and what the kernel puts behind it
_NAME_END = b" (deleted)"


def marked(wanted: Wanted) -> Iterator[int]:
    """The ids of the processes with such a mark, the highest first: a process that forks and exits is seen in time."""
    for pid in _processes():
        if _carries(pid, wanted):
            yield pid


def end_marked(wanted: Wanted, *, forks: bool = False) -> int:
    """Kill those processes and all that they start meanwhile; how many there were. Blocks until they are gone.

    With `forks` their mappings are looked at, too, which takes longer. The process that calls is left alone.
    """
    killed: set[int] = set()
    clean = 0
    ends_at = time.monotonic() + LONGEST
    while time.monotonic() < ends_at:
        before = _processes()
        found = [pid for pid in before if _carries(pid, wanted, forks=forks) and _kill(pid, wanted, forks=forks)]
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


def _carries(pid: int, wanted: Wanted, *, forks: bool = False) -> bool:
    """Whether the process has such a mark. A zombie has no environment; one of another user shows none."""
    if pid == os.getpid():
        return False
    _, _, rest = (b"\0" + _read(pid, "environ")).partition(f"\0{VARIABLE}=".encode())
    texts = [rest.partition(b"\0")[0]]
    if forks:
        texts += [rest.partition(_NAME_END)[0] for rest in _read(pid, "maps").split(_MAPPED)[1:]]
    for text in texts:
        parts = text.decode("ascii", "replace").split("/")
        if len(parts) == len(Mark._fields) and wanted(mark := Mark(*parts)) and mark.number != str(pid):
            return True
    return False


def _read(pid: int, name: str) -> bytes:
    """What the system knows about a process; nothing when that is gone or of another user."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _kill(pid: int, wanted: Wanted, *, forks: bool = False) -> bool:
    """Kill the process if it is still the one that was found: its number may belong to another one now."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _carries(pid, wanted, forks=forks):
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
    os.chdir("/")  # the server's folder may be unmounted or removed while this still looks for children
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it goes after its server, never before
    while os.read(0, 1):
        pass
    end_marked(lambda mark: mark.process == sys.argv[1], forks=True)


if __name__ == "__main__":  # pragma: no cover
    main()
