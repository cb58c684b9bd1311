"""The outside world's time, ids and chance, in one place, so that tests and simulations can put their own there."""

import logging
import os
import random
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Protocol

logger = logging.getLogger(__name__)

TOLD = 60.0  # seconds by which the machine's clock has to change for a line in the log


class Clock(Protocol):
    """What the core asks of the world around it."""

    def now(self) -> float:
        """Seconds since 1970 (UTC) that pass as seconds do within this process. For whatever waits, ages or expires."""
        ...

    def wall(self) -> float:
        """Seconds since 1970 as the machine's clock is set: for what others' clocks wrote, as in tokens."""
        ...

    def new_id(self) -> str:
        """A new time-ordered unique id."""
        ...

    def chance(self) -> float:
        """A random number, uniform in [0, 1)."""
        ...


class SystemClock:
    """The machine's clock as it was set when this object was made; from then on seconds pass as they do.

    They are counted by the time since the machine was started, that in which it slept included: setting the clock, in
    either direction, neither ends nor prolongs a wait. The next process begins with the clock as it is set then. Ids
    are UUIDs of version 7 (RFC 9562 §5.7), increasing within the process. `wall` is nanoseconds since 1970, `uptime`
    nanoseconds since any moment.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, uptime: Callable[[], int] | None = None) -> None:
        self._wall = wall
        self._uptime = uptime or boot_nanoseconds
        self._offset = wall() - self._uptime()
        self._lock = threading.Lock()
        self._last = 0

    def now(self) -> float:
        return (self._uptime() + self._offset) / 1e9

    def wall(self) -> float:
        return self._wall() / 1e9

    def new_id(self) -> str:
        with self._lock:
            # 48 bits of milliseconds and a 12-bit fraction, so ids of one process sort by creation.
            stamp = max(self._last + 1, (self._uptime() + self._offset) * 4096 // 1_000_000)
            self._last = stamp
        tail = int.from_bytes(os.urandom(8)) & ((1 << 62) - 1)
        # Not by way of uuid.UUID, which takes longer than all the rest.
        digits = f"{((stamp >> 12) << 80) | (0x7 << 76) | ((stamp & 0xFFF) << 64) | (0b10 << 62) | tail:032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    def chance(self) -> float:
        return random.random()


class SharedClock(SystemClock):
    """A clock that goes by one which machines share, such as their database's, once `follow` says how it stands.

    It never goes back: when it is ahead, it goes at half its speed until it is not. `wall` is the shared clock itself.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, uptime: Callable[[], int] | None = None) -> None:
        super().__init__(wall, uptime)
        self._shared = self._offset  # of the shared clock
        self._is_told = False
        self._slowed_at = 0

    @property
    def uptime(self) -> int:
        """Nanoseconds since the machine was started, by which seconds are counted."""
        return self._uptime()

    def follow(self, shared: float, uptime: int) -> None:
        """The shared clock was at so many seconds since 1970 when `uptime` was that."""
        self._slow_down()
        with self._lock:
            self._shared = int(shared * 1e9) - uptime
            self._slowed_at = self._uptime()
            if not self._is_told or self._shared > self._offset:
                self._offset = self._shared
            if not self._is_told:  # nobody has met an id of the machine's own clock
                self._is_told, self._last = True, 0

    def now(self) -> float:
        if self._offset != self._shared:
            self._slow_down()
        return super().now()

    def wall(self) -> float:
        return (self._uptime() + self._shared) / 1e9

    def new_id(self) -> str:
        if self._offset != self._shared:
            self._slow_down()
        return super().new_id()

    def _slow_down(self) -> None:
        """Give up half of the time that has passed, until nothing is ahead."""
        with self._lock:
            passed = self._uptime() - self._slowed_at
            self._offset -= min(self._offset - self._shared, passed // 2)
            self._slowed_at += passed


# Nanoseconds since the machine was started, whatever its clock is set to; its sleep counts (Linux).
boot_nanoseconds: Callable[[], int] = partial(
    time.clock_gettime_ns, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
)


class ClockWatch:
    """Tells the log when the machine's clock was set: this process goes on by the time that it began with."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._told = 0.0  # by how many seconds it differed

    def look(self) -> None:
        """Compare the two. A difference stands in the log once."""
        difference = self._clock.wall() - self._clock.now()
        if abs(difference - self._told) >= TOLD:
            self._told = difference
            logger.warning(
                "the system clock was set: it is %+.0f s from this process's time; waits do not change, and a restart "
                "takes the clock as it is set then",
                difference,
            )
