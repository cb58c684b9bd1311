"""What each command leads to, on small trees."""

import pytest

from core.model import commands as c
from core.model import events as e
from core.model.decide import MAX_CRASHES
from core.model.errors import (
    IllegalCommand,
    InvalidPlan,
    StaleAttempt,
    TaskNotCancelable,
    TaskNotFound,
    TreeIsRunning,
)
from core.model.retry import RetryPolicy
from core.model.task import Cause, TaskStatus
from tests.core.contents import said, texts
from tests.core.trees import NOW, complete, do, fail, group, ready, running, start, statuses, task, tree_of

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
PENDING, WORKING = TaskStatus.PENDING, TaskStatus.IN_PROGRESS


def test_dependent_starts_only_after_its_last_dependency() -> None:
    """Fan-in: two of three finished dependencies are not enough."""
    tree = running(task("a"), task("b"), task("c"), task("d", "a b c"))
    complete(tree, "a", "b")
    assert ready(tree) == ["c"]
    complete(tree, "c")
    assert ready(tree) == ["d"]


def test_parent_never_delays_a_child() -> None:
    """parent_id is organisation only (semantics §3)."""
    tree = running(task("root", parent=None), task("child"))
    assert ready(tree) == ["root", "child"]


def test_ready_tasks_are_ordered_by_priority_then_creation() -> None:
    tree = running(task("a", priority=2), task("b", priority=0), task("c", priority=2), task("d", priority=-7))
    assert ready(tree) == ["d", "b", "a", "c"]


def test_dependency_wins_over_priority() -> None:
    tree = running(task("a", priority=2), task("b", "a", priority=0))
    assert ready(tree) == ["a"]


def test_result_of_none_satisfies() -> None:
    tree = running(task("a"), task("b", "a"))
    complete(tree, "a", result=None)
    assert ready(tree) == ["b"]


def test_optional_dependency_is_waited_for_and_may_fail() -> None:
    """Guide, "Optional Dependencies": the fallback runs even if the primary fails, and not before."""
    tree = running(task("primary"), task("fallback", after="primary"))
    assert ready(tree) == ["primary"]
    fail(tree, "primary")
    assert ready(tree) == ["fallback"]
    complete(tree, "fallback")
    assert tree.status is COMPLETED


def test_required_dependency_that_fails_cancels_all_that_need_it() -> None:
    tree = running(task("a"), task("b", "a"), task("c", "b"), task("d"))
    fail(tree, "a", "no route")
    assert statuses(tree, "abcd") == [FAILED, CANCELLED, CANCELLED, PENDING]
    assert tree.tasks["b"].cause is Cause.DEPENDENCY_FAILED
    assert tree.tasks["b"].error == "required dependency 'a' (a) failed: no route"
    assert "'b' (b) cancelled" in str(tree.tasks["c"].error) and "no route" in str(tree.tasks["c"].error)
    complete(tree, "d")
    assert tree.status is FAILED


def test_error_of_a_long_chain_stays_short() -> None:
    """The text names the direct dependency and the first cause; it does not grow with the chain."""
    tree = running(task("t0"), *(task(f"t{n}", f"t{n - 1}") for n in range(1, 500)))
    fail(tree, "t0", "first cause")
    assert len(str(tree.tasks["t499"].error)) < 200
    assert "first cause" in str(tree.tasks["t499"].error)


def test_tree_is_completed_when_what_failed_is_tolerated() -> None:
    tree = running(task("a"), task("b", "a"), task("c", after="b"))
    fail(tree, "a")
    complete(tree, "c")
    assert statuses(tree, "abc") == [FAILED, CANCELLED, COMPLETED]
    assert tree.status is COMPLETED


def test_tree_fails_when_one_failed_task_has_nobody_to_tolerate_it() -> None:
    tree = running(task("a"), task("b"))
    fail(tree, "a")
    complete(tree, "b")
    assert tree.status is FAILED
    assert isinstance(tree.tasks["root"].error, str) and "boom" in tree.tasks["root"].error


def test_group_rolls_up_and_ends_after_its_children() -> None:
    tree = running(group("g", "root"), task("a", parent="g"), task("b", parent="g"), task("after", "g"))
    assert ready(tree) == ["a", "b"]
    start(tree, "a")
    assert statuses(tree, ["g", "root"]) == [WORKING, WORKING]
    complete(tree, "a", "b")
    assert tree.tasks["g"].status is COMPLETED
    assert ready(tree) == ["after"]


def test_failed_group_cancels_what_requires_it() -> None:
    tree = running(group("g", "root"), task("a", parent="g"), task("after", "g"))
    fail(tree, "a")
    assert statuses(tree, ["g", "after"]) == [FAILED, CANCELLED]
    assert tree.status is FAILED


def test_a_late_attempt_is_refused() -> None:
    tree = running(task("a", max_attempts=2, retry=RetryPolicy(initial=1, jitter=0)))
    fail(tree, "a")
    do(tree, c.StartTask("a"), NOW + 1)
    with pytest.raises(StaleAttempt):
        do(tree, c.CompleteTask("a", 1, "late"))
    do(tree, c.CompleteTask("a", 2, "on time"))
    with pytest.raises(StaleAttempt):
        do(tree, c.CompleteTask("a", 2, "twice"))
    assert tree.tasks["a"].result == "on time"


def test_retry_waits_for_its_backoff() -> None:
    policy = RetryPolicy(initial=10, factor=3, jitter=0, maximum=25)
    tree = running(task("a", max_attempts=4, retry=policy))
    waits = []
    now = NOW
    for _ in range(3):
        event = fail(tree, "a", now=now)[0]
        assert isinstance(event, e.AttemptFailed)
        waits.append(event.retry_at - now)
        with pytest.raises(IllegalCommand):
            do(tree, c.StartTask("a"), event.retry_at - 0.1)
        assert tree.tasks["a"].status is WORKING
        now = event.retry_at
    assert waits == [10, 25, 25]
    fail(tree, "a", now=now)
    assert tree.tasks["a"].status is FAILED


def test_crashes_beside_others_are_never_poison() -> None:
    """They may have been the others' doing."""
    tree = running(task("a"))
    for n in range(1, 4 * MAX_CRASHES):
        start(tree, "a")
        assert do(tree, c.LoseAttempt("a", n, alone=False)) == [e.AttemptLost("a", n, alone=False)]
    assert (tree.tasks["a"].status, tree.tasks["a"].lone_crashes) == (WORKING, 0)


def test_crashes_do_not_count_as_failures_but_five_are_poison() -> None:
    tree = running(task("a"))
    for _ in range(4):
        start(tree, "a")
        do(tree, c.LoseAttempt("a", tree.tasks["a"].attempt))
        assert tree.tasks["a"].status is WORKING
    start(tree, "a")
    do(tree, c.LoseAttempt("a", 5, crash=False))
    start(tree, "a")
    do(tree, c.LoseAttempt("a", 6))
    assert (tree.tasks["a"].status, tree.tasks["a"].cause) == (FAILED, Cause.POISON)


def test_at_most_once_is_not_run_again() -> None:
    tree = running(task("a"))
    start(tree, "a")
    do(tree, c.LoseAttempt("a", 1, at_most_once=True))
    assert (tree.tasks["a"].status, tree.tasks["a"].cause) == (FAILED, Cause.OUTCOME_UNKNOWN)


def test_question_parks_the_task_and_its_answer_lets_it_run_again() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a", "b")
    do(tree, c.RequestInput("a", 1, texts("which?")))
    assert tree.tasks["a"].status is TaskStatus.INPUT_REQUIRED
    assert tree.status is TaskStatus.INPUT_REQUIRED
    assert ready(tree) == []
    do(tree, c.ProvideInput("a", "this one"))
    assert tree.status is WORKING
    assert ready(tree) == ["a"]
    start(tree, "a")
    assert (tree.tasks["a"].attempt, tree.tasks["a"].answers) == (2, ("this one",))


def test_answer_to_the_root_goes_to_the_oldest_question() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a", "b")
    do(tree, c.RequestInput("b", 1, texts("first?")), NOW + 1)
    do(tree, c.RequestInput("a", 1, texts("second?")), NOW + 2)
    do(tree, c.ProvideInput("root", 1))
    assert tree.tasks["b"].answers == (1,) and tree.tasks["a"].answers == ()
    with pytest.raises(IllegalCommand):
        do(tree, c.ProvideInput("b", 2))


def test_auth_question_makes_the_tree_auth_required() -> None:
    tree = running(task("a"))
    start(tree, "a")
    do(tree, c.RequestInput("a", 1, texts("log in"), auth=True))
    assert tree.status is TaskStatus.AUTH_REQUIRED


def test_cancel_takes_the_subtree_and_what_requires_it() -> None:
    tree = running(
        group("g", "root"),
        task("a", parent="g"),
        task("b", parent="g"),
        task("c", "a"),
        task("d", after="a"),
        task("e"),
    )
    start(tree, "a", "e")
    do(tree, c.Cancel("g", "enough"))
    assert statuses(tree, "gabc") == [CANCELLED] * 4
    assert tree.tasks["a"].error == "enough"
    assert ready(tree) == ["d"]
    complete(tree, "d", "e")
    assert tree.status is CANCELLED


def test_cancel_of_the_root_ends_the_tree_at_once() -> None:
    tree = running(task("a"), task("b", "a"))
    start(tree, "a")
    events = do(tree, c.Cancel("root"))
    assert isinstance(events[-1], e.TreeFinished)
    assert (tree.status, tree.is_live) == (CANCELLED, False)


def test_cancel_before_execution_ends_the_tree() -> None:
    tree = tree_of(task("a"), task("b", "a"))
    do(tree, c.Cancel("root"))
    assert tree.status is CANCELLED
    assert do(tree, c.Cancel("root")) == []


def test_cancelling_again_is_idempotent_and_other_ends_refuse() -> None:
    tree = running(task("a"), task("b"))
    complete(tree, "a")
    do(tree, c.Cancel("b"))
    assert do(tree, c.Cancel("b")) == []
    with pytest.raises(TaskNotCancelable, match="Task a is already completed, cannot cancel"):
        do(tree, c.Cancel("a"))


def test_uninterruptible_task_runs_to_its_end_in_a_cancelled_tree() -> None:
    tree = running(task("a"), task("b", "a"), task("c"))
    start(tree, "a", "c")
    do(tree, c.Cancel("root", None, False, frozenset({"a"})))
    assert statuses(tree, "abc") == [WORKING, CANCELLED, CANCELLED]
    assert (tree.status, tree.is_live) == (WORKING, True)
    complete(tree, "a", result=1)
    assert (tree.tasks["a"].status, tree.tasks["a"].result) == (COMPLETED, 1)
    assert (tree.status, tree.is_live) == (CANCELLED, False)


def test_forced_cancel_drops_the_result_of_an_uninterruptible_task() -> None:
    tree = running(task("a"))
    start(tree, "a")
    do(tree, c.Cancel("a", None, True, frozenset({"a"})))
    assert tree.tasks["a"].status is CANCELLED
    with pytest.raises(StaleAttempt):
        do(tree, c.CompleteTask("a", 1, "late"))


@pytest.mark.parametrize("stop", [c.RequestInput("a", 1, texts("?")), c.LoseAttempt("a", 1)])
def test_uninterruptible_task_of_a_cancelled_tree_is_not_parked_or_retried(stop: c.Command) -> None:
    """Nobody would ever answer it, so its own stop is its end."""
    tree = running(task("a", max_attempts=3))
    start(tree, "a")
    do(tree, c.Cancel("root", None, False, frozenset({"a"})))
    do(tree, stop)
    assert (tree.tasks["a"].status, tree.status) == (CANCELLED, CANCELLED)


def test_group_waiting_for_something_outside_is_cancelled_too() -> None:
    tree = running(task("a"), group("g", "root", "a"), task("b", parent="g"), task("c", "g"))
    start(tree, "a", "b")
    do(tree, c.Cancel("g"))
    assert statuses(tree, "gbc") == [CANCELLED] * 3
    assert tree.tasks["a"].status is WORKING


def test_second_run_keeps_what_is_completed() -> None:
    tree = running(task("a"), task("b"), task("c", "a b"))
    complete(tree, "a", result="kept")
    fail(tree, "b")
    assert tree.status is FAILED
    do(tree, c.Execute())
    assert (tree.run, tree.tasks["a"].result) == (2, "kept")
    assert ready(tree) == ["b"]
    complete(tree, "b", "c")
    assert tree.status is COMPLETED
    assert (tree.tasks["b"].attempt, tree.tasks["a"].attempt) == (2, 1)


def test_executing_a_completed_tree_needs_force() -> None:
    tree = running(task("a"), task("b", "a"))
    complete(tree, "a", "b")
    with pytest.raises(IllegalCommand, match="force"):
        do(tree, c.Execute())
    do(tree, c.Execute(force=True))
    assert ready(tree) == ["a"]
    assert tree.tasks["b"].status is PENDING


def test_executing_one_task_runs_what_it_needs_and_what_needs_it_and_nothing_else() -> None:
    tree = tree_of(task("a"), task("b", "a"), task("c", "b"), task("d", "c x"), task("x"), task("y"))
    events = do(tree, c.Execute("b"))
    assert isinstance(events[0], e.RunStarted)
    assert set(events[0].scope or ()) == {"a", "b", "c"}
    complete(tree, "a", "b", "c")
    assert statuses(tree, "abcdxy") == [COMPLETED] * 3 + [PENDING] * 3
    assert not tree.is_live
    do(tree, c.Execute())
    complete(tree, "x", "y", "d")
    assert tree.status is COMPLETED


def test_forced_execution_of_one_task_runs_its_dependents_again() -> None:
    tree = running(task("a"), task("b", "a"), task("c", "b"), task("d"))
    complete(tree, "a", "b", "c", "d")
    events = do(tree, c.Execute("b", force=True))
    assert isinstance(events[0], e.RunStarted)
    assert set(events[0].scope or ()) == {"b", "c", "root"}
    complete(tree, "b", "c")
    assert tree.status is COMPLETED


def test_group_whose_children_are_all_completed_ends_with_the_run_that_finds_it() -> None:
    """It was cancelled while it waited for something outside, which has completed since."""
    outside = task("outside", max_attempts=1)
    tree = running(outside, group("g", "root", "outside"), task("a", parent="g"), task("b"))
    complete(tree, "a")
    start(tree, "outside")
    do(tree, c.Cancel("g", None))
    complete(tree, "outside")
    fail(tree, "b")
    assert statuses(tree, ["g", "root"]) == [CANCELLED, FAILED]

    events = do(tree, c.Execute())
    assert events[1:] == [e.GroupEnded("g", COMPLETED)]
    complete(tree, "b")
    assert tree.status is COMPLETED


def test_what_an_uninterruptible_task_completed_is_kept_by_the_next_run() -> None:
    tree = running(group("g", "root"), task("a", parent="g"), task("b"))
    start(tree, "a")
    do(tree, c.Cancel("root", None, False, frozenset({"a"})))
    complete(tree, "a")
    do(tree, c.Execute())
    complete(tree, "b")
    assert statuses(tree, ["g", "root"]) == [COMPLETED, COMPLETED]
    assert tree.status is COMPLETED


def test_what_waits_for_several_of_a_group_and_for_something_outside_stays_out() -> None:
    """Every child that the run takes along counts once; `other` is not taken along."""
    tree = running(
        group("g", "root"),
        task("one", parent="g"),
        task("two", parent="g"),
        task("other"),
        task("last", "one two other"),
    )
    fail(tree, "one")
    fail(tree, "two")
    fail(tree, "other")

    events = do(tree, c.Execute("g"))

    assert isinstance(events[0], e.RunStarted)
    assert set(events[0].scope or ()) == {"one", "two", "g", "root"}


def test_what_depends_on_a_group_joins_only_when_all_it_requires_is_done_or_joins_too() -> None:
    """A completed child of the group is nothing that `last` still had to wait for; `other` is, and stays outside."""
    tree = running(
        group("root"),
        group("g", "root"),
        task("done", parent="g"),
        task("broken", parent="g"),
        task("other"),
        task("last", "done other"),
    )
    complete(tree, "done")
    fail(tree, "broken")
    fail(tree, "other")
    assert not tree.is_live

    events = do(tree, c.Execute("g"))

    assert isinstance(events[0], e.RunStarted)
    assert set(events[0].scope or ()) == {"broken", "g", "root"}


def test_with_force_a_failed_dependency_keeps_out_who_requires_it_and_not_who_can_do_without_it() -> None:
    """Found by the simulation: executing one task started dependents whose other dependencies had failed."""
    tree = running(task("a"), task("b", "a"), task("other"), task("spare", "a b", after="other"), task("c", "b other"))
    complete(tree, "a", "b")
    fail(tree, "other")
    complete(tree, "spare")
    assert not tree.is_live

    events = do(tree, c.Execute("a", force=True))

    assert isinstance(events[0], e.RunStarted)
    assert set(events[0].scope or ()) == {"a", "b", "spare", "root"}


def test_a_running_tree_is_not_executed_twice() -> None:
    tree = running(task("a"))
    with pytest.raises(TreeIsRunning):
        do(tree, c.Execute())


def test_deadline_fails_what_has_not_ended() -> None:
    tree = running(task("a", deadline=NOW + 5), task("b", deadline=NOW + 5), task("c", deadline=NOW + 50))
    start(tree, "a", "c")
    for name in "abc":
        do(tree, c.ExpireTask(name), NOW + 6)
    assert statuses(tree, "abc") == [FAILED, FAILED, WORKING]
    assert tree.tasks["b"].cause is Cause.DEADLINE


def test_task_past_its_deadline_is_not_started() -> None:
    tree = running(task("a", deadline=NOW - 1), task("b", "a"))
    events = do(tree, c.StartTask("a"))
    assert isinstance(events[0], e.TaskFailed)
    assert tree.tasks["b"].status is CANCELLED


def test_no_retry_after_the_deadline() -> None:
    tree = running(task("a", max_attempts=5, deadline=NOW + 5, retry=RetryPolicy(initial=6, jitter=0)))
    fail(tree, "a")
    assert tree.tasks["a"].status is FAILED


def test_rejected_root_makes_the_tree_rejected() -> None:
    tree = running(task("only", parent=None))
    start(tree, "only")
    do(tree, c.RejectTask("only", 1, "not my job"))
    assert (tree.status, tree.tasks["only"].error) == (TaskStatus.REJECTED, "not my job")


def test_absent_dependencies_are_recorded_with_the_attempt() -> None:
    tree = running(task("a"), task("b"), task("c", "b", after="a"))
    fail(tree, "a")
    complete(tree, "b")
    assert do(tree, c.StartTask("c"))[-1] == e.TaskStarted("c", 1, ("a",))


def test_progress_is_the_mean_over_what_runs() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    do(tree, c.ReportProgress("a", 1, 0.5))
    assert tree.head.progress == 0.25
    complete(tree, "a", "b")
    assert tree.head.progress == 1.0


def test_update_is_for_pending_tasks_of_a_tree_at_rest() -> None:
    tree = tree_of(task("a"), task("b"))
    do(tree, c.UpdateTask("b", {"priority": 0, "dependencies": [{"id": "a"}]}))
    assert tree.tasks["b"].priority == 0
    with pytest.raises(InvalidPlan, match=r"a -> b -> a|b -> a -> b"):
        do(tree, c.UpdateTask("a", {"dependencies": [{"id": "b"}]}))
    do(tree, c.Execute())
    assert ready(tree) == ["a"]
    with pytest.raises(TreeIsRunning):
        do(tree, c.UpdateTask("a", {"priority": 1}))


def test_message_to_an_ended_task_is_refused() -> None:
    tree = running(task("a"))
    do(tree, c.ReceiveMessage("a", said("1")))
    complete(tree, "a")
    with pytest.raises(IllegalCommand):
        do(tree, c.ReceiveMessage("root", said("2")))


@pytest.mark.parametrize(
    "command",
    [
        c.Execute("x"),
        c.StartTask("x"),
        c.Cancel("x"),
        c.ProvideInput("x", 1),
        c.CompleteTask("x", 1),
        c.ExpireTask("x"),
    ],
)
def test_unknown_task_is_not_found(command: c.Command) -> None:
    with pytest.raises(TaskNotFound):
        do(tree_of(task("a")), command)


def test_a_refused_command_changes_nothing() -> None:
    tree = running(task("a"))
    before = (tree.head, dict(tree.tasks))
    for command in (c.CompleteTask("a", 1), c.ProvideInput("a", 1), c.StartTask("root"), c.Execute()):
        with pytest.raises((StaleAttempt, IllegalCommand)):
            do(tree, command)
    assert (tree.head, tree.tasks) == before


def test_a_run_of_a_part_leaves_the_tree_pending() -> None:
    """A tree is completed only when all of it is (semantics §3)."""
    tree = tree_of(task("a"), task("b"))
    do(tree, c.Execute("a"))
    complete(tree, "a")
    assert (tree.status, tree.is_live) == (PENDING, False)
    do(tree, c.Execute())
    complete(tree, "b")
    assert tree.status is COMPLETED


def test_a_group_that_is_taken_optionally_still_tells_that_its_child_failed() -> None:
    tree = running(group("g", "root"), task("a", parent="g"), task("b", after="g"))
    fail(tree, "a")
    assert tree.tasks["g"].status is FAILED
    complete(tree, "b")
    assert tree.status is COMPLETED


def test_every_change_of_the_trees_status_has_its_time() -> None:
    tree = tree_of(task("a"))
    times = []
    for command in (c.Execute(), c.StartTask("a"), c.CompleteTask("a", 1)):
        do(tree, command, NOW + 10 * (len(times) + 1))
        times.append(tree.head.updated_at)
    assert times == [NOW + 10, NOW + 20, NOW + 30]
