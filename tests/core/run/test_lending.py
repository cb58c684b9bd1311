"""Executors that run trees of their own and wait for them: whatever the limits, nothing waits for ever."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.executors.base import TaskContext
from core.executors.function import executor
from core.manager import TaskManager, TaskTreeNode
from core.model.task import Task, TaskStatus
from core.run.lending import MAX_NESTED
from core.run.runner_limits import RunnerLimits
from tests.core.cores import Bench, VirtualLoop, settle, virtual_time


class Nest:
    """A core whose executor `outer` runs trees of its own, and a count of those that really run."""

    def __init__(self, limits: RunnerLimits, **outer: Any) -> None:
        self.bench = Bench(limits=limits)
        self.session = self.bench.session()
        self.manager = TaskManager(self.session)
        self.active = 0
        self.most = 0
        self.ways: dict[str, Callable[[TaskTreeNode], Awaitable[Any]]] = {
            "wait": self.manager.distribute_task_tree,
            "callback": lambda tree: self.manager.distribute_task_tree_with_streaming(
                tree, callback=lambda event: None
            ),
            "iterate": self.iterate,
        }
        self.bench.add("inner", self.inner)
        self.bench.add("outer", self.outer, **outer)

    async def iterate(self, tree: TaskTreeNode) -> None:
        events: Any = await self.manager.distribute_task_tree_with_streaming(tree, use_callback=False)
        async for _ in events:
            pass

    async def run(self, name: str, way: str = "wait", **fields: Any) -> Task:
        task = await self.manager.task_repository.create_task(name=name, **fields)
        tree = TaskTreeNode(task)
        await self.ways[way](tree)
        return tree.task

    def _enter(self) -> None:
        self.active += 1
        self.most = max(self.most, self.active)

    async def inner(self, inputs: dict[str, Any], context: TaskContext) -> int:
        self._enter()
        await asyncio.sleep(inputs.get("seconds", 1))
        self.active -= 1
        return 1

    async def outer(self, inputs: dict[str, Any], context: TaskContext) -> int:
        """Runs the trees that its inputs describe, a list side by side, and adds their results up."""
        self._enter()
        try:
            await asyncio.sleep(0.5)
            self.active -= 1
            try:
                names = ["outer" if each else "inner" for each in inputs["trees"]]
                below = zip(names, inputs["trees"], strict=True)
                runs = (self.run(name, inputs.get("way", "wait"), inputs=_shape(each, inputs)) for name, each in below)
                done = await asyncio.gather(*runs)
            finally:
                self._enter()
            await asyncio.sleep(0.5)
            return 1 + sum(task.result for task in done)
        finally:
            self.active -= 1


def _shape(trees: list[Any], inputs: dict[str, Any]) -> dict[str, Any]:
    return {"trees": trees, "way": inputs.get("way", "wait")}


def size(trees: list[Any]) -> int:
    return 1 + sum(map(size, trees))


def check_nothing_is_held(nest: Nest) -> None:
    room = nest.session.runner.books.room
    assert (room.slots.used, dict(room.in_lane), dict(room.in_tree), dict(room.slots.held)) == (0, {}, {}, {})
    assert not nest.session.runner.lending.waiting and not nest.session.runner.lending.depths


LIMITS: dict[str, tuple[RunnerLimits, dict[str, Any]]] = {
    "one slot": (RunnerLimits(tasks=1), {}),
    "one of the executor": (RunnerLimits(), {"concurrency": 1}),
    "one slot and one of the executor": (RunnerLimits(tasks=1), {"concurrency": 1}),
    "one slot of a caller": (RunnerLimits(tasks=10, caller=1), {}),
    "one of a tree": (RunnerLimits(tree=1), {}),
    "one thread": (RunnerLimits(threads=1), {"uses_thread": True}),
    "one process": (RunnerLimits(processes=1), {"uses_process": True}),
}
SHAPES: list[list[Any]] = [[[]], [[], [], []], [[[[[]]]]], [[[]], [[], [[]]]]]


@pytest.mark.parametrize("way", ["wait", "callback", "iterate"])
@pytest.mark.parametrize("limit", LIMITS)
@virtual_time
async def test_a_tree_that_an_executor_waits_for_runs_whatever_the_limit(limit: str, way: str) -> None:
    """Found from outside: a parent held the slot that its child needed, for ever."""
    limits, outer = LIMITS[limit]
    for shape in SHAPES:
        nest = Nest(limits, **outer)
        async with nest.session, asyncio.timeout(1_000):
            task = await nest.run("outer", inputs={"trees": shape, "way": way})
            assert (task.status, task.result) == (TaskStatus.COMPLETED, size(shape)), shape
            check_nothing_is_held(nest)


@virtual_time
async def test_the_limit_holds_for_those_that_do_not_wait() -> None:
    """Twenty parents come back at about the same time; three may run."""
    nest = Nest(RunnerLimits(tasks=3))
    async with nest.session, asyncio.timeout(10_000):
        runs = (nest.run("outer", inputs={"trees": [[], []]}) for _ in range(20))
        assert [task.result for task in await asyncio.gather(*runs)] == [3] * 20
        assert nest.most == 3
        check_nothing_is_held(nest)


@virtual_time
async def test_an_endless_nesting_is_told() -> None:
    nest = Nest(RunnerLimits(tasks=1))

    async def again(inputs: dict[str, Any], context: TaskContext) -> Any:
        inner = await nest.run("again")
        if inner.status is TaskStatus.FAILED:
            raise RuntimeError(inner.error)

    nest.bench.add("again", again)
    async with nest.session:
        task = await nest.run("again")
        assert f"runs a tree nested in {MAX_NESTED} others" in (task.error or "")
        assert len(nest.bench.started) == MAX_NESTED + 1
        check_nothing_is_held(nest)


@pytest.mark.parametrize("when", ["while it lends", "while it waits for its slot"])
@pytest.mark.parametrize("end", ["cancel", "timeout"])
@virtual_time
async def test_a_parent_that_is_stopped_gives_back_what_it_has_once(when: str, end: str) -> None:
    nest = Nest(RunnerLimits(tasks=1))
    async with nest.session, asyncio.timeout(1_000):
        timeout = {"timeout": 1.5 if when == "while it lends" else 1.75} if end == "timeout" else {}
        inner = {"trees": [[]]}
        task = await nest.manager.task_repository.create_task(name="outer", inputs=inner, **timeout)
        parent = asyncio.create_task(nest.manager.distribute_task_tree(TaskTreeNode(task)))
        await asyncio.sleep(0.75)  # the inner one runs until 1.5
        if when == "while it waits for its slot":
            other = asyncio.create_task(nest.run("inner", inputs={"seconds": 5}))
            await asyncio.sleep(0.85)
        if end == "cancel":
            await nest.session.cancel(task.id)
        await parent
        if when == "while it waits for its slot":
            await other
        await asyncio.sleep(10)
        stored = await nest.session.storage.task(task.id)
        assert stored is not None and stored.status in (TaskStatus.CANCELLED, TaskStatus.FAILED, TaskStatus.COMPLETED)
        check_nothing_is_held(nest)


@virtual_time
async def test_a_parent_that_ends_while_something_of_it_waits_gives_back_once() -> None:
    nest = Nest(RunnerLimits(tasks=1))
    beside: list[asyncio.Task[Any]] = []

    async def careless(inputs: dict[str, Any], context: TaskContext) -> str:
        beside.append(asyncio.create_task(nest.run("inner")))
        await settle()
        return "gone"

    nest.bench.add("careless", careless)
    async with nest.session, asyncio.timeout(1_000):
        assert (await nest.run("careless")).result == "gone"
        assert (await beside[0]).result == 1
        check_nothing_is_held(nest)


@virtual_time
async def test_a_parent_that_ends_while_something_of_it_waits_for_its_slot_gives_back_what_it_holds() -> None:
    """Found by Runner.check: it gave back a slot that somebody else had by then, so that one more could start."""
    nest = Nest(RunnerLimits(tasks=1))
    beside: list[asyncio.Task[Any]] = []

    async def careless(inputs: dict[str, Any], context: TaskContext) -> str:
        beside.append(asyncio.create_task(nest.run("inner")))
        await asyncio.sleep(3)
        return "gone"

    nest.bench.add("careless", careless)
    async with nest.session, asyncio.timeout(1_000):
        parent = asyncio.create_task(nest.run("careless"))
        await settle()  # the inner one runs until 1
        others = [asyncio.create_task(nest.run("inner", inputs={"seconds": 5})) for _ in range(2)]
        assert (await parent).result == "gone"
        runner = nest.session.runner
        runner.check()
        assert (runner.books.room.slots.used, nest.active) == (1, 1)
        assert [(await each).result for each in (*beside, *others)] == [1, 1, 1]
        assert nest.most == 1
        check_nothing_is_held(nest)


@virtual_time
async def test_a_tree_that_nobody_waits_for_borrows_nothing() -> None:
    """Outside of any executor, and in the context of an attempt that has ended."""
    nest = Nest(RunnerLimits(tasks=1))
    async with nest.session:
        async with nest.session.runner.lending.lent():
            assert nest.session.runner.books.room.slots.used == 0
        assert (await nest.run("inner")).result == 1
        check_nothing_is_held(nest)


def test_a_plain_function_lends_its_thread() -> None:
    """It waits in a thread for what it has the event loop do."""

    async def main() -> None:
        nest = Nest(RunnerLimits(tasks=1, threads=1))
        loop = asyncio.get_running_loop()

        def blocking(inputs: dict[str, Any]) -> Any:
            if not inputs["deep"]:
                return 1
            below = nest.run("blocking", inputs={"deep": inputs["deep"] - 1})
            return 1 + asyncio.run_coroutine_threadsafe(below, loop).result().result

        executor("blocking", concurrency=1, registry=nest.bench.registry)(blocking)
        async with nest.session, asyncio.timeout(30):
            assert (await nest.run("blocking", inputs={"deep": 4})).result == 5
            check_nothing_is_held(nest)

    asyncio.run(main())


trees = st.recursive(st.just([]), lambda below: st.lists(below, max_size=3), max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(
    shapes=st.lists(trees, min_size=1, max_size=4),
    slots=st.integers(1, 4),
    concurrency=st.none() | st.integers(1, 2),
    caller=st.none() | st.integers(1, 2),
)
def test_nothing_waits_for_ever(
    shapes: list[list[Any]], slots: int, concurrency: int | None, caller: int | None
) -> None:
    """Any trees of trees, side by side, under any limits: all end, the limit holds, and nothing is held afterwards."""

    async def main() -> None:
        nest = Nest(RunnerLimits(tasks=slots, caller=caller), concurrency=concurrency)
        async with nest.session, asyncio.timeout(100_000):
            done = await asyncio.gather(*(nest.run("outer", inputs={"trees": shape}) for shape in shapes))
            assert [task.result for task in done] == [size(shape) for shape in shapes]
            assert nest.most <= slots
            check_nothing_is_held(nest)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
