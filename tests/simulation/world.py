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
from core.retention import RetentionTimes
from core.storage.base import Append, LogPart
from core.storage.memory import MemoryStorage
from core.task import Task, TaskStatus, TreeHead
from tests.core.cores import EPOCH, VirtualLoop

MAX_LATENCY = 0.05  # virtual seconds that a commit takes at the most
MAX_QUEUE = 2.0  # that a job of retention stands in line


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
    skipped: list[tuple[str, int, int]] = field(
        default_factory=list
    )  # he was told that those after n up to m are folded
    times: RetentionTimes = field(init=False)  # how long the core keeps what has ended
    trace: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        keeping = random.Random(f"retention {self.seed}")
        self.times = RetentionTimes(
            fold_after=keeping.choice([None, 1.0, 10.0]), drop_after=keeping.choice([None, None, 20.0, 60.0])
        )
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
        self._written: dict[str, list[Recorded]] = {}  # the whole log of each tree, whatever was folded
        self.dropped: set[str] = set()
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
        """Every event of the tree that was ever stored."""
        return self._written.get(tree_id, [])

    def kept(self, tree_id: str) -> tuple[int, Sequence[Recorded]]:
        """How far the tree's log is folded, and the events that are there."""
        return self._folded.get(tree_id, 0), self._events[tree_id]

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
        self._written.setdefault(append.head.id, []).extend(append.events)
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

    async def fold(self, parts: Sequence[LogPart]) -> None:
        await asyncio.sleep(self._world.chance.uniform(0.0, MAX_QUEUE))
        await super().fold(parts)

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        await asyncio.sleep(self._world.chance.uniform(0.0, MAX_QUEUE))
        return await super().drop(heads)

    def _fold(self, parts: Sequence[LogPart]) -> None:
        if self._world.is_dead:
            return
        super()._fold(parts)
        for part in parts:
            head = self._heads.get(part.tree_id)
            if head is not None and self._folded.get(head.id) == part.until:
                self._world.note("folded", head.id, part.until)
                self._require_old(head, self._world.times.fold_after)

    def _delete(self, tree_id: str) -> bool:
        if self._world.is_dead:
            return False
        self._require_old(self._heads[tree_id], self._world.times.drop_after)
        self._world.note("dropped", tree_id)
        self.dropped.add(tree_id)
        return super()._delete(tree_id)

    def _require_old(self, head: TreeHead, age: float | None) -> None:
        is_over = not head.is_live and head.status.is_terminal
        if not is_over or age is None or self._world.clock.now() - head.updated_at < age:
            self._world.broken.append(f"tree {head.id} was folded or dropped before its time")
