"""What an outbound call brought back, and how much of it is believed.

The other side names sizes, codings, charsets and media types. Sizes are counted while they come, names are looked up in
lists of ours, and every step that costs time gives the event loop back after at most a few milliseconds.
"""

import asyncio
import codecs
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec

from core.model.errors import CoreError
from core.model.jsonscan import LONGEST_NUMBER, has_short_numbers, most_values, values_by_piece
from core.model.jsonvalue import MAX_DEPTH, is_too_deep, may_be_deep
from core.outside.content_coding import STEP, Decoder, NotDecodable, coding_of

MAX_PARTS: Final = 80_000  # of one body as it comes: each costs time, however small it is
PARTS_AT_ONCE: Final = 32  # that are read before others have their turn
PIECES_AT_ONCE: Final = 8  # of a JSON text that are counted before others have their turn
TEXT_STEP: Final = 512 * 1024  # bytes of a text that are decoded at once
LONGEST_TYPE: Final = 256  # characters of a Content-Type that are looked at
MAX_VALUES: Final = 50_000  # of a fetched JSON document, unless it is said otherwise: 20 ms of decoding

_CHARSETS: Final = frozenset(
    {
        *("utf-8", "us-ascii", "ascii", "utf-16", "utf-16le", "utf-16be"),
        *(f"iso-8859-{n}" for n in range(1, 17) if n != 12),
        *(f"windows-{n}" for n in range(1250, 1259)),
        *("shift_jis", "euc-jp", "iso-2022-jp", "gb2312", "gbk", "gb18030", "big5", "euc-kr", "koi8-r", "koi8-u"),
    }
)


class EgressError(CoreError):
    """An outbound call that did not bring an answer. The message is safe to show."""


class ResponseTooLarge(EgressError):
    """The answer is longer than the policy allows, as it comes or decoded."""


class AnswerNotReadable(EgressError):
    """The answer came, and its body is not what its header fields say, or they say what is not taken here."""


class Room(Protocol):
    """What pays for the memory that an answer takes."""

    async def reserve(self, size: int) -> None:
        """Have room for an answer of so many bytes, in all. Raises a CoreError when there will be none."""
        ...

    async def hold(self, size: int) -> None:
        """Have room for copies of values of so many bytes, in all, beside the answers. Raises as `reserve`."""
        ...

    def shrink(self, taken: int) -> None:
        """Give back all but so many bytes of the memory for answers."""
        ...

    def drop_copies(self) -> None:
        """Give back the memory for copies of values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """What came back, read to its end where the call wanted that."""

    status_code: int
    headers: Mapping[str, str]
    body: bytes  # decoded
    url: str  # the last one, after redirects
    elapsed: float  # seconds

    @property
    def media_type(self) -> str:
        """The media type that it says it has, in lower case, without parameters; empty when it says none."""
        return self._content_type().partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """The charset that it says its text has, if that is one of the known ones, else UTF-8."""
        for parameter in self._content_type().lower().split(";")[1:]:
            name, _, value = parameter.partition("=")
            if name.strip() == "charset" and (charset := value.strip(" \t\"'")) in _CHARSETS:
                return charset
        return "utf-8"

    async def text(self, most: int | None = None) -> str:
        """The body, or its first `most` bytes, as text; what is no text in its charset is replaced (U+FFFD)."""
        body = memoryview(self.body)[:most]
        decoder = codecs.getincrementaldecoder(self.charset)("replace")
        pieces = []
        for begin in range(0, len(body), TEXT_STEP):
            if begin:
                await asyncio.sleep(0)
            pieces.append(decoder.decode(bytes(body[begin : begin + TEXT_STEP])))
        pieces.append(decoder.decode(b"", final=True))
        return "".join(pieces)

    async def json(self, most: int = MAX_VALUES) -> Any:
        """The value of the JSON in the body. Raises ValueError when it is none, and AnswerNotReadable beyond `most`.

        `most`: values that it may have; an empty object or array counts as two.
        """
        if not await _has_few_values(self.body, most):
            raise AnswerNotReadable(f"the answer has more than {most} JSON values")
        await asyncio.sleep(0)
        if not has_short_numbers(self.body):
            raise AnswerNotReadable(f"the answer has a number of more than {LONGEST_NUMBER} digits")
        await asyncio.sleep(0)
        try:
            value = msgspec.json.decode(self.body)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if may_be_deep(self.body) and await asyncio.to_thread(is_too_deep, value):
            raise AnswerNotReadable(f"the answer is nested more than {MAX_DEPTH} levels deep")
        return value

    def _content_type(self) -> str:
        return self.headers.get("content-type", "")[:LONGEST_TYPE]


async def read_body(
    parts: AsyncIterator[bytes], headers: Mapping[str, str], most: int, room: Room | None = None
) -> bytes:
    """The whole body, decoded, of at most `most` bytes; as it comes it may not have more either.

    Raises ResponseTooLarge, AnswerNotReadable, and what `room` raises.
    """
    announced = headers.get("content-length", "")[:20]
    announced = announced if announced.isascii() and announced.isdigit() else ""
    if announced and int(announced) > most:
        raise ResponseTooLarge(f"the answer is longer than {most} bytes")
    if room is not None and announced and not headers.get("content-encoding"):
        await room.reserve(int(announced))
    body = bytearray()
    came, most_coming = 0, most + most // 512 + 128  # what does not compress grows a little
    decoder: Decoder | None = None
    try:
        async for n, part in _counted(parts):
            decoder = decoder or Decoder(coding_of(headers.get("content-encoding", "")))
            came += len(part)
            if came > most_coming:
                raise ResponseTooLarge(f"the answer is longer than {most} bytes")
            if n > MAX_PARTS:
                raise ResponseTooLarge(f"the answer comes in more than {MAX_PARTS} chunks")
            for piece in decoder.feed(part):
                body += piece
                if len(body) > most:
                    raise ResponseTooLarge(f"the answer is longer than {most} bytes")
                if room is not None:
                    await room.reserve(len(body))
                if len(piece) == STEP:
                    await asyncio.sleep(0)
            if n % PARTS_AT_ONCE == 0:
                await asyncio.sleep(0)
        if decoder is not None:
            decoder.end()
        return bytes(body)
    except NotDecodable as error:
        raise AnswerNotReadable(str(error)) from error
    finally:
        body.clear()  # an error's traceback may keep this frame for a while


async def _counted(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    """The parts of a body that have bytes, numbered from 1."""
    n = 0
    async for part in parts:
        if part:
            n += 1
            yield n, part


async def _has_few_values(body: bytes, most: int) -> bool:
    """Whether the JSON in it has at most so many values; others have their turn meanwhile."""
    if len(body) <= most or most_values(body) <= most:
        return True
    found = 1
    for n, values in enumerate(values_by_piece(body)):
        found += values
        if found > most:
            return False
        if n % PIECES_AT_ONCE == 0:
            await asyncio.sleep(0)
    return True
