"""What a client's message may hold."""

import base64
import time
from typing import Any

import pytest

from a2a_server.methods.content import (
    LONGEST_CONTEXT_ID,
    LONGEST_FILENAME,
    LONGEST_MEDIA_TYPE,
    LONGEST_URL,
    MOST_EXTENSIONS,
    MOST_PARTS,
    MOST_REFERENCES,
    check_message,
)
from a2a_server.protocol.codec import decode
from a2a_server.protocol.errors import InvalidParams
from a2a_server.protocol.types import Message

TEXT = {"text": "x"}


def wrong(*parts: dict[str, Any], **fields: Any) -> set[str]:
    """The fields that are refused."""
    said = {"messageId": "m", "role": "ROLE_USER", "parts": list(parts) or [TEXT]} | fields
    try:
        check_message(decode(said, Message), max_file=4)
    except InvalidParams as error:
        return {problem.field for problem in error.violations}
    return set()


def raw(size: int) -> dict[str, str]:
    return {"raw": base64.b64encode(b"x" * size).decode()}


def test_every_limit_holds_at_its_value_and_not_beyond() -> None:
    url = "https://example.com/"
    assert wrong(raw(4)) == set()
    assert wrong(raw(5)) == {"message.parts[0].raw"}
    assert wrong({"url": url + "x" * (LONGEST_URL - len(url))}) == set()
    assert wrong({"url": url + "x" * (LONGEST_URL - len(url) + 1)}) == {"message.parts[0].url"}
    assert wrong(TEXT | {"filename": "x" * LONGEST_FILENAME}) == set()
    assert wrong(TEXT | {"filename": "x" * (LONGEST_FILENAME + 1)}) == {"message.parts[0].filename"}
    assert wrong(TEXT | {"mediaType": "a/" + "x" * (LONGEST_MEDIA_TYPE - 2)}) == set()
    assert wrong(TEXT | {"mediaType": "a/" + "x" * (LONGEST_MEDIA_TYPE - 1)}) == {"message.parts[0].mediaType"}
    assert wrong(*[TEXT] * MOST_PARTS) == set()
    assert wrong(*[TEXT] * (MOST_PARTS + 1)) == {"message.parts"}
    assert wrong(referenceTaskIds=["t"] * MOST_REFERENCES) == set()
    assert wrong(referenceTaskIds=["t"] * (MOST_REFERENCES + 1)) == {"message.referenceTaskIds"}
    assert wrong(extensions=["t"] * (MOST_EXTENSIONS + 1)) == {"message.extensions"}
    assert wrong(contextId="c" * LONGEST_CONTEXT_ID) == set()
    assert wrong(contextId="c" * (LONGEST_CONTEXT_ID + 1)) == {"message.contextId"}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "//example.com/x",
        "/x",
        "https://",
        "https:///x",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://example.com:port/",
        "https://example.com:99999/",
        "https://[::1/",
        "javascript:alert(1)",
        "data:text/plain,x",
    ],
)
def test_only_plain_web_addresses_are_taken(url: str) -> None:
    assert wrong(TEXT, {"url": url}) == {"message.parts[1].url"}


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/a2ui+json", 'text/plain; charset="utf-8"; q=1', "image/*", "*/*"]
)
def test_media_types_are_taken(media_type: str) -> None:
    assert wrong(TEXT | {"mediaType": media_type}) == set()


@pytest.mark.parametrize(
    "media_type", ["text", "/", "text/", "text/plain;", "text/plain; charset", "text/plain\r\nx: y", "é/x", "a b/c"]
)
def test_what_is_no_media_type_is_named(media_type: str) -> None:
    assert wrong(TEXT | {"mediaType": media_type}) == {"message.parts[0].mediaType"}


def test_a_hostile_media_type_takes_no_time() -> None:
    """T19: 64 KiB within 10 ms, also where the length limit would not help."""
    started = time.process_time()
    for _ in range(100):
        assert wrong(TEXT | {"mediaType": "a/b" + ';a="' * 61}) == {"message.parts[0].mediaType"}
    assert time.process_time() - started < 1.0


def test_all_problems_are_told_at_once() -> None:
    assert wrong({"url": "x", "mediaType": "y"}, raw(5), contextId="c" * 2_000) == {
        "message.contextId",
        "message.parts[0].url",
        "message.parts[0].mediaType",
        "message.parts[1].raw",
    }
