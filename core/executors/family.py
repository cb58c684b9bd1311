"""The children of one session: each has a mark, and none outlives the process that started it.

A warden, a process of its own, is started with the first child. When this process is gone, however it ended, the warden
ends every process that carries its mark. Should the warden be killed as well, the next start does it. A process that
does nothing but run tasks marks what its executors start and fork by themselves, too.
"""

import asyncio
import itertools
import mmap
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from core.executors import marks
from core.executors.marks import VARIABLE, Mark

NO_DATABASE = "memory"


class Family:
    """`database`: what tells the database from every other one of the machine; empty while none is open."""

    def __init__(self, database: str = "") -> None:
        self.database = database
        self._numbers = itertools.count(1)

    def new_mark(self) -> Mark:
        """A mark for one child and all that it starts. From now on the warden watches."""
        _warden.start()
        return Mark(self.database or NO_DATABASE, _warden.process, f"{id(self):x}.{next(self._numbers)}")

    async def end_orphans(self, database: str) -> int:
        """End what earlier processes of this database left behind; how many processes that were."""
        if not database:
            return 0
        own = _warden.process
        return await asyncio.to_thread(
            marks.end_marked, lambda mark: mark.database == database and mark.process != own, forks=True
        )

    @contextmanager
    def owns_forks(self) -> Iterator[None]:
        """Within it, whatever this process starts or forks has a mark: for one that does nothing but run tasks.

        Raises OSError when the warden cannot be started.
        """
        mark = Mark(self.database or NO_DATABASE, _warden.process, str(os.getpid()))
        _warden.start()
        before = os.environ.get(VARIABLE)
        os.environ[VARIABLE] = mark.text()
        try:
            with _mapped(mark):
                yield
        finally:
            if before is None:
                os.environ.pop(VARIABLE, None)
            else:
                os.environ[VARIABLE] = before
            if mark.number == str(os.getpid()):  # not in a fork that ends by itself
                # Now, and not after the end: `multiprocessing` would wait for its children there.
                marks.end_marked(lambda found: found == mark, forks=True)


async def end_all(mark: Mark) -> None:
    """End the child with this mark and whatever it started, wherever that went."""
    await asyncio.to_thread(marks.end_marked, lambda found: found == mark)


@contextmanager
def _mapped(mark: Mark) -> Iterator[None]:
    """A mapping with the mark for a name. A forked child has it as well and cannot close it; exec ends it."""
    try:
        file = os.memfd_create(f"{VARIABLE}={mark.text()}")
    except (AttributeError, OSError):  # another system, or a sandbox without it: forks are not found
        yield
        return
    try:
        os.truncate(file, mmap.PAGESIZE)
        mapping = mmap.mmap(file, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    finally:
        os.close(file)
    with mapping:
        yield


class _Warden:
    """The process that watches over this one, which alone holds the pipe that keeps it waiting."""

    def __init__(self) -> None:
        self.process = secrets.token_hex(8)  # this process, as the marks of its children name it
        self._pipe: int | None = None

    def start(self) -> None:
        """May be called again: there is one. Raises OSError when it cannot be started."""
        if self._pipe is not None or not os.path.exists("/proc/self/environ"):
            return
        reading, writing = os.pipe()
        quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
        try:
            os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", marks.__file__, self.process],
                {},  # not by a mark that this process carries itself shall it be found
                file_actions=[(os.POSIX_SPAWN_DUP2, reading, 0), *quiet],
            )
        except OSError:
            os.close(writing)
            raise
        finally:
            os.close(reading)
        self._pipe = writing

    def forget(self) -> None:
        """In a forked child, which has a name of its own: else the warden would wait for its end, too."""
        self.process = secrets.token_hex(8)
        if self._pipe is not None:
            with suppress(OSError):
                os.close(self._pipe)
            self._pipe = None


_warden = _Warden()
os.register_at_fork(after_in_child=_warden.forget)
