"""Tests of core.manager: what the guide's Python API does beyond the guide's own promises (tests/test_guide.py)."""

import asyncio
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from core import (
    InvalidPlan,
    TaskContext,
    TaskManager,
    TaskNotFound,
    TaskStatus,
    TaskTreeNode,
    create_session,
    default_registry,
    register_executor,
)
from core.model.errors import ConfigurationError, IllegalCommand, StorageError, StorageUnavailable, TreeIsRunning
from core.model.task import Task, TreeHead
from core.run.runner_limits import RunnerLimits
from tests.core.cores import Bench, kill, settle, virtual_time


def new_manager(bench: Bench | None = None) -> TaskManager:
    return TaskManager((bench or Bench()).session())


async def _echo(inputs: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return {"echo": inputs}


@pytest.fixture
def echo() -> Iterator[str]:
    """An executor of the default registry."""
    register_executor("echo_for_tests", _echo)
    yield "echo_for_tests"
    default_registry.unregister("echo_for_tests")


# Sessions


def test_a_database_file_outlives_the_loop_and_the_session(tmp_path: Path, echo: str) -> None:
    """The session opens itself on first use and lets go of the file when the event loop ends."""
    url = f"sqlite:///{tmp_path}/tasks.db"

    async def first() -> str:
        manager = TaskManager(create_session(url))
        task = await manager.task_repository.create_task(name=echo, inputs={"n": 2**70})
        await manager.distribute_task_tree(TaskTreeNode(task))
        return task.id

    async def second(task_id: str) -> Task | None:
        return await TaskManager(create_session(url)).task_repository.get_task_by_id(task_id)

    found = asyncio.run(second(asyncio.run(first())))
    assert found is not None
    assert (found.status, found.result) == (TaskStatus.COMPLETED, {"echo": {"n": 2**70}})


@pytest.mark.asyncio
async def test_sessions_of_the_same_file_are_one_session(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tasks.db"
    session = create_session(url)
    assert create_session(url) is session
    assert create_session(f"sqlite:///{tmp_path}/other.db") is not session
    await session.start()
    await session.close()
    assert create_session(url) is not session


def test_without_a_url_the_database_is_a_file_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async def use() -> None:
        await TaskManager(create_session()).task_repository.query_tasks()

    asyncio.run(use())
    assert (tmp_path / "a2a-server.db").exists()


@pytest.mark.asyncio
async def test_memory_sessions_share_nothing(echo: str) -> None:
    one, two = create_session(":memory:"), create_session(":memory:")
    async with one, two:
        task = await TaskManager(one).task_repository.create_task(name=echo)
        assert await TaskManager(two).task_repository.get_task_by_id(task.id) is None


@pytest.mark.parametrize("url", ["postgresql://u:secret@h", "mysql://h/db", "nonsense://"])
def test_another_database_is_refused_with_one_clear_line(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SQLite|sqlite|names no database") as refusal:
        create_session(url)
    assert "secret" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


# Tasks one by one


@virtual_time
async def test_a_given_id_is_the_id_and_taken_once() -> None:
    repository = new_manager().task_repository
    assert (await repository.create_task(name="work", id="mine")).id == "mine"
    with pytest.raises(InvalidPlan, match="mine is taken"):
        await repository.create_task(name="work", id="mine")


@virtual_time
async def test_wrong_fields_are_all_told_and_nothing_is_stored() -> None:
    repository = new_manager().task_repository
    with pytest.raises(InvalidPlan) as refusal:
        await repository.create_task(name="", priority="x", timeout=-1, max_attempts=0, inputs=[], id="a")  # type: ignore[arg-type]
    fields = sorted(problem.field for problem in refusal.value.problems)
    assert fields == ["inputs", "max_attempts", "name", "priority", "timeout"]
    assert await repository.get_task_by_id("a") is None
    for wrong in ({"inputs": {"x": {1}}}, {"schemas": {"x": b""}}, {"deadline": "soon"}, {"dependencies": [5]}):
        with pytest.raises(InvalidPlan):
            await repository.create_task(name="work", **wrong)  # type: ignore[arg-type]


@virtual_time
async def test_what_the_caller_keeps_is_not_what_is_stored() -> None:
    """Changing the dict afterwards changes no task."""
    repository = new_manager().task_repository
    inputs: dict[str, Any] = {"list": [1]}
    schemas: dict[str, Any] = {"method": "work"}
    task = await repository.create_task(name="work", inputs=inputs, schemas=schemas)
    inputs["list"].append(2)
    schemas["method"] = "other"
    stored = await repository.get_task_by_id(task.id)
    assert stored is not None
    assert (stored.inputs, stored.schemas) == ({"list": [1]}, {"method": "work"})


@virtual_time
async def test_fields_beside_the_guide_are_kept() -> None:
    repository = new_manager().task_repository
    retry = {"initial": 5}
    task = await repository.create_task(
        name="work", timeout=3, deadline="2027-01-15T08:00:00Z", max_attempts=4, retry=retry
    )
    stored = await repository.get_task_by_id(task.id)
    assert stored is not None
    assert (stored.timeout, stored.deadline, stored.max_attempts, stored.retry.initial) == (3.0, 1_800_000_000.0, 4, 5)


@virtual_time
async def test_integers_may_be_written_with_a_point() -> None:
    repository = new_manager().task_repository
    task = await repository.create_task(name="work", priority=3.0, max_attempts=2.0)  # type: ignore[arg-type]
    assert repr((task.priority, task.max_attempts)) == "(3, 2)"
    with pytest.raises(InvalidPlan, match="priority"):
        await repository.create_task(name="work", priority=2.5)  # type: ignore[arg-type]


@virtual_time
async def test_unknown_ids_and_statuses_are_told() -> None:
    repository = new_manager().task_repository
    assert await repository.get_task_by_id("nowhere") is None
    with pytest.raises(TaskNotFound):
        await repository.get_task_tree("nowhere")
    with pytest.raises(ValueError, match="done"):
        await repository.query_tasks(status="done")


@virtual_time
async def test_tasks_are_found_by_user_name_and_status() -> None:
    manager = new_manager()
    make = manager.task_repository.create_task
    ids = [(await make(name="work", user_id="u")).id for _ in range(3)]
    await make(name="slow", user_id="v")
    query = manager.task_repository.query_tasks
    newest, *_ = found = await query(user_id="u")
    assert [task.id for task in found] == ids[::-1], "newest first"
    assert [task.id for task in await query(name="work", limit=1, after=newest)] == [ids[1]]
    assert len(await query(status="pending")) == 4
    assert await query(status="failed") == []


# Trees


@virtual_time
async def test_a_node_cannot_be_below_itself() -> None:
    make = new_manager().task_repository.create_task
    a, b = [TaskTreeNode(await make(name="work")) for _ in range(2)]
    a.add_child(b)
    with pytest.raises(ValueError, match="below itself"):
        b.add_child(a)
    with pytest.raises(ValueError, match="below itself"):
        a.add_child(a)


@virtual_time
async def test_the_same_task_twice_is_refused() -> None:
    manager = new_manager()
    task = await manager.task_repository.create_task(name="work")
    child = await manager.task_repository.create_task(name="work")
    tree = TaskTreeNode(task)
    tree.add_child(TaskTreeNode(child))
    tree.add_child(TaskTreeNode(child))
    with pytest.raises(InvalidPlan, match="in the tree twice"):
        await manager.distribute_task_tree(tree)


@virtual_time
async def test_add_child_adopts_a_task_whatever_parent_it_named() -> None:
    manager = new_manager()
    make = manager.task_repository.create_task
    root = TaskTreeNode(await make(name="folder"))
    root.add_child(TaskTreeNode(await make(name="work", parent_id="somewhere else")))
    tree = await manager.distribute_task_tree(root)
    assert tree.children[0].task.parent_id == root.task.id
    assert (tree.task.is_group, tree.task.status) == (True, TaskStatus.COMPLETED)


@virtual_time
async def test_an_explicit_method_that_is_unknown_is_no_folder() -> None:
    manager = new_manager()
    make = manager.task_repository.create_task
    root = TaskTreeNode(await make(name="root", schemas={"method": "gone"}))
    root.add_child(TaskTreeNode(await make(name="work")))
    tree = await manager.distribute_task_tree(root)
    assert tree.task.status is TaskStatus.FAILED
    assert "unknown executor 'gone'; known are: nap, slow, work" in (tree.task.error or "")
    assert tree.children[0].task.status is TaskStatus.COMPLETED


@virtual_time
async def test_a_tree_that_has_run_takes_no_new_tasks() -> None:
    manager = new_manager()
    make = manager.task_repository.create_task
    root = TaskTreeNode(await make(name="work"))
    await manager.distribute_task_tree(root)
    root.add_child(TaskTreeNode(await make(name="work")))
    with pytest.raises(InvalidPlan, match="cannot join a tree that has already run"):
        await manager.distribute_task_tree(root)


@virtual_time
async def test_a_completed_tree_is_returned_as_it_is() -> None:
    bench = Bench()
    manager = new_manager(bench)
    tree = TaskTreeNode(await manager.task_repository.create_task(name="work"))
    await manager.distribute_task_tree(tree)
    again = await manager.distribute_task_tree(tree)
    assert (again.task.status, bench.started) == (TaskStatus.COMPLETED, ["work"])
    seen: list[str] = []
    await manager.distribute_task_tree_with_streaming(tree, callback=lambda event: seen.append(event["type"]))
    assert seen == ["final"]


@virtual_time
async def test_a_tree_that_runs_is_not_started_twice() -> None:
    bench = Bench()
    manager = new_manager(bench)
    tree = TaskTreeNode(await manager.task_repository.create_task(name="slow"))
    running = asyncio.create_task(manager.distribute_task_tree(tree))
    await settle()
    with pytest.raises(TreeIsRunning):
        await manager.distribute_task_tree(tree)
    bench.gate("slow").set()
    await running


@virtual_time
async def test_a_tree_that_a_dead_process_left_is_resumed() -> None:
    bench = Bench()
    first = new_manager(bench)
    task = await first.task_repository.create_task(name="slow", inputs={"result": 1})
    abandoned = asyncio.create_task(first.distribute_task_tree(TaskTreeNode(task)))
    await settle()
    kill(first.session)
    abandoned.cancel()
    second = new_manager(bench)
    bench.gate("slow").set()
    tree = await second.distribute_task_tree(await second.task_repository.get_task_tree(task.id))
    assert (tree.task.status, tree.task.result, tree.task.attempt) == (TaskStatus.COMPLETED, 1, 2)


@virtual_time
async def test_a_question_is_answered_through_the_manager() -> None:
    bench = Bench()

    async def curious(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await context.ask("who?")

    bench.add("curious", curious)
    manager = new_manager(bench)
    task = await manager.task_repository.create_task(name="curious")
    tree = await manager.distribute_task_tree(TaskTreeNode(task))
    assert tree.calculate_status() is TaskStatus.INPUT_REQUIRED
    assert tree.task.question is not None
    assert tree.task.question.parts == ({"text": "who?"},)
    tree = await manager.provide_input(tree, "me")
    assert tree.task.result == "me"
    with pytest.raises(IllegalCommand, match="does not wait for an answer"):
        await manager.provide_input(tree, "again")


@virtual_time
async def test_a_streaming_run_ends_at_a_question() -> None:
    bench = Bench()

    async def curious(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await context.ask("who?")

    bench.add("curious", curious)
    manager = new_manager(bench)
    seen: list[str] = []
    manager.on_event(lambda event: seen.append(event["type"]))
    tree = TaskTreeNode(await manager.task_repository.create_task(name="curious"))
    await manager.distribute_task_tree_with_streaming(tree)
    assert seen == ["task_start", "input_required"]
    assert tree.task.status is TaskStatus.INPUT_REQUIRED


@virtual_time
async def test_a_callback_that_raises_stops_the_following_not_the_tree() -> None:
    bench = Bench()
    manager = new_manager(bench)
    task = await manager.task_repository.create_task(name="nap")

    def break_down(event: dict[str, Any]) -> None:
        raise RuntimeError("callback")

    with pytest.raises(RuntimeError, match="callback"):
        await manager.distribute_task_tree_with_streaming(TaskTreeNode(task), callback=break_down)
    await manager.session.wait(task.id, lambda head: not head.is_live)
    found = await manager.task_repository.get_task_by_id(task.id)
    assert found is not None
    assert found.status is TaskStatus.COMPLETED


@virtual_time
async def test_status_and_progress_of_a_node_are_of_all_below_it() -> None:
    def node(status: TaskStatus, progress: float = 0.0, executor: str | None = "work") -> TaskTreeNode:
        return TaskTreeNode(
            Task(id=str(status), name="n", status=status, progress=progress, executor=executor, created_at=0.0)
        )

    root = node(TaskStatus.IN_PROGRESS, executor=None)
    for child in (node(TaskStatus.COMPLETED, 1.0), node(TaskStatus.PENDING), node(TaskStatus.IN_PROGRESS, 0.5)):
        root.add_child(child)
    assert root.calculate_progress() == 0.5
    assert root.calculate_status() is TaskStatus.IN_PROGRESS
    assert node(TaskStatus.PENDING, executor=None).calculate_progress() == 0.0


@virtual_time
async def test_a_very_deep_tree_is_walked_without_recursion() -> None:
    nodes = [TaskTreeNode(Task(id=str(n), name="n", executor="work", created_at=0.0)) for n in range(5_000)]
    for parent, child in pairwise(nodes):
        parent.children.append(child)
    assert len(nodes[0].nodes()) == 5_000
    assert nodes[0].calculate_status() is TaskStatus.PENDING


# What breakers found


@virtual_time
async def test_a_question_does_not_cut_off_the_events_of_the_others() -> None:
    """Everything that can still run is waited for and told; the rest is told when the answer has come."""
    bench = Bench()

    async def ask(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await context.ask("who?")

    bench.add("ask", ask)
    manager = new_manager(bench)
    told: list[tuple[str, str]] = []
    manager.on_event(lambda event: told.append((event["type"], event["name"])))
    make = manager.task_repository.create_task
    tree = TaskTreeNode(await make(name="root"))
    for name in ("ask", "nap"):
        tree.add_child(TaskTreeNode(await make(name=name, parent_id=tree.task.id)))
    await manager.distribute_task_tree_with_streaming(tree, use_callback=True)
    assert ("task_completed", "nap") in told and told[-1][0] != "final"
    await manager.provide_input(tree, "Ada")
    assert told[-3:] == [("task_completed", "ask"), ("task_completed", "root"), ("final", "root")]
    assert tree.calculate_status() is TaskStatus.COMPLETED
    await manager.session.close()


@pytest.mark.asyncio
async def test_one_file_is_one_session_however_it_is_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.db").symlink_to(tmp_path / "tasks.db")
    session = create_session(f"sqlite:///{tmp_path}/tasks.db")
    for spelling in ("sqlite:///tasks.db", str(tmp_path / "tasks.db"), "sqlite:///link.db"):
        assert create_session(spelling) is session
    with pytest.raises(ConfigurationError, match="limits cannot be changed"):
        create_session("sqlite:///tasks.db", limits=RunnerLimits(tasks=1))
    await session.ensure_started()
    await session.close()
    with pytest.raises(StorageUnavailable, match="create a new one"):
        await session.ensure_started()
    assert create_session("sqlite:///tasks.db") is not session


@virtual_time
async def test_a_run_is_shown_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was waited for in this process need not be read back."""
    manager = new_manager()
    monkeypatch.setattr(manager.session.storage, "load", None)
    root = TaskTreeNode(await manager.task_repository.create_task(name="work"))
    await manager.distribute_task_tree(root)
    assert root.task.status is TaskStatus.COMPLETED


@pytest.mark.asyncio
@pytest.mark.parametrize("is_first", ["entered", "used"])
async def test_a_session_is_opened_once_whoever_does_it(tmp_path: Path, is_first: str) -> None:
    """`async with` and the first use are two ways of opening the same thing, in either order."""
    session = create_session(f"sqlite:///{tmp_path}/tasks.db")
    if is_first == "used":
        await TaskManager(session).task_repository.query_tasks()
    async with session:
        assert await TaskManager(session).task_repository.query_tasks() == []
    with pytest.raises(StorageUnavailable, match="create a new one"):
        await session.start()


@pytest.mark.asyncio
async def test_a_session_that_cannot_be_opened_tells_all_who_wait_and_may_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    path.mkdir()
    session = create_session(f"sqlite:///{path}")
    answers = await asyncio.gather(session.start(), session.ensure_started(), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageError, StorageError]
    path.rmdir()
    await session.start()
    await session.close()


@virtual_time
async def test_a_chain_built_from_its_leaf_is_built_in_linear_time() -> None:
    """A node knows its parent, so adopting one does not walk what is below it."""
    manager = new_manager()
    node = TaskTreeNode(await manager.task_repository.create_task(name="work"))
    leaf = node
    for n in range(20_000):
        above = TaskTreeNode(Task(id=f"n{n}", name="work", created_at=0.0))
        above.add_child(node)
        node = above
    assert len(node.nodes()) == 20_001
    with pytest.raises(ValueError, match="cannot be below itself"):
        leaf.add_child(node)
    leaf.children.append(node)
    with pytest.raises(ValueError, match="twice"):
        node.nodes()
    await manager.session.close()


@virtual_time
async def test_a_hook_that_refuses_a_second_run_is_heard_and_one_after_the_tree_is_waited_for() -> None:
    bench = Bench()
    ended: list[str] = []
    manager = new_manager(bench)
    tree = TaskTreeNode(await manager.task_repository.create_task(name="fails"))

    async def after(head: TreeHead) -> None:
        await asyncio.sleep(1)
        ended.append(head.status)

    bench.registry.hooks.post_tree(after)
    await manager.distribute_task_tree(tree)
    assert ended == ["failed"]

    def refuse(head: TreeHead) -> None:
        raise IllegalCommand(head.id, "not today")

    bench.registry.hooks.pre_tree(refuse)
    with pytest.raises(IllegalCommand, match="not today"):
        await manager.distribute_task_tree(tree)
    await manager.session.close()


@virtual_time
async def test_every_bad_field_of_a_task_is_told_at_once() -> None:
    manager = new_manager()
    with pytest.raises(InvalidPlan) as refusal:
        await manager.task_repository.create_task(
            name="work",
            priority="high",
            deadline="soon",
            schemas={"method": 5},  # type: ignore[arg-type]
        )
    assert {problem.field for problem in refusal.value.problems} == {"priority", "deadline", "schemas.method"}
    await manager.session.close()


@virtual_time
async def test_a_tree_that_was_read_knows_its_parents() -> None:
    manager = new_manager()
    make = manager.task_repository.create_task
    root = await make(name="root")
    await make(name="work", parent_id=root.id)
    tree = await manager.task_repository.get_task_tree(root)
    with pytest.raises(ValueError, match="cannot be below itself"):
        tree.children[0].add_child(tree)
    await manager.session.close()


@virtual_time
async def test_a_tree_is_made_of_an_array_of_tasks_as_a_file_has_it() -> None:
    bench = Bench()
    manager = new_manager(bench)
    items: list[dict[str, Any]] = [
        {"id": "r", "name": "r"},
        {"id": "a", "name": "work", "parent_id": "r", "inputs": {"result": 1}},
        {"id": "b", "name": "work", "parent_id": "r", "inputs": {"result": 2}, "dependencies": ["a"]},
    ]
    tree = await manager.task_repository.create_tree(items)
    assert [node.task.status for node in tree.nodes()] == ["pending"] * 3
    await manager.distribute_task_tree(tree)
    assert [child.task.result for child in tree.children] == [1, 2] and tree.task.status == "completed"
    with pytest.raises(InvalidPlan, match="there is no task 'x'"):
        await manager.task_repository.create_tree([{"name": "work", "dependencies": ["x"]}])
    await manager.session.close()
