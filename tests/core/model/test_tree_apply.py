"""What each event leaves behind: of its task every field, and of the tree its head (`core.model.tree`)."""

import re

import pytest
from msgspec.structs import replace

from core.model import commands as c
from core.model import events as e
from core.model.task import Cause, Question, Task, TaskStatus, TreeHead
from core.model.tree import TaskTree
from tests.core.contents import artifact, said, texts
from tests.core.trees import NOW, complete, do, group, ready, running, start, task, tree_of

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
PENDING, WORKING, REJECTED = TaskStatus.PENDING, TaskStatus.IN_PROGRESS, TaskStatus.REJECTED
LATER = NOW + 5
LATEST = NOW + 9


def fresh(**fields: object) -> Task:
    """The one task of the tree as it was stored, with these fields in place of its own."""
    return replace(task("a", tree_id="root", position=1), **fields)


def applied(*events: e.Event, at: float = LATER) -> Task:
    """Task a after a run began, an attempt started at LATER and these events happened at that time."""
    tree = running(task("a"), task("b"))
    tree.apply(e.TaskStarted("a", 1), LATER)
    for event in events:
        tree.apply(event, at)
    return tree.tasks["a"]


def test_a_started_task_runs_and_keeps_when_its_first_attempt_started() -> None:
    first = applied()
    assert first == fresh(status=WORKING, attempt=1, is_running=True, started_at=LATER, updated_at=LATER)

    again = applied(e.AttemptLost("a", 1), e.TaskStarted("a", 2), at=LATEST)
    assert again == replace(first, attempt=2, crashes=1, lone_crashes=1, updated_at=LATEST)


def test_progress_keeps_the_last_message_until_another_comes() -> None:
    half = applied(e.TaskProgressed("a", 1, 0.5, "half"), at=LATEST)
    assert half == replace(applied(), progress=0.5, message="half", updated_at=LATEST)
    assert applied(e.TaskProgressed("a", 1, 0.5, "half"), e.TaskProgressed("a", 1, 0.75)).message == "half"
    assert applied(e.TaskProgressed("a", 1, 0.5, "half"), e.TaskProgressed("a", 1, 0.75, "more")).message == "more"


@pytest.mark.parametrize(("auth", "status"), [(False, TaskStatus.INPUT_REQUIRED), (True, TaskStatus.AUTH_REQUIRED)])
def test_a_question_and_its_answer_are_kept(auth: bool, status: TaskStatus) -> None:
    parts = texts("which?")
    asked = applied(e.InputRequested("a", 1, parts, auth), at=LATEST)
    question = Question(content=parts, auth=auth, asked_at=LATEST)
    assert asked == replace(applied(), status=status, is_running=False, question=question, updated_at=LATEST)

    for message in (None, said("this", message_id="m")):
        answered = applied(
            e.InputRequested("a", 1, parts, auth), e.InputProvided("a", "this", message=message), at=LATEST
        )
        after = {"answers": ("this",), "answer_messages": (message,), "asked": ("",)}
        assert answered == replace(applied(), is_running=False, **after, updated_at=LATEST)


def test_a_failed_attempt_leaves_its_error_and_when_the_next_may_start() -> None:
    failed = applied(e.AttemptFailed("a", 1, "boom", Cause.TIMEOUT, 2000.0), at=LATEST)
    expected = replace(applied(), is_running=False, failures=1, runnable_at=2000.0, error="boom", cause=Cause.TIMEOUT)
    assert failed == replace(expected, updated_at=LATEST)


@pytest.mark.parametrize(
    ("crash", "alone", "crashes", "lone"),
    [(True, True, 1, 1), (True, False, 1, 0), (False, True, 0, 0), (False, False, 0, 0)],
)
def test_only_a_crash_counts_against_a_lost_attempt(crash: bool, alone: bool, crashes: int, lone: int) -> None:
    lost = applied(e.AttemptLost("a", 1, crash, alone), at=LATEST)
    assert lost == replace(applied(), is_running=False, crashes=crashes, lone_crashes=lone, updated_at=LATEST)


ENDS: list[tuple[e.Event, dict[str, object]]] = [
    (e.TaskCompleted("a", 1, {"n": 1}), {"status": COMPLETED, "progress": 1.0, "result": {"n": 1}}),
    (e.TaskFailed("a", 1, "boom", Cause.TIMEOUT), {"status": FAILED, "error": "boom", "cause": Cause.TIMEOUT}),
    (e.TaskRejected("a", 1, "no"), {"status": REJECTED, "error": "no"}),
    (
        e.TaskCancelled("a", "stop", Cause.REQUESTED),
        {"status": CANCELLED, "error": "stop", "cause": Cause.REQUESTED},
    ),
]


@pytest.mark.parametrize(("event", "fields"), ENDS)
def test_an_end_is_kept_with_its_time_and_its_reason(event: e.Event, fields: dict[str, object]) -> None:
    begun = replace(applied(), progress=0.25)
    ended = applied(e.TaskProgressed("a", 1, 0.25), event, at=LATEST)
    assert ended == replace(begun, is_running=False, finished_at=LATEST, updated_at=LATEST, **fields)


def test_an_end_takes_the_open_question_away() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    tree.apply(e.InputRequested("a", 1, ()), LATER)
    tree.apply(e.TaskCancelled("a", "stop", Cause.REQUESTED), LATEST)
    assert tree.tasks["a"].question is None
    assert tree.questions == {}
    assert tree.status is WORKING
    tree.check()


def test_a_group_starts_and_ends_with_the_times_of_its_events() -> None:
    tree = running(group("g", "root"), task("a", parent="g"))
    before = tree.tasks["g"]
    tree.apply(e.GroupStarted("g"), LATER)
    assert tree.tasks["g"] == replace(before, status=WORKING, started_at=LATER, updated_at=LATER)
    tree.apply(e.TaskFailed("a", 1, "boom", Cause.POISON), LATER)
    tree.apply(e.GroupEnded("g", FAILED, "'a' failed", Cause.CHILD_FAILED), LATEST)
    expected = replace(before, status=FAILED, started_at=LATER, finished_at=LATEST, updated_at=LATEST)
    assert tree.tasks["g"] == replace(expected, error="'a' failed", cause=Cause.CHILD_FAILED)


def test_a_new_run_finds_the_task_as_it_was_created_but_for_the_number_of_its_attempts() -> None:
    """The number goes on: it is what fences late attempts of the earlier run."""
    tree = running(task("a", max_attempts=3))
    start(tree, "a")
    tree.apply(e.TaskProgressed("a", 1, 0.5, "half"), LATER)
    tree.apply(e.InputRequested("a", 1, ()), LATER)
    tree.apply(e.InputProvided("a", "x"), LATER)
    tree.apply(e.TaskStarted("a", 2), LATER)
    tree.apply(e.AttemptFailed("a", 2, "boom", Cause.TIMEOUT, 2000.0), LATER)
    tree.apply(e.TaskStarted("a", 3), LATER)
    tree.apply(e.AttemptLost("a", 3), LATER)
    tree.apply(e.TaskStarted("a", 4), LATER)
    tree.apply(e.TaskCompleted("a", 4, "result"), LATER)
    tree.apply(e.GroupEnded("root", COMPLETED), LATER)
    tree.apply(e.TreeFinished("root", COMPLETED), LATER)

    do(tree, c.Execute(force=True), LATEST)

    assert tree.tasks["a"] == fresh(max_attempts=3, attempt=4, updated_at=LATEST)


def test_a_new_run_finds_a_failed_task_without_its_error() -> None:
    tree = running(task("a"))
    start(tree, "a")
    do(tree, c.FailAttempt("a", 1, "boom"), LATER)
    do(tree, c.Execute(), LATEST)
    assert tree.tasks["a"] == fresh(attempt=1, updated_at=LATEST)


def test_a_change_is_kept_with_its_time() -> None:
    tree = tree_of(task("a"))
    do(tree, c.UpdateTask("a", {"name": "new", "priority": 0}), LATER)
    assert tree.tasks["a"] == fresh(name="new", priority=0, updated_at=LATER)


# The head


def test_every_event_makes_the_tree_one_version_newer() -> None:
    tree = tree_of(task("a"))
    assert tree.version == 1
    for n, event in enumerate((e.RunStarted("root", 1), e.TaskStarted("a", 1), e.MessageSent("a", 1, said("x"))), 2):
        tree.apply(event, NOW)
        assert tree.version == n


def test_the_head_tells_when_its_status_changed_and_not_when_anything_else_happened() -> None:
    tree = tree_of(task("a"), task("b"))
    tree.apply(e.RunStarted("root", 1), NOW + 1)
    assert (tree.status, tree.head.updated_at) == (PENDING, NOW + 1)
    tree.apply(e.TaskStarted("a", 1), NOW + 2)
    assert (tree.status, tree.head.updated_at) == (WORKING, NOW + 2)
    tree.apply(e.TaskProgressed("a", 1, 0.5), NOW + 3)
    assert tree.head.updated_at == NOW + 2
    tree.apply(e.InputRequested("a", 1, ()), NOW + 4)
    assert (tree.status, tree.head.updated_at) == (TaskStatus.INPUT_REQUIRED, NOW + 4)
    tree.apply(e.InputProvided("a", 1), NOW + 5)
    assert (tree.status, tree.head.updated_at) == (WORKING, NOW + 5)


def test_a_run_begins_pending_whatever_the_one_before_ended_as() -> None:
    tree = running(task("a"))
    start(tree, "a")
    do(tree, c.FailAttempt("a", 1, "boom"))
    assert tree.status is FAILED
    do(tree, c.Execute(), LATER)
    head = TreeHead(
        id="root", size=2, version=tree.version, run=2, run_at=LATER, is_live=True, created_at=NOW, updated_at=LATER
    )
    assert tree.head == head


def test_progress_is_the_mean_of_the_tasks_that_run_something() -> None:
    tree = running(group("g", "root"), task("a", parent="g"), task("b"), task("d"), task("f"))
    start(tree, "a", "b")
    tree.apply(e.TaskProgressed("a", 1, 0.5), NOW)
    assert tree.head.progress == 0.125
    tree.apply(e.TaskProgressed("a", 1, 0.75), NOW)
    tree.apply(e.TaskProgressed("b", 1, 0.25), NOW)
    assert tree.head.progress == 0.25
    tree.apply(e.TaskFailed("b", 1, "boom", Cause.TIMEOUT), NOW)
    assert tree.head.progress == 0.25, "a failure keeps what was done"
    tree.apply(e.TaskCompleted("a", 1), NOW)
    assert tree.head.progress == 0.3125


def test_a_tree_of_groups_alone_is_done_when_it_has_ended() -> None:
    tree = tree_of(group("root"), group("g", "root"))
    assert tree.head.progress == 0.0
    tree.apply(e.RunStarted("root", 1), NOW)
    assert tree.head.progress == 0.0
    tree.apply(e.GroupEnded("g", COMPLETED), NOW)
    tree.apply(e.GroupEnded("root", COMPLETED), NOW)
    tree.apply(e.TreeFinished("root", COMPLETED), NOW)
    assert tree.head.progress == 1.0


# What the shell takes


def test_a_task_is_told_by_its_name() -> None:
    tree = tree_of(task("a"), task("b"))
    do(tree, c.UpdateTask("b", {"name": "new"}))
    assert (tree.name_of("a"), tree.name_of("b")) == ("a", "new")


def test_what_changed_is_handed_out_once() -> None:
    tree = tree_of(task("a"), task("b"))
    assert [t.id for t in tree.take_changed()] == ["root", "a", "b"]
    assert tree.take_changed() == ()
    do(tree, c.Execute())
    assert tree.take_changed() == (), "nothing had to be reset"
    start(tree, "b")
    changed = tree.take_changed()
    assert [t.id for t in changed] == ["root", "b"]
    assert changed == (tree.tasks["root"], tree.tasks["b"])


def test_what_became_startable_is_handed_out_once() -> None:
    tree = running(task("a"), task("b", "a"), group("g", "root", "a"), task("d", "g"), task("f", parent="g"))
    assert [t.id for t in tree.take_ready()] == ["a", "f"]
    assert tree.take_ready() == []
    start(tree, "a", "f")
    do(tree, c.CompleteTask("a", 1))
    assert [t.id for t in tree.take_ready()] == ["b"], "not the group, which runs nothing"
    do(tree, c.CompleteTask("f", 1))
    assert [t.id for t in tree.take_ready()] == ["d"]
    start(tree, "b")
    do(tree, c.RequestInput("b", 1, ()))
    assert tree.take_ready() == []
    do(tree, c.ProvideInput("b", "x"))
    assert [t.id for t in tree.take_ready()] == ["b"]
    assert ready(tree) == ["b", "d"]


def test_of_what_became_startable_only_what_still_is_is_handed_out() -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    assert [t.id for t in tree.take_ready()] == ["b"]


# The tree's own check


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda tree: tree.waiting.update(a=1), "waiting differs from the tasks"),
        (lambda tree: tree.running.add("b"), "running differs from the tasks"),
        (lambda tree: setattr(tree, "open", 9), "open differs from the tasks"),
        (lambda tree: setattr(tree, "_progress", 0.001), "progress differs from the tasks"),
        (lambda tree: tree._put(replace(tree.tasks["a"], status=PENDING)), "a runs and is pending"),
        (lambda tree: tree._put(replace(tree.tasks["b"], status=TaskStatus.INPUT_REQUIRED)), "b has a stray question"),
    ],
)
def test_the_check_names_what_is_wrong(harm: object, message: str) -> None:
    tree = running(task("a"), task("b"))
    start(tree, "a")
    tree.check()
    harm(tree)  # type: ignore[operator]
    with pytest.raises(AssertionError, match=re.escape(message)):
        tree.check()


def test_the_check_finds_a_tree_that_lives_for_nothing_and_one_in_which_something_runs_at_rest() -> None:
    done = [task("a", parent=None, status=COMPLETED, progress=1.0)]
    head = TreeHead(id="a", created_at=NOW, updated_at=NOW)
    with pytest.raises(AssertionError, match=r"^the tree is live with nothing left to end"):
        TaskTree(replace(head, is_live=True), done).check()
    busy = [task("a", parent=None, status=WORKING, is_running=True)]
    with pytest.raises(AssertionError, match=r"^something runs in a tree at rest"):
        TaskTree(head, busy).check()
    TaskTree(replace(head, is_live=True), busy).check()


def test_the_check_bears_the_rounding_of_progress() -> None:
    """Sums of fractions depend on their order; a millionth for each task is no difference."""
    tree = running(task("a"), task("b"))
    tree._progress += 3e-6
    tree.check()


@pytest.mark.parametrize(
    "event",
    [e.MessageReceived("a", said("x")), e.MessageSent("a", 1, said("x")), e.ArtifactAdded("a", 1, artifact("x"))],
)
def test_what_only_the_log_remembers_changes_nothing_but_the_number(event: e.Event) -> None:
    tree = running(task("a"), task("b"))
    before, tasks = tree.head, dict(tree.tasks)
    tree.apply(event, LATER)
    assert tree.head == replace(before, version=before.version + 1)
    assert (tree.tasks, tree.changed_at) == (tasks, LATER)
    tree.check()


def test_a_move_that_is_not_legal_is_a_bug_that_is_told() -> None:
    """The table of legal moves holds for events, too: nothing ends that has ended."""
    tree = running(task("a"))
    start(tree, "a")
    complete(tree, "a")
    with pytest.raises(ValueError, match="task a cannot go from completed to failed"):
        tree.apply(e.TaskFailed("a", 1, "too late", Cause.EXECUTOR_ERROR), NOW)


def test_what_happens_to_a_fork_happens_to_the_tree_when_it_adopts_it() -> None:
    tree = running(task("a"), task("b", needs="a"))
    tree.take_changed()
    fork = tree.fork()
    fork.apply(e.TaskStarted("a", 1), LATER)
    fork.apply(e.TaskCompleted("a", 1, None), LATEST)
    assert (tree.tasks["a"].status, tree.running, tree.take_changed()) == (PENDING, set(), ())
    tree.check()

    tree.adopt(fork)
    assert [each.id for each in tree.take_ready()] == ["b"]
    assert [each.id for each in tree.take_changed()] == ["a"]
    assert (tree.tasks["a"].status, tree.head, tree.changed_at) == (COMPLETED, fork.head, LATEST)
    tree.check()
