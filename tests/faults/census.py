"""Loaded into a server process beside its executors: one that counts what lives in it."""

import asyncio
import ctypes
import gc
import sys
import threading
from typing import Any

from core import executor


class _Malloc(ctypes.Structure):
    """What glibc says of its memory (mallinfo2(3))."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keep",
        )
    ]


@executor("census")
async def census(inputs: dict[str, Any]) -> Any:
    """Its asyncio tasks and threads, itself among them, and what it has in use: Python's blocks, the C library's bytes.

    What it does not use goes back to the system, as far as it can: an allocator keeps free memory for later, in pieces
    between what is used. That comes and goes, and is no leak.
    """
    gc.collect()
    library = ctypes.CDLL(None)
    library.malloc_trim(0)
    library.mallinfo2.restype = _Malloc
    found = library.mallinfo2()
    return {
        "asyncio_tasks": len(asyncio.all_tasks()),
        "threads": threading.active_count(),
        "blocks": sys.getallocatedblocks(),
        "bytes": found.uordblks + found.hblkhd,
    }
