"""Rows whose content is A2A's JSON become rows as they are now; everything else in them stays, byte by byte."""

from typing import Any, get_args
from zlib import crc32

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from core.model import events as e
from core.model.content import Artifact, Part, Said
from core.model.content_json import part_of
from core.model.errors import StorageError
from core.model.events import Event, Recorded
from core.model.task import Question, Task, TaskStatus, Told
from core.storage import codec, former_content
from tests.core.contents import artifact, said
from tests.core.model.test_content_json import written
from tests.core.storage.former import former_event, former_state, former_told, told_by

parts = st.lists(st.builds(part_of, written | st.just("bare")), max_size=3).map(tuple)
maybe = st.none() | st.just({}) | st.just({"parts": 2.0})
spoken = st.builds(Said, parts, maybe, st.sampled_from([(), ("u",)]))
some_said = st.builds(
    Said, parts, maybe, st.sampled_from([(), ("u",)]), st.none() | st.just("m"), st.none() | st.just("c")
)
artifacts = st.builds(
    Artifact, artifact_id=st.just("a"), parts=parts, name=st.none() | st.text(max_size=2), metadata=maybe
)
contents = st.one_of(
    st.builds(e.MessageReceived, st.just("t"), some_said),
    st.builds(e.MessageSent, st.just("t"), st.just(1), spoken, st.booleans()),
    st.builds(e.ArtifactAdded, st.just("t"), st.just(1), artifacts, st.booleans()),
    st.builds(e.InputRequested, st.just("t"), st.just(1), parts),
    st.builds(e.InputProvided, st.just("t"), st.just({"messageId": "m"}), st.none() | some_said),
)


def in_one_attempt(events: list[Event]) -> list[Event]:
    """Whose first piece of an artifact appends to nothing, and all others to it."""
    first = next((n for n, event in enumerate(events) if isinstance(event, e.ArtifactAdded)), 0)
    return [
        replace(each, append=n > first) if isinstance(each, e.ArtifactAdded) else each for n, each in enumerate(events)
    ]


def recorded(event: Event) -> Recorded:
    return Recorded(tree_id="t", seq=2, at=1.5, name="x", tree_status=TaskStatus.IN_PROGRESS, event=event)


@given(contents)
def test_an_event_is_the_one_that_was_stored(event: Event) -> None:
    body = former_event(recorded(event))
    assert codec.read_event(former_content.event_row(("t", 2, body, crc32(body)))) == recorded(event)


def test_a_part_that_was_no_object_is_data_as_it_was_told() -> None:
    body = former_event(recorded(e.MessageSent("t", 1, said("x", "y")))).replace(b'{"text":"x"}', b'"bare"')
    found = codec.read_event(former_content.event_row(("t", 2, body, crc32(body)))).event
    assert found == e.MessageSent("t", 1, Said((Part(data="bare"), Part(text="y"))))


@given(st.none() | parts, st.lists(st.none() | some_said, max_size=2).map(tuple))
def test_a_task_is_the_one_that_was_stored(asked: tuple[Part, ...] | None, answered: tuple[Said | None, ...]) -> None:
    task = Task(id="t", name="x", created_at=1.0, result={"question": {"parts": []}}, answer_messages=answered)
    if asked is not None:
        task = replace(task, question=Question(content=asked, keys=("k",), asked_at=2.0))
    row = codec.task_row(task)
    spec, state = row[9], former_state(task, row[11])
    found = codec.read_task(former_content.task_row(("t", task.owner, spec, crc32(spec), state, crc32(state))))
    assert found == task


@given(st.lists(contents, max_size=8).map(in_one_attempt))
def test_what_was_told_before_a_question_is_known_again(events: list[Event]) -> None:
    """Else it would be told again after the answer (`core.model.replay`)."""
    marks = former_content.Marks()
    for event in events:
        body = former_event(recorded(event))
        marks.add(body, crc32(body))
    for count in range(len(events) + 1):  # also where more was told after the answer
        told = told_by(events[:count], lambda content: content)
        assert marks.now(former_told(told, events[:count])) == told


def test_what_is_not_in_the_log_keeps_its_mark() -> None:
    told = Told((7,), {"a": (1, 2)})
    marks = former_content.Marks()
    assert marks.now(told) == told
    other = former_event(recorded(e.ArtifactAdded("t", 1, artifact("a", "x"))))
    for body, crc in ((other, crc32(other)), (other, 7), ("text", 7), (b"[]", crc32(b"[]"))):
        marks.add(body, crc)
    assert marks.now(told) == told


def test_the_kinds_are_those_of_the_events_that_have_content() -> None:
    kinds = {e.KINDS[kind] for kind in get_args(Event) if {"artifact", "parts"} & set(kind.__struct_fields__)}
    kinds |= {e.KINDS[kind] for kind in (e.MessageReceived, e.MessageSent, e.InputProvided)}
    assert set(former_content.KINDS) == kinds


def test_an_event_without_content_stays_as_it_is() -> None:
    """Its message is a text; and a change of a task has whatever its caller wrote."""
    for event in (e.TaskProgressed("t", 1, 0.5, "half"), e.TaskUpdated("t", {"inputs": {"parts": [1], "message": {}}})):
        body = msgspec.json.encode(recorded(event))
        assert former_content.event_body(body) is body


def test_what_a_caller_wrote_stays_as_it_was_byte_by_byte() -> None:
    body = former_event(recorded(e.MessageReceived("t", said("x", metadata={"n": "N"}))))
    body = body.replace(b'"N"', b"1.50e0").replace(b'{"text":"x"}', b'{"data":{"a":1.0,"mediaType":2.00}}')
    changed = former_content.event_body(body)
    assert b'"metadata":{"n":1.50e0}' in changed and b'{"data":{"a":1.0,"mediaType":2.00}}' in changed


@pytest.mark.parametrize("harm", [lambda body: body[:-1], lambda body: b"[]", lambda body: None, lambda body: b"{}"])
@pytest.mark.parametrize("is_told", [True, False])
def test_a_corrupt_row_is_left_alone_and_stays_corrupt(harm: Any, is_told: bool) -> None:
    body = harm(former_event(recorded(e.MessageSent("t", 1, said("x")))))
    row = ("t", 2, body, crc32(body or b"") if is_told else 7)
    assert tuple(former_content.event_row(row)) == row
    with pytest.raises(StorageError, match="The stored event 2 of tree t is corrupt"):
        codec.read_event(row)


@pytest.mark.parametrize(
    ("schema", "is_former"), [(None, False), ("0001", True), ("0006", True), ("0007", False), ("9999", False)]
)
def test_the_schemas_before_have_such_rows(schema: str | None, is_former: bool) -> None:
    assert former_content.is_former(schema) is is_former
