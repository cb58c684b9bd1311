"""What came back from an outbound call: charsets, JSON and sizes that the other side names."""

import asyncio
import gzip
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from core.model.errors import CoreError
from core.outside import fetched
from core.outside.fetched import AnswerNotReadable, Incoming, ResponseTooLarge, read_body

GZIP = {"content-encoding": "gzip"}


def answer(body: bytes, content_type: str = "") -> Incoming:
    return Incoming(status_code=200, headers={"content-type": content_type}, body=body, url="", elapsed=0.0)


async def parts_of(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


class Turns:
    """Counts how often others had their turn."""

    def __init__(self) -> None:
        self.count = 0
        self._counting = asyncio.ensure_future(self._count())

    async def _count(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1

    def stop(self) -> int:
        self._counting.cancel()
        return self.count


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("", "grün".encode(), "grün"),
        ("text/plain; charset=utf-8", "grün".encode(), "grün"),
        ("text/plain; format=flowed; Charset='ISO-8859-1'", b"gr\xfcn", "grün"),
        ('text/plain;charset="windows-1252"', b"\x80", "€"),
        ("text/plain; charset=shift_jis", "緑".encode("shift_jis"), "緑"),
        ("text/plain; charset=utf-16", "緑".encode("utf-16"), "緑"),
        ("text/plain; charset=utf-8", b"a\xff", "a\N{REPLACEMENT CHARACTER}"),
        ("text/plain", "緑".encode()[:2], "\N{REPLACEMENT CHARACTER}"),
        ("text/plain", b"", ""),
    ],
)
async def test_text_is_read_in_a_known_charset(content_type: str, body: bytes, text: str) -> None:
    assert await answer(body, content_type).text() == text


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "charset",
    [
        "bz2",
        "zip",
        "hex",
        "base64",
        "rot13",
        "idna",
        "punycode",
        "unicode_escape",
        "utf-7",
        "no-such",
        "x" * 100_000,
        "",
    ],
)
async def test_text_of_another_charset_is_read_as_utf_8(charset: str) -> None:
    assert await answer("grün".encode(), f"text/plain; charset={charset}").text() == "grün"


@pytest.mark.asyncio
async def test_long_text_is_decoded_in_steps_that_do_not_cut_its_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "TEXT_STEP", 5)
    text = "grün 緑 🟢 " * 20
    turns = Turns()
    assert await answer(text.encode()).text() == text
    assert turns.stop() > 10


@pytest.mark.asyncio
async def test_beginning_of_a_text_costs_no_more_than_that() -> None:
    assert await answer(b"x" * 1_000_000).text(3) == "xxx"


@pytest.mark.asyncio
async def test_json_has_a_bounded_number_of_values() -> None:
    """Found from outside: 30 fetched answers of 10 kB took 3.8 GiB as Python values."""
    assert await answer(b"[1,2,3]").json(4) == [1, 2, 3]
    assert await answer(b'["a,b,c",{}]').json(4) == ["a,b,c", {}]
    for body in (b"[1,2,3,4]", b"[{},{}]", b'{"a":1,"b":2,"c":{"d":1}}'):
        with pytest.raises(AnswerNotReadable, match="more than 4 JSON values"):
            await answer(body).json(4)


@pytest.mark.asyncio
@pytest.mark.parametrize("levels", [201, 2_000, 40_000])
async def test_json_has_a_bounded_depth(levels: int) -> None:
    assert await answer(b"[" * 200 + b"]" * 200).json() is not None
    with pytest.raises((AnswerNotReadable, ValueError), match="nested"):
        await answer(b"[" * levels + b"]" * levels).json()


@pytest.mark.asyncio
@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"1e999", b'"\\ud800"', b"\xff"])
async def test_what_is_no_json_is_told(body: bytes) -> None:
    with pytest.raises(ValueError):
        await answer(body).json()


@pytest.mark.asyncio
async def test_json_has_no_number_of_very_many_digits() -> None:
    assert await answer(b"1" * 400).json() == int("1" * 400)
    with pytest.raises(AnswerNotReadable, match="more than 400 digits"):
        await answer(b"1" * 401).json()


@pytest.mark.asyncio
async def test_values_of_a_large_text_are_counted_in_turns() -> None:
    turns = Turns()
    assert len(await answer(b'["' + b"," * 5_000_000 + b'"]').json()) == 1
    assert turns.stop() > 5


@pytest.mark.asyncio
async def test_body_is_bounded_as_it_comes_and_decoded() -> None:
    assert await read_body(parts_of(b"x" * 600, b"", b"x" * 400), {}, 1000) == b"x" * 1000
    assert await read_body(parts_of(gzip.compress(b"x" * 1000)), GZIP, 1000) == b"x" * 1000
    for parts, headers in (
        ([b"x" * 600, b"x" * 401], {}),
        ([gzip.compress(b"x" * 1001)], GZIP),
        ([b"\x1f\x8b\x08\0\0\0\0\0\0\xff", *[b"\0\0\0\xff\xff"] * 300], GZIP),  # decodes to nothing
    ):
        with pytest.raises(ResponseTooLarge, match="longer than 1000 bytes"):
            await read_body(parts_of(*parts), headers, 1000)


@pytest.mark.asyncio
async def test_length_that_is_announced_is_believed_where_it_is_too_much() -> None:
    for length in ("1001", "9" * 19, "9" * 5000):
        with pytest.raises(ResponseTooLarge):
            await read_body(parts_of(), {"content-length": length}, 1000)
    for length in ("1000", "-1", "²", "no"):
        assert await read_body(parts_of(b"x"), {"content-length": length}, 1000) == b"x"


@pytest.mark.asyncio
async def test_body_comes_in_a_bounded_number_of_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetched, "MAX_PARTS", 100)
    assert len(await read_body(parts_of(*[b"x"] * 100), {}, 1000)) == 100
    with pytest.raises(ResponseTooLarge, match="more than 100 chunks"):
        await read_body(parts_of(*[b"x"] * 101), {}, 1000)


@pytest.mark.asyncio
async def test_room_is_made_before_more_is_taken() -> None:
    class Small:
        asked: list[int] = []

        async def reserve(self, size: int) -> None:
            self.asked.append(size)
            if size > 1000:
                raise CoreError("no room")

    with pytest.raises(CoreError, match="no room"):
        await read_body(parts_of(b"x" * 600, b"x" * 600, b"x" * 600), {}, 10_000, Small())
    assert Small.asked == [600, 1200]


@pytest.mark.asyncio
async def test_error_does_not_keep_what_came() -> None:
    """Its traceback has the frame in which the body grew."""
    with pytest.raises(ResponseTooLarge) as caught:
        await read_body(parts_of(b"x" * 600, b"x" * 600), {}, 1000)
    frames = [entry.frame.f_locals for entry in caught.traceback]
    assert [frame["body"] for frame in frames if "body" in frame] == [b""]


@pytest.mark.asyncio
@pytest.mark.parametrize(("text", "is_beside"), [(b"[1]", False), (b"[" + b"[]," * 40_000 + b"[]]", True)])
async def test_depth_of_a_large_value_is_judged_beside_the_loop(
    text: bytes, is_beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[bool] = []

    def watched(value: Any) -> bool:
        used.append(threading.current_thread() is not threading.main_thread())
        return False

    monkeypatch.setattr(fetched, "is_too_deep", watched)
    await answer(text).json(10**6)
    assert used == [True] * is_beside
