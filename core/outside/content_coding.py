"""Content codings of fetched answers: which are taken, and how much work each piece may cost. Pure.

RFC 9110 §8.4 allows any number of codings, one over the other. Here there is at most one, from a short list, and each
step gives a bounded number of bytes.
"""

import zlib
from collections.abc import Iterator

STEP = 256 * 1024  # bytes, at most, that one step decodes
TAKEN = "identity, gzip, deflate"

_GZIP = 16 + zlib.MAX_WBITS
_ZLIB = zlib.MAX_WBITS
_RAW = -zlib.MAX_WBITS
_NAMES = {"identity": "", "gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}


class NotDecodable(ValueError):
    """The body is not what its coding says, or the coding is not taken. The text is safe to show."""


def coding_of(field: str) -> str:
    """The one coding that a Content-Encoding field names: "", "gzip" or "deflate".

    Raises NotDecodable for a coding that is not taken, and for more than one.
    """
    named = [name for part in field.split(",", 8) if (name := part.strip().lower())]
    codings = [_NAMES.get(name) for name in named]
    if None in codings:
        raise NotDecodable(f"the answer's content coding is not supported; supported: {TAKEN}")
    found = [coding for coding in codings if coding]
    if len(found) > 1:
        raise NotDecodable("the answer has more than one content coding")
    return found[0] if found else ""


class Decoder:
    """Decodes one body. `coding` is what `coding_of` gives."""

    def __init__(self, coding: str) -> None:
        self._coding = coding
        self._has_begun = False
        self._begun = b""  # the first byte of a deflated body, until the second tells its format
        self._inflater = zlib.decompressobj(_GZIP) if coding == "gzip" else None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What these bytes decode to, in pieces of at most STEP bytes. Raises NotDecodable."""
        if not self._coding:
            if data:
                yield data
            return
        if self._inflater is None:
            data = self._begun + data
            if len(data) < 2:
                self._begun = data
                return
            self._inflater = zlib.decompressobj(_ZLIB if _has_zlib_head(data) else _RAW)
        self._has_begun = self._has_begun or bool(data)
        while True:
            if self._inflater.eof and data:
                raise NotDecodable("the answer has bytes after its compressed data")
            try:
                piece = self._inflater.decompress(data, STEP)
            except zlib.error:
                raise NotDecodable("the answer's compressed data is not valid") from None
            data = self._inflater.unconsumed_tail or self._inflater.unused_data
            if piece:
                yield piece
            if not data and len(piece) < STEP:  # a full piece may have more behind it
                return

    def end(self) -> None:
        """The body is over. Raises NotDecodable when its compressed data are not; a body of no bytes is empty."""
        if self._begun and self._inflater is None:
            raise NotDecodable("the answer's compressed data is not valid")
        if self._inflater is not None and self._has_begun and not self._inflater.eof:
            raise NotDecodable("the answer's compressed data is cut off")


def _has_zlib_head(data: bytes) -> bool:
    """Whether a deflated body has the head of RFC 1950, as it should; some servers send it without."""
    return data[0] & 0x0F == 8 and int.from_bytes(data[:2]) % 31 == 0
