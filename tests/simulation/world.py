"""The world around a simulated core: time, chance, a storage that outlives its processes, and what must be remembered.

One seed decides everything. A *life* is one process of the server, in an event loop of its own whose time is virtual;
a crash ends the loop between two of its callbacks, and nothing but the storage and the world goes on to the next life.
"""

import asyncio
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from msgspec.structs import replace

from core.model.errors import InvalidPlan, StorageUnavailable, TaskNotFound, TreeIsRunning, VersionConflict
from core.model.events import Recorded
from core.model.plan import Plan
from core.model.task import Task, TaskStatus, TreeHead
from core.run.retention import RetentionTimes
from core.storage.base import Append, Document, DocumentQuery, EventQuery, LogPart
from core.storage.memory import MemoryStorage
from tests.core.cores import EPOCH, VirtualLoop
from tests.simulation.ledger import Ledger

MAX_LATENCY = 0.05  # virtual seconds that a commit takes at the most
MAX_QUEUE = 2.0  # that a job of retention takes to be made up
LONG_LOG = 40  # events; the log of a tree that has more is not removed with it
REFUSALS = (VersionConflict, InvalidPlan, TaskNotFound, TreeIsRunning)


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
    slow_read: float = 0.05  # a read takes its time
    receiver: float = 1.0  # receivers of webhooks have their moods; 0 for those that take everything
    cut: float = 0.003  # the process dies when a receiver has answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How much is asked of a world, and how much it may do."""

    attempts: int = 6  # at a time
    largest: int = 14  # a tree has fewer tasks, groups aside
    callers: int = 3
    pause: float = 10.0  # virtual seconds between two orders of a caller, on average
    keep: float = 90.0  # virtual seconds after which a caller deletes a tree that is over
    times: RetentionTimes | None = None  # of retention; None for what the seed says
    lives: int = 200  # the most that a world may need
    clears: bool = False  # in the end every tree is deleted


@dataclass(slots=True)
class World:
    """What one seed amounts to, and what came of it so far."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    pace: Pace = field(default_factory=Pace)
    now: float = 0.0  # virtual seconds, at the beginning of the present life
    life: int = 0
    is_calm: bool = False  # no more faults: now everything has to come to its end
    is_dead: bool = False  # the present life is over; whatever its coroutines still do reaches nothing
    chance: random.Random = field(init=False)
    storage: "SimulatedStorage" = field(init=False)
    clock: "SimulatedClock" = field(init=False)
    plans: dict[str, Plan] = field(default_factory=dict)
    acknowledged: dict[str, float] = field(default_factory=dict)  # tree -> when its creation was confirmed
    times: RetentionTimes = field(init=False)  # how long the core keeps what has ended
    stopped: dict[str, tuple[float, int]] = field(default_factory=dict)  # task -> when its cancel was confirmed, run
    effects: list["Effect"] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)  # attempts at work, by executor
    most_running: int = 0
    broken: list[str] = field(default_factory=list)  # what executors saw that must not be
    seen: dict[str, list[Recorded]] = field(default_factory=dict)  # what the follower of each tree was told
    skipped: dict[str, list[tuple[int, int]]] = field(default_factory=dict)  # what its follower was told is compacted
    ledger: Ledger = field(default_factory=Ledger)  # the webhooks, and what their receivers were sent
    deleted: int = 0
    compacted: int = 0  # parts of logs
    dropped: int = 0  # of the trees that were deleted, by retention
    events: int = 0  # that became durable
    trace: Any = field(default_factory=hashlib.sha256)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        compact_after, drop_after = self.chance.choice([None, 1.0, 10.0]), self.chance.choice([None, 20.0, 60.0])
        self.times = self.pace.times or RetentionTimes(compact_after=compact_after, drop_after=drop_after)
        self.storage = SimulatedStorage(self)
        self.clock = SimulatedClock(self)

    def note(self, *words: object) -> None:
        """Add to the trace: two runs of a seed are the same when their traces are."""
        self.trace.update(repr(words).encode())

    def happens(self, chance: float) -> bool:
        """Whether a fault of that chance strikes now."""
        return not self.is_calm and not self.is_dead and self.chance.random() < chance

    def forget(self, tree_id: str) -> None:
        """The tree was judged and deleted: nothing of it is needed any more."""
        self.deleted += 1
        plan = self.plans.pop(tree_id)
        members = {task.id for task in plan.tasks}
        self.acknowledged.pop(tree_id, None)
        self.seen.pop(tree_id, None)
        self.skipped.pop(tree_id, None)
        for task_id in members:
            self.stopped.pop(task_id, None)
            self.running.pop(task_id, None)
        self.effects = [effect for effect in self.effects if effect.task_id not in members]
        self.storage.forget(tree_id)

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A tree as it is stored, or was at its end."""

    head: TreeHead
    tasks: list[Task]
    compacted: int
    events: list[Recorded]  # that are left of its log
    documents: list[Document]


class SimulatedClock:
    """Virtual time; ids that sort by creation; chance from the seed."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ids = 0

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.now()

    def new_id(self) -> str:
        if self._world.is_dead:
            return "dead"
        self._ids += 1
        return f"n{self._ids:06d}"

    def chance(self) -> float:
        return 0.5 if self._world.is_dead else self._world.chance.random()


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
        self._waiting: list[tuple[Callable[[], Any], Callable[[], None], asyncio.Future[Any]]] = []
        self.first_heads: dict[str, TreeHead] = {}
        self.stored_at: dict[tuple[str, int], float] = {}  # (tree, seq) -> when it became durable
        self.gone: dict[str, Kept] = {}  # trees that were deleted and are still to be judged
        self.dropped: set[str] = set()  # those of them that retention took
        self._logs: dict[str, list[Recorded]] = {}  # whole ones, whatever was compacted
        self._left: dict[str, int] = {}  # dropped tree -> events of it that are still to be swept

    async def open(self) -> None:
        self._waiting = []
        self._written = asyncio.Event()
        self._failures = 0
        self._failed = {}
        await super().open()

    def abandon(self) -> None:
        """Nothing: a session that is collected is of a process that has died, and another one has the medium now."""

    async def close(self) -> None:
        while self._waiting:
            await self._written.wait()
        self._is_open = False

    def log(self, tree_id: str) -> Sequence[Recorded]:
        """Every event of the tree that was ever stored."""
        return self._logs.get(tree_id, [])

    def kept(self, tree_id: str) -> Kept:
        """What is stored of the tree, or was at its end."""
        if (gone := self.gone.get(tree_id)) is not None:
            return gone
        return Kept(
            head=self._heads[tree_id],
            tasks=[self._tasks[task_id] for task_id in self._members[tree_id]],
            compacted=self._compacted.get(tree_id, 0),
            events=self._events[tree_id],
            documents=[each for each in self._documents.values() if each.tree_id == tree_id],
        )

    def trees_stored(self) -> list[str]:
        """The ids of all trees there are."""
        return list(self._heads)

    def has_tree(self, tree_id: str) -> bool:
        return tree_id in self._heads

    def head_stored(self, tree_id: str) -> TreeHead:
        """The tree's head as it is stored."""
        return self._heads[tree_id]

    def forget(self, tree_id: str) -> None:
        """What is remembered of a tree beside what is stored."""
        del self.first_heads[tree_id], self.gone[tree_id]
        self.dropped.discard(tree_id)
        for recorded in self._logs.pop(tree_id):
            del self.stored_at[tree_id, recorded.seq]

    @property
    def is_swept(self) -> bool:
        return not self._left

    # Reads, which take their time now and then: what they find may be old when it arrives

    async def _pause(self) -> None:
        world = self._world
        if world.is_dead:
            await asyncio.get_running_loop().create_future()
        if world.happens(world.faults.slow_read):
            await asyncio.sleep(world.chance.uniform(0.0, MAX_LATENCY))

    async def load(self, tree_id: str, *, most: int | None = None) -> tuple[TreeHead, list[Task]] | None:
        await self._pause()
        found = await super().load(tree_id)
        await self._pause()
        return found

    async def head(self, tree_id: str, *, owner: str | None = None) -> TreeHead | None:
        await self._pause()
        found = await super().head(tree_id, owner=owner)
        await self._pause()
        return found

    async def events(self, query: EventQuery) -> Sequence[Recorded]:
        await self._pause()
        found = await super().events(query)
        await self._pause()
        return found

    async def document(self, kind: str, document_id: str) -> Document | None:
        await self._pause()
        found = await super().document(kind, document_id)
        await self._pause()
        return found

    async def documents(self, query: DocumentQuery) -> list[Document]:
        await self._pause()
        found = await super().documents(query)
        await self._pause()
        return found

    # Writes

    def append(self, append: Append) -> asyncio.Future[None]:
        world = self._world
        if self._is_open and world.happens(world.faults.refuse):
            world.note("refused", append.head.id)
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.set_exception(StorageUnavailable("The storage is behind"))
            return future
        failures_known = self._failures
        return self._stand_in_line(lambda: self._store(append, failures_known), lambda: self._fail(append))

    def _submit(self, write: Callable[[], Any]) -> asyncio.Future[Any]:
        return self._stand_in_line(write, lambda: None)

    async def put_documents(self, *documents: Document) -> None:
        try:
            await super().put_documents(*documents)
        except StorageUnavailable:
            self._world.ledger.unsaved(each.id for each in documents)
            raise

    async def put_new(self, document: Document) -> Document:
        try:
            return await super().put_new(document)
        except StorageUnavailable:
            self._world.ledger.unsaved([document.id])
            raise

    async def swap(self, document: Document, expected: Document | None, *others: Document) -> bool:
        try:
            return await super().swap(document, expected, *others)
        except StorageUnavailable:
            self._world.ledger.unsaved(each.id for each in (document, *others))
            raise

    async def delete_documents(self, *names: tuple[str, str], expected: Document | None = None) -> int:
        try:
            return await super().delete_documents(*names, expected=expected)
        except StorageUnavailable:
            self._world.ledger.unsaved(document_id for _, document_id in names)
            raise

    def _delete_documents(self, names: Sequence[tuple[str, str]], expected: Document | None) -> int:
        deleted = super()._delete_documents(names, expected)
        if deleted or expected is None:
            self._world.ledger.removed(names)
        return deleted

    def _stand_in_line(self, write: Callable[[], Any], failed: Callable[[], None]) -> asyncio.Future[Any]:
        world = self._world
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if world.is_dead:
            return future  # nothing that a dead process writes arrives, and nobody tells it
        if not self._is_open:
            future.set_exception(StorageUnavailable("The storage is closed"))
            return future
        if not self._waiting:
            self._written.clear()
            loop.call_later(world.chance.uniform(0.0, MAX_LATENCY), self._commit)
        self._waiting.append((write, failed, future))
        return future

    def _commit(self) -> None:
        world = self._world
        if world.is_dead:
            return
        batch, self._waiting = self._waiting, []
        self._written.set()
        crashes = world.happens(world.faults.crash)
        if crashes and world.chance.random() < 0.5:
            raise Crash("before the commit")
        if world.happens(world.faults.fail):
            world.note("failed", len(batch))
            for _, failed, future in batch:
                failed()
                if not future.done():
                    future.set_exception(StorageUnavailable("The commit failed"))
            return
        settled = [(future, *self._outcome(write)) for write, _, future in batch]
        if crashes:
            raise Crash("after the commit, before anybody was told")
        for future, result, error in settled:
            if future.done():
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

    def _outcome(self, write: Callable[[], Any]) -> tuple[Any, Exception | None]:
        try:
            return write(), None
        except REFUSALS as refusal:
            return None, refusal

    def _fail(self, append: Append) -> None:
        self._failures += 1
        self._failed[append.head.id] = self._failures

    def _store(self, append: Append, failures_known: int) -> None:
        world = self._world
        try:
            self._append(append, failures_known)
        except VersionConflict:
            world.note("conflict", append.head.id)
            raise
        world.events += len(append.events)
        self._logs.setdefault(append.head.id, []).extend(append.events)
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
        world.ledger.stored(append.documents)

    def _put_documents(self, documents: Sequence[Document]) -> None:
        super()._put_documents(documents)
        self._world.ledger.stored(documents)

    def _delete(self, tree_id: str) -> bool:
        kept = self.kept(tree_id) if tree_id in self._heads else None
        is_deleted = super()._delete(tree_id)
        if kept is not None:
            self.gone[tree_id] = kept
            self._world.ledger.tree_deleted(tree_id)
            self._world.note("deleted", tree_id)
        return is_deleted

    # Retention

    async def compact(self, parts: Sequence[LogPart]) -> None:
        await self._make_up()
        await super().compact(parts)

    async def drop(self, heads: Sequence[TreeHead]) -> list[str]:
        await self._make_up()
        return await super().drop(heads)

    async def sweep(self, limit: int) -> bool:
        if self.is_swept:
            return False
        is_more: bool = await self._submit(lambda: self._sweep(limit))
        return is_more

    async def _make_up(self) -> None:
        """Between the look at a tree and the write that comes of it, it may go on."""
        await self._pause()
        await asyncio.sleep(self._world.chance.uniform(0.0, MAX_QUEUE))

    def _compact(self, parts: Sequence[LogPart]) -> None:
        before = {part.tree_id: self._compacted.get(part.tree_id, 0) for part in parts}
        super()._compact(parts)
        for part in parts:
            if (head := self._heads.get(part.tree_id)) is not None and self._compacted.get(head.id, 0) > before[
                head.id
            ]:
                self._require_old(head, self._world.times.compact_after)
                self._world.compacted += 1
                self._world.note("compacted", head.id, part.until)

    def _drop(self, heads: Sequence[TreeHead]) -> list[str]:
        dropped = super()._drop(heads)
        for tree_id in dropped:
            kept = self.gone[tree_id]
            self._require_old(kept.head, self._world.times.drop_after)
            self._world.dropped += 1
            self.dropped.add(tree_id)
            if len(kept.events) > LONG_LOG:
                self._left[tree_id] = len(kept.events)
        return dropped

    def _sweep(self, limit: int) -> bool:
        for tree_id, left in list(self._left.items()):
            taken = min(limit, left)
            limit -= taken
            self._left[tree_id] -= taken
            self._world.note("swept", tree_id, taken)
            if taken == left:
                del self._left[tree_id]
        return not self.is_swept

    def _require_old(self, head: TreeHead, age: float | None) -> None:
        is_over = not head.is_live and head.status.is_terminal
        if not is_over or age is None or self._world.clock.now() - head.updated_at < age:
            self._world.broken.append(f"tree {head.id} was compacted or dropped before its time")
