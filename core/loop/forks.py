"""What a forked child lets go of, whatever forked it (multiprocessing, process pools, `os.fork` in an executor).

A descriptor is not closed but replaced by a read-only /dev/null: the objects of the child's memory that own its number
may close it later, when it would belong to something else. SQLite finds no lock to take there, so that what is left of
its connections cannot tidy up the parent's database.
"""

import os
from collections.abc import Callable
from contextlib import suppress

_LISTS = ("/proc/self/fd", "/dev/fd")  # of Linux, of the others

Matches = Callable[[int, os.stat_result], bool]


def let_go(matches: Matches) -> None:
    """Replace every open descriptor that matches. For hooks that run in the child (`os.register_at_fork`)."""
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for number in _open_descriptors():
        with suppress(OSError):  # the list's own descriptor is closed already
            if number != nothing and matches(number, os.fstat(number)):
                os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _open_descriptors() -> list[int]:
    for directory in _LISTS:
        with suppress(OSError):
            return [int(name) for name in os.listdir(directory)]
    return []
