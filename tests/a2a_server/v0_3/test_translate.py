"""Translation between v0.3 and v1.0: nothing that both can say is lost or changed on the way."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2a_server.protocol import types as v1
from a2a_server.protocol.codec import decode, encode
from a2a_server.protocol.errors import InvalidParams
from a2a_server.v0_3 import translate as to
from a2a_server.v0_3 import types as wire

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
objects = st.dictionaries(st.text(max_size=8), values, max_size=3)
names = st.text(min_size=1, max_size=20)
texts = st.builds(v1.Part, text=st.text(), metadata=objects)
raws = st.builds(v1.Part, raw=st.binary(max_size=30), filename=st.text(), media_type=st.text(), metadata=objects)
urls = st.builds(v1.Part, url=st.text(), filename=st.text(), media_type=st.text(), metadata=objects)
datas = st.builds(v1.Part, data=values, metadata=objects)
parts = st.lists(texts | raws | urls | datas, min_size=1, max_size=4)
messages = st.builds(
    v1.Message,
    message_id=names,
    role=st.sampled_from(v1.Role),
    parts=parts,
    context_id=st.text(max_size=8),
    task_id=st.text(max_size=8),
    metadata=objects,
    extensions=st.lists(names, max_size=2),
    reference_task_ids=st.lists(names, max_size=2),
)


def said(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"kind": "message", "messageId": "m", "role": "user", "parts": list(parts) or [text("hi")], **more}


def text(content: str) -> dict[str, Any]:
    return {"kind": "text", "text": content}


def sent(configuration: Any = None, **more: Any) -> v1.SendMessageRequest:
    params = {"message": said(**more)} | ({} if configuration is None else {"configuration": configuration})
    return to.send_request(decode(params, wire.MessageSendParams))


def told(value: Any) -> Any:
    return json.loads(encode(value))


@given(messages)
def test_message_comes_back_from_the_wire_as_it_was(message: v1.Message) -> None:
    """Out, as JSON, and in again: integers stay integers, data that is no object is unwrapped."""
    given_back = decode(told(to.message_of(message)), wire.Message)
    assert to.message(given_back) == message


@pytest.mark.parametrize("data", [None, 1, 2**60 + 1, "x", True, [1, {"a": 2}]])
def test_data_that_is_no_object_goes_out_wrapped_and_marked(data: Any) -> None:
    out = told(to.part_of(v1.Part(data=data, metadata={"a": 1})))
    assert out == {"kind": "data", "data": {"value": data}, "metadata": {"a": 1, "data_part_compat": True}}


def test_data_that_is_an_object_goes_out_as_it_is() -> None:
    assert told(to.part_of(v1.Part(data={"value": 1}))) == {"kind": "data", "data": {"value": 1}}


def test_an_unmarked_value_comes_in_as_the_object_that_it_is() -> None:
    for metadata in (None, {"data_part_compat": False}):
        part = decode(said({"kind": "data", "data": {"value": 1}, "metadata": metadata}), wire.Message).parts[0]
        assert to.part(part).data == {"value": 1}


def test_files_are_content_or_an_address() -> None:
    content = {"kind": "file", "file": {"bytes": "aGk=", "mimeType": "text/plain", "name": "hi.txt"}}
    address = {"kind": "file", "file": {"uri": "https://example.com/x"}}
    message = to.message(decode(said(content, address), wire.Message))
    assert message.parts == [
        v1.Part(raw=b"hi", media_type="text/plain", filename="hi.txt"),
        v1.Part(url="https://example.com/x"),
    ]
    assert told(to.message_of(message))["parts"] == [content, address]


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"kind": "video", "video": "x"}, ".kind"),
        ({"text": "no kind"}, ""),
        ({"kind": "text"}, ""),
        ({"kind": "data", "data": [1]}, ".data"),
        ({"kind": "data", "data": "x"}, ".data"),
        ({"kind": "file", "file": {}}, ".file"),
        ({"kind": "file", "file": {"bytes": "aGk=", "uri": "https://example.com"}}, ".file"),
        ({"kind": "file", "file": {"bytes": "not base64!"}}, ".file.bytes"),
        ({"kind": "file", "file": "x"}, ".file"),
        ("x", ""),
        (None, ""),
    ],
)
def test_a_part_of_no_known_shape_is_named(wrong: Any, where: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        decode({"message": said(text("fine"), wrong)}, wire.MessageSendParams)
    assert [problem.field for problem in refused.value.violations] == [f"message.parts[1]{where}"]


@pytest.mark.parametrize(("kind", "word"), [(None, "null"), ([], "array"), ({}, "object")])
def test_a_kind_of_a_wrong_type_is_told_in_the_words_of_json(kind: Any, word: str) -> None:
    """Of a tag the validator says Python's."""
    with pytest.raises(InvalidParams) as refused:
        decode({"message": said({"kind": kind})}, wire.MessageSendParams)
    assert [problem.message for problem in refused.value.violations] == [f"expected `string`, got `{word}`"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"parts": []}, "message.parts"),
        ({"parts": "hi"}, "message.parts"),
        ({"messageId": ""}, "message.messageId"),
        ({"role": "ROLE_USER"}, "message.role"),
        ({"role": 1}, "message.role"),
    ],
)
def test_a_wrong_message_is_named(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParams) as refused:
        decode({"message": said() | change}, wire.MessageSendParams)
    assert [problem.field for problem in refused.value.violations] == [field]


def test_null_is_unset_and_what_is_unknown_is_ignored() -> None:
    message = said(contextId=None, metadata=None, later={"x": 1})
    assert to.message(decode(message, wire.Message)) == v1.Message(
        message_id="m", role=v1.Role.USER, parts=[v1.Part(text="hi")]
    )


@pytest.mark.parametrize(
    ("blocking", "returns"), [(None, False), ({"blocking": None}, False), ({"blocking": True}, False)]
)
def test_an_answer_is_waited_for_unless_the_client_says_otherwise(blocking: Any, returns: bool) -> None:
    assert sent(blocking).configuration.return_immediately is returns
    assert sent({"blocking": False}).configuration.return_immediately


@pytest.mark.parametrize(
    ("given_length", "length"), [({}, None), ({"historyLength": 0}, None), ({"historyLength": 3}, 3)]
)
def test_a_history_length_of_zero_is_none_at_all(given_length: dict[str, int], length: int | None) -> None:
    assert sent(given_length).configuration.history_length == length
    query = decode({"id": "t", **given_length}, wire.TaskQueryParams)
    assert to.get_request(query).history_length == length


def test_a_negative_history_length_is_refused() -> None:
    for params, type_ in (
        ({"id": "t", "historyLength": -1}, wire.TaskQueryParams),
        ({"message": said(), "configuration": {"historyLength": -1}}, wire.MessageSendParams),
    ):
        with pytest.raises(InvalidParams):
            decode(params, type_)


def test_every_state_has_a_spelling() -> None:
    assert set(to.STATES) == set(v1.TaskState)
    assert to.STATES[v1.TaskState.INPUT_REQUIRED] == "input-required"


TASK = v1.Task(
    id="t",
    context_id="c",
    status=v1.TaskStatus(state=v1.TaskState.WORKING, timestamp="2026-01-31T12:00:00.000Z"),
    artifacts=[v1.Artifact(artifact_id="a", name="n", parts=[v1.Part(text="x")])],
    history=[v1.Message(message_id="m", role=v1.Role.USER, parts=[v1.Part(text="hi")])],
)


def test_task_says_what_it_is() -> None:
    assert told(to.send_result(v1.SendMessageResponse(task=TASK))) == {
        "kind": "task",
        "id": "t",
        "contextId": "c",
        "status": {"state": "working", "timestamp": "2026-01-31T12:00:00.000Z"},
        "artifacts": [{"artifactId": "a", "name": "n", "parts": [text("x")]}],
        "history": [said()],
    }


@pytest.mark.parametrize("is_last", [True, False])
def test_a_status_update_says_whether_the_stream_ends(is_last: bool) -> None:
    update = v1.TaskStatusUpdateEvent(
        task_id="t", context_id="c", status=v1.TaskStatus(state=v1.TaskState.AUTH_REQUIRED), metadata={"a": 1}
    )
    assert told(to.event_of(v1.StreamResponse(status_update=update), is_last=is_last)) == {
        "kind": "status-update",
        "taskId": "t",
        "contextId": "c",
        "status": {"state": "auth-required"},
        "final": is_last,
        "metadata": {"a": 1},
    }


def test_the_other_events_are_bare_too() -> None:
    chunk = v1.TaskArtifactUpdateEvent(
        task_id="t", context_id="c", artifact=v1.Artifact(artifact_id="a", parts=[v1.Part(text="x")]), append=True
    )
    assert told(to.event_of(v1.StreamResponse(artifact_update=chunk), is_last=True)) == {
        "kind": "artifact-update",
        "taskId": "t",
        "contextId": "c",
        "artifact": {"artifactId": "a", "parts": [text("x")]},
        "append": True,
        "lastChunk": False,
    }
    assert told(to.event_of(v1.StreamResponse(task=TASK), is_last=False))["kind"] == "task"
    message = v1.StreamResponse(message=TASK.history[0])
    assert told(to.event_of(message, is_last=True)) == told(
        to.send_result(v1.SendMessageResponse(message=message.message))
    )


WEBHOOK = {
    "url": "https://example.com/hook",
    "id": "p1",
    "token": "t0",
    "authentication": {"schemes": ["Bearer", "Basic"], "credentials": "secret"},
}


def test_webhook_is_authenticated_by_the_first_scheme() -> None:
    params = decode({"taskId": "t", "pushNotificationConfig": WEBHOOK}, wire.TaskPushNotificationConfig)
    flat = to.create_push_request(params)
    assert flat == v1.TaskPushNotificationConfig(
        url="https://example.com/hook",
        id="p1",
        task_id="t",
        token="t0",
        authentication=v1.AuthenticationInfo(scheme="Bearer", credentials="secret"),
    )
    assert told(to.push_config_of(flat)) == {
        "taskId": "t",
        "pushNotificationConfig": WEBHOOK | {"authentication": {"schemes": ["Bearer"], "credentials": "secret"}},
    }
    assert sent(
        {"pushNotificationConfig": WEBHOOK}
    ).configuration.task_push_notification_config == v1.TaskPushNotificationConfig(
        url=flat.url, id=flat.id, token=flat.token, authentication=flat.authentication
    )


def test_webhook_needs_no_more_than_an_address() -> None:
    """Without an id it is the task's only one of this kind, whose id its client knows without being told."""
    config = {"url": "https://example.com/hook"}
    params = decode({"taskId": "t", "pushNotificationConfig": config}, wire.TaskPushNotificationConfig)
    kept = told(to.push_config_of(to.create_push_request(params)))["pushNotificationConfig"]
    assert kept == config | {"id": "default"}
