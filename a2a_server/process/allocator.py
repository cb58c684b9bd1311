"""How the C library gives memory back: at once what was large, instead of keeping it for the next time.

By itself glibc keeps up to 32 MiB a piece, once such pieces were freed; the process then never shrinks again.
"""

import ctypes

LARGE = 1024 * 1024  # bytes
_M_MMAP_THRESHOLD = -3  # malloc.h


def give_large_back() -> None:
    """Have large pieces of memory given back to the system as soon as they are free, where the C library can."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; macOS and musl have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, LARGE)
