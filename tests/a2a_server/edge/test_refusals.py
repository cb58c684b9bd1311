"""Tests of a2a_server.edge.refusals: the bytes that a connection answers by itself are whole HTTP answers."""

import json
from typing import Any

import h11
import pytest

from a2a_server.edge.admission import Rejected
from a2a_server.edge.overload import CallKind
from a2a_server.edge.refusals import last_answer, refusals


def read(answer: bytes, method: str = "POST") -> tuple[h11.Response, bytes]:
    """The answer as a client reads it."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    head = client.next_event()
    assert isinstance(head, h11.Response)
    body = b""
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage) and client.trailing_data[0] == b""
    return head, body


@pytest.mark.parametrize("request_id", [7, 'a"b\n', None])
def test_call_by_its_method_is_rejected_under_its_own_id(request_id: Any) -> None:
    head, body = read(refusals().answer(Rejected(None, request_id)))
    told = json.loads(body)
    assert (head.status_code, told["id"], told["error"]["code"]) == (503, request_id, -32051)
    assert dict(head.headers)[b"retry-after"] == b"1"


def test_call_by_its_path_is_rejected_as_http_json_does() -> None:
    head, body = read(refusals().answer(Rejected(CallKind.WORK, None)))
    assert (head.status_code, json.loads(body)["error"]["status"]) == (503, "UNAVAILABLE")


@pytest.mark.parametrize(("method", "text"), [("POST", b"No"), ("HEAD", b"")])
def test_last_answer_says_that_it_is_the_last_and_how_long_it_is(method: str, text: bytes) -> None:
    head, body = read(last_answer(408, "No", [(b"date", b"now")], is_head=method == "HEAD"), method)
    fields = dict(head.headers)
    assert (head.status_code, body) == (408, text)
    assert (fields[b"connection"], fields[b"content-length"], fields[b"date"]) == (b"close", b"2", b"now")
