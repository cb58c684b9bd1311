"""The world around a simulated core: time, chance, a storage that outlives its processes, and what must be remembered.

One seed decides everything. A *life* is one process of the server, in an event loop of its own whose time is virtual;
a crash ends the loop between two of its callbacks, and nothing but the storage and the world goes on to the next life.
"""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from core.errors import StorageUnavailable, VersionConflict
from core.events import Recorded
from core.plan import Plan
from core.storage.base import Append
from core.storage.memory import MemoryStorage
from core.task import Task, TaskStatus, TreeHead
from tests.core.cores import EPOCH, VirtualLoop

MAX_LATENCY = 0.05  # virtual seconds that a commit takes at the most


class Crash(SystemExit):
    """kill -9: raised in a callback, it ends the event loop there and then."""


class Violation(AssertionError):
    """The core broke a promise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """How often what goes wrong, as chances."""

    refuse: float = 0.01  # an append is refused at once (no room)
    fail: float = 0.01  # a commit fails as a whole
    crash: float = 0.01  # the process dies at a commit: before it, or after it and before anybody is told


@dataclass(slots=True)
class World:
    """What one seed amounts to, and what came of it so far."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    now: float = 0.0  # virtual seconds, at the beginning of the present life
    life: int = 0
    is_calm: bool = False  # no more faults: now everything has to come to its end
    is_dead: bool = False  # the present life is over; whatever its coroutines still do reaches nothing
    chance: random.Random = field(init=False)
    storage: "SimulatedStorage" = field(init=False)
    clock: "SimulatedClock" = field(init=False)
    plans: dict[str, Plan] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)  # tree -> when its creation was confirmed
    stopped: dict[str, tuple[float, int]] = field(default_factory=dict)  # task -> when its cancel was confirmed, run
    effects: list["Effect"] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)  # attempts at work, by executor
    most_running: int = 0
    broken: list[str] = field(default_factory=list)  # what executors saw that must not be
    seen: dict[str, list[Recorded]] = field(default_factory=dict)  # what the follower of each tree was told
    trace: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.storage = SimulatedStorage(self)
        self.clock = SimulatedClock(self)

    def note(self, *words: object) -> None:
        """Add to the trace: two runs of a seed are the same when their traces are."""
        self.trace.update(repr(words).encode())

    def happens(self, chance: float) -> bool:
        """Whether a fault of that chance strikes now."""
        return not self.is_calm and not self.is_dead and self.chance.random() < chance

    def story(self, tree_id: str) -> str:
        """The log of a tree, one line an event, for whoever has to understand a violation."""
        lines = [
            f"{recorded.seq:4d} {recorded.at - EPOCH:10.3f} {recorded.tree_status:15s} {recorded.event!r}"
            for recorded in self.storage.log(tree_id)
        ]
        return "\n".join([f"tree {tree_id} of seed {self.seed}:", *lines])


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """An executor touched the outside world."""

    task_id: str
    key: str  # its idempotency key
    attempt: int
    at: float
    life: int
    at_most_once: bool


class SimulatedClock:
    """Virtual time; ids that sort by creation; chance from the seed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ids = 0

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def new_id(self) -> str:
        self._ids += 1
        return f"n{self._ids:06d}"

    def chance(self) -> float:
        return self._world.chance.random()


class SimulatedLoop(VirtualLoop):
    """A loop that begins when the life before it ended."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self._jumping.now = start


class SimulatedStorage(MemoryStorage):
    """A storage with a single writer and group commit, as the real one has, on a medium that survives its process.

    A commit takes its time, and what was appended meanwhile goes into the next one.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._waiting: list[tuple[Append, int, asyncio.Future[None]]] = []
        self.first_heads: dict[str, TreeHead] = {}
        self.stored_at: dict[tuple[str, int], float] = {}  # (tree, seq) -> when it became durable

    async def open(self) -> None:
        self._waiting = []
        self._failures = 0
        self._failed = {}
        self._last = None
        await super().open()

    async def close(self) -> None:
        while self._waiting:
            await asyncio.wait([future for _, _, future in self._waiting])
        await super().close()

    def log(self, tree_id: str) -> Sequence[Recorded]:
        """Every stored event of the tree."""
        return self._events.get(tree_id, [])

    def trees_stored(self) -> list[str]:
        """The ids of all trees there are."""
        return list(self._heads)

    def tasks_stored(self, tree_id: str) -> list[Task]:
        """The tree's tasks as they are stored."""
        return [self._tasks[task_id] for task_id in self._members[tree_id]]

    def head_stored(self, tree_id: str) -> TreeHead:
        """The tree's head as it is stored."""
        return self._heads[tree_id]

    def append(self, append: Append) -> asyncio.Future[None]:
        world = self._world
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        if world.is_dead:
            return future  # nothing that a dead process writes arrives, and nobody tells it
        if not self._is_open:
            future.set_exception(StorageUnavailable("The storage is closed"))
        elif world.happens(world.faults.refuse):
            world.note("refused", append.head.id)
            future.set_exception(StorageUnavailable("The storage is behind"))
        else:
            if not self._waiting:
                loop.call_later(world.chance.uniform(0.0, MAX_LATENCY), self._commit)
            self._waiting.append((append, self._failures, future))
        return future

    def _commit(self) -> None:
        world = self._world
        if world.is_dead:
            return
        batch, self._waiting = self._waiting, []
        crashes = world.happens(world.faults.crash)
        if crashes and world.chance.random() < 0.5:
            raise Crash("before the commit")
        if world.happens(world.faults.fail):
            world.note("failed", len(batch))
            for append, _, future in batch:
                self._fail(append, future)
            return
        settled = [(future, self._store(append, failures_known)) for append, failures_known, future in batch]
        if crashes:
            raise Crash("after the commit, before anybody was told")
        for future, error in settled:
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def _fail(self, append: Append, future: asyncio.Future[None]) -> None:
        self._failures += 1
        self._failed[append.head.id] = self._failures
        if not future.done():
            future.set_exception(StorageUnavailable("The commit failed"))

    def _store(self, append: Append, failures_known: int) -> VersionConflict | None:
        world = self._world
        try:
            self._append(append, failures_known)
        except VersionConflict as conflict:
            world.note("conflict", append.head.id)
            return conflict
        for recorded in append.events:
            self.stored_at[recorded.tree_id, recorded.seq] = world.clock.now()
            world.note(recorded.tree_id, recorded.seq, recorded.at, msgspec.to_builtins(recorded.event))
        if append.is_new:
            self.first_heads[append.head.id] = replace(
                append.head,
                version=0,
                status=TaskStatus.PENDING,
                run=0,
                is_live=False,
                progress=0.0,
                updated_at=append.head.created_at,
            )
        return None
