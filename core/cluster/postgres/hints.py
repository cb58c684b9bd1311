"""Hints on their way: what a NOTIFY carries. Pure: no connection and no time."""

from itertools import islice
from typing import NamedTuple

import msgspec

from core.cluster.bus import HintValue

MOST = 120  # hints of one NOTIFY
MOST_BYTES = 7_900  # of one NOTIFY's payload: PostgreSQL takes less than 8,000
WAITING = 10_000  # hints that wait for the connection; older ones are dropped then, as if they were lost


class Hint(NamedTuple):
    """One, as it is on the wire."""

    kind: str
    key: str
    value: HintValue = None


class Notice(NamedTuple):
    """A NOTIFY's payload."""

    sender: str
    hints: list[Hint]


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Notice).decode


def read_notice(payload: str) -> Notice | None:
    """What was written; None for what no member writes."""
    try:
        return _decode(payload)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None


class Waiting:
    """Hints that are to be sent: of each kind and key the last one, in the order in which they came."""

    def __init__(self, sender: str, most: int = WAITING) -> None:
        self._sender = sender
        self._most = most
        self._hints: dict[tuple[str, str], HintValue] = {}

    def __len__(self) -> int:
        return len(self._hints)

    def add(self, hint: Hint) -> None:
        self._hints[hint.kind, hint.key] = hint.value
        if len(self._hints) > self._most:
            del self._hints[next(iter(self._hints))]

    def take(self) -> str:
        """The next NOTIFY's payload; empty where nothing waits. A hint that fits into none is dropped."""
        taken: list[bytes] = []
        left = MOST_BYTES - len(self._sender) - len('["",[]]')
        for hint in self._first():
            size = len(encoded := _encode(hint)) + 1
            if size > left and taken:
                break
            del self._hints[hint.kind, hint.key]
            if size <= left:
                taken.append(encoded)
                left -= size
        return f'["{self._sender}",[{b",".join(taken).decode()}]]' if taken else ""

    def _first(self) -> list[Hint]:
        return [Hint(*name, value) for name, value in islice(self._hints.items(), MOST)]
