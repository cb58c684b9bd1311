"""A day in one world (R4): a tree a second, compacted, dropped and judged when it is over; nothing is left."""

import asyncio
import gc
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

from core.run.retention import RetentionTimes
from tests.simulation.run import HOUR, Server, simulate
from tests.simulation.world import Faults, Pace, Violation, World

CALLERS = 10
ORDERS = 3.0  # of which one brings a tree
CRASHES = 1e-4  # at a commit, with a tree a second: some crashes an hour
TIMES = RetentionTimes(compact_after=8.0, drop_after=30.0)  # what it leaves is deleted by callers
PACKAGES = ("core.", "a2a_server.")
# What is kept on purpose: for each executor, and for each of a bounded number of callers.
KEPT = frozenset({"core.model.queue._Line", "core.model.queue._Caller", "ReadyQueue._lines", "ReadyQueue._callers"})
MEBIBYTE = 2**20


@dataclass(slots=True)
class Soak:
    """What there was at the beginning of a world, from hour to hour, and at its end."""

    started: float = field(default_factory=perf_counter)
    first: dict[str, int] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)
    memory: list[tuple[float, float]] = field(default_factory=list)  # virtual hour, MiB of this process

    def begin(self, server: Server) -> None:
        """A life has begun; the first one's counts are those to come back to."""
        if not self.first:
            self.first = counts(server)

    def tick(self, server: Server) -> None:
        """Now and then; once a virtual hour the memory is looked at."""
        hour = asyncio.get_running_loop().time() / HOUR
        if not self.memory or hour >= self.memory[-1][0] + 1.0:
            gc.collect()
            self.memory.append((hour, resident()))

    def end(self, server: Server) -> None:
        """Everything has come to its end, and everything is deleted."""
        self.last = counts(server)
        before = {name: self.first.get(name, 0) for name in self.last.keys() - KEPT}
        left = {name: (count, self.last[name]) for name, count in before.items() if self.last[name] > count}
        if left:
            raise Violation(f"something is left at the end of seed {server.world.seed} (before, after): {left}")

    @property
    def slope(self) -> float:
        """MiB that the process grows by in a virtual hour, after the first quarter; least squares."""
        points = self.memory[len(self.memory) // 4 :]
        hour = sum(h for h, _ in points) / len(points)
        size = sum(m for _, m in points) / len(points)
        spread = sum((h - hour) ** 2 for h, _ in points)
        return sum((h - hour) * (m - size) for h, m in points) / spread if spread else 0.0


def soak(seed: int, *, hours: float, rate: float = 1.0) -> tuple[World, Soak]:
    """Play it, with so many trees a second. Raises Violation for a broken promise, and for what is left at the end."""
    probe = Soak()
    pause = CALLERS / ORDERS / rate
    pace = Pace(attempts=60, largest=9, callers=CALLERS, pause=pause, lives=1_000, keep=60.0, times=TIMES, clears=True)
    faults = Faults(refuse=1e-4, fail=1e-4, crash=CRASHES / rate, cut=CRASHES / rate)
    return simulate(seed, hours=hours, faults=faults, pace=pace, probe=probe), probe


def told(world: World, probe: Soak) -> str:
    """The figures, as a report has them."""
    objects = sum(n for name, n in probe.last.items() if name.startswith(PACKAGES))
    return (
        f"{world.deleted} trees ({world.dropped} removed by retention), {world.events} events, "
        f"{world.ledger.sent} calls of webhooks, {world.life} lives; "
        f"0 violations, {objects} objects of {len(probe.last)} kinds as at the start; "
        f"memory {probe.memory[0][1]:.0f} to {probe.memory[-1][1]:.0f} MiB, {probe.slope:+.2f} MiB an hour"
    )


def counts(server: Server) -> dict[str, int]:
    """Live objects of our classes, tasks and timers of the loop, and what is in the tables of the server."""
    gc.collect()
    kinds = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())
    found = {name: n for name, n in kinds.items() if name.startswith(PACKAGES)}
    loop: Any = asyncio.get_running_loop()
    found["tasks"] = len(asyncio.all_tasks())
    found["timers"] = sum(not timer.cancelled() for timer in loop._scheduled)
    storage, session, outbox = server.world.storage, server.session, server.webhooks.outbox
    for owner in (
        storage,
        session.orchestrator,
        session.feed,
        session.runner,
        session.runner.books,
        session.runner.books.leftovers,
        session.runner._dispatcher,
        session.runner.books.queue,
        session.runner._dispatcher.due.timers,
        outbox,
        outbox.readers,
        outbox.schedule,
        outbox.scanner,
        outbox._looks,
        server.retention,
    ):
        for name, value in vars(owner).items():
            if isinstance(value, dict | list | set | Counter) or type(value).__name__ in ("deque", "OrderedDict"):
                found[f"{type(owner).__name__}.{name}"] = len(value)
    return found


def resident() -> float:
    """MiB that this process has in memory."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE
