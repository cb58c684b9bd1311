"""Which calls of one connection are taken while the server has too much to do. Pure: it decides, and counts.

At ten times the load nine of ten calls are refused, so one of them must cost next to nothing: it is answered by the
connection, with bytes that stand ready, before there is a request. Of its body is read which method it calls. What is
not so simple (a web page's call, a long body, a call sent ahead of the last one's answer) is refused by the gate, in
full form.
"""

from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Final, NamedTuple

from a2a_server.edge.overload import CallKind, Load
from a2a_server.protocol.errors import RETRY_AFTER

HELD: Final = 64 * 1024  # bytes of a body until which it is judged by its method


class Verdict(Enum):
    """What becomes of a call."""

    ACCEPT = "it is let in"
    HOLD = "its body is held until it tells what is called"
    REFUSE = "it is let in, to be refused by the gate in full form"
    REJECT = "it is answered by the connection"


class Rejected(NamedTuple):
    """The call that was rejected last: its kind by its path, which JSON-RPC has none of, and its id."""

    kind: CallKind | None
    request_id: str | int | None


class Unread(NamedTuple):
    """What came while a connection was paused."""

    data: bytes
    has_ended: bool  # the client's end came, too


class Admission:
    """The calls of one connection as a part of the server's load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        place = object()  # by which the load knows the connection: what it keeps of it keeps nothing else
        self._begin: Callable[[], None] = partial(load.begin, place)
        self.end: Callable[[], None] = partial(load.end, place)  # the call is answered, waits for others, or is gone
        self._reject: Callable[[], float] = partial(load.reject, place)
        self._early_until = 0.0  # when it may ask again, as it was told with a rejection
        self._kind: CallKind | None = None  # of the call that is judged, by its path
        self.held: bytearray | None = None  # the body of a call of which it is not known whether it may pass
        self._unread: bytearray | None = None  # what came while the connection is paused
        self._has_ended = False  # the client's end came meanwhile
        self.rejected = Rejected(None, None)

    # A call

    def judge_head(self, now: float, method: bytes, target: bytes, *, is_plain: bool) -> Verdict:
        """A call's head is there. `is_plain`: it is not sent ahead of an answer, and nobody waits to send its body."""
        is_early = self._early_until > now
        if not self._load.is_pressed(early=is_early):
            return Verdict.ACCEPT
        path = target.partition(b"?")[0].decode("ascii", "replace")
        self._kind = self._load.classifier.of_path(method.decode("ascii"), path)
        if self._kind is not None and not self._load.refuses(self._kind, early=is_early):
            return Verdict.ACCEPT
        self.held = bytearray()
        return Verdict.HOLD if is_plain else Verdict.REFUSE

    def judge_piece(self, body: bytes) -> Verdict:
        """More came of a body that is held."""
        assert self.held is not None
        self.held += body
        return Verdict.HOLD if len(self.held) <= HELD else Verdict.REFUSE

    def judge_body(self, now: float, *, is_from_page: bool) -> Verdict:
        """The body that is held is whole. What a web page may read of a refusal is in the full form."""
        assert self.held is not None
        kind, request_id = self._kind, None
        if kind is None:
            kind, request_id = self._load.classifier.of_body(self.held)
        if not self._load.refuses(kind, early=self._early_until > now):
            return Verdict.ACCEPT
        if is_from_page:
            return Verdict.REFUSE
        self.held, self.rejected = None, Rejected(self._kind, request_id)
        return Verdict.REJECT

    def release(self, *, is_refused: bool) -> bytes:
        """What was held of a call that is let in."""
        held, self.held = self.held, None
        if is_refused:
            self._reject()
        return bytes(held or b"")

    def begin(self) -> Callable[[], None]:
        """The call that is answered is whole, and load from now on; what to call when it only waits for others."""
        self._begin()
        self._early_until = 0.0
        return self.end

    # A pause

    @property
    def is_paused(self) -> bool:
        return self._unread is not None

    def pause(self, now: float) -> float:
        """A call was rejected: read nothing for so many seconds. A client that asks again earlier is served last."""
        self._early_until = now + RETRY_AFTER
        self._unread = bytearray()
        return self._reject()

    def keep(self, data: bytes) -> bool:
        """Data came meanwhile. Whether it is so much that no more should be taken."""
        assert self._unread is not None
        self._unread += data
        return len(self._unread) > HELD

    def keep_end(self) -> None:
        """The client's end came meanwhile."""
        self._has_ended = True

    def resume(self) -> Unread | None:
        """The pause is over. None: there is none, or the connection has ended."""
        unread, self._unread = self._unread, None
        return None if unread is None else Unread(bytes(unread), self._has_ended)

    def close(self) -> None:
        """The connection has ended."""
        self.end()
        self.held = self._unread = None
