"""Tests of core.model.compaction: what remains of a log. That a task looks the same is tested where tasks are told."""

from typing import Any, get_args

from core.model import events as e
from core.model.compaction import KEPT, compact
from core.model.events import Event, Recorded
from core.model.task import Cause, TaskStatus
from tests.core.contents import artifact, said, text_of


def log(*events: Event) -> list[Recorded]:
    return [
        Recorded(tree_id="r", seq=n, at=float(n), name="x", tree_status=TaskStatus.IN_PROGRESS, event=event)
        for n, event in enumerate(events, 1)
    ]


def piece(
    text: str, *, node: str = "r", artifact_id: str = "a", append: bool = True, last: bool = False, **more: Any
) -> e.ArtifactAdded:
    given = artifact(artifact_id, *[text] * bool(text), **more)
    return e.ArtifactAdded(node, 1, given, append=append, last_chunk=last)


def told(events: list[Recorded]) -> list[tuple[int, Any]]:
    """Number and texts of artifacts, number and type of everything else."""
    return [
        (each.seq, text_of(each.event.artifact))
        if isinstance(each.event, e.ArtifactAdded)
        else (each.seq, type(each.event).__name__)
        for each in events
    ]


def test_steps_are_left_out_and_what_was_said_and_came_of_it_stays() -> None:
    events = log(
        e.TreeCreated(1, "r"),
        e.MessageReceived("r", said("x")),
        e.RunStarted("r", 1),
        e.TaskStarted("r", 1),
        e.TaskProgressed("r", 1, 0.5),
        e.MessageSent("r", 1, said()),
        e.AttemptFailed("r", 1, "no", Cause.EXECUTOR_ERROR, 9.0),
        e.InputRequested("r", 2, ()),
        e.InputProvided("r", "yes"),
        e.TaskCompleted("r", 2, "done"),
        e.TreeFinished("r", TaskStatus.COMPLETED),
    )

    assert compact(events) == [events[1], events[5], events[7], events[9]]


def test_every_kind_of_end_stays() -> None:
    ends = {e.TaskCompleted, e.TaskFailed, e.TaskRejected, e.TaskCancelled, e.GroupEnded, e.TreeCancelled}
    assert ends < set(get_args(KEPT))


def test_the_pieces_of_an_artifact_become_one() -> None:
    first = piece("1", append=False, name="n", description="d", metadata={"a": 1, "b": 1})
    events = log(
        first, e.TaskProgressed("r", 1, 0.5), piece("2", name=""), piece("3", name="m", metadata={"b": 2}, last=True)
    )

    (whole,) = compact(events)

    assert (whole.seq, whole.at) == (1, 1.0)
    assert whole.event == e.ArtifactAdded(
        "r",
        1,
        artifact("a", "1", "2", "3", name="m", description="d", metadata={"a": 1, "b": 2}),
        last_chunk=True,
    )


def test_what_was_not_said_of_an_artifact_is_not_said_after_it() -> None:
    (whole,) = compact(log(piece("1", append=False), piece("2", metadata={}, name="")))
    assert isinstance(whole.event, e.ArtifactAdded) and whole.event.artifact == artifact("a", "1", "2")


def test_what_is_compacted_is_not_changed_by_compacting_again() -> None:
    events = compact(log(piece("1", append=False), piece("2"), e.TaskCompleted("r", 1)))
    assert compact(events) == events


def test_pieces_that_go_on_with_what_was_compacted_before_still_do() -> None:
    (later,) = compact(log(piece("3"), piece("4")))
    assert isinstance(later.event, e.ArtifactAdded) and later.event.append


def test_an_artifact_that_begins_anew_is_not_joined_to_the_one_before() -> None:
    events = log(piece("1", append=False), piece("2", append=False), piece("3"))
    assert told(compact(events)) == [(1, "1"), (2, "23")]


def test_artifacts_of_two_nodes_are_kept_apart() -> None:
    events = log(piece("1"), piece("x", node="b"), piece("2"), piece("y", node="b"), piece("z", artifact_id="b"))
    assert told(compact(events)) == [(1, "12"), (2, "xy"), (5, "z")]


def test_pieces_after_the_result_are_not_put_before_it() -> None:
    """The result takes the place of what its task gave under its own id."""
    events = log(piece("1", artifact_id="r"), piece("k"), e.TaskCompleted("r", 1), piece("2", artifact_id="r"))
    assert told(compact([*events, *log(piece("l"))])) == [(1, "1"), (2, "kl"), (3, "TaskCompleted"), (4, "2")]


def test_no_piece_goes_past_what_was_said() -> None:
    """Whether output came after the last word decides whether the final status tells it."""
    events = log(piece("1", append=False), piece("2"), e.MessageSent("r", 1, said()), piece("3"), piece("4"))
    assert told(compact(events)) == [(1, "12"), (3, "MessageSent"), (4, "34")]


def test_a_piece_of_nothing_is_left_out() -> None:
    assert told(compact(log(piece("1"), piece("", append=False), piece("2")))) == [(1, "12")]


def test_nothing_is_moved_past_an_artifact_that_takes_another_nodes_name() -> None:
    events = log(piece("1", node="b"), piece("2", artifact_id="b.a"), piece("3", node="b"), piece("4", node="b"))
    assert told(compact(events)) == [(1, "1"), (2, "2"), (3, "34")]
