"""The wire types and their codec: what is accepted, what is refused and by which name, what is written."""

import base64
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from a2a_server.protocol import types
from a2a_server.protocol.codec import decode, decode_strict, encode, from_query
from a2a_server.protocol.errors import InvalidParams

MESSAGE: dict[str, Any] = {"messageId": "m1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


class Inner(msgspec.Struct):
    width: int = 0


class Own(msgspec.Struct):
    """Params of a method of our own."""

    task_id: str
    limit: int = 100
    items: list[Inner] = []


def fields_of(params: Any, type_: type[msgspec.Struct], *, strict: bool = False) -> list[str]:
    """The fields that are refused."""
    with pytest.raises(InvalidParams) as refused:
        (decode_strict if strict else decode)(params, type_)
    return [problem.field for problem in refused.value.violations]


def test_a_request_is_decoded_with_its_defaults() -> None:
    request = decode({"message": MESSAGE}, types.SendMessageRequest)

    assert request.message.parts == [types.Part(text="hello")]
    assert request.message.role is types.Role.USER
    assert request.message.context_id == ""
    assert request.configuration.history_length is None
    assert request.configuration.return_immediately is False


def test_absent_params_are_an_empty_object() -> None:
    assert decode(None, types.GetExtendedAgentCardRequest) == types.GetExtendedAgentCardRequest()
    assert fields_of(None, types.GetTaskRequest) == ["id"]


def test_snake_case_names_are_accepted_everywhere_in_the_known_structure() -> None:
    """The conformance kit sends proto names (ProtoJSON)."""
    message = {"message_id": "m1", "role": "ROLE_USER", "parts": [{"url": "u", "media_type": "text/plain"}]}
    configuration = {"history_length": 3, "return_immediately": True}
    request = decode({"message": message, "configuration": configuration}, types.SendMessageRequest)

    assert request.message.message_id == "m1"
    assert request.message.parts[0].media_type == "text/plain"
    assert request.configuration.history_length == 3
    assert request.configuration.return_immediately is True


def test_enum_numbers_are_accepted_and_zero_means_unset() -> None:
    assert decode({"status": 6}, types.ListTasksRequest).status is types.TaskState.INPUT_REQUIRED
    assert decode({"status": 8}, types.ListTasksRequest).status is types.TaskState.AUTH_REQUIRED
    assert decode({"status": 0}, types.ListTasksRequest).status is None
    assert decode({"status": "TASK_STATE_UNSPECIFIED"}, types.ListTasksRequest).status is None
    assert decode({"message": MESSAGE | {"role": 2}}, types.SendMessageRequest).message.role is types.Role.AGENT
    assert fields_of({"message": MESSAGE | {"role": 0}}, types.SendMessageRequest) == ["message.role"]


@pytest.mark.parametrize("status", ["working", "TASK_STATE_NOPE", 9, -1, True, 1.5, []])
def test_an_unknown_enum_value_is_refused(status: Any) -> None:
    assert fields_of({"status": status}, types.ListTasksRequest) == ["status"]


def test_null_is_unset_except_as_data() -> None:
    request = decode({"message": MESSAGE | {"contextId": None}, "metadata": None}, types.SendMessageRequest)
    assert request.message.context_id == ""
    assert request.metadata == {}
    assert fields_of({"id": None}, types.GetTaskRequest) == ["id"]

    part = decode({"data": None}, types.Part)
    assert part.data is None
    assert encode(part) == b'{"data":null}'
    assert decode({"text": "x"}, types.Part).data is msgspec.UNSET


def test_user_json_is_left_alone() -> None:
    """Nothing of the tolerance reaches into metadata and data, and integers keep all their digits."""
    user = {"message_id": None, "role": 1, "big": 2**70, "deep": [{"task_id": 0}], "one": 1.0}
    message = MESSAGE | {"metadata": user, "parts": [{"data": user}]}
    decoded = decode({"message": message, "metadata": user}, types.SendMessageRequest)

    assert decoded.metadata == decoded.message.metadata == decoded.message.parts[0].data == user
    written = json.loads(encode(decoded.message))
    assert written["metadata"] == user
    assert isinstance(written["metadata"]["big"], int)


@given(json_values)
def test_any_json_survives_as_data(value: Any) -> None:
    part = decode({"data": value}, types.Part)
    assert decode(json.loads(encode(part)), types.Part) == part


@given(st.binary(), st.booleans(), st.booleans())
def test_base64_is_read_in_both_alphabets_with_or_without_padding(raw: bytes, urlsafe: bool, padded: bool) -> None:
    text = (base64.urlsafe_b64encode(raw) if urlsafe else base64.b64encode(raw)).decode()
    part = decode({"raw": text if padded else text.rstrip("=")}, types.Part)

    assert part.raw == raw
    assert json.loads(encode(part)) == {"raw": base64.b64encode(raw).decode()}


@pytest.mark.parametrize("raw", ["Y", "Y*==", "YQ=", "YQ==\n", 5, ["YQ=="]])
def test_what_is_no_base64_is_refused(raw: Any) -> None:
    assert fields_of({"message": MESSAGE | {"parts": [{"raw": raw}]}}, types.SendMessageRequest) == [
        "message.parts[0].raw"
    ]


@given(
    st.datetimes(min_value=datetime(1970, 1, 2)),
    st.integers(0, 9),
    st.sampled_from(["Z", "+00:00", "-00:00"]),
)
def test_timestamps_have_up_to_nine_digits_of_fraction(moment: Any, digits: int, zone: str) -> None:
    fraction = f"{moment.microsecond:06}000"[:digits]
    text = f"{moment.replace(microsecond=0).isoformat()}{'.' + fraction if fraction else ''}{zone}"
    read = decode({"statusTimestampAfter": text}, types.ListTasksRequest).status_timestamp_after
    assert read is not None
    assert read.replace(microsecond=0, tzinfo=None) == moment.replace(microsecond=0)
    assert f"{read.microsecond:06}"[:digits] == fraction[:6]


def test_a_timestamp_with_an_offset_is_the_same_moment() -> None:
    read = [
        decode({"statusTimestampAfter": text}, types.ListTasksRequest).status_timestamp_after
        for text in ("2026-01-01T12:00:00+02:00", "2026-01-01T10:00:00Z")
    ]
    assert read[0] == read[1]


@pytest.mark.parametrize("text", ["2026-01-01T12:00:00", "2026-13-01T00:00:00Z", "yesterday", "", 1767225600])
def test_what_is_no_timestamp_is_refused(text: Any) -> None:
    assert fields_of({"statusTimestampAfter": text}, types.ListTasksRequest) == ["statusTimestampAfter"]


@pytest.mark.parametrize("part", [{}, {"text": "a", "url": "b"}, {"data": None, "text": ""}, {"kind": "text"}])
def test_a_part_has_exactly_one_content(part: dict[str, Any]) -> None:
    message = MESSAGE | {"parts": [{"text": "fine"}, part]}
    assert fields_of({"message": message}, types.SendMessageRequest) == ["message.parts[1]"]


def test_empty_content_is_content() -> None:
    """Members of a oneof have presence: an empty text is not an absent one."""
    assert encode(decode({"text": ""}, types.Part)) == b'{"text":""}'
    assert encode(decode({"raw": ""}, types.Part)) == b'{"raw":""}'


def test_every_wrong_field_is_named_in_camel_case() -> None:
    message = {"role": "user", "parts": [{"text": 5}, {}, "x"], "contextId": 7, "metadata": []}
    configuration = {"history_length": -1, "returnImmediately": "yes"}
    found = fields_of({"message": message, "configuration": configuration}, types.SendMessageRequest)

    assert set(found) == {
        "message.messageId",
        "message.role",
        "message.parts[0].text",
        "message.parts[1]",
        "message.parts[2]",
        "message.contextId",
        "message.metadata",
        "configuration.historyLength",
        "configuration.returnImmediately",
    }


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"pageSize": 0}, "pageSize"),
        ({"page_size": 101}, "pageSize"),
        ({"pageSize": "5.5"}, "pageSize"),
        ({"pageSize": True}, "pageSize"),
        ({"pageSize": 2**80}, "pageSize"),
        ({"historyLength": 2**31}, "historyLength"),
        ({"includeArtifacts": 1}, "includeArtifacts"),
        ({"contextId": {}}, "contextId"),
        ([], "params"),
        ("x", "params"),
        (5, "params"),
    ],
)
def test_wrong_types_and_ranges_are_refused(params: Any, field: str) -> None:
    assert fields_of(params, types.ListTasksRequest) == [field]


def test_empty_required_fields_are_refused() -> None:
    """ProtoJSON cannot tell an empty string or list from an unset one."""
    assert fields_of({"id": ""}, types.GetTaskRequest) == ["id"]
    assert fields_of({"message": MESSAGE | {"parts": []}}, types.SendMessageRequest) == ["message.parts"]


def test_unknown_fields_are_ignored_by_the_wire() -> None:
    assert decode({"id": "t", "ifGenerationMatch": "4"}, types.GetTaskRequest) == types.GetTaskRequest(id="t")


@given(json_values)
def test_any_params_decode_or_are_refused_with_a_reason(value: Any) -> None:
    for type_ in (types.SendMessageRequest, types.ListTasksRequest, types.TaskPushNotificationConfig):
        try:
            decode(value, type_)
        except InvalidParams as error:
            assert error.violations


@given(
    st.dictionaries(
        st.sampled_from(["message_id", "messageId", "role", "parts", "metadata", "extensions"]), json_values
    )
)
def test_nearly_right_messages_decode_or_name_the_field(message: dict[str, Any]) -> None:
    try:
        decode({"message": message}, types.SendMessageRequest)
    except InvalidParams as error:
        assert all(problem.field.startswith("message") for problem in error.violations)


def test_unset_fields_are_not_written() -> None:
    status = types.TaskStatus(state=types.TaskState.WORKING, timestamp="2026-01-01T00:00:00.000Z")
    assert json.loads(encode(types.Task(id="t", status=status))) == {
        "id": "t",
        "status": {"state": "TASK_STATE_WORKING", "timestamp": "2026-01-01T00:00:00.000Z"},
    }
    artifact = types.Artifact(artifact_id="a", parts=[types.Part(data=1)])
    event = types.TaskArtifactUpdateEvent(task_id="t", context_id="c", artifact=artifact)
    assert json.loads(encode(event)) == {
        "taskId": "t",
        "contextId": "c",
        "artifact": {"artifactId": "a", "parts": [{"data": 1}]},
    }


def test_a_page_of_tasks_has_all_its_fields() -> None:
    page = types.ListTasksResponse(tasks=[], next_page_token="", page_size=50, total_size=0)
    assert json.loads(encode(page)) == {"tasks": [], "nextPageToken": "", "pageSize": 50, "totalSize": 0}


def test_asked_for_artifacts_are_written_even_when_there_are_none() -> None:
    status = types.TaskStatus(state=types.TaskState.WORKING)
    assert json.loads(encode(types.Task(id="t", status=status, artifacts=[])))["artifacts"] == []


def test_strict_params_take_no_unknown_field_and_no_other_spelling() -> None:
    assert decode_strict({"task_id": "t"}, Own) == Own("t")
    assert fields_of({"taskId": "t"}, Own, strict=True) == ["taskId", "task_id"]
    params = {"task_id": "t", "limt": 5, "limit": "x", "items": [{"width": 1}, {"heigth": 2}]}
    assert fields_of(params, Own, strict=True) == ["limt", "limit", "items[1].heigth"]


def test_an_unknown_field_is_told_which_ones_exist() -> None:
    with pytest.raises(InvalidParams, match="task_id, limit, items"):
        decode_strict({"task_id": "t", "limt": 5}, Own)


def test_the_reasons_never_repeat_what_the_caller_sent() -> None:
    """A 10 MiB value must not come back in an error."""
    long = "x" * 10_000
    for params in ({"status": long}, {"statusTimestampAfter": long}, {"pageSize": long}, {"metadata": long}):
        try:
            decode(params, types.ListTasksRequest)
        except InvalidParams as error:
            assert long not in error.message
    with pytest.raises(InvalidParams) as refused:
        decode_strict({long: 1}, Own)
    assert len(refused.value.violations[0].field) <= 80


def test_a_flood_of_problems_is_cut() -> None:
    message = MESSAGE | {"parts": [{}] * 5000}
    assert len(fields_of({"message": message}, types.SendMessageRequest)) == 100


class Filter(types.Wire, frozen=True, kw_only=True):
    """Params as a query string can give them."""

    tag_names: list[str] = []
    sizes: list[Annotated[int, msgspec.Meta(ge=1)]] | None = None
    is_open: bool | None = None
    since: types.Timestamp | None = None


def test_a_query_gives_texts_their_types() -> None:
    pairs = [
        ("tagNames", "a,b"),
        ("tag_names", "c"),
        ("sizes", "1"),
        ("sizes", "2,30"),
        ("isOpen", "false"),
        ("x", "1"),
    ]

    assert from_query(pairs, Filter) == {"tagNames": ["a", "b", "c"], "sizes": ["1", "2", "30"], "isOpen": False}
    assert decode(from_query(pairs, Filter), Filter).sizes == [1, 2, 30]
    decoded = decode(from_query([("since", "2026-01-31T12:00:00Z")], Filter), Filter)
    assert decoded.since == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_wrong_texts_of_a_query_are_refused_by_the_name_of_their_field() -> None:
    pairs = [("sizes", "1,x,0"), ("is_open", "maybe"), ("since", "now"), ("tagNames", "fine")]
    assert fields_of(from_query(pairs, Filter), Filter) == ["sizes[1]", "sizes[2]", "isOpen", "since"]


@given(st.lists(st.tuples(st.sampled_from(["sizes", "isOpen", "since", "tagNames", "other"]), st.text())))
def test_no_query_gets_further_than_invalid_params(pairs: list[tuple[str, str]]) -> None:
    with suppress(InvalidParams):
        decode(from_query(pairs, Filter), Filter)
