"""Whole cores for the tests of the shell: an event loop whose time is virtual, executors that tests can see into."""

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from core.executors.base import ExecutorSpec, TaskContext
from core.executors.registry import ExecutorRegistry
from core.model.events import Event, Recorded
from core.model.task import Task, TreeHead
from core.run.runner import Runner
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from core.storage.base import Append, Storage
from core.storage.memory import MemoryStorage

STUCK = 20.0  # real seconds without any work after which a test is given up
EPOCH = 1_800_000_000.0


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for time to pass: when nothing is ready, time jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0 if timeout is not None else STUCK)
        if not ready and timeout is None:
            raise TimeoutError("the test waits for something that never happens")
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which an hour takes no time. For coroutines only: threads live in real time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class LoopClock:
    """The running loop's time, ids that sort by creation, and no chance at all."""

    def __init__(self) -> None:
        self._ids = 0
        self.ahead = 0.0  # seconds that the machine's clock is set wrong

    def now(self) -> float:
        return EPOCH + asyncio.get_running_loop().time()

    def wall(self) -> float:
        return self.now() + self.ahead

    def new_id(self) -> str:
        self._ids += 1
        return f"t{self._ids:04d}"

    def chance(self) -> float:
        return 0.0


def virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the test in a virtual loop; at its end the books of every runner that it made must agree."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        with noted_runners() as runners, asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(_checked(test(*arguments, **named), runners))

    return run


@contextmanager
def noted_runners() -> Iterator[list[Runner]]:
    """The runners that are made meanwhile."""
    made: list[Runner] = []
    init = Runner.__init__

    def noted(self: Runner, *given: Any) -> None:
        init(self, *given)
        made.append(self)

    Runner.__init__ = noted  # type: ignore[method-assign]
    try:
        yield made
    finally:
        Runner.__init__ = init  # type: ignore[method-assign]


async def _checked(test: Coroutine[Any, Any, None], runners: list[Runner]) -> None:
    await test
    for runner in runners:
        runner.check()


class Connection:
    """A process's way to a storage that outlives it: once the process is dead, nothing it writes arrives."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.is_dead = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def append(self, append: "Append") -> asyncio.Future[None]:
        return asyncio.get_running_loop().create_future() if self.is_dead else self._storage.append(append)


def kill(session: Session) -> None:
    """The process of this core is gone; its storage stays."""
    session.storage.is_dead = True  # type: ignore[attr-defined]


Work = Callable[[dict[str, Any], TaskContext], Awaitable[Any]]


@dataclass
class Bench:
    """A core in virtual time, its executors, and a record of what they did."""

    storage: Storage = field(default_factory=MemoryStorage)
    registry: ExecutorRegistry = field(default_factory=ExecutorRegistry)
    clock: LoopClock = field(default_factory=LoopClock)
    limits: RunnerLimits = field(default_factory=RunnerLimits)
    started: list[str] = field(default_factory=list)  # names, in order of start
    ended: list[str] = field(default_factory=list)  # how each attempt left: "a", or "a: CancelledError"
    contexts: list[TaskContext] = field(default_factory=list)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    most: int = 0  # most attempts at a time
    _now: int = 0

    def __post_init__(self) -> None:
        self.add("work", self.work)
        self.add("slow", self.slow)
        self.add("nap", self.nap)

    def add(self, executor_id: str, work: Work, **fields: Any) -> None:
        """Register a coroutine function as an executor."""
        bench = self

        class Recorded:
            async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
                name = context.task.ref or context.task.name
                bench.started.append(name)
                bench.contexts.append(context)
                bench.inputs[name] = inputs
                bench._now += 1
                bench.most = max(bench.most, bench._now)
                ended = name
                try:
                    return await work(inputs, context)
                except BaseException as error:
                    ended = f"{name}: {type(error).__name__}"
                    raise
                finally:
                    bench._now -= 1
                    bench.ended.append(ended)

        self.registry.register(ExecutorSpec(id=executor_id, make=Recorded, **fields), override=True)

    async def work(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        return inputs.get("result")

    async def nap(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        """Takes one virtual second."""
        await asyncio.sleep(1)

    async def slow(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        """Ends when the test opens the task's gate."""
        await self.gate(context.task.ref or context.task.name).wait()
        return inputs.get("result")

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    def session(self) -> Session:
        """A core on the bench's storage; a second one stands for the next process."""
        return Session(Connection(self.storage), registry=self.registry, clock=self.clock, limits=self.limits)


async def begin(session: Session, *items: dict[str, Any], **fields: Any) -> TreeHead:
    """Create and start a tree; a root group is added when the first task has no parent and others lack one."""
    return (await session.create(session.plan(rooted(*items)), execute=True, **fields)).head


def rooted(*items: dict[str, Any]) -> list[dict[str, Any]]:
    """The items under a root group."""
    return [{"id": "root", "name": "root"}, *({"parent_id": "root", **item} for item in items)]


def item(key: str, executor: str = "work", *needs: str, result: Any = None, **fields: Any) -> dict[str, Any]:
    """One task of an array, as a caller writes it."""
    given = {"id": key, "name": executor, "dependencies": list(needs), **fields}
    return given if result is None else given | {"inputs": {"result": result}}


async def finish(session: Session, *items: dict[str, Any]) -> dict[str, Task]:
    """Run a tree to its end; its tasks by the caller's references."""
    head = await begin(session, *items)
    await session.wait(head.id, has_ended)
    return await tasks_of(session, head.id)


async def tasks_of(session: Session, tree_id: str) -> dict[str, Task]:
    stored = await session.storage.load(tree_id)
    assert stored is not None
    return {task.key: task for task in stored[1]}


async def until_event(session: Session, tree_id: str, kind: type[Event], name: str = "", after: int = 0) -> Recorded:
    """The first event of that kind (of the task with that name) in the tree's log."""
    async for recorded in session.follow(tree_id, after):
        if isinstance(recorded.event, kind) and name in ("", recorded.name):
            return recorded
    raise AssertionError(f"the log ended without {kind.__name__}")


async def settle(turns: int = 20) -> None:
    """Let everything that is ready to go on do so."""
    for _ in range(turns):
        await asyncio.sleep(0)


class FaultyStorage(MemoryStorage):
    """A storage that fails, or takes its time, when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: list[Exception] = []  # for the next appends, in order
        self.held: list[tuple[Append, asyncio.Future[None]]] | None = None  # appends that wait, while not None
        self.appends: list[Append] = []

    def append(self, append: Append) -> asyncio.Future[None]:
        self.appends.append(append)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.faults:
            future.set_exception(self.faults.pop(0))
        elif self.held is not None:
            self.held.append((append, future))
        else:
            return super().append(append)
        return future

    def release(self) -> None:
        """Store what waits, and hold nothing any more."""
        held, self.held = self.held or [], None
        for append, future in held:
            stored = super().append(append)
            stored.add_done_callback(functools.partial(_pass_on, future))

    def fail_held(self, *errors: Exception) -> None:
        """Fail what waits, in order, and hold nothing any more."""
        held, self.held = self.held or [], None
        for (_, future), error in zip(held, errors, strict=True):
            future.set_exception(error)


def _pass_on(future: asyncio.Future[None], stored: asyncio.Future[None]) -> None:
    error = stored.exception()
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)
