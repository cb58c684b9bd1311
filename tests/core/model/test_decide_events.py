"""What each command leads to, word for word: its events, its refusals, and who is blamed (`core.model.decide`)."""

import re

import pytest

from core.model import commands as c
from core.model import events as e
from core.model.decide import MAX_CRASHES, decide
from core.model.errors import (
    IllegalCommand,
    InvalidPlan,
    NothingToRun,
    StaleAttempt,
    TaskNotCancelable,
    TaskNotFound,
    TreeIsRunning,
)
from core.model.settling import MAX_ERROR
from core.model.task import Cause, TaskStatus
from tests.core.contents import artifact, said, texts
from tests.core.trees import NOW, complete, do, fail, group, running, start, statuses, task, tree_of

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
PENDING, WORKING, REJECTED = TaskStatus.PENDING, TaskStatus.IN_PROGRESS, TaskStatus.REJECTED
STOP = "cancelled by request"

REPORTS = [
    (c.ReportProgress("a", 1, 0.5, "half"), e.TaskProgressed("a", 1, 0.5, "half")),
    (c.SendMessage("a", 1, said("x"), True), e.MessageSent("a", 1, said("x"), True)),
    (c.AddArtifact("a", 1, artifact("x"), True, False), e.ArtifactAdded("a", 1, artifact("x"), True, False)),
    (c.AddArtifact("a", 1, artifact("x"), False, True), e.ArtifactAdded("a", 1, artifact("x"), False, True)),
    (c.RequestInput("a", 1, texts("?"), True), e.InputRequested("a", 1, texts("?"), True)),
    (c.CompleteTask("a", 1, {"n": 1}), e.TaskCompleted("a", 1, {"n": 1})),
    (c.FailAttempt("a", 1, "boom", Cause.TIMEOUT), e.TaskFailed("a", 1, "boom", Cause.TIMEOUT)),
    (c.FailAttempt("a", 1, "boom"), e.TaskFailed("a", 1, "boom", Cause.EXECUTOR_ERROR)),
    (c.RejectTask("a", 1, "no"), e.TaskRejected("a", 1, "no")),
    (c.LoseAttempt("a", 1, True), e.AttemptLost("a", 1, True)),
    (c.LoseAttempt("a", 1, False), e.AttemptLost("a", 1, False)),
]


@pytest.mark.parametrize(("command", "event"), REPORTS)
def test_an_attempts_report_becomes_the_event_that_says_the_same(command: c.Command, event: e.Event) -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    assert do(tree, command) == [event]


@pytest.mark.parametrize("command", [command for command, _ in REPORTS])
def test_a_report_of_an_attempt_that_owns_nothing_is_refused(command: c.Command) -> None:
    tree = running(task("a", max_attempts=3), task("b"))
    with pytest.raises(StaleAttempt):
        decide(command, tree, NOW)  # nothing runs yet
    start(tree, "a")
    fail(tree, "a")
    start_at = tree.tasks["a"].runnable_at
    do(tree, c.StartTask("a"), start_at)
    with pytest.raises(StaleAttempt) as refused:
        decide(command, tree, start_at)  # the second one runs
    assert "a" in str(refused.value) and "1" in str(refused.value)


def test_a_failed_attempt_that_may_be_repeated_tells_when() -> None:
    tree = running(task("a", max_attempts=2), task("b"))
    start(tree, "a")
    events = do(tree, c.FailAttempt("a", 1, "boom", Cause.TIMEOUT))
    assert events == [e.AttemptFailed("a", 1, "boom", Cause.TIMEOUT, NOW + 1)]


def test_a_retry_that_would_come_with_the_deadline_comes_too_late() -> None:
    for deadline, kind in ((NOW + 1, e.TaskFailed), (NOW + 1.5, e.AttemptFailed)):
        tree = running(task("a", max_attempts=2, deadline=deadline), task("b"))
        start(tree, "a")
        assert [type(event) for event in do(tree, c.FailAttempt("a", 1, "boom"))] == [kind]


def test_a_task_that_must_not_run_twice_fails_with_an_outcome_that_is_unknown() -> None:
    tree = running(task("a", max_attempts=3), task("b"))
    start(tree, "a")
    (failed,) = do(tree, c.LoseAttempt("a", 1, at_most_once=True))
    text = "the server stopped while the task ran; it may have taken effect, so it is not run again"
    assert failed == e.TaskFailed("a", 1, text, Cause.OUTCOME_UNKNOWN)


def test_the_fifth_crash_is_the_tasks_own() -> None:
    tree = running(task("a"), task("b"))
    for n in range(1, MAX_CRASHES):
        start(tree, "a")
        assert do(tree, c.LoseAttempt("a", n)) == [e.AttemptLost("a", n)]
    start(tree, "a")
    (failed,) = do(tree, c.LoseAttempt("a", MAX_CRASHES))
    assert failed == e.TaskFailed(
        "a", MAX_CRASHES, "the server stopped 5 times while it ran this task and no other", Cause.POISON
    )


# Questions and messages


def test_an_answer_brings_its_message_to_the_task_that_the_caller_named() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    do(tree, c.RequestInput("a", 1, ()))
    message = said("yes")
    events = do(tree, c.ProvideInput("root", "yes", message))
    assert events == [e.MessageReceived("root", message), e.InputProvided("a", "yes", message=message)]


def test_an_answer_without_a_message_leaves_none() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    do(tree, c.RequestInput("a", 1, ()))
    assert do(tree, c.ProvideInput("a", "yes")) == [e.InputProvided("a", "yes")]


def test_an_answer_to_who_asked_nothing_is_refused() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    do(tree, c.RequestInput("a", 1, ()))
    with pytest.raises(IllegalCommand, match=r"^Task b does not wait for an answer$") as refused:
        decide(c.ProvideInput("b", "yes"), tree, NOW)
    assert refused.value.task_id == "b"


def test_a_message_is_kept_for_the_task_it_was_sent_to() -> None:
    tree = running(task("a"), task("b"))
    complete(tree, "a")
    assert do(tree, c.ReceiveMessage("b", said("x"))) == [e.MessageReceived("b", said("x"))]
    assert do(tree, c.ReceiveMessage("root", said("x"))) == [e.MessageReceived("root", said("x"))]
    with pytest.raises(IllegalCommand, match=r"^Task a is already completed and accepts no more messages$") as refused:
        decide(c.ReceiveMessage("a", said("x")), tree, NOW)
    assert refused.value.task_id == "a"


def test_a_message_to_the_root_is_judged_by_the_whole_tree() -> None:
    """The root may have ended long before the tree has, or be pending while the tree has ended."""
    tree = running(task("root", parent=None), task("b"))
    complete(tree, "root")
    assert do(tree, c.ReceiveMessage("root", said("x"))) == [e.MessageReceived("root", said("x"))]
    fail(tree, "b")
    with pytest.raises(IllegalCommand, match="Task root is already failed"):
        decide(c.ReceiveMessage("root", said("x")), tree, NOW)


# Who is blamed


def test_the_first_cause_is_told_with_every_end_that_follows() -> None:
    tree = running(task("a"), task("b", "a"), task("d", "b"), group("g", "root"), task("f", "d", parent="g"))
    start(tree, "a")
    events = do(tree, c.FailAttempt("a", 1, "boom"))
    need = "required dependency"
    because = "because 'a' (a) failed: boom"
    in_group = f"'f' (f) cancelled, {because}"
    assert events == [
        e.TaskFailed("a", 1, "boom", Cause.EXECUTOR_ERROR),
        e.TaskCancelled("b", f"{need} 'a' (a) failed: boom", Cause.DEPENDENCY_FAILED),
        e.TaskCancelled("d", f"{need} 'b' (b) cancelled, {because}", Cause.DEPENDENCY_FAILED),
        e.TaskCancelled("f", f"{need} 'd' (d) cancelled, {because}", Cause.DEPENDENCY_FAILED),
        e.GroupEnded("g", CANCELLED, in_group, Cause.CHILD_FAILED),
        e.GroupEnded("root", FAILED, "'a' (a) failed: boom", Cause.CHILD_FAILED),
        e.TreeFinished("root", FAILED),
    ]


def test_a_group_that_failed_is_named_with_what_failed_in_it() -> None:
    tree = running(group("g", "root"), task("a", parent="g"), task("b", "g"), group("h", "root", "b"))
    start(tree, "a")
    events = do(tree, c.RejectTask("a", 1, "no"))
    assert events[:3] == [
        e.TaskRejected("a", 1, "no"),
        e.GroupEnded("g", REJECTED, "'a' (a) rejected: no", Cause.CHILD_FAILED),
        e.TaskCancelled(
            "b", "required dependency 'g' (g) rejected, because 'a' (a) rejected: no", Cause.DEPENDENCY_FAILED
        ),
    ]


def test_what_ended_before_is_blamed_with_its_own_error() -> None:
    """Of an earlier command: only its error is known, not what led to it."""
    tree = running(group("g", "root"), task("a", parent="g"), task("b", parent="g"))
    fail(tree, "a", "boom")
    events = complete(tree, "b")
    assert events[1] == e.GroupEnded("g", FAILED, "'a' (a) failed: boom", Cause.CHILD_FAILED)


def test_an_error_is_cut_to_four_thousand_characters() -> None:
    for length, kept in ((MAX_ERROR, "x" * MAX_ERROR), (MAX_ERROR + 1, "x" * (MAX_ERROR - 1) + "…")):
        tree = running(task("a", max_attempts=2), task("b"), task("d"))
        start(tree, "a", "b", "d")
        (again,) = do(tree, c.FailAttempt("a", 1, "x" * length))
        (failed,) = do(tree, c.FailAttempt("b", 1, "x" * length))
        (declined, *_) = do(tree, c.RejectTask("d", 1, "x" * length))
        assert (again.error, failed.error, declined.reason) == (kept, kept, kept)  # type: ignore[union-attr]


# Deadlines


def test_a_task_that_outlives_its_deadline_fails_and_others_do_not() -> None:
    tree = running(task("a", deadline=NOW + 5), task("b"), task("d", deadline=NOW + 5))
    complete(tree, "d")
    start(tree, "a")
    assert decide(c.ExpireTask("a"), tree, NOW + 4) == []
    assert decide(c.ExpireTask("b"), tree, NOW + 9) == []
    assert decide(c.ExpireTask("d"), tree, NOW + 9) == []
    assert decide(c.ExpireTask("root"), tree, NOW + 9) == []
    text = "the deadline passed before the task ended"
    assert do(tree, c.ExpireTask("a"), NOW + 5) == [e.TaskFailed("a", 1, text, Cause.DEADLINE)]


def test_at_rest_no_deadline_passes() -> None:
    tree = tree_of(task("a", deadline=NOW + 5), task("b"))
    assert decide(c.ExpireTask("a"), tree, NOW + 9) == []


def test_a_task_is_not_started_at_its_deadline() -> None:
    tree = running(task("a", deadline=NOW + 5), task("b"))
    text = "the deadline passed before the task could start"
    assert decide(c.StartTask("a"), tree, NOW + 5) == [e.TaskFailed("a", 0, text, Cause.DEADLINE)]
    assert decide(c.StartTask("a"), tree, NOW + 4) == [e.GroupStarted("root"), e.TaskStarted("a", 1)]


@pytest.mark.parametrize("early", [True, False])
def test_a_task_starts_when_it_is_runnable_and_not_before(early: bool) -> None:
    tree = running(task("a", max_attempts=2), task("b", "a"))
    fail(tree, "a")
    at = tree.tasks["a"].runnable_at
    if early:
        with pytest.raises(IllegalCommand, match=r"^Task a cannot be started now$") as refused:
            decide(c.StartTask("a"), tree, at - 0.1)
        assert refused.value.task_id == "a"
    else:
        assert do(tree, c.StartTask("a"), at) == [e.TaskStarted("a", 2)]
    with pytest.raises(IllegalCommand):
        decide(c.StartTask("b"), tree, at)


def test_the_first_task_of_nested_groups_starts_all_of_them_from_the_inside() -> None:
    tree = running(group("g", "root"), group("h", "g"), task("a", parent="h"), task("b", parent="g"))
    assert do(tree, c.StartTask("a")) == [
        e.GroupStarted("h"),
        e.GroupStarted("g"),
        e.GroupStarted("root"),
        e.TaskStarted("a", 1),
    ]
    assert do(tree, c.StartTask("b")) == [e.TaskStarted("b", 1)]


# Cancels


def test_a_cancel_of_the_root_tells_the_tree_first_and_then_every_task_level_by_level() -> None:
    tree = running(group("g", "root"), task("a", parent="g"), task("b"))
    assert do(tree, c.Cancel("root")) == [
        e.TreeCancelled("root", STOP),
        e.TaskCancelled("b", STOP, Cause.REQUESTED),
        e.TaskCancelled("a", STOP, Cause.REQUESTED),
        e.GroupEnded("g", CANCELLED, f"'a' (a) cancelled: {STOP}", Cause.REQUESTED),
        e.GroupEnded("root", CANCELLED, f"'g' (g) cancelled, because 'a' (a) cancelled: {STOP}", Cause.REQUESTED),
        e.TreeFinished("root", CANCELLED),
    ]


def test_a_cancel_gives_its_reason_and_takes_all_that_require_the_task_however_far() -> None:
    tree = running(task("a"), task("b", "a"), task("d", "b"), task("f", after="a"))
    assert do(tree, c.Cancel("a", "too slow")) == [
        e.TaskCancelled("a", "too slow", Cause.REQUESTED),
        e.TaskCancelled("b", "too slow", Cause.REQUESTED),
        e.TaskCancelled("d", "too slow", Cause.REQUESTED),
    ]
    assert statuses(tree, "f") == [PENDING]


def test_a_group_that_waits_outside_is_cancelled_for_the_same_reason() -> None:
    tree = running(task("out"), group("g", "root", "out"), task("a", parent="g"))
    complete(tree, "a")
    assert do(tree, c.Cancel("g")) == [e.TaskCancelled("g", STOP, Cause.REQUESTED)]


def test_a_task_that_could_not_be_interrupted_obeys_when_it_stops_by_itself() -> None:
    for command in (c.RequestInput("a", 1, ()), c.LoseAttempt("a", 1)):
        tree = running(task("a"), task("b"))
        start(tree, "a")
        do(tree, c.Cancel("root", "enough", False, frozenset("a")))
        assert do(tree, command)[0] == e.TaskCancelled("a", "enough", Cause.REQUESTED)


def test_a_second_cancel_of_the_root_does_not_tell_the_tree_again() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    do(tree, c.Cancel("root", None, False, frozenset("a")))
    events = do(tree, c.Cancel("root", "now", True))
    assert events[0] == e.TaskCancelled("a", "now", Cause.REQUESTED)
    assert events[-1] == e.TreeFinished("root", CANCELLED)


@pytest.mark.parametrize(("end", "status"), [(complete, "completed"), (fail, "failed")])
def test_a_cancel_of_what_has_ended_otherwise_is_refused(end: object, status: str) -> None:
    tree = running(task("a"), task("b"))
    end(tree, "a")  # type: ignore[operator]
    with pytest.raises(TaskNotCancelable, match=f"^Task a is already {status}, cannot cancel$") as refused:
        decide(c.Cancel("a"), tree, NOW)
    assert refused.value.task_id == "a"


def test_a_cancel_of_an_ended_root_tells_how_the_tree_ended() -> None:
    tree = running(task("root", parent=None), task("b"))
    complete(tree, "root")
    fail(tree, "b")
    with pytest.raises(TaskNotCancelable, match="Task root is already failed"):
        decide(c.Cancel("root"), tree, NOW)


# Runs and changes


def test_a_run_of_all_has_no_scope_and_one_of_a_part_names_it_in_order() -> None:
    tree = tree_of(task("a"), task("b", "a"), task("d"))
    assert decide(c.Execute(), tree, NOW) == [e.RunStarted("root", 1)]
    assert decide(c.Execute("root", True), tree, NOW) == [e.RunStarted("root", 1, None, True)]
    assert decide(c.Execute("b"), tree, NOW) == [e.RunStarted("root", 1, ("a", "b"))]
    assert decide(c.Execute("a"), tree, NOW) == [e.RunStarted("root", 1, ("a", "b"))]


def test_a_part_is_run_with_its_group_when_nothing_else_keeps_the_group_open() -> None:
    """And with all that becomes free by it; never with what still waits for something else."""
    tree = tree_of(
        group("g", "root"),
        task("a", parent="g"),
        task("b", "a", parent="g"),
        task("d", "g"),
        task("f", "d x"),
        task("x"),
        task("y", "b"),
    )
    (started,) = decide(c.Execute("a"), tree, NOW)
    assert started == e.RunStarted("root", 1, ("g", "a", "b", "d", "y"))


def test_what_is_completed_already_is_not_run_again_with_what_it_could_do_without() -> None:
    """Unless it is forced to."""
    tree = running(task("a"), task("b", after="a"))
    fail(tree, "a")
    complete(tree, "b")
    assert decide(c.Execute("a"), tree, NOW)[0] == e.RunStarted("root", 2, ("a",))
    assert decide(c.Execute("a", True), tree, NOW) == [e.RunStarted("root", 2, None, True)]


def test_a_run_that_finds_nothing_to_do_is_refused_by_name() -> None:
    tree = running(task("a"), task("b"))
    complete(tree, "a", "b")
    for target, named in ((None, "root"), ("a", "a"), ("root", "root")):
        text = f"^Task {named} is already completed; use force to run it again$"
        with pytest.raises(NothingToRun, match=text) as refused:
            decide(c.Execute(target), tree, NOW)
        assert refused.value.task_id == named


def test_a_live_tree_refuses_a_second_run_and_changes_by_name() -> None:
    tree = running(task("a"), task("b"))
    with pytest.raises(TreeIsRunning, match=r"^Tree root is already running$") as refused:
        decide(c.Execute("a"), tree, NOW)
    assert refused.value.task_id == "a"
    start(tree, "b")
    rule = "Task {} is {}; it can be changed only while pending, in a tree that does not run"
    with pytest.raises(TreeIsRunning, match=f"^{rule.format('a', 'in_progress')}$") as changed:
        decide(c.UpdateTask("a", {"name": "x"}), tree, NOW)
    assert changed.value.task_id == "a"
    complete(tree, "a", "b")
    with pytest.raises(TreeIsRunning, match=f"^{rule.format('a', 'completed')}$"):
        decide(c.UpdateTask("a", {"name": "x"}), tree, NOW)


def test_a_change_that_would_close_a_circle_is_refused() -> None:
    tree = tree_of(task("a"), task("b", "a"))
    with pytest.raises(InvalidPlan, match=re.escape("the dependencies form a cycle: a -> b -> a")):
        decide(c.UpdateTask("a", {"dependencies": [{"id": "b"}]}), tree, NOW)
    assert decide(c.UpdateTask("a", {"priority": 0}), tree, NOW) == [e.TaskUpdated("a", {"priority": 0})]


@pytest.mark.parametrize("command", [c.Execute("x"), c.Cancel("x"), c.ReportProgress("x", 1, 0.5), c.ExpireTask("x")])
def test_who_is_not_found_is_named(command: c.Command) -> None:
    with pytest.raises(TaskNotFound) as missing:
        decide(command, running(task("a")), NOW)
    assert missing.value.task_id == "x"


def test_a_run_of_a_task_does_not_take_along_what_lies_below_it() -> None:
    """parent_id is organisation only: of a group everything below is meant, of a task the task."""
    tree = tree_of(group("root"), task("a"), task("below", parent="a"), group("g", "root"), task("b", parent="g"))
    assert decide(c.Execute("a"), tree, NOW) == [e.RunStarted("root", 1, ("a",))]
    assert decide(c.Execute("g"), tree, NOW) == [e.RunStarted("root", 1, ("g", "b"))]


def test_everyone_who_depends_on_a_part_that_is_run_joins_it() -> None:
    """Whether another one of those belongs to the part already or not."""
    tree = tree_of(group("g", "root"), task("a", parent="g"), task("b", "a", parent="g"), task("y", "a"), task("z"))
    assert decide(c.Execute("g"), tree, NOW) == [e.RunStarted("root", 1, ("g", "a", "b", "y"))]


def test_a_failure_reaches_everyone_although_one_of_them_has_ended_before() -> None:
    tree = running(task("a"), task("b", "a"), task("d", "a"), task("f"))
    start(tree, "a")
    do(tree, c.Cancel("b"))
    events = do(tree, c.FailAttempt("a", 1, "boom"))
    assert [event.task_id for event in events] == ["a", "d"]


def test_a_cancelled_tree_is_cancelled_whatever_its_last_task_brings() -> None:
    tree = running(task("a"))
    start(tree, "a")
    assert do(tree, c.Cancel("root", None, False, frozenset("a"))) == [e.TreeCancelled("root", STOP)]
    assert complete(tree, "a")[-1] == e.TreeFinished("root", CANCELLED)
    assert statuses(tree, ["a", "root"]) == [COMPLETED, COMPLETED]


def test_in_groups_of_groups_the_first_cause_is_named_once() -> None:
    tree = running(group("g", "root"), group("h", "g"), task("a", parent="h"))
    start(tree, "a")
    *_, outer, root, _ = do(tree, c.FailAttempt("a", 1, "boom"))
    assert outer.error == "'h' (h) failed, because 'a' (a) failed: boom"  # type: ignore[union-attr]
    assert root.error == "'g' (g) failed, because 'a' (a) failed: boom"  # type: ignore[union-attr]


def test_a_late_report_is_refused_with_its_attempt() -> None:
    tree = running(task("a"))
    with pytest.raises(StaleAttempt) as refused:
        decide(c.CompleteTask("a", 7), tree, NOW)
    assert "a" in str(refused.value).split() and "7" in str(refused.value)


def test_a_cancel_by_its_own_attempt_is_that_attempts_only() -> None:
    tree = running(task("a"))
    start(tree, "a")
    with pytest.raises(StaleAttempt):
        do(tree, c.Cancel("a", attempt=2))
    do(tree, c.Cancel("a", attempt=1))
    assert tree.tasks["a"].status is TaskStatus.CANCELLED


@pytest.mark.parametrize(("keys", "answers"), [((), ("one", "two")), (("k1", "k2"), ("one",)), (("k1", "k2"), ())])
def test_answers_are_as_many_as_the_questions(keys: tuple[str, ...], answers: tuple[str, ...]) -> None:
    tree = running(task("a"))
    start(tree, "a")
    do(tree, c.RequestInput("a", 1, (), keys=keys))
    with pytest.raises(InvalidPlan, match=r"answers: task a asks [12] question"):
        do(tree, c.ProvideInput("a", None, each=answers, is_exact=True))
    exact = ("one", "two")[: max(1, len(keys))]
    (event,) = do(tree, c.ProvideInput("a", None, each=exact, is_exact=True))
    assert event == e.InputProvided("a", "one", None, None, exact[1:])
