"""What the command line makes of a server's answers: results, frames, or one line that says why there are none."""

import json
from typing import Any

import httpx2
import pytest

from a2a_server.cli import answers
from a2a_server.cli.answers import Answers, Frame, ServerError, server_sent
from a2a_server.cli.output import Failure

URL = "http://test/"
FIELDS = [{"@type": "BadRequest", "fieldViolations": [{"field": "name", "description": "is missing"}]}]


def response(body: bytes = b"", *, status: int = 200, kind: str = "application/json") -> httpx2.Response:
    return httpx2.Response(status, content=body, headers={"content-type": kind}, request=httpx2.Request("POST", URL))


def json_response(value: Any, status: int = 200) -> httpx2.Response:
    return response(json.dumps(value).encode(), status=status)


def stream(text: str) -> httpx2.Response:
    return response(text.encode(), kind="text/event-stream; charset=utf-8")


def error(message: str = "no", **fields: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": message} | fields}


@pytest.mark.parametrize("result", [None, False, 0, {"a": 1}, []])
def test_a_result_is_given_as_it_is(result: Any) -> None:
    assert Answers(URL, has_token=False).result(json_response({"jsonrpc": "2.0", "id": 1, "result": result})) == result


def test_an_error_tells_its_code_and_each_field_that_is_wrong() -> None:
    with pytest.raises(ServerError, match=r"^no; name: is missing \(error -32602\)$") as raised:
        Answers(URL, has_token=False).result(json_response(error(data=FIELDS)))
    assert [(each.field, each.message) for each in raised.value.problems] == [("name", "is missing")]


def test_a_field_that_the_message_names_is_not_named_twice() -> None:
    with pytest.raises(ServerError, match=r"^no: name: is missing \(error -32602\)$"):
        Answers(URL, has_token=False).result(json_response(error("no: name: is missing", data=FIELDS)))


@pytest.mark.parametrize("data", [None, 5, "x", {}, [5], [{"fieldViolations": 5}], [{"fieldViolations": ["x"]}]])
def test_details_of_another_shape_are_left_out(data: Any) -> None:
    with pytest.raises(ServerError) as raised:
        Answers(URL, has_token=False).result(json_response(error(data=data)))
    assert raised.value.problems == []


@pytest.mark.parametrize(("has_token", "advice"), [(True, "check A2A_TOKEN"), (False, "put an API key")])
def test_a_refused_caller_reads_what_to_do_about_its_credential(has_token: bool, advice: str) -> None:
    with pytest.raises(ServerError, match=advice):
        Answers(URL, has_token=has_token).result(json_response(error(), 401))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"error": "text"}', b"\xff"])
def test_what_is_no_answer_is_a_failure_that_names_the_address(body: bytes) -> None:
    with pytest.raises(Failure, match="http://test/"):
        Answers(URL, has_token=False).result(response(body))


def test_frames_have_the_number_of_their_event() -> None:
    text = 'id: 7\ndata: {"a": 1}\n\n: comment\n\ndata: {"b": 2}\n\nid: seven\ndata: {"c": 3}\n\n'
    frames = [*Answers(URL, has_token=False).frames(stream(text))]
    assert frames[0] == Frame(7, {"a": 1})
    assert [frame.data for frame in frames] == [{"a": 1}, {"b": 2}, {"c": 3}]
    assert frames[2].seq is None


@pytest.mark.parametrize("data", ["5", "[]", "not json"])
def test_an_event_that_is_no_object_is_a_failure(data: str) -> None:
    with pytest.raises(Failure, match="not a JSON object"):
        [*Answers(URL, has_token=False).frames(stream(f"data: {data}\n\n"))]


def test_an_error_within_a_stream_ends_it() -> None:
    frames = Answers(URL, has_token=False).frames(stream('data: {"jsonrpc": "2.0", "error": {"message": "late"}}\n\n'))
    with pytest.raises(ServerError, match="late"):
        next(frames)


def test_an_event_of_a_task_may_have_an_error_field() -> None:
    (frame,) = Answers(URL, has_token=False).frames(stream('data: {"type": "task_failed", "error": "boom"}\n\n'))
    assert frame.data["error"] == "boom"


def test_an_answer_instead_of_a_stream_is_read_as_one() -> None:
    with pytest.raises(ServerError, match="no"):
        [*Answers(URL, has_token=False).frames(json_response(error()))]
    with pytest.raises(Failure, match="did not answer with a stream"):
        [*Answers(URL, has_token=False).frames(json_response({"jsonrpc": "2.0", "id": 1, "result": {}}))]


def test_an_event_may_be_as_large_as_the_bound_and_no_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_EVENT", 100)
    assert [*server_sent(stream("data: short\n\n"))] == [("", b"short")]
    with pytest.raises(Failure, match="cannot be read"):
        [*server_sent(stream(f"data: {'x' * 200}\n\n"))]
