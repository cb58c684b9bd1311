"""The user's guide, kept: its Python blocks run, and each section's promise has a test of our own that always runs.

`TASK_GUIDE` names the guide's file. Its blocks are taken as they are; only the package's name is replaced.
"""

import ast
import asyncio
import os
import re
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core import InvalidPlan, RunnerLimits, Task, TaskContext, TaskManager, TaskStatus, TaskTreeNode
from tests.core.cores import Bench, settle, virtual_time

GUIDE = os.environ.get("TASK_GUIDE", "")
ROOT = Path(__file__).parent.parent
WITHOUT_GUIDE = "TASK_GUIDE names no guide, so its code blocks are not run"


@dataclass(frozen=True)
class Block:
    """One Python block of the guide."""

    line: int
    heading: str
    code: str

    @property
    def is_program(self) -> bool:
        return "asyncio.run(" in self.code


def blocks() -> list[Block]:
    if not GUIDE:
        return []
    found, heading, start, lines = [], "", 0, []
    for number, line in enumerate(Path(GUIDE).read_text(encoding="utf-8").splitlines(), 1):
        if not start and line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.strip() == "```python":
            start, lines = number, []
        elif start and line.strip() == "```":
            code = textwrap.dedent("\n".join(lines)).replace("aipartnerupflow", "core")
            found.append(Block(start, heading, code))
            start = 0
        elif start:
            lines.append(line)
    return found


BLOCKS = blocks()
# Without a guide there is one case, and it says so.
CASES = BLOCKS or [pytest.param(None, marks=pytest.mark.skip(reason=WITHOUT_GUIDE))]


@pytest.mark.parametrize("block", CASES, ids=lambda block: f"line {block.line}" if block else "no guide")
def test_a_block_of_the_guide_runs(block: Block, tmp_path: Path) -> None:
    """A program as it is, a fragment with what it takes for granted."""
    if block.is_program:
        run_program(block, tmp_path)
    else:
        run_fragment(block)


def test_the_blocks_of_a_guide_are_found() -> None:
    """Should the guide's form change, so that no block is found, that is seen."""
    assert not GUIDE or sum(not block.is_program for block in BLOCKS) >= 20
    assert not GUIDE or any(block.is_program for block in BLOCKS)


def run_program(block: Block, folder: Path) -> None:
    program = folder / "program.py"
    program.write_text(block.code, encoding="utf-8")
    command = [sys.executable, "-W", "error", str(program)]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "Status: completed" in done.stdout


class _Awaiting(ast.NodeTransformer):
    """The guide's shorthand `create_task(...)` stands for the awaited call of the repository."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "create_task":
            return ast.Await(value=node)
        return node


class Prelude:
    """What the guide's fragments take for granted: a manager, some tasks, and the executors that they name."""

    def __init__(self, block: Block) -> None:
        self.bench = Bench()
        given = {"root_task", "task1", "task2", "other_task", "task_123"}
        for name in given | set(re.findall(r'name="(\w+)"', block.code)) | {"unnamed"}:
            self.bench.add(name, _data)
        self.manager = TaskManager(self.bench.session())
        self.events: list[dict[str, Any]] = []
        self.manager.on_event(self.events.append)
        self.created: list[Task] = []

    async def create_task(self, *arguments: Any, **fields: Any) -> Task:
        if arguments == (...,):
            arguments, fields = (), {"name": "unnamed"}
        task = await self.manager.task_repository.create_task(*arguments, **fields)
        self.created.append(task)
        return task

    async def run(self, code: str) -> dict[str, Any]:
        """Run the fragment; its variables."""
        names: dict[str, Any] = {"task_manager": self.manager, "TaskTreeNode": TaskTreeNode}
        names["create_task"] = self.create_task
        for name in ("root_task", "task1", "task2"):
            names[name] = await self.create_task(name=name)
        for name in ("other_task", "task_123"):
            await self.create_task(name=name, id=name)
        names["root"] = names["root_task"]
        names["task_tree"] = self.tree()
        names["tasks"] = list(self.created)
        tree = _Awaiting().visit(ast.parse(code.replace("task_manager.task_repository.create_task", "create_task")))
        ast.fix_missing_locations(tree)
        # `await create_task` was written out where the repository was named.
        for node in ast.walk(tree):
            if isinstance(node, ast.Await) and isinstance(node.value, ast.Await):
                node.value = node.value.value
        program = compile(tree, "guide", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(program, names)
        if running is not None:
            await running
        return names

    def tree(self) -> TaskTreeNode:
        """All tasks under the root, each below the parent that it names."""
        nodes = {task.id: TaskTreeNode(task) for task in self.created}
        root = next(iter(nodes.values()))
        for task in self.created[1:]:
            nodes.get(task.parent_id or "", root).add_child(nodes[task.id])
        return root


async def _data(inputs: dict[str, Any], context: TaskContext) -> Any:
    return {"data": [1, 2, 3]}


def run_fragment(block: Block) -> None:
    """Run it; then execute what it created, and see dependencies before dependents."""

    @virtual_time
    async def check() -> None:
        prelude = Prelude(block)
        await prelude.run(block.code)
        if "distribute_task_tree" not in block.code and "cancel_task" not in block.code:
            await prelude.manager.distribute_task_tree(prelude.tree())
        repository = prelude.manager.task_repository
        stored = [await repository.get_task_by_id(task.id) for task in prelude.created]
        if "distribute_task_tree_with_streaming" in block.code:
            assert prelude.events[-1]["type"] == "final"
        for task in stored:
            assert task is not None
            if "cancel_task" not in block.code and task.tree_id:
                assert task.status == "completed", task.error
        order = {context.task.id: n for n, context in enumerate(prelude.bench.contexts)}
        for task in stored:
            assert task is not None
            for dependency in task.dependencies:
                assert order[dependency.id] < order[task.id]

    check()


# Our own, section by section


class Desk:
    """A manager in virtual time, with a short way to make tasks whose executors are called as they are."""

    def __init__(self, *, limits: RunnerLimits | None = None) -> None:
        self.bench = Bench(limits=limits or RunnerLimits())
        self.bench.add("fail", _fail)
        self.manager = TaskManager(self.bench.session())

    async def task(self, name: str, *needs: Task, after: tuple[Task, ...] = (), **fields: Any) -> Task:
        if name not in self.bench.registry:
            self.bench.add(name, self.bench.work)
        dependencies = [
            *({"id": task.id, "required": True} for task in needs),
            *({"id": task.id, "required": False} for task in after),
        ]
        return await self.manager.task_repository.create_task(name=name, dependencies=dependencies, **fields)

    def slow(self, *names: str) -> None:
        for name in names:
            self.bench.add(name, self.bench.slow)

    async def get(self, task: Task) -> Task:
        found = await self.manager.task_repository.get_task_by_id(task.id)
        assert found is not None
        return found

    async def statuses(self, *tasks: Task) -> list[str]:
        return [str((await self.get(task)).status) for task in tasks]

    async def run(self, root: Task, *children: Task) -> TaskTreeNode:
        return await self.manager.distribute_task_tree(tree_of(root, *children))

    @property
    def started(self) -> list[str]:
        return self.bench.started


def tree_of(root: Task, *children: Task) -> TaskTreeNode:
    node = TaskTreeNode(root)
    for child in children:
        node.add_child(TaskTreeNode(child))
    return node


async def _fail(inputs: dict[str, Any], context: TaskContext) -> Any:
    raise ValueError("boom")


BOOM = f"ValueError: boom (test_guide.py:{_fail.__code__.co_firstlineno + 1})"


@virtual_time
async def test_core_concepts_a_task_goes_from_pending_through_in_progress_to_completed() -> None:
    desk = Desk()
    desk.slow("work")
    task = await desk.task("work", inputs={"result": {"n": 1}})
    assert await desk.statuses(task) == ["pending"]
    running = asyncio.create_task(desk.run(task))
    await settle(40)
    assert await desk.statuses(task) == ["in_progress"]
    desk.bench.gate("work").set()
    tree = await running
    assert (tree.task.status, tree.task.result, tree.calculate_progress()) == ("completed", {"n": 1}, 1.0)
    assert tree.calculate_status() is TaskStatus.COMPLETED


@virtual_time
async def test_core_concepts_failed_and_cancelled_tasks_say_why() -> None:
    desk = Desk()
    failed = await desk.task("fail")
    needs = await desk.task("after", failed)
    tree = await desk.run(await desk.task("root"), failed, needs)
    assert [(node.task.status, node.task.error) for node in tree.children] == [
        ("failed", BOOM), ("cancelled", f"required dependency 'fail' ({failed.id}) failed: {BOOM}"),
    ]  # fmt: skip
    assert tree.calculate_status() is TaskStatus.FAILED


@virtual_time
async def test_core_concepts_the_tree_of_the_first_picture() -> None:
    """Children 1 and 2 run in parallel, the grandchild after child 1, child 3 after both."""
    desk = Desk()
    desk.slow("child1", "child2")
    root = await desk.task("root")
    child1, child2 = await desk.task("child1"), await desk.task("child2")
    grandchild = await desk.task("grandchild", child1)
    child3 = await desk.task("child3", child1, child2)
    tree = tree_of(root, child1, child2, child3)
    tree.children[0].add_child(TaskTreeNode(grandchild))
    running = asyncio.create_task(desk.manager.distribute_task_tree(tree))
    await settle(40)
    assert desk.started == ["root", "child1", "child2"]
    desk.bench.gate("child1").set()
    await settle(40)
    assert desk.started[3:] == ["grandchild"]
    desk.bench.gate("child2").set()
    await running
    assert desk.started[4:] == ["child3"]


@virtual_time
async def test_parent_and_child_are_organisation_only() -> None:
    """A child does not wait for its parent, and a task waits for its dependency wherever that is."""
    desk = Desk()
    desk.slow("task_a", "task_c")
    a, c = await desk.task("task_a"), await desk.task("task_c")
    b = await desk.task("task_b", c, parent_id=a.id)
    free = await desk.task("free", parent_id=a.id)
    running = asyncio.create_task(desk.run(a, b, c, free))
    await settle(40)
    assert desk.started == ["task_a", "task_c", "free"]
    desk.bench.gate("task_c").set()
    await settle(40)
    assert desk.started[3:] == ["task_b"], "while its parent still runs"
    desk.bench.gate("task_a").set()
    await running


@virtual_time
async def test_creating_task_trees_a_hierarchy_is_stored_and_read_back() -> None:
    desk = Desk()
    root = await desk.task("root_task", user_id="user123", priority=1)
    children = [await desk.task(f"child_task_{n}", parent_id=root.id, inputs={"step": n}) for n in (1, 2)]
    await desk.run(root, *children)
    tree = await desk.manager.task_repository.get_task_tree(root.id)
    assert [node.task.name for node in tree.children] == ["child_task_1", "child_task_2"]
    assert [node.task.inputs for node in tree.children] == [{"step": 1}, {"step": 2}]
    found = await desk.manager.task_repository.query_tasks(user_id="user123", status="completed")
    assert [task.id for task in found] == [root.id]


@virtual_time
async def test_dependencies_a_pipeline_runs_in_order_whatever_the_priorities() -> None:
    desk = Desk()
    fetch = await desk.task("fetch_data", priority=9)
    process = await desk.task("process_data", fetch, priority=2)
    save = await desk.task("save_results", process, priority=0)
    await desk.run(fetch, save, process)
    assert desk.started == ["fetch_data", "process_data", "save_results"]


@virtual_time
async def test_dependencies_a_task_waits_for_all_it_needs() -> None:
    desk = Desk()
    desk.slow("task1", "task2")
    task1, task2 = await desk.task("task1"), await desk.task("task2")
    task3 = await desk.task("task3", task1, task2)
    running = asyncio.create_task(desk.run(await desk.task("root"), task1, task2, task3))
    await settle(40)
    desk.bench.gate("task2").set()
    await settle(40)
    assert "task3" not in desk.started
    desk.bench.gate("task1").set()
    await running
    assert desk.started[-1] == "task3"


@virtual_time
async def test_dependencies_a_required_one_that_fails_keeps_its_dependents_from_running() -> None:
    desk = Desk()
    failed = await desk.task("fail")
    never = await desk.task("never", failed)
    tree = await desk.run(await desk.task("root"), failed, never)
    assert "never" not in desk.started
    assert await desk.statuses(never) == ["cancelled"]
    assert tree.calculate_status() is TaskStatus.FAILED


@virtual_time
async def test_dependencies_an_optional_one_is_waited_for_and_may_fail() -> None:
    desk = Desk()

    async def fail_late(inputs: dict[str, Any], context: TaskContext) -> Any:
        await desk.bench.gate("fail now").wait()
        raise ValueError("late")

    desk.bench.add("primary_task", fail_late)
    primary = await desk.task("primary_task")
    fallback = await desk.task("fallback_task", after=(primary,))
    running = asyncio.create_task(desk.run(await desk.task("root"), primary, fallback))
    await settle(40)
    assert "fallback_task" not in desk.started
    desk.bench.gate("fail now").set()
    await running
    assert await desk.statuses(primary, fallback) == ["failed", "completed"]
    head = await desk.manager.session.storage.head((await desk.get(primary)).tree_id)
    assert head is not None
    assert head.status is TaskStatus.COMPLETED, "a failure that all tolerate does not fail the tree"


@virtual_time
async def test_dependencies_a_plain_id_is_a_required_one() -> None:
    desk = Desk()
    first = await desk.task("first")
    second = await desk.manager.task_repository.create_task(name="first", dependencies=[first.id])
    assert second.dependencies[0].required
    assert (await desk.run(first, second)).calculate_status() is TaskStatus.COMPLETED


@virtual_time
async def test_priorities_lower_numbers_start_first_under_a_limit() -> None:
    desk = Desk(limits=RunnerLimits(tasks=1))
    tasks = [await desk.task(f"p{priority}", priority=priority) for priority in (3, 2, 0, 1)]
    await desk.run(await desk.task("root", priority=-1), *tasks)
    assert desk.started == ["root", "p0", "p1", "p2", "p3"]


@virtual_time
async def test_priorities_dependencies_take_precedence() -> None:
    desk = Desk(limits=RunnerLimits(tasks=1))
    task1 = await desk.task("task1", priority=2)
    task2 = await desk.task("task2", task1, priority=0)
    await desk.run(await desk.task("root", priority=5), task1, task2)
    assert desk.started == ["task1", "task2", "root"]


@virtual_time
async def test_priorities_normal_is_the_default() -> None:
    desk = Desk()
    assert (await desk.task("any")).priority == 2


@virtual_time
async def test_pattern_1_sequential_pipeline() -> None:
    desk = Desk()
    step1 = await desk.task("step1")
    step2 = await desk.task("step2", step1)
    await desk.run(step1, step2, await desk.task("step3", step2))
    assert desk.started == ["step1", "step2", "step3"]
    assert desk.bench.most == 1


@virtual_time
async def test_pattern_2_fan_out_runs_in_parallel_after_one_dependency() -> None:
    desk = Desk()
    root = await desk.task("root")
    fan = [await desk.task("nap", root) for _ in range(10)]
    await desk.run(root, *fan)
    assert desk.bench.most == 10
    assert asyncio.get_running_loop().time() == 1, "ten naps of a second, at the same time"


@virtual_time
async def test_pattern_3_fan_in_gets_every_result() -> None:
    desk = Desk()
    tasks = [await desk.task(f"task{n}", inputs={"result": {"n": n}}) for n in (1, 2, 3)]
    final = await desk.task("final", *tasks)
    await desk.run(await desk.task("root"), *tasks, final)
    assert desk.started[-1] == "final"
    inputs = desk.bench.inputs["final"]
    assert [inputs[task.id] for task in tasks] == [{"n": 1}, {"n": 2}, {"n": 3}]
    assert inputs["n"] == 3


@virtual_time
async def test_pattern_4_complex_workflow() -> None:
    desk = Desk()
    desk.slow("task5")
    root = await desk.task("root")
    firsts = [await desk.task(f"task{n}") for n in (1, 2, 3)]
    task4, task5 = await desk.task("task4", *firsts), await desk.task("task5")
    final = await desk.task("final", task4, task5)
    running = asyncio.create_task(desk.run(root, *firsts, task4, task5, final))
    await settle(60)
    assert set(desk.started) == {"root", "task1", "task2", "task3", "task4", "task5"}
    desk.bench.gate("task5").set()
    assert (await running).calculate_status() is TaskStatus.COMPLETED
    assert desk.started[-1] == "final"


@virtual_time
async def test_pattern_5_conditional_execution() -> None:
    desk = Desk()
    primary, fallback = await desk.task("fail"), await desk.task("fallback", inputs={"result": "plan B"})
    success = await desk.task("success", after=(primary, fallback))
    await desk.run(await desk.task("root"), primary, fallback, success)
    assert await desk.statuses(primary, fallback, success) == ["failed", "completed", "completed"]
    assert desk.bench.inputs["success"] == {fallback.id: "plan B"}


@virtual_time
async def test_best_practice_1_a_meaningful_name_is_free_where_the_method_names_the_executor() -> None:
    desk = Desk()
    make = desk.manager.task_repository.create_task
    one = await make(name="fetch_user_data", schemas={"method": "work"})
    two = await make(name="process_payment", params={"executor_id": "work"})
    await desk.run(one, two)
    assert desk.started == ["fetch_user_data", "process_payment"]


@virtual_time
async def test_best_practice_2_the_convention_of_priorities_holds_between_trees() -> None:
    desk = Desk(limits=RunnerLimits(tasks=1))
    tasks = [("cleanup", 3), ("process_data", 2), ("process_payment", 0)]
    desk.slow("first")
    waiting = [asyncio.create_task(desk.run(await desk.task("first")))]
    await settle(40)
    waiting += [asyncio.create_task(desk.run(await desk.task(name, priority=priority))) for name, priority in tasks]
    await settle(40)
    desk.bench.gate("first").set()
    await asyncio.gather(*waiting)
    assert desk.started == ["first", "process_payment", "process_data", "cleanup"]


@virtual_time
async def test_best_practice_3_without_a_dependency_nothing_is_in_order() -> None:
    desk = Desk()
    await desk.run(await desk.task("root"), await desk.task("nap"), await desk.task("nap"))
    assert desk.bench.most == 2


@virtual_time
async def test_best_practice_5_the_status_of_every_task_can_be_checked() -> None:
    desk = Desk()
    tasks = [await desk.task("good"), await desk.task("fail")]
    await desk.run(await desk.task("root"), *tasks)
    failed = [task for task in [await desk.get(task) for task in tasks] if task.status == "failed"]
    assert [(task.name, task.error) for task in failed] == [("fail", BOOM)]


@virtual_time
async def test_best_practice_6_small_trees_run_side_by_side() -> None:
    desk = Desk()
    roots = [await desk.task("nap") for _ in range(5)]
    trees = await asyncio.gather(*(desk.run(root) for root in roots))
    assert {tree.task.status for tree in trees} == {TaskStatus.COMPLETED}
    assert desk.bench.most == 5


@virtual_time
async def test_advanced_cancellation_stops_the_work() -> None:
    desk = Desk()
    desk.slow("work")
    task = await desk.task("work", id="task_123")
    later = await desk.task("later", task)
    running = asyncio.create_task(desk.run(await desk.task("root"), task, later))
    await settle(40)
    answer = await desk.manager.cancel_task(task_id="task_123", error_message="User requested cancellation")
    assert answer["status"] == "cancelled"
    assert desk.bench.ended[-1] == "work: CancelledError"
    await running
    cancelled = await desk.get(task)
    assert (cancelled.status, cancelled.error) == ("cancelled", "User requested cancellation")
    assert await desk.statuses(later) == ["cancelled"]
    assert "later" not in desk.started


@virtual_time
async def test_advanced_an_executor_that_is_not_cancelable_says_so() -> None:
    desk = Desk()
    desk.bench.add("solid", desk.bench.slow, cancelable=False)
    task = await desk.task("solid")
    running = asyncio.create_task(desk.run(task))
    await settle(40)
    answer = await desk.manager.cancel_task(task.id)
    assert answer["status"] == "failed"
    assert "cannot be interrupted" in answer["message"]
    assert "force" in answer["message"]
    desk.bench.gate("solid").set()
    await running


@virtual_time
async def test_advanced_re_execution_runs_what_failed_and_what_needed_it() -> None:
    desk = Desk()

    async def once(inputs: dict[str, Any], context: TaskContext) -> Any:
        if context.run == 1:
            raise ValueError("not yet")
        return "now"

    desk.bench.add("flaky", once)
    good, flaky = await desk.task("good"), await desk.task("flaky")
    later = await desk.task("later", flaky)
    tree = await desk.run(good, flaky, later)
    assert await desk.statuses(good, flaky, later) == ["completed", "failed", "cancelled"]
    tree = await desk.manager.distribute_task_tree(tree)
    assert tree.calculate_status() is TaskStatus.COMPLETED
    assert desk.started == ["good", "flaky", "flaky", "later"]


@virtual_time
async def test_advanced_streaming_hands_every_event_to_the_callback_in_order() -> None:
    desk = Desk()

    async def talk(inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.progress(0.5, "half")
        await context.artifact("piece")

    desk.bench.add("talk", talk)
    seen: list[dict[str, Any]] = []

    @desk.manager.on_event
    async def note(event: dict[str, Any]) -> None:
        seen.append(event)

    also: list[int] = []
    task = await desk.task("talk")
    tree = tree_of(task, await desk.task("after", task))
    manager = desk.manager
    await manager.distribute_task_tree_with_streaming(
        tree, use_callback=True, callback=lambda event: also.append(event["seq"])
    )
    assert [(event["type"], event["name"]) for event in seen] == [
        ("task_start", "talk"), ("progress", "talk"), ("artifact", "talk"), ("task_completed", "talk"),
        ("task_start", "after"), ("task_completed", "after"), ("final", "talk"),
    ]  # fmt: skip
    assert [event["seq"] for event in seen] == sorted(also) == also
    assert tree.children[0].task.status is TaskStatus.COMPLETED


@virtual_time
async def test_advanced_streaming_without_callbacks_gives_an_iterator() -> None:
    desk = Desk()
    events = await desk.manager.distribute_task_tree_with_streaming(tree_of(await desk.task("a")), use_callback=False)
    assert not isinstance(events, TaskTreeNode)
    assert [event["type"] async for event in events] == ["task_start", "task_completed", "final"]


@virtual_time
async def test_advanced_dependency_results_are_merged_into_inputs() -> None:
    desk = Desk()
    task1 = await desk.task("task1", inputs={"result": {"data": [1, 2, 3]}})
    task2 = await desk.task("task2", task1, inputs={"additional": "value"})
    await desk.run(task1, task2)
    found = desk.bench.inputs["task2"]
    assert (found["data"], found["additional"]) == ([1, 2, 3], "value")
    assert found[task1.id] == {"data": [1, 2, 3]}


@virtual_time
async def test_troubleshooting_a_name_that_matches_no_executor() -> None:
    desk = Desk()
    root = await desk.task("root")
    typo = await desk.manager.task_repository.create_task(name="wrok")
    await desk.run(root, typo)
    failed = await desk.get(typo)
    assert failed.status == "failed"
    assert failed.error == "unknown executor 'wrok'; known are: fail, nap, root, slow, work"


@virtual_time
async def test_troubleshooting_a_task_outside_the_executed_tree() -> None:
    """Nothing is left waiting for ever: the tree is refused, or the task was never part of it."""
    desk = Desk()
    outside = await desk.task("outside")
    inside = await desk.task("inside", outside)
    with pytest.raises(InvalidPlan, match=f"there is no task '{outside.id}' in this tree; a task depends on tasks of"):
        await desk.run(await desk.task("root"), inside)
    assert desk.started == []
    assert await desk.statuses(outside, inside) == ["pending", "pending"]


@virtual_time
async def test_troubleshooting_a_dependency_id_that_does_not_exist() -> None:
    desk = Desk()
    task = await desk.manager.task_repository.create_task(name="work", dependencies=[{"id": "misspelt"}])
    with pytest.raises(InvalidPlan, match="no task 'misspelt' in this tree"):
        await desk.run(task)


@virtual_time
async def test_troubleshooting_a_dependency_that_failed_is_named_with_its_error() -> None:
    desk = Desk()
    failed = await desk.task("fail")
    middle = await desk.task("middle", failed)
    last = await desk.task("last", middle)
    await desk.run(await desk.task("root"), failed, middle, last)
    for task in (middle, last):
        found = await desk.get(task)
        assert found.cause == "dependency_failed"
        assert "'fail'" in (found.error or "")
        assert "boom" in (found.error or "")


@pytest.mark.parametrize("priority", ["high", 1.5, None, 2**63])
def test_troubleshooting_a_priority_that_is_no_number_of_ours(priority: Any) -> None:
    @virtual_time
    async def check() -> None:
        with pytest.raises(InvalidPlan) as refusal:
            await Desk().task("work", priority=priority)
        assert [problem.field for problem in refusal.value.problems] == ["priority"]

    check()


@virtual_time
async def test_troubleshooting_priorities_hold_over_all_levels_of_the_tree() -> None:
    desk = Desk(limits=RunnerLimits(tasks=1))
    root, folder = await desk.task("root"), await desk.task("folder", priority=3)
    deep = await desk.task("deep", priority=0)
    tree = tree_of(root, folder)
    tree.children[0].add_child(TaskTreeNode(deep))
    await desk.manager.distribute_task_tree(tree)
    assert desk.started == ["deep", "root", "folder"]


@virtual_time
async def test_troubleshooting_an_executor_that_hangs_ends_at_its_timeout() -> None:
    desk = Desk()
    desk.slow("hangs")
    task = await desk.task("hangs", timeout=60)
    await desk.run(task)
    failed = await desk.get(task)
    assert (failed.status, failed.error, failed.cause) == ("failed", "timed out after 60 s", "timeout")


@virtual_time
async def test_troubleshooting_a_deadlock_in_the_dependencies_is_refused_by_name() -> None:
    desk = Desk()
    make = desk.manager.task_repository.create_task
    a = await make(name="work", id="a", dependencies=["b"])
    b = await make(name="work", id="b", dependencies=["a"])
    with pytest.raises(InvalidPlan, match="the dependencies form a cycle: a -> b -> a"):
        await desk.run(a, b)
    assert desk.started == []
