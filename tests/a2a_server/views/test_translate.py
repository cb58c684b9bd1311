"""From the log to A2A values."""

from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace

from a2a_server.protocol import types as wire
from a2a_server.protocol.states import STATES
from a2a_server.protocol.types import TaskState
from a2a_server.views.translate import answer_value, result_parts, snapshot, updates, wire_parts
from core.executors.base import Parts
from core.model import events as e
from core.model.content_json import part_of
from core.model.events import Event, Recorded
from core.model.task import Cause, TaskStatus, TreeHead
from tests.core.contents import artifact as artifact_of
from tests.core.contents import said as said_of
from tests.core.contents import texts as texts_of

USER = said_of("hi", message_id="m", context_id="ctx", task_id="root")


def log(*events: Event, status: TaskStatus = TaskStatus.IN_PROGRESS) -> list[Recorded]:
    numbers = count(1)
    return [
        Recorded(
            tree_id="root",
            seq=next(numbers),
            at=1_700_000_000.5,
            name=f"name of {event.task_id}",
            tree_status=event.status if isinstance(event, e.TreeFinished) else status,
            event=event,
        )
        for event in events
    ]


def head(status: TaskStatus = TaskStatus.IN_PROGRESS, **changes: Any) -> TreeHead:
    given = {"id": "root", "status": status, "context_id": "ctx", "created_at": 1.0, "updated_at": 1_700_000_000.25}
    return TreeHead(**(given | changes))


def chunk(text: str, *, append: bool = False, artifact_id: str = "a", task_id: str = "root") -> e.ArtifactAdded:
    return e.ArtifactAdded(task_id, 1, artifact_of(artifact_id, text), append)


def texts(artifact: wire.Artifact) -> list[str | None]:
    return [part.text for part in artifact.parts]


def test_every_status_has_a_state_of_its_own() -> None:
    assert set(STATES) == set(TaskStatus)
    assert set(STATES.values()) == set(TaskState)


@pytest.mark.parametrize(
    ("result", "parts"),
    [
        ("text", [{"text": "text"}]),
        ({"a": 1}, [{"data": {"a": 1}}]),
        (7, [{"data": 7}]),
        ({"$parts": [{"url": "https://example.com"}]}, [{"url": "https://example.com"}]),
        ({"$parts": [], "more": 1}, [{"data": {"$parts": [], "more": 1}}]),
    ],
)
def test_result_becomes_parts(result: Any, parts: Any) -> None:
    assert result_parts(result) == tuple(map(part_of, parts))


def test_part_that_breaks_the_rules_is_passed_on_as_data() -> None:
    """Nothing of an executor's output is lost because its author knows the parts of another version."""
    assert wire_parts(map(part_of, [{"kind": "text", "value": "x"}, "bare"])) == [
        wire.Part(data={"kind": "text", "value": "x"}),
        wire.Part(data="bare"),
    ]


def test_part_may_be_written_in_snake_case() -> None:
    assert wire_parts([part_of({"text": "x", "media_type": "text/markdown"})])[0].media_type == "text/markdown"


def test_append_extends_an_artifact_and_anything_else_replaces_it() -> None:
    extended = snapshot(head(), "root", log(chunk("a"), chunk("b", append=True)))
    assert [texts(artifact) for artifact in extended.artifacts or []] == [["a", "b"]]
    replaced = snapshot(head(), "root", log(chunk("a"), chunk("b")))
    assert [texts(artifact) for artifact in replaced.artifacts or []] == [["b"]]


def test_result_of_a_node_is_an_artifact_with_its_id_and_name() -> None:
    (artifact,) = snapshot(head(), "root", log(e.TaskCompleted("child", 1, "done"))).artifacts or []
    assert (artifact.artifact_id, artifact.name, texts(artifact)) == ("child", "name of child", ["done"])


@pytest.mark.parametrize("result", [None, {"$parts": []}])
def test_result_of_nothing_is_no_artifact(result: Any) -> None:
    assert snapshot(head(), "root", log(e.TaskCompleted("child", 1, result))).artifacts is None


def test_same_artifact_id_of_two_nodes_makes_two_artifacts_of_the_root() -> None:
    events = log(chunk("x", task_id="n1"), chunk("y", task_id="n2", append=True), chunk("z", task_id="root"))
    artifacts = snapshot(head(), "root", events).artifacts or []
    assert [(each.artifact_id, texts(each)) for each in artifacts] == [("n1.a", ["x"]), ("n2.a", ["y"]), ("a", ["z"])]


def test_child_keeps_the_artifact_ids_that_its_executor_chose() -> None:
    (artifact,) = snapshot(head(), "n1", log(chunk("x", task_id="n1"))).artifacts or []
    assert artifact.artifact_id == "a"


def test_artifacts_key_is_absent_when_they_are_not_wanted() -> None:
    assert snapshot(head(), "root", log(chunk("a")), with_artifacts=False).artifacts is None


def test_history_is_chronological_and_repeats_repeated_message_ids() -> None:
    said = e.MessageSent("root", 1, said_of("answer"))
    events = log(e.MessageReceived("root", USER), said, e.MessageReceived("root", USER), said)
    task = snapshot(head(), "root", events)
    assert [(m.role, m.parts[0].text) for m in task.history] == [
        (wire.Role.USER, "hi"),
        (wire.Role.AGENT, "answer"),
        (wire.Role.USER, "hi"),
    ]
    assert {m.context_id for m in task.history} == {"ctx"}


def test_artifact_of_many_pieces_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in proportion to the pieces: a snapshot is made on the event loop."""
    given: list[int] = []

    def counting(**fields: Any) -> wire.Artifact:
        given.append(len(fields["parts"]))
        return wire_artifact(**fields)

    wire_artifact = wire.Artifact
    monkeypatch.setattr(wire, "Artifact", counting)
    pieces = [chunk(str(n), append=n > 0) for n in range(300)]

    (artifact,) = snapshot(head(), "root", log(*pieces)).artifacts or []

    assert texts(artifact) == [str(n) for n in range(300)]
    assert sum(given) == 600  # each piece, and the whole


def test_later_pieces_complete_what_is_said_of_an_artifact() -> None:
    first = artifact_of("a", "1", name="old", metadata={"x": 1, "y": 1})
    second = artifact_of("a", "2", description="words", metadata={"y": 2})
    third = artifact_of("a", "3", name="new")
    events = log(*(e.ArtifactAdded("root", 1, piece, piece is not first) for piece in (first, second, third)))

    (artifact,) = snapshot(head(), "root", events).artifacts or []

    assert texts(artifact) == ["1", "2", "3"]
    assert (artifact.name, artifact.description, artifact.metadata) == ("new", "words", {"x": 1, "y": 2})


@pytest.mark.parametrize(("length", "kept"), [(None, 3), (0, 0), (1, 1), (9, 3)])
def test_history_length_keeps_the_latest(length: int | None, kept: int) -> None:
    received = [e.MessageReceived("root", replace(USER, message_id=str(n))) for n in range(3)]
    task = snapshot(head(), "root", log(*received), history_length=length)
    assert [m.message_id for m in task.history] == ["0", "1", "2"][3 - kept :]


def test_timestamp_is_that_of_the_status_in_utc_milliseconds() -> None:
    assert snapshot(head(), "root", []).status.timestamp == "2023-11-14T22:13:20.250Z"


def test_waiting_root_shows_the_oldest_question_that_is_still_open() -> None:
    events = log(
        e.InputRequested("n1", 1, texts_of("one?")),
        e.InputRequested("n2", 1, texts_of("two?")),
        e.InputProvided("n1", "answer"),
    )
    status = snapshot(head(TaskStatus.INPUT_REQUIRED), "root", events).status
    assert status.state is TaskState.INPUT_REQUIRED
    assert status.message is not None
    assert status.message.parts[0].text == "two?"


def test_failed_root_tells_its_own_error_before_a_childs() -> None:
    child = e.TaskFailed("n1", 1, "child broke", Cause.EXECUTOR_ERROR)
    own = e.GroupEnded("root", TaskStatus.FAILED, "own words", Cause.CHILD_FAILED)
    for events, expected in (
        ([child], "'name of n1' failed: child broke"),
        ([child, own], "own words"),
    ):
        message = snapshot(head(TaskStatus.FAILED), "root", log(*events)).status.message
        assert message is not None
        assert message.parts[0].text == expected


def test_completed_task_keeps_what_its_executor_said_last() -> None:
    events = log(*(e.MessageSent("root", 1, said_of(text)) for text in ("a", "b")))
    message = snapshot(head(TaskStatus.COMPLETED), "root", events).status.message
    assert message is not None
    assert message.parts[0].text == "b"


def test_child_shows_its_own_status_and_not_the_trees() -> None:
    events = log(e.TaskStarted("n1", 1), e.TaskFailed("n1", 1, "broke", Cause.EXECUTOR_ERROR))
    task = snapshot(head(), "n1", events)
    assert task.status.state is TaskState.FAILED
    assert task.status.message is not None
    assert task.status.message.parts[0].text == "broke"
    assert task.metadata == {"rootTaskId": "root", "seq": 0}


def test_child_without_events_is_submitted() -> None:
    assert snapshot(head(), "n1", []).status.state is TaskState.SUBMITTED


def test_stream_of_the_root_tells_each_nodes_status_beside_the_trees() -> None:
    (recorded,) = log(e.TaskStarted("n1", 1))
    (update,) = updates(recorded, "root", "ctx")
    assert update.status_update is not None
    assert update.status_update.status.state is TaskState.WORKING
    assert update.status_update.metadata == {
        "nodeId": "n1",
        "nodeName": "name of n1",
        "nodeStatus": "in_progress",
        "seq": 1,
    }


def test_stream_of_a_child_tells_of_nobody_else() -> None:
    mine, other, end = log(
        e.TaskCompleted("n1", 1, None), e.TaskCompleted("n2", 1, None), e.TreeFinished("root", TaskStatus.COMPLETED)
    )
    (update,) = updates(mine, "n1", "ctx")
    assert update.status_update is not None
    assert update.status_update.status.state is TaskState.COMPLETED
    assert updates(other, "n1", "ctx") == updates(end, "n1", "ctx") == []


def test_completion_is_its_result_as_a_whole_artifact_and_then_the_status() -> None:
    (recorded,) = log(e.TaskCompleted("n1", 1, {"a": 1}))
    artifact, status = updates(recorded, "root", "ctx")
    assert artifact.artifact_update is not None
    assert artifact.artifact_update.last_chunk
    assert not artifact.artifact_update.append
    assert status.status_update is not None
    assert status.status_update.metadata["nodeStatus"] == "completed"


@pytest.mark.parametrize(
    ("event", "details"),
    [
        (e.TaskProgressed("n1", 1, 0.5, "half"), {"progress": 0.5, "progressMessage": "half"}),
        (
            e.AttemptFailed("n1", 1, "again", Cause.EXECUTOR_ERROR, 1_700_000_001.0),
            {"error": "again", "retryAt": "2023-11-14T22:13:21.000Z"},
        ),
        (e.TaskCancelled("n1", "stop", Cause.REQUESTED), {"error": "stop"}),
        (e.TaskRejected("n1", 1, "no"), {"error": "no"}),
    ],
)
def test_details_of_a_node_are_in_the_metadata(event: Event, details: dict[str, Any]) -> None:
    (recorded,) = log(event)
    (update,) = updates(recorded, "root", "ctx")
    assert update.status_update is not None
    assert details.items() <= update.status_update.metadata.items()
    assert update.status_update.status.message is None


@pytest.mark.parametrize(
    "event",
    [
        e.TreeCreated(1, "root"),
        e.MessageReceived("root", USER),
        e.RunStarted("root", 1),
        e.AttemptLost("n1", 1),
        e.TaskUpdated("n1", {}),
        e.TreeCancelled("root", "stop"),
    ],
)
def test_these_events_are_not_told(event: Event) -> None:
    (recorded,) = log(event)
    assert updates(recorded, "root", "ctx") == []


@pytest.mark.parametrize(
    ("parts", "answer"),
    [
        ([{"text": "a"}], "a"),
        ([{"text": "a"}, {"text": "b"}], "a\nb"),
        ([{"data": {"x": 1}}], {"x": 1}),
        ([{"data": None}], None),
        ([{"text": "a"}, {"data": 1}], [{"text": "a"}, {"data": 1}]),
        ([{"url": "https://example.com"}], [{"url": "https://example.com"}]),
    ],
)
def test_answer_is_the_text_the_data_or_all_parts(parts: Any, answer: Any) -> None:
    said = wire.Message(message_id="m", role=wire.Role.USER, parts=wire_parts(map(part_of, parts)))
    assert answer_value(said) == answer


def test_parts_class_marks_a_result_as_parts() -> None:
    assert result_parts({"$parts": list(Parts([{"text": "x"}]))}) == texts_of("x")
