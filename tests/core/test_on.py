"""Tests of `on`: which end of a dependency lets its dependent run (semantics §10)."""

from typing import Any

import pytest

from core.model import commands as c
from core.model import events as e
from core.model.errors import InvalidPlan, Problem
from core.model.inputs import results_of
from core.model.plan import Plan, parse_changes
from core.model.task import Cause, Dependency, On, TaskStatus
from core.model.tree import TaskTree
from tests.core.trees import NOW, complete, do, fail, group, plan_of, ready, running, start, statuses, task, tree_of

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
PENDING, SKIPPED = TaskStatus.PENDING, Cause.SKIPPED


def end(tree: TaskTree, how: str) -> None:
    """Let the task `other` end in that way."""
    match how:
        case "completed":
            complete(tree, "other")
        case "failed":
            fail(tree, "other")
        case "rejected":
            start(tree, "other")
            do(tree, c.RejectTask("other", 1, "no"))
        case "cancelled":
            do(tree, c.Cancel("other"))
        case "skipped":
            complete(tree, "first")


@pytest.mark.parametrize(
    ("on", "how", "what"),
    [
        ("needs", "completed", "runs"),
        ("needs", "failed", "never"),
        ("needs", "rejected", "never"),
        ("needs", "cancelled", "never"),
        ("needs", "skipped", "skipped"),
        ("unless", "completed", "skipped"),
        ("unless", "failed", "runs"),
        ("unless", "rejected", "runs"),
        ("unless", "cancelled", "runs"),
        ("unless", "skipped", "skipped"),
        ("after", "completed", "runs"),
        ("after", "failed", "runs"),
        ("after", "rejected", "runs"),
        ("after", "cancelled", "runs"),
        ("after", "skipped", "runs"),
    ],
)
def test_each_end_of_a_dependency_meets_each_kind_of_dependent(on: str, how: str, what: str) -> None:
    other = task("other", unless="first" if how == "skipped" else "")
    tree = running(task("first"), other, task("mine", **{on: "other"}))  # type: ignore[arg-type]
    assert "mine" not in ready(tree)
    end(tree, how)
    mine = tree.tasks["mine"]
    assert ("mine" in ready(tree)) == (what == "runs")
    if what == "skipped":
        assert (mine.status, mine.cause, mine.error, mine.attempt) == (COMPLETED, SKIPPED, None, 0)
        assert mine.message == f"skipped, because 'other' (other) {'was skipped' if how == what else 'completed'}"
        assert (mine.progress, mine.started_at, mine.finished_at) == (1.0, None, NOW)
    if what == "never":
        assert mine.status is CANCELLED


def test_the_fallback_does_not_run_when_the_primary_worked() -> None:
    """The guide's fallback pattern: what merges the two takes the primary's result."""
    tree = running(task("primary"), task("fallback", unless="primary"), task("merge", after="primary fallback"))
    events = complete(tree, "primary", result={"from": "primary"})
    assert events[1:] == [e.TaskSkipped("fallback", "skipped, because 'primary' (primary) completed")]
    assert ready(tree) == ["merge"]
    assert results_of(tree.tasks, tree.tasks["merge"]) == ({"primary": {"from": "primary"}}, ("fallback",))
    (started,) = do(tree, c.StartTask("merge"))
    assert isinstance(started, e.TaskStarted) and started.absent == ("fallback",)
    complete(tree, "merge")
    assert tree.status is COMPLETED and tree.head.progress == 1.0


def test_the_fallback_runs_when_the_primary_failed_and_its_failure_is_tolerated() -> None:
    tree = running(task("primary"), task("fallback", unless="primary"), task("merge", after="primary fallback"))
    fail(tree, "primary")
    complete(tree, "fallback", result={"from": "fallback"})
    assert results_of(tree.tasks, tree.tasks["merge"]) == ({"fallback": {"from": "fallback"}}, ("primary",))
    complete(tree, "merge")
    assert tree.status is COMPLETED


def test_a_failed_fallback_fails_the_tree() -> None:
    tree = running(task("primary"), task("fallback", unless="primary"))
    fail(tree, "primary")
    fail(tree, "fallback")
    assert tree.status is FAILED


def test_a_skip_passes_on_to_those_that_say_success_and_no_further() -> None:
    tree = running(
        task("a"), task("b", unless="a"), task("c", "b"), task("d", "c"), task("e", after="d"), task("f", unless="d")
    )
    complete(tree, "a")
    assert [tree.tasks[i].cause for i in "bcdf"] == [SKIPPED] * 4
    assert tree.tasks["d"].message == "skipped, because 'c' (c) was skipped"
    assert ready(tree) == ["e"]
    complete(tree, "e")
    assert tree.status is COMPLETED


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_what_decides_does_not_depend_on_which_dependency_ends_first(order: str) -> None:
    """Of a success that was missed and a failure that did not come, the first one counts: the task is cancelled."""
    tree = running(task("a"), task("b"), task("c", "a", unless="b"))
    for name in order:
        if name == "a":
            fail(tree, "a")
        else:
            complete(tree, "b")
    assert (tree.tasks["c"].status, tree.tasks["c"].cause) == (CANCELLED, Cause.DEPENDENCY_FAILED)


def test_a_task_is_skipped_only_when_all_that_it_waits_for_has_ended() -> None:
    tree = running(task("a"), task("b"), task("c", after="b", unless="a"))
    complete(tree, "a")
    assert statuses(tree, "c") == [PENDING]
    complete(tree, "b")
    assert tree.tasks["c"].cause is SKIPPED


def test_a_group_of_which_everything_was_skipped_was_skipped() -> None:
    tree = running(
        task("primary"), group("plan", "root"), task("b1", unless="primary", parent="plan"),
        task("b2", "b1", parent="plan"), task("report", "plan"),
    )  # fmt: skip
    *_, ended, report = complete(tree, "primary")[:5]
    assert ended == e.GroupEnded("plan", COMPLETED, None, SKIPPED)
    assert report == e.TaskSkipped("report", "skipped, because 'plan' (plan) was skipped")
    assert tree.status is COMPLETED


def test_a_group_with_a_task_that_ran_was_not_skipped() -> None:
    tree = running(
        task("primary"), group("mixed", "root"), task("b1", unless="primary", parent="mixed"),
        task("b2", parent="mixed"), task("report", "mixed"),
    )  # fmt: skip
    complete(tree, "b2", "primary")
    assert (tree.tasks["mixed"].status, tree.tasks["mixed"].cause) == (COMPLETED, None)
    assert ready(tree) == ["report"]


def test_a_cancel_of_the_tree_cancels_alternatives_too() -> None:
    tree = running(task("a"), task("b", unless="a"))
    do(tree, c.Cancel("root"))
    assert statuses(tree, "ab") == [CANCELLED, CANCELLED]


def test_a_cancel_of_the_primary_lets_its_fallback_run() -> None:
    tree = running(task("a"), task("b", unless="a"))
    do(tree, c.Cancel("a"))
    assert ready(tree) == ["b"]


def test_a_skipped_task_stays_skipped_when_the_rest_runs_again() -> None:
    tree = running(task("a"), task("b", unless="a"), task("x"))
    complete(tree, "a")
    fail(tree, "x")
    do(tree, c.Execute())
    assert (tree.tasks["b"].cause, ready(tree)) == (SKIPPED, ["x"])


def test_with_force_all_is_decided_anew() -> None:
    tree = running(task("a"), task("b", unless="a"))
    complete(tree, "a")
    do(tree, c.Execute(force=True))
    assert tree.tasks["b"].message is None
    fail(tree, "a")
    assert ready(tree) == ["b"]


def test_a_run_of_a_part_skips_at_once_what_it_finds_unmet() -> None:
    """Its dependencies are no part of the run, so nothing would wake it."""
    tree = running(task("a"), task("b", unless="a"))
    complete(tree, "a")
    events = do(tree, c.Execute("b", force=True))
    assert e.TaskSkipped("b", "skipped, because 'a' (a) completed") in events
    assert not tree.is_live and tree.status is COMPLETED


def planned(*dependencies: Any, name: str = "work", more: Any = ()) -> Plan:
    first = [{"id": "root", "name": "group"}, {"id": "a", "name": "work", "parent_id": "root"}]
    second = {"id": "b", "name": name, "parent_id": "root", "dependencies": list(dependencies)}
    return plan_of([*first, second, *more])


@pytest.mark.parametrize(
    ("given", "on"),
    [
        ("a", On.SUCCESS),
        ({"id": "a"}, On.SUCCESS),
        ({"id": "a", "required": True}, On.SUCCESS),
        ({"id": "a", "required": False}, On.ANY),
        ({"id": "a", "on": "success"}, On.SUCCESS),
        ({"id": "a", "on": "failure"}, On.FAILURE),
        ({"id": "a", "on": "any"}, On.ANY),
        ({"id": "a", "on": "success", "required": True}, On.SUCCESS),
        ({"id": "a", "on": "any", "required": False}, On.ANY),
    ],
)
def test_a_dependency_says_on_or_required(given: Any, on: On) -> None:
    assert planned(given).tasks[2].dependencies == (Dependency("n1", on),)
    assert parse_changes({"dependencies": [given]}) == ({"dependencies": (Dependency("a", on),)}, [])


@pytest.mark.parametrize(
    ("given", "field", "text"),
    [
        ({"on": "failure", "required": True}, "", "`required` means on: success, but `on` is failure; give only one"),
        ({"on": "failure", "required": False}, "", "`required` means on: any, but `on` is failure; give only one"),
        ({"on": "any", "required": True}, "", "`required` means on: success, but `on` is any; give only one"),
        ({"on": "success", "required": False}, "", "`required` means on: any, but `on` is success; give only one"),
        ({"on": "never"}, ".on", "must be one of success, failure, any"),
        ({"on": "FAILURE"}, ".on", "must be one of success, failure, any"),
        ({"on": ""}, ".on", "must be one of success, failure, any"),
        ({"on": None}, ".on", "must be one of success, failure, any"),
        ({"on": True}, ".on", "must be one of success, failure, any"),
        ({"on": ["any"]}, ".on", "must be one of success, failure, any"),
        ({"On": "any"}, ".On", "unknown field; the known ones are: id, required, on"),
        ({"when": "any"}, ".when", "unknown field; the known ones are: id, required, on"),
    ],
)
def test_a_dependency_that_cannot_be_meant_is_refused_with_its_field(given: Any, field: str, text: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        planned({"id": "a"} | given)
    (problem,) = refused.value.problems
    assert problem.field == f"tasks[2].dependencies[0]{field}" and text in problem.message
    _, problems = parse_changes({"dependencies": [{"id": "a"} | given]})
    assert [(p.field, text in p.message) for p in problems] == [(f"dependencies[0]{field}", True)]


def test_a_group_cannot_run_on_a_failure() -> None:
    """It runs nothing; the tasks below it can."""
    child = {"id": "c", "name": "work", "parent_id": "b"}
    with pytest.raises(InvalidPlan) as refused:
        planned({"id": "a", "on": "failure"}, name="folder", more=[child])
    text = "the group 'b' does not run itself, so it cannot run on a failure; its tasks can"
    assert refused.value.problems == (Problem("tasks[2].dependencies[0].on", text),)
    assert planned({"id": "a", "on": "any"}, name="folder", more=[child]).tasks[2].is_group


def test_an_update_changes_what_a_task_runs_on() -> None:
    tree = tree_of(task("a"), task("b", "a"))
    do(tree, c.UpdateTask("b", {"dependencies": [{"id": "a", "on": "failure"}]}))
    do(tree, c.Execute())
    complete(tree, "a")
    assert tree.tasks["b"].cause is SKIPPED
