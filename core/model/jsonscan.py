"""How many values the text of a JSON document has, and how deep it nests, before anything decodes it. Pure.

Nothing else bounds the memory that small values take: an object without members has two bytes and takes 64.
"""

from collections.abc import Iterator
from itertools import accumulate

PIECE = 64 * 1024  # bytes of a text that are taken apart at a time; two at least

LONGEST_NUMBER = 400  # digits: any float has fewer

# All digits as zeros, anything else as a blank: a search for so many zeros takes linear time, an expression might not.
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_TOO_LONG = b"0" * (LONGEST_NUMBER + 1)
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: a level down, a level up
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def is_shallow(body: bytes, most: int) -> bool:
    """Whether the JSON in `body` nests at most so many levels. Linear in its size, and nothing recurses."""
    if body.count(b"[") + body.count(b"{") <= most:
        return True
    level = 0
    for text in _outside_of_strings(body):
        steps = memoryview(text.translate(_STEPS, _NO_BRACKETS) or b"\x00").cast("b")
        if max(accumulate(steps, initial=level)) > most:
            return False
        level += sum(steps)
    return True


def has_few_values(body: bytes, most: int) -> bool:
    """Whether the JSON in `body` has at most so many values: after the first, each has a comma or bracket before it.

    An empty object or array counts as two values.
    """
    if len(body) <= most or most_values(body) <= most:
        return True
    return 1 + sum(values_by_piece(body)) <= most


def has_short_numbers(body: bytes) -> bool:
    """Whether no number in the JSON in `body` has more than LONGEST_NUMBER digits: reading one costs their square."""
    if len(body) <= LONGEST_NUMBER:
        return True
    pieces = (body[begin : begin + PIECE + LONGEST_NUMBER] for begin in range(0, len(body), PIECE))
    if not any(_TOO_LONG in piece.translate(_DIGITS) for piece in pieces):
        return True
    end = b""  # of what stands before: a number may be cut in two
    for text in _outside_of_strings(body):
        text = end + text
        if _TOO_LONG in text.translate(_DIGITS):
            return False
        end = text[-LONGEST_NUMBER:]
    return True


def values_by_piece(body: bytes) -> Iterator[int]:
    """How many values stand in each piece of the JSON in `body`; the first value of all is not counted."""
    return map(_steps_to_values, _outside_of_strings(body))


def most_values(body: bytes) -> int:
    """No fewer than the JSON in `body` has values: commas and brackets within strings count, too."""
    return 1 + sum(_steps_to_values(body[begin : begin + PIECE]) for begin in range(0, len(body), PIECE))


def _steps_to_values(text: bytes) -> int:
    return len(text) - len(text.translate(None, b",[{"))  # one pass: counting each of the three takes as long alone


def _outside_of_strings(body: bytes) -> Iterator[bytes]:
    """What of the body stands outside of strings. Piece by piece: millions of short ones would take much memory."""
    is_inside = False
    begin = 0
    while begin < len(body):
        piece = body[begin : begin + PIECE]
        if len(piece) == PIECE and (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # what it escapes is in the next piece
            piece = piece[:-1]
        begin += len(piece)
        parts = piece.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[is_inside::2])
        is_inside ^= len(parts) % 2 == 0
