"""The outside world's time, ids and chance, in one place, so that tests and simulations can put their own there."""

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Protocol

LASTING = 3_600.0  # seconds after which a jump of the wall clock is believed
SLEW = 1.0  # seconds by which the wall clock may be corrected at once; more is a jump


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


def boot_seconds() -> float:
    """Seconds since the machine was started, those in which it slept included, whatever its clock is set to."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SteadyTime:
    """The time for ages and waits within one process: seconds since 1970 that pass as seconds do.

    The wall clock's jumps, in either direction, are believed only after they have lasted for an hour. `wall` is seconds
    since 1970, `uptime` seconds since any moment; both are read at the first call, from which it goes on.
    """

    def __init__(self, wall: Callable[[], float], uptime: Callable[[], float]) -> None:
        self._wall = wall
        self._uptime = uptime
        self._offset: float | None = None  # of the wall clock to the uptime, as it is believed
        self._jump = (0.0, 0.0)  # of which there is another one since when

    def now(self) -> float:
        """Seconds since 1970."""
        uptime = self._uptime()
        offset = self._wall() - uptime
        if self._offset is None or abs(offset - self._offset) <= SLEW:
            self._offset = offset
            self._jump = (offset, uptime)
        elif abs(offset - self._jump[0]) > SLEW:
            self._jump = (offset, uptime)
        elif uptime - self._jump[1] >= LASTING:
            self._offset = offset
        return uptime + self._offset

    def passed(self) -> float:
        """The latest moment that has passed by this time and by the wall clock, for what cannot be undone."""
        return min(self.now(), self._wall())
