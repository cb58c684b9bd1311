"""The outside world's time, ids and chance, in one place, so that tests and simulations can put their own there."""

import os
import random
import threading
import time
from typing import Protocol


class Clock(Protocol):
    """What the core asks of the world around it."""

    def now(self) -> float:
        """Seconds since 1970 (UTC)."""
        ...

    def new_id(self) -> str:
        """A new time-ordered unique id."""
        ...

    def chance(self) -> float:
        """A random number, uniform in [0, 1)."""
        ...


class SystemClock:
    """The machine's own clock; ids are UUIDs of version 7 (RFC 9562 §5.7), increasing within the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def now(self) -> float:
        return time.time()

    def new_id(self) -> str:
        with self._lock:
            # 48 bits of milliseconds and a 12-bit fraction, so ids of one process sort by creation.
            stamp = max(self._last + 1, time.time_ns() * 4096 // 1_000_000)
            self._last = stamp
        tail = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
        # Not by way of uuid.UUID, which takes longer than all the rest.
        digits = f"{((stamp >> 12) << 80) | (0x7 << 76) | ((stamp & 0xFFF) << 64) | (0b10 << 62) | tail:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def chance(self) -> float:
        return random.random()
