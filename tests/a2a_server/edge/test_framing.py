"""Tests of a2a_server.edge.framing: an answer ends where its client can see it."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from a2a_server.edge.framing import Ending


async def answered(version: str, *headers: tuple[bytes, bytes], waits: bool = False) -> tuple[SimpleNamespace, int]:
    """What uvicorn is told of an answer in two pieces, and how many messages it gets."""
    cycle = SimpleNamespace(
        waiting_for_100_continue=waits, keep_alive=True, chunked_encoding=None, expected_content_length=0
    )
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body"})

    async def send(message: Any) -> None:
        sent.append((message, cycle.expected_content_length))

    ending = Ending(app, cast("RequestResponseCycle", cycle))
    await ending({"type": "http", "http_version": version}, cast("Any", None), send)
    assert [message["type"] for message, _ in sent] == ["http.response.start", *["http.response.body"] * 2]
    return cycle, sent[1][1]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("version", "headers", "chunked", "expected"),
    [
        ("1.0", [], False, 3),
        ("1.0", [(b"content-length", b"3")], None, 0),
        ("1.1", [], None, 0),
        ("1.1", [(b"content-length", b"3")], None, 0),
    ],
)
async def test_only_an_answer_of_unknown_length_to_http_1_0_ends_with_its_connection(
    version: str, headers: list[tuple[bytes, bytes]], chunked: bool | None, expected: int
) -> None:
    cycle, length_of_piece = await answered(version, *headers)
    assert (cycle.chunked_encoding, length_of_piece, cycle.keep_alive) == (chunked, expected, True)


@pytest.mark.asyncio
@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_client_that_was_never_told_to_send_its_body_gets_the_last_answer(version: str) -> None:
    cycle, _ = await answered(version, waits=True)
    assert not cycle.keep_alive
