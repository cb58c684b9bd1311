"""Content codings: which are taken, and that nothing decodes without bounds."""

import gzip
import zlib

import pytest

from core.outside.content_coding import STEP, Decoder, NotDecodable, coding_of

TEXT = b"hello " * 1000
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
CODED = {
    "identity": TEXT,
    "gzip": gzip.compress(TEXT),
    "x-gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "Deflate ": RAW.compress(TEXT) + RAW.flush(),
}


def decoded(coding: str, *parts: bytes) -> bytes:
    decoder = Decoder(coding_of(coding))
    found = b"".join(piece for part in parts for piece in decoder.feed(part))
    decoder.end()
    return found


@pytest.mark.parametrize("coding", CODED)
@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_body_is_decoded_however_it_is_cut(coding: str, size: int) -> None:
    body = CODED[coding]
    assert decoded(coding, *(body[n : n + size] for n in range(0, len(body), size))) == TEXT


@pytest.mark.parametrize(
    ("field", "coding"),
    [("", ""), ("identity", ""), ("identity, gzip", "gzip"), ("GZIP", "gzip"), (" , deflate,", "deflate")],
)
def test_one_coding_is_taken(field: str, coding: str) -> None:
    assert coding_of(field) == coding


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(
            (name, "not supported; supported: identity, gzip, deflate")
            for name in ("br", "zstd", "compress", "bz2", "rot13")
        ),
        *((name, "not supported") for name in ("gzip;q=1", "gzip gzip", "idna", "punycode", "\N{KELVIN SIGN}")),
        *((name, "more than one") for name in ("gzip, gzip", "gzip,deflate", "gzip, identity, gzip", "gzip," * 8)),
        ("gzip, br", "not supported"),
        ("gzip," * 10_000, "not supported"),
    ],
)
def test_other_codings_are_refused(field: str, text: str) -> None:
    """Found from outside: an answer of 2 kB, compressed several times over, froze the server."""
    with pytest.raises(NotDecodable, match=text):
        coding_of(field)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
@pytest.mark.parametrize("tail", [b"\0", CODED["gzip"], b"\0" * 100_000], ids=["byte", "member", "much"])
def test_bytes_behind_the_end_are_an_error(coding: str, tail: bytes) -> None:
    """Found from outside: bytes after the compressed data took 74 MiB, where 10 were allowed."""
    for parts in ([CODED[coding] + tail], [CODED[coding], tail]):
        with pytest.raises(NotDecodable, match="after its compressed data"):
            decoded(coding, *parts)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "Deflate "])
def test_body_that_breaks_off_is_an_error(coding: str) -> None:
    for size in (1, 2, 20):
        with pytest.raises(NotDecodable, match=r"cut off|data is not valid"):
            decoded(coding, CODED[coding][:size])


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_body_that_is_something_else_is_an_error(coding: str) -> None:
    with pytest.raises(NotDecodable, match="compressed data is not valid"):
        decoded(coding, b"\xff\xff\xffhello")


@pytest.mark.parametrize("coding", CODED)
def test_body_of_no_bytes_is_empty(coding: str) -> None:
    assert decoded(coding) == decoded(coding, b"") == b""


def test_each_step_gives_a_bounded_number_of_bytes() -> None:
    """A few bytes decode to many; whoever takes the pieces can stop after any of them."""
    decoder = Decoder("gzip")
    pieces = [len(piece) for piece in decoder.feed(gzip.compress(b"\0" * (3 * STEP + 5)))]
    assert pieces == [STEP, STEP, STEP, 5]
    decoder.end()


def test_body_that_decodes_to_whole_steps_ends() -> None:
    assert len(decoded("gzip", gzip.compress(b"\0" * STEP))) == STEP
