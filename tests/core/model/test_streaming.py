"""Tests of core.model.streaming: each event as clients of `tasks.*` see it (semantics §7)."""

from typing import Any, get_args

import pytest

from core.model import events as e
from core.model.events import Recorded
from core.model.streaming import stream_event
from core.model.task import Cause, TaskStatus
from tests.core.contents import artifact, said, texts


def told(event: e.Event) -> dict[str, Any] | None:
    recorded = Recorded(tree_id="root", seq=7, at=0.0, name="work", tree_status=TaskStatus.IN_PROGRESS, event=event)
    return stream_event(recorded)


CASES: list[tuple[e.Event, str, str, dict[str, Any]]] = [
    (e.TaskStarted("t", 2), "task_start", "in_progress", {"attempt": 2}),
    (e.TaskStarted("t", 1, (), {"x": "a"}), "task_start", "in_progress", {"inputs_from": {"x": "a"}}),
    (e.GroupStarted("t"), "task_start", "in_progress", {}),
    (e.TaskProgressed("t", 1, 0.5, "half"), "progress", "in_progress", {"progress": 0.5, "message": "half"}),
    (e.MessageSent("t", 1, said("hi")), "progress", "in_progress", {"message": [{"text": "hi"}]}),
    (e.InputProvided("t", "x"), "progress", "in_progress", {}),
    (
        e.AttemptFailed("t", 1, "boom", Cause.TIMEOUT, 60.0),
        "progress",
        "in_progress",
        {"error": "boom", "retry_at": "1970-01-01T00:01:00.000Z"},
    ),
    (e.AttemptLost("t", 1), "progress", "in_progress", {}),
    (
        e.ArtifactAdded("t", 1, artifact("a", "x"), True, True),
        "artifact",
        "in_progress",
        {"artifact": {"artifactId": "a", "parts": [{"text": "x"}]}, "append": True, "last_chunk": True},
    ),
    (e.InputRequested("t", 1, texts("?")), "input_required", "input_required", {"question": [{"text": "?"}]}),
    (e.InputRequested("t", 1, (), auth=True), "input_required", "auth_required", {}),
    (e.TaskCompleted("t", 1, {"n": 1}), "task_completed", "completed", {"result": {"n": 1}, "progress": 1.0}),
    (
        e.TaskSkipped("t", "not needed"),
        "task_completed",
        "completed",
        {"result": None, "error": None, "progress": 1.0, "cause": "skipped", "message": "not needed"},
    ),
    (
        e.GroupEnded("t", TaskStatus.COMPLETED, None, Cause.SKIPPED),
        "task_completed",
        "completed",
        {"progress": 1.0, "cause": "skipped"},
    ),
    (e.TaskFailed("t", 1, "boom", Cause.EXECUTOR_ERROR), "task_failed", "failed", {"error": "boom"}),
    (e.TaskRejected("t", 1, "no"), "task_failed", "rejected", {"error": "no"}),
    (e.TaskCancelled("t", "stop", Cause.REQUESTED), "task_cancelled", "cancelled", {"error": "stop"}),
    (e.GroupEnded("t", TaskStatus.COMPLETED), "task_completed", "completed", {"error": None}),
    (e.GroupEnded("t", TaskStatus.FAILED, "boom"), "task_failed", "failed", {"error": "boom"}),
    (e.TreeFinished("root", TaskStatus.FAILED), "final", "failed", {}),
]
SILENT: list[e.Event] = [
    e.TreeCreated(1, "root"),
    e.MessageReceived("root", said("x")),
    e.RunStarted("root", 1),
    e.TaskUpdated("t", {}),
    e.TreeCancelled("root", "stop"),
]


@pytest.mark.parametrize(("event", "kind", "status", "fields"), CASES, ids=lambda value: type(value).__name__)
def test_an_event_is_told_with_its_fields(event: e.Event, kind: str, status: str, fields: dict[str, Any]) -> None:
    found = told(event)
    assert found is not None
    assert (found["type"], found["status"]) == (kind, status)
    assert found | fields == found
    assert (found["task_id"], found["root_task_id"], found["name"], found["seq"]) == (
        event.task_id,
        "root",
        "work",
        7,
    )
    assert found["timestamp"] == "1970-01-01T00:00:00.000Z"
    assert {"progress", "result", "error"} <= found.keys()


@pytest.mark.parametrize("event", SILENT, ids=lambda event: type(event).__name__)
def test_bookkeeping_is_not_told(event: e.Event) -> None:
    assert told(event) is None


def test_every_kind_of_event_is_decided() -> None:
    """A new event must say here whether clients are told."""
    assert {type(case[0]) for case in CASES} | {type(event) for event in SILENT} == set(get_args(e.Event))
