"""What is chosen of a long log: all that a snapshot needs where it fits, else what is worth most."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2a_server.views import selection
from a2a_server.views.selection import select, select_output
from a2a_server.views.translate import artifacts, event_kinds, snapshot
from core.model import events as e
from core.model.events import KINDS, Event, Recorded
from core.model.jsonvalue import json_size
from core.model.task import TaskStatus, TreeHead
from core.storage.base import EventPlace
from tests.a2a_server.test_compacted import artifacts as some_artifacts
from tests.a2a_server.test_compacted import others
from tests.a2a_server.views.test_translate import head, log
from tests.core.contents import said

MIB = 1024 * 1024

received = st.builds(
    lambda text: e.MessageReceived("r", said(text, message_id="m", context_id="c", task_id="r")),
    st.sampled_from("xyz"),
)
some_logs = st.lists(st.one_of(some_artifacts, others, received), max_size=30).map(
    lambda told: [
        Recorded(tree_id="r", seq=n, at=float(n), name="x", tree_status=TaskStatus.IN_PROGRESS, event=event)
        for n, event in enumerate(told, 1)
    ]
)


def places_of(events: Sequence[Recorded]) -> list[EventPlace]:
    """The latest first."""
    return [EventPlace(r.seq, KINDS[type(r.event)], r.task_id, json_size(r)) for r in reversed(events)]


def place(seq: int, kind: str, size: float = 100, task_id: str = "r") -> EventPlace:
    return EventPlace(seq, kind, task_id, int(size))


@given(some_logs, st.sampled_from(["r", "b", "c"]), st.sampled_from(list(TaskStatus)), st.booleans(), st.data())
def test_a_selection_with_room_for_everything_makes_the_same_snapshot(
    told: list[Recorded], task_id: str, status: TaskStatus, with_artifacts: bool, data: st.DataObject
) -> None:
    length = data.draw(st.sampled_from([None, 0, 1, 2, 5]))
    top = TreeHead(id="r", version=len(told), status=status, run=1, created_at=0.0, updated_at=0.0)
    wanted = event_kinds(top, task_id, with_artifacts=True, with_history=length != 0)
    read = [
        each
        for each in told
        if task_id in ("r", each.task_id) and (wanted is None or KINDS[type(each.event)] in wanted)
    ]
    found = select(
        places_of(read),
        task_id,
        status=status if task_id == "r" else None,
        history_length=length,
        with_artifacts=with_artifacts,
    )

    asked: dict[str, Any] = {"history_length": length, "with_artifacts": with_artifacts}
    chosen = [each for each in read if each.seq in found.seqs]
    made = snapshot(top, task_id, chosen, shown=found.shown, **asked)
    assert made == snapshot(top, task_id, read, **asked)
    assert found.size >= sum(json_size(each) for each in chosen)


@given(some_logs)
def test_selected_output_makes_the_same_artifacts(told: list[Recorded]) -> None:
    read = [each for each in told if KINDS[type(each.event)] in ("artifact_added", "task_completed")]
    found = select_output(places_of(read))
    assert artifacts("r", [each for each in read if each.seq in found.seqs]) == artifacts("r", read)


def test_the_latest_messages_are_kept_and_one_at_least() -> None:
    long = [place(seq, "message_received", 9 * MIB) for seq in range(13, 0, -1)]
    found = select(long, "r", status=TaskStatus.IN_PROGRESS)
    assert (found.seqs, found.shown.history, found.shown.cut) == ((13,), 13, ("history",))
    short = [place(seq, "message_received", 3 * MIB) for seq in range(13, 0, -1)]
    found = select(short, "r", status=TaskStatus.IN_PROGRESS)
    assert (found.seqs, found.shown.history, found.shown.cut) == ((12, 13), 12, ("history",))


@pytest.mark.parametrize("length", [0, 1, 5])
def test_the_length_of_the_history_bounds_what_is_read(length: int) -> None:
    said = [place(seq, "message_received", 1000) for seq in range(13, 0, -1)]
    found = select(said, "r", status=TaskStatus.IN_PROGRESS, history_length=length)
    assert found.seqs == tuple(range(14 - length, 14)) and found.shown.cut == ()


# What is in the log, the latest first, with MiB; what is read; what is cut.
BOUNDS: dict[str, tuple[list[tuple[str, float, str]], set[int], tuple[str, ...]]] = {
    "answers to questions are not read": (
        [("input_provided", 10, "r"), ("input_requested", 5, "r"), ("message_received", 1, "r")],
        {1, 2},
        (),
    ),
    "the open question is": ([("input_requested", 10, "r"), ("input_provided", 10, "r")], {2}, ()),
    "of two open questions the oldest one": (
        [("input_requested", 16, "b"), ("input_requested", 15, "c")],
        {1},
        ("history",),
    ),
    "of several results of a node the latest": (
        [("task_completed", 10, "b"), ("task_completed", 10, "c"), ("task_completed", 10, "b")],
        {2, 3},
        (),
    ),
    "results that do not fit are left out, the oldest ones first": (
        [
            ("task_completed", 10, "b"),
            ("task_completed", 10, "c"),
            ("task_completed", 10, "d"),
            ("task_completed", 10, "f"),
        ],
        {2, 3, 4},
        ("artifacts",),
    ),
    "artifacts of a node are whole or not there": (
        [("artifact_added", 10, "b"), ("artifact_added", 10, "c"), ("artifact_added", 20.5, "b")],
        {2},
        ("artifacts",),
    ),
    "a longest result, last word and message fit together": (
        [("task_completed", 9.9, "r"), ("message_sent", 9.9, "r"), ("message_received", 9.9, "r")],
        {1, 2, 3},
        (),
    ),
    "a longest result and message fit together": (
        [("task_completed", 9.9, "r"), ("message_received", 9.9, "r"), ("message_received", 9.9, "r")],
        {2, 3},
        ("history",),
    ),
    "errors of many nodes are bounded": (
        [("task_failed", 0.4, "r"), ("task_failed", 0.4, "b"), ("task_failed", 0.4, "c"), ("task_failed", 0.4, "d")],
        {1, 2, 4},
        (),
    ),
}


@pytest.mark.parametrize("what", BOUNDS)
def test_what_is_worth_most_is_read(what: str) -> None:
    given_, read, cut = BOUNDS[what]
    places = [place(len(given_) - n, kind, size * MIB, node) for n, (kind, size, node) in enumerate(given_)]
    found = select(places, "r", status=TaskStatus.INPUT_REQUIRED)
    assert (set(found.seqs), found.shown.cut) == (read, cut)
    assert found.size <= selection.SNAPSHOT_BYTES


# The latest first; from which number on the last word of a tree that is over is looked for, and what is read for it.
WORDS: dict[str, tuple[list[tuple[str, int]], int, tuple[int, ...]]] = {
    "nothing came after it": ([("task_failed", 50), ("message_sent", 50)], 1, (1, 2)),
    "a result came after it": ([("task_completed", 5_000), ("message_sent", 50)], 3, ()),
    "a result of nothing, perhaps": ([("task_completed", 100), ("message_sent", 50)], 1, (1, 2)),
    "an artifact came after it": ([("task_completed", 100), ("artifact_added", 2_000), ("message_sent", 50)], 4, ()),
    "many short pieces came after it": ([("artifact_added", 1_000)] * 200 + [("message_sent", 50)], 202, ()),
    "a question came after it": ([("input_requested", 50), ("message_sent", 50)], 3, ()),
    "nothing was said": ([("task_completed", 100)], 2, ()),
    "there is nothing": ([], 0, ()),
}


@pytest.mark.parametrize("what", WORDS)
def test_the_last_word_is_read_where_nothing_longer_came_after_it(what: str) -> None:
    given_, word, read = WORDS[what]
    places = [place(len(given_) - n, kind, size) for n, (kind, size) in enumerate(given_)]
    found = select(places, "r", status=TaskStatus.COMPLETED, history_length=0, with_artifacts=False)
    assert (found.shown.word, found.seqs) == (word, read)


def test_where_not_all_events_are_looked_at_no_artifact_is_told_without_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selection, "PLACES", 3)
    places = [place(9, "task_completed"), place(8, "artifact_added"), place(7, "message_sent")]
    found = select(places, "r", status=TaskStatus.IN_PROGRESS)
    assert (found.seqs, found.shown.cut) == ((7, 9), ("artifacts", "history"))


def test_a_node_tells_its_own_status_and_error() -> None:
    told: list[Event] = [e.TaskStarted("b", 1), e.MessageSent("b", 1, said()), e.TaskProgressed("b", 1, 0.5)]
    found = select(places_of(log(*told)), "b", status=None)
    assert found.seqs == (2, 3), "the last word, and the event that says the status"
    assert snapshot(head(), "b", log(*told)[1:]).status == snapshot(head(), "b", log(*told)).status
