"""Tests of core.model.node_status: what each event says about its task, and why a tree ended as it did."""

import pytest

from core.model import events as e
from core.model.events import Event, Recorded
from core.model.node_status import ENDS, FAILURES, error_of, node_status, tree_error
from core.model.task import Cause, TaskStatus
from tests.core.contents import artifact, said

COMPLETED, FAILED, CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED
WORKING, REJECTED = TaskStatus.IN_PROGRESS, TaskStatus.REJECTED


def log(*events: Event) -> list[Recorded]:
    """These events as a tree's log has them; each task is named after its id."""
    return [
        Recorded(tree_id="root", seq=n, at=0.0, name=event.task_id.upper(), tree_status=WORKING, event=event)
        for n, event in enumerate(events, 1)
    ]


SAYS: list[tuple[Event, TaskStatus | None]] = [
    (e.TaskStarted("a", 1), WORKING),
    (e.GroupStarted("a"), WORKING),
    (e.TaskProgressed("a", 1, 0.5), WORKING),
    (e.MessageSent("a", 1, said("x")), WORKING),
    (e.ArtifactAdded("a", 1, artifact("x")), WORKING),
    (e.InputRequested("a", 1, ()), TaskStatus.INPUT_REQUIRED),
    (e.InputRequested("a", 1, (), auth=True), TaskStatus.AUTH_REQUIRED),
    (e.InputProvided("a", "yes"), WORKING),
    (e.AttemptFailed("a", 1, "boom", Cause.EXECUTOR_ERROR, 0.0), WORKING),
    (e.AttemptLost("a", 1, True), WORKING),
    (e.TaskCompleted("a", 1, None), COMPLETED),
    (e.TaskSkipped("a", "not needed"), COMPLETED),
    (e.TaskFailed("a", 1, "boom", Cause.EXECUTOR_ERROR), FAILED),
    (e.TaskRejected("a", 1, "no"), REJECTED),
    (e.TaskCancelled("a", "stop", Cause.REQUESTED), CANCELLED),
    (e.GroupEnded("a", COMPLETED), COMPLETED),
    (e.GroupEnded("a", FAILED, "boom", Cause.CHILD_FAILED), FAILED),
    (e.TreeCreated(1, "a"), None),
    (e.MessageReceived("a", said("x")), None),
    (e.RunStarted("a", 1), None),
    (e.TaskUpdated("a", {}), None),
    (e.TreeCancelled("a", "stop"), None),
    (e.TreeFinished("a", COMPLETED), None),
]


@pytest.mark.parametrize(("event", "status"), SAYS)
def test_each_event_says_what_its_task_is_now(event: Event, status: TaskStatus | None) -> None:
    assert node_status(event) is status


def test_every_event_there_is_was_asked() -> None:
    assert {type(event) for event, _ in SAYS} == set(Event.__args__)


ERRORS: list[tuple[Event, str | None]] = [
    (e.TaskFailed("a", 1, "boom", Cause.EXECUTOR_ERROR), "boom"),
    (e.TaskRejected("a", 1, "no"), "no"),
    (e.TaskCancelled("a", "stop", Cause.REQUESTED), "stop"),
    (e.TreeCancelled("a", "stop"), "stop"),
    (e.GroupEnded("a", FAILED, "boom", Cause.CHILD_FAILED), "boom"),
    (e.GroupEnded("a", COMPLETED), None),
    (e.AttemptFailed("a", 1, "boom", Cause.EXECUTOR_ERROR, 0.0), None),  # not the end: it is tried again
    (e.TaskCompleted("a", 1, None), None),
    (e.TaskSkipped("a", "not needed"), None),
]


@pytest.mark.parametrize(("event", "error"), ERRORS)
def test_an_end_tells_its_error(event: Event, error: str | None) -> None:
    assert error_of(event) == error


def test_events_that_end_or_fail_something_are_listed_by_their_tags() -> None:
    """A query that reads only these reads all that `tree_error` and the APIs need."""
    tags = {type(event).__struct_config__.tag for event, status in SAYS if status is not None and status.is_terminal}
    assert set(ENDS) == tags
    assert set(FAILURES) == {type(event).__struct_config__.tag for event, error in ERRORS if error is not None}


def test_the_roots_own_error_is_the_trees() -> None:
    events = log(
        e.TaskFailed("a", 1, "first", Cause.EXECUTOR_ERROR),
        e.GroupEnded("root", FAILED, "'A' (a) failed: first", Cause.CHILD_FAILED),
        e.TaskFailed("b", 1, "late", Cause.EXECUTOR_ERROR),
    )
    assert tree_error("root", FAILED, events) == "'A' (a) failed: first"


def test_without_an_error_of_the_root_the_first_task_that_ended_so_is_named() -> None:
    """A tolerated failure of another kind does not explain the end, nor does what came after the first."""
    events = log(
        e.TaskRejected("a", 1, "no"),
        e.TaskStarted("b", 1),
        e.TaskFailed("b", 1, "boom", Cause.EXECUTOR_ERROR),
        e.TaskFailed("c", 1, "bang", Cause.EXECUTOR_ERROR),
    )
    assert tree_error("root", FAILED, events) == "'B' failed: boom"
    assert tree_error("root", REJECTED, events) == "'A' rejected: no"
    assert tree_error("root", COMPLETED, events) is None
    assert tree_error("root", FAILED, []) is None


def test_a_cancelled_tree_tells_why_it_was_cancelled() -> None:
    events = log(
        e.TaskCancelled("root", "needs a", Cause.DEPENDENCY_FAILED),
        e.TreeCancelled("root", "asked to"),
        e.TaskCancelled("a", "asked to", Cause.REQUESTED),
    )
    assert tree_error("root", CANCELLED, events) == "asked to"


def test_a_cancel_that_came_before_another_end_does_not_explain_it() -> None:
    """An earlier run was cancelled; this one failed."""
    events = log(e.TreeCancelled("root", "asked to"), e.TaskFailed("a", 1, "boom", Cause.EXECUTOR_ERROR))
    assert tree_error("root", FAILED, events) == "'A' failed: boom"
