"""What follows from ends, and the tree as it is after them."""

import pytest

from core.model import events as e
from core.model.settling import MAX_ERROR, Overlay, Settling, shortened
from core.model.task import Cause, TaskStatus
from tests.core.trees import complete, running, start, task


def test_the_overlay_sees_what_has_ended_and_the_tree_does_not() -> None:
    tree = running(task("a"), task("b", "a"))
    overlay = Overlay(tree)
    overlay.ended["a"] = TaskStatus.FAILED
    assert (overlay.status("a"), overlay.is_open("a")) == (TaskStatus.FAILED, False)
    assert (overlay.status("b"), overlay.is_open("b")) == (TaskStatus.PENDING, True)
    assert (tree.tasks["a"].status, tree.is_open("a")) == (TaskStatus.PENDING, True)


def test_a_task_is_skipped_by_these_events_only_where_they_say_so() -> None:
    overlay = Overlay(running(task("a")))
    overlay.ended["a"] = TaskStatus.COMPLETED
    assert not overlay.is_skipped("a")
    overlay.skipped.add("a")
    assert overlay.is_skipped("a")


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_cancelled_tree_ends_as_cancelled_whatever_its_tasks_are(is_cancelled: bool) -> None:
    tree = running(task("a"), task("b"))
    complete(tree, "a")
    overlay = Overlay(tree)
    overlay.ended["b"] = TaskStatus.COMPLETED
    overlay.is_cancelled = is_cancelled
    assert overlay.outcome() is (TaskStatus.CANCELLED if is_cancelled else TaskStatus.COMPLETED)


def test_settling_changes_nothing_of_the_tree() -> None:
    tree = running(task("a"), task("b", "a"))
    start(tree, "a")
    version = tree.version
    settling = Settling(tree)
    settling.end(e.TaskFailed("a", 1, "boom", Cause.EXECUTOR_ERROR), TaskStatus.FAILED, "boom")
    ended = {event.task_id: type(event) for event in settling.settle()}
    assert ended["b"] is e.TaskCancelled
    assert list(ended) == ["a", "b", "root"]
    assert (tree.version, tree.tasks["b"].status) == (version, TaskStatus.PENDING)


def test_a_long_text_is_cut_and_says_so() -> None:
    assert shortened("x" * MAX_ERROR) == "x" * MAX_ERROR
    assert shortened("x" * (MAX_ERROR + 1)) == "x" * (MAX_ERROR - 1) + "…"
