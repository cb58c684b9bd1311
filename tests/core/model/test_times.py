"""Tests of core.model.times: deadlines and timeouts of groups, and the time that a task may wait for a slot."""

from typing import Any

import pytest

from core.model import commands as c
from core.model import events as e
from core.model.errors import IllegalCommand, InvalidPlan
from core.model.plan import Plan
from core.model.task import Cause, TaskStatus
from core.model.times import deadline_of, ready_at
from tests.core.trees import NOW, complete, do, fail, group, plan_of, ready, running, start, statuses, task

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED


def timed(name: str, parent: str = "root", needs: str = "", **times: Any) -> Any:
    return task(name, needs, parent=parent, executor=None, **times)


def test_the_deadline_of_a_group_ends_all_below_it_and_nothing_else() -> None:
    """Found from outside: a group's deadline and timeout were accepted and ignored."""
    tree = running(
        timed("g", deadline=NOW + 5), group("h", "g"), task("a", parent="g"), task("b", parent="h"),
        task("c", "b", parent="h"), task("d"), task("e", "a"),
    )  # fmt: skip
    start(tree, "a", "d")
    assert do(tree, c.ExpireTask("g"), NOW + 4.9) == []
    events = do(tree, c.ExpireTask("g"), NOW + 5)
    assert statuses(tree, "abcghde") == [FAILED] * 5 + [TaskStatus.IN_PROGRESS, CANCELLED]
    text = "the deadline of its group 'g' (g) passed"
    assert events[0] == e.TaskFailed("a", 1, text, Cause.DEADLINE)
    assert {tree.tasks[i].error for i in "abc"} == {text}
    complete(tree, "d")
    assert tree.status is FAILED


def test_the_timeout_of_a_group_counts_from_the_first_start_below_it() -> None:
    tree = running(timed("g", timeout=5.0), task("a", parent="g"), task("b", "a", parent="g"))
    assert do(tree, c.ExpireTask("g"), NOW + 100) == [], "nothing has started"
    do(tree, c.StartTask("a"), NOW + 100)
    do(tree, c.CompleteTask("a", 1), NOW + 103)
    do(tree, c.StartTask("b"), NOW + 103)
    assert do(tree, c.ExpireTask("g"), NOW + 104) == []
    do(tree, c.ExpireTask("g"), NOW + 105)
    assert tree.tasks["b"].error == "its group 'g' (g): the group did not end within 5 s of its start"
    assert (tree.tasks["b"].cause, tree.tasks["g"].status, tree.tasks["a"].status) == (
        Cause.TIMEOUT,
        FAILED,
        COMPLETED,
    )


def test_the_timeout_counts_anew_in_a_new_run() -> None:
    tree = running(timed("g", timeout=5.0), task("a", parent="g"))
    fail(tree, "a")
    do(tree, c.Execute(), NOW + 50)
    do(tree, c.StartTask("a"), NOW + 50)
    assert do(tree, c.ExpireTask("g"), NOW + 54) == []


def test_a_group_that_waits_for_a_task_elsewhere_ends_with_its_time() -> None:
    tree = running(timed("g", needs="x", deadline=NOW + 5), group("h", "g"), task("a", parent="h"), task("x"))
    complete(tree, "a")
    do(tree, c.ExpireTask("g"), NOW + 5)
    assert (tree.tasks["g"].status, tree.tasks["g"].cause, tree.tasks["h"].status) == (
        FAILED,
        Cause.DEADLINE,
        COMPLETED,
    )
    complete(tree, "x")
    assert tree.status is FAILED


def test_tasks_inherit_the_earliest_of_all_deadlines() -> None:
    tree = running(
        timed("g", deadline=NOW + 50), timed("h", "g", timeout=20.0), task("a", parent="h", deadline=NOW + 30),
        task("b", parent="h"), task("c"), task("d", deadline=NOW + 7),
    )  # fmt: skip

    def due(name: str) -> float | None:
        limit = deadline_of(tree, tree.tasks[name])
        return None if limit is None else limit.at - NOW

    assert [due(i) for i in "abcd"] == [30, 50, None, 7]
    start(tree, "b")
    assert [due(i) for i in "ab"] == [20, 20], "the timeout of the group has begun"


def test_no_attempt_begins_behind_the_deadline_of_a_group() -> None:
    tree = running(timed("g", deadline=NOW + 5), task("a", parent="g", max_attempts=3), task("x"))
    assert [type(each) for each in do(tree, c.StartTask("a"), NOW + 5)][:1] == [e.TaskFailed]
    assert tree.tasks["a"].cause is Cause.DEADLINE


def test_a_retry_that_would_come_behind_the_deadline_of_a_group_is_not_made() -> None:
    for deadline, kind in ((NOW + 1, e.TaskFailed), (NOW + 1.5, e.AttemptFailed)):
        tree = running(timed("g", deadline=deadline), task("a", parent="g", max_attempts=2), task("x"))
        start(tree, "a")
        assert type(do(tree, c.FailAttempt("a", 1, "boom"))[0]) is kind


def test_a_task_waits_for_a_slot_no_longer_than_it_may() -> None:
    tree = running(task("a", queue_timeout=3.0), task("b"))
    assert do(tree, c.ExpireTask("a"), NOW + 2.9) == []
    (failed,) = do(tree, c.ExpireTask("a"), NOW + 3)
    assert failed == e.TaskFailed("a", 0, "the task waited longer than 3 s for a free slot", Cause.QUEUE_TIMEOUT)


def test_a_task_that_got_its_slot_in_time_may_take_its_time() -> None:
    tree = running(task("a", queue_timeout=3.0), task("b"))
    do(tree, c.StartTask("a"), NOW + 2)
    assert do(tree, c.ExpireTask("a"), NOW + 100) == []


def test_a_start_that_comes_too_late_is_none() -> None:
    tree = running(task("a", queue_timeout=3.0), task("b"))
    do(tree, c.StartTask("a"), NOW + 4)
    assert (tree.tasks["a"].cause, tree.tasks["a"].attempt) == (Cause.QUEUE_TIMEOUT, 0)


def test_only_the_wait_for_a_slot_counts() -> None:
    """Not that for dependencies, for an answer, or for the moment of a retry; and a new run counts anew."""
    tree = running(task("a"), task("b", "a", queue_timeout=3.0, max_attempts=2), task("x"))
    do(tree, c.StartTask("a"), NOW + 100)
    do(tree, c.CompleteTask("a", 1), NOW + 200)
    assert ready_at(tree, tree.tasks["b"]) == NOW + 200
    do(tree, c.StartTask("b"), NOW + 201)
    do(tree, c.FailAttempt("b", 1, "boom"), NOW + 210)
    assert ready_at(tree, tree.tasks["b"]) == tree.tasks["b"].runnable_at == NOW + 211
    do(tree, c.StartTask("b"), NOW + 212)
    do(tree, c.RequestInput("b", 2, ()), NOW + 220)
    do(tree, c.ProvideInput("b", "yes"), NOW + 300)
    assert ready_at(tree, tree.tasks["b"]) == NOW + 300
    do(tree, c.ExpireTask("b"), NOW + 303)
    complete(tree, "x")
    do(tree, c.Execute(), NOW + 400)
    assert ready(tree, NOW + 400) == ["b"] and ready_at(tree, tree.tasks["b"]) == NOW + 400
    with pytest.raises(IllegalCommand):
        do(tree, c.StartTask("x"), NOW + 400)


def planned(**fields: Any) -> Plan:
    """A group, or where the fields name the executor a task, with these fields; and a task."""
    first = {"id": "g", "name": "folder", "parent_id": "root"} | fields
    return plan_of([{"id": "root", "name": "all"}, first, {"id": "a", "name": "work", "parent_id": "g"}])


@pytest.mark.parametrize(
    ("field", "value", "is_of_groups"),
    [
        ("user_id", "u", True),
        ("priority", 1, True),
        ("dependencies", [], True),
        ("inputs", {"x": 1}, True),
        ("schemas", {"x": 1}, True),
        ("params", {"x": 1}, True),
        ("timeout", 5, True),
        ("deadline", "2030-01-01T00:00:00Z", True),
        ("max_attempts", 1, True),
        ("max_attempts", 2, False),
        ("retry", {"initial": 5}, False),
        ("queue_timeout", 5, False),
    ],
)
@pytest.mark.parametrize("name", ["work", "folder"])
def test_a_field_that_a_group_cannot_mean_is_refused(name: str, field: str, value: Any, is_of_groups: bool) -> None:
    """Found from outside: a group's `max_attempts` was accepted and ignored."""
    if name == "folder" and not is_of_groups:
        with pytest.raises(InvalidPlan) as refused:
            planned(name=name, **{field: value})
        (problem,) = refused.value.problems
        assert problem.field == f"tasks[1].{field}"
        assert problem.message == "the group 'g' does not run itself; give it to the tasks below it"
    else:
        assert planned(name=name, **{field: value}).tasks[1].is_group == (name == "folder")


def test_a_group_whose_time_is_over_ends_though_it_waits_for_a_task_elsewhere() -> None:
    tree = running(task("far"), task("g", "far", executor=None, deadline=NOW + 5), task("a", parent="g"))
    start(tree, "far", "a")
    complete(tree, "a")
    do(tree, c.ExpireTask("g"), NOW + 5)
    assert tree.tasks["g"].status is FAILED
    assert tree.tasks["g"].cause is Cause.DEADLINE
    complete(tree, "far")
    assert tree.status is FAILED
