"""Tests of core.manager: what nodes say of a tree is what the stored tree says; tasks that have no tree yet."""

from typing import Any

import pytest

from core import Rejected, TaskContext, TaskManager, TaskStatus, TaskTreeNode
from tests.core.cores import Bench, virtual_time

Spec = tuple[str, str, dict[str, Any]]  # name, executor, fields
DONE, FAILED, REJECTED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.REJECTED
CANCELLED, PENDING = TaskStatus.CANCELLED, TaskStatus.PENDING


async def fine(inputs: dict[str, Any], context: TaskContext) -> dict[str, Any]:
    return {"ok": True}


async def boom(inputs: dict[str, Any], context: TaskContext) -> None:
    raise RuntimeError("boom")


async def never(inputs: dict[str, Any], context: TaskContext) -> None:
    raise Rejected("not my job")


async def ask(inputs: dict[str, Any], context: TaskContext) -> Any:
    return await context.ask("which?")


def new_manager() -> TaskManager:
    bench = Bench()
    for name, work in {"fine": fine, "boom": boom, "never": never, "question": ask}.items():
        bench.add(name, work)
    return TaskManager(bench.session())


async def built(manager: TaskManager, *specs: Spec) -> dict[str, TaskTreeNode]:
    """A root that works, and tasks below it; their dependencies are names."""
    make = manager.task_repository.create_task
    nodes = {"root": TaskTreeNode(await make(name="root", schemas={"method": "fine"}))}
    for name, executor, fields in specs:
        on = [{**each, "id": nodes[each["id"]].task.id} for each in fields.get("dependencies", ())]
        task = await make(name=name, schemas={"method": executor}, parent_id=nodes["root"].task.id, dependencies=on)
        nodes[name] = TaskTreeNode(task)
        nodes["root"].add_child(nodes[name])
    return nodes


def after(name: str, on: str) -> dict[str, Any]:
    return {"dependencies": [{"id": name, "on": on}]}


TREES: dict[str, tuple[tuple[Spec, ...], TaskStatus]] = {
    "all complete": ((("a", "fine", {}), ("b", "fine", after("a", "success"))), DONE),
    "a failure": ((("a", "boom", {}),), FAILED),
    "a refusal": ((("a", "never", {}),), REJECTED),
    "a failure beside a refusal": ((("a", "never", {}), ("b", "boom", {})), FAILED),
    "a failure that any tolerates": ((("a", "boom", {}), ("b", "fine", after("a", "any"))), DONE),
    "a fallback that was needed": ((("a", "boom", {}), ("b", "fine", after("a", "failure"))), DONE),
    "a fallback that was not": ((("a", "fine", {}), ("b", "fine", after("a", "failure"))), DONE),
    "a fallback that fails": ((("a", "boom", {}), ("b", "boom", after("a", "failure"))), FAILED),
    "a failure that is required": ((("a", "boom", {}), ("b", "fine", after("a", "success"))), FAILED),
    "a question": ((("a", "question", {}), ("b", "fine", {})), TaskStatus.INPUT_REQUIRED),
}


@pytest.mark.parametrize("shape", TREES)
@virtual_time
async def test_nodes_say_what_the_stored_tree_says(shape: str) -> None:
    """Found from outside: `calculate_status()` said failed for the guide's fallback."""
    specs, status = TREES[shape]
    manager = new_manager()
    root = (await built(manager, *specs))["root"]
    assert root.calculate_status() is PENDING
    await manager.distribute_task_tree(root)
    head = await manager.session.storage.head(root.task.id)
    stored = await manager.task_repository.get_task_tree(root.task.id)
    assert head is not None
    assert (head.status, root.calculate_status(), stored.calculate_status()) == (status, status, status)
    assert head.progress == root.calculate_progress() == stored.calculate_progress()
    assert (head.progress == 1.0) is (status is DONE)
    await manager.session.close()


@virtual_time
async def test_a_part_of_a_tree_has_a_status_of_its_own() -> None:
    manager = new_manager()
    nodes = await built(manager, ("a", "boom", {}), ("b", "fine", after("a", "any")))
    await manager.distribute_task_tree(nodes["root"])
    part = await manager.task_repository.get_task_tree(nodes["a"].task.id)
    assert part.calculate_status() is FAILED  # what tolerates it is not in this part
    await manager.session.close()


# Tasks that belong to no tree yet


@pytest.mark.parametrize(
    ("cancelled", "expected"),
    [
        ("root", {"root": CANCELLED, "a": CANCELLED, "b": CANCELLED, "c": CANCELLED}),
        ("a", {"root": DONE, "a": CANCELLED, "b": CANCELLED, "c": DONE}),
        ("b", {"root": DONE, "a": DONE, "b": CANCELLED, "c": DONE}),
    ],
)
@pytest.mark.parametrize("is_read_again", [False, True], ids=["nodes from before", "nodes read again"])
@virtual_time
async def test_a_cancelled_task_does_not_run_when_its_tree_does(
    cancelled: str, expected: dict[str, TaskStatus], is_read_again: bool
) -> None:
    """Found from outside: a task in no tree yet could not be cancelled, and ran later."""
    manager = new_manager()
    nodes = await built(
        manager, ("a", "fine", {}), ("b", "fine", after("a", "success")), ("c", "fine", after("a", "any"))
    )
    task_id = nodes[cancelled].task.id
    answer = await manager.cancel_task(task_id, "no longer wanted")
    assert answer == {"task_id": task_id, "status": "cancelled", "message": f"Task {task_id} was cancelled"}
    task = await manager.task_repository.get_task_by_id(task_id)
    assert task is not None
    assert (task.status, task.error) == (CANCELLED, "no longer wanted")
    assert await manager.cancel_task(task_id) == answer  # once more changes nothing

    root = await manager.task_repository.get_task_tree(nodes["root"].task.id) if is_read_again else nodes["root"]
    done = await manager.distribute_task_tree(root)
    assert {node.task.name: node.task.status for node in done.nodes()} == expected
    ended = await manager.task_repository.get_task_by_id(task_id)
    assert ended is not None
    assert (ended.started_at, ended.error) == (None, "no longer wanted")
    await manager.session.close()


@virtual_time
async def test_a_group_of_drafts_is_cancelled_with_what_is_below_it() -> None:
    manager = new_manager()
    nodes = await built(manager, ("a", "fine", {}))
    await manager.cancel_task(nodes["root"].task.id)
    below = await manager.task_repository.get_task_by_id(nodes["a"].task.id)
    assert below is not None
    assert below.status is CANCELLED
    await manager.session.close()


@virtual_time
async def test_an_unknown_task_is_not_cancelled() -> None:
    manager = new_manager()
    answer = await manager.cancel_task("nobody")
    assert (answer["status"], "not found" in answer["message"]) == ("failed", True)
    await manager.session.close()


@virtual_time
async def test_a_cancelled_tree_that_never_ran_can_be_run_again() -> None:
    """Running it once more is a wish of its own, as for every tree that has ended (guide, re-execution)."""
    manager = new_manager()
    root = (await built(manager, ("a", "fine", {})))["root"]
    await manager.cancel_task(root.task.id)
    assert (await manager.distribute_task_tree(root)).calculate_status() is CANCELLED
    assert (await manager.distribute_task_tree(root)).calculate_status() is DONE
    await manager.session.close()
