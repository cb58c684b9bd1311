"""A connection at which calls are refused while the server has too much to do.

At ten times the load nine of ten calls are refused, so one of them must cost next to nothing: it is answered here, with
bytes that stand ready, before there is a request. Of its body is read which method it calls. What is not so simple (a
web page's call, a long body, a call sent ahead of the last one's answer) is refused by the gate, in full form.
"""

import asyncio
from collections import deque
from time import monotonic, thread_time
from typing import Any, ClassVar, Final, NamedTuple

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from a2a_server.overload import REFUSED, Allowance, Kind, Load, kind_of_body, kind_of_path

REST: Final = 0.005  # seconds, at least
HELD: Final = 64 * 1024  # bytes of a body until which it is judged by its method


class Refusals(NamedTuple):
    """The two refusals that stand ready: of JSON-RPC, around the id of the request, and of HTTP+JSON."""

    head: bytes  # without Content-Length
    before_id: bytes
    after_id: bytes
    plain: bytes

    def answer(self, kind: Kind | None, request_id: str | int | None) -> bytes:
        """The whole response. `kind`: by the path, which JSON-RPC has none of."""
        body = self.plain
        if kind is None:
            body = self.before_id + msgspec.json.encode(request_id) + self.after_id
        return b"%bcontent-length: %d\r\n\r\n%b" % (self.head, len(body), body)


class Benches:
    """Connections that are not read for a while after a refusal: who asks again and again must not take work's time."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._allowance = Allowance()
        self._resting: deque[Turnstile] = deque()
        self._bell: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._resting)

    def refused(self, connection: "Turnstile") -> None:
        """It got a refusal; when there were too many, it rests."""
        if self._allowance.spend(thread_time(), monotonic()):
            connection.be_idle()
            return
        connection.flow.pause_reading()
        self._resting.append(connection)
        if self._bell is None:
            self._bell = connection.loop.call_later(REST, self._ring)

    def _ring(self) -> None:
        # Never all of them as soon as there is room for one: the others would be refused at once.
        room = max(self._allowance.room(thread_time(), monotonic()), self._load.room)
        for _ in range(min(room, len(self._resting))):
            connection = self._resting.popleft()
            if not connection.transport.is_closing():
                connection.flow.resume_reading()
                connection.be_idle()
        self._bell = self._resting[0].loop.call_later(REST, self._ring) if self._resting else None


class Turnstile(HttpToolsProtocol):
    """uvicorn's connection, which counts what it lets in as the load."""

    load: ClassVar[Load | None] = None
    refusals: ClassVar[Refusals]
    benches: ClassVar[Benches]
    _held: bytearray | None = None  # the body of a call of which it is not known whether it may pass
    _kind: Kind | None = None  # by its path

    def on_headers_complete(self) -> None:
        if self.load is None or not self.load.is_pressed:
            super().on_headers_complete()
            return
        path = self.url.partition(b"?")[0].decode("ascii", "replace")
        self._kind = kind_of_path(self.parser.get_method().decode("ascii"), path)
        is_sent_ahead = self.cycle is not None and not self.cycle.response_complete
        if self._kind is not None and not self.load.refuses(self._kind):
            super().on_headers_complete()
        elif is_sent_ahead or self.expect_100_continue:
            self._held = bytearray()
            self._let_go(is_refused=True)
        else:
            self._held = bytearray()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
            return
        self._held += body
        if len(self._held) > HELD:
            self._let_go(is_refused=True)

    def on_message_complete(self) -> None:
        if self._held is None:
            super().on_message_complete()
            return
        assert self.load is not None
        kind, request_id = (self._kind, None) if self._kind is not None else kind_of_body(self._held)
        if not self.load.refuses(kind):
            self._let_go()
        elif any(name == b"origin" for name, _ in self.headers):  # what a page may read is in the full form
            self._let_go(is_refused=True)
        else:
            self._held = None
            self._turn_away(request_id)
            return
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.load is not None:
            self.load.end(self)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.load is not None:
            self.load.end(self)
        super().connection_lost(exc)

    def _start_asgi_task(self, *args: Any) -> None:
        if self.load is not None:
            self.load.begin(self)
        super()._start_asgi_task(*args)

    def _let_go(self, *, is_refused: bool = False) -> None:
        """Let the call in, with what has been held of it."""
        held, self._held = self._held, None
        if is_refused:
            self.scope[REFUSED] = True  # type: ignore[typeddict-unknown-key]  # of ours
        super().on_headers_complete()
        if held:
            super().on_body(bytes(held))

    def _turn_away(self, request_id: str | int | None) -> None:
        if self.transport.is_closing():
            return
        self.transport.write(self.refusals.answer(self._kind, request_id))
        if not self.parser.should_keep_alive():
            self.transport.close()
            return
        self.benches.refused(self)

    def be_idle(self) -> None:
        """Wait for the next call, though not for ever. Not while it rests: a call may wait that has not been read."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
