"""Tests of core.run.decisions: which commands are large, and what has happened when one is worked out on a fork."""

import pytest

from core.model import commands as c
from core.model.errors import CoreError, TaskNotFound, TreeIsRunning
from core.model.task import Cause, Dependency, Task, TaskStatus, TreeHead
from core.model.tree import TaskTree
from core.run.decisions import LARGE_TREE, is_large, worked_out

HUB, CHAIN = "hub", "c0"


def _task(task_id: str, parent_id: str | None = "t", needs: str | None = None, executor: str | None = "work") -> Task:
    dependencies = () if needs is None else (Dependency(needs),)
    return Task(
        id=task_id,
        tree_id="t",
        name=task_id,
        parent_id=parent_id,
        executor=executor,
        dependencies=dependencies,
        created_at=0.0,
    )


def large_tree(size: int = LARGE_TREE) -> TaskTree:
    """A group with a chain, and a hub that so many tasks depend on."""
    tasks = [_task("t", None, executor=None), _task(HUB)]
    tasks += [_task(f"h{n}", needs=HUB) for n in range(size + 1)]
    tasks += [_task(f"c{n}", needs=f"c{n - 1}" if n else None) for n in range(size + 1)]
    tree = TaskTree(TreeHead(id="t", size=len(tasks), created_at=0.0, updated_at=0.0), tasks)
    worked_out(c.Execute(), tree, 0.0)
    return tree


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (c.Execute(), True),
        (c.Cancel("t"), True),
        (c.Cancel(HUB), True),
        (c.Cancel(CHAIN), True),
        (c.Cancel("h0"), False),
        (c.Cancel("unknown"), False),
        (c.FailAttempt(HUB, 1, "no", Cause.INVALID_RESULT), True),
        (c.FailAttempt("h0", 1, "no", Cause.INVALID_RESULT), False),
        (c.RejectTask(CHAIN, 1, "no"), True),
        (c.CompleteTask(HUB, 1, None), True),
        (c.CompleteTask(CHAIN, 1, None), False),  # it lets one task go on
        (c.ReportProgress(HUB, 1, 0.5), False),
    ],
)
def test_a_command_is_large_when_it_may_reach_many_tasks(command: c.Command, expected: bool) -> None:
    assert is_large(large_tree(), command) is expected


@pytest.mark.parametrize("command", [c.Execute(), c.Cancel("t"), c.Cancel(HUB), c.CompleteTask(HUB, 1, None)])
def test_no_command_is_large_in_a_small_tree(command: c.Command) -> None:
    assert not is_large(large_tree(size=100), command)


def test_what_is_worked_out_on_a_fork_is_what_would_have_happened_to_the_tree() -> None:
    tree, other = large_tree(), large_tree()
    fork = tree.fork()
    recorded = worked_out(c.Cancel("t", "enough"), fork, 5.0)
    assert (tree.version, tree.status, tree.running) == (1, TaskStatus.PENDING, set())
    tree.check()
    tree.adopt(fork)
    tree.check()
    assert recorded == worked_out(c.Cancel("t", "enough"), other, 5.0)
    assert (tree.head, tree.tasks, tree.waiting) == (other.head, other.tasks, other.waiting)
    assert tree.take_changed() == other.take_changed()


def test_a_tree_keeps_what_it_has_not_told_yet_when_it_adopts_a_fork() -> None:
    """What became ready or changed before the fork is still to be offered, and to be stored."""
    tree = large_tree()
    fork = tree.fork()
    worked_out(c.StartTask(HUB), fork, 1.0)
    assert [task.id for task in fork.take_changed()] == ["t", HUB]
    worked_out(c.StartTask(CHAIN), fork, 1.0)
    tree.adopt(fork)
    assert [task.id for task in tree.take_changed()] == [CHAIN]
    assert tree.take_ready() == []  # both were ready before, and run now
    again = tree.fork()
    worked_out(c.CompleteTask(CHAIN, 1, None), again, 2.0)
    tree.adopt(again)
    assert [task.id for task in tree.take_ready()] == ["c1"]


@pytest.mark.parametrize(("command", "refusal"), [(c.Execute(), TreeIsRunning), (c.Cancel("unknown"), TaskNotFound)])
def test_a_refusal_leaves_the_tree_as_it_was(command: c.Command, refusal: type[CoreError]) -> None:
    tree = large_tree()
    fork = tree.fork()
    with pytest.raises(refusal):
        worked_out(command, fork, 1.0)
    tree.check()
    assert tree.version == fork.version == 1
