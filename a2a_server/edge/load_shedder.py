"""A connection at which calls are refused while the server has too much to do.

At ten times the load nine of ten calls are refused, so one of them must cost next to nothing: it is answered here, with
bytes that stand ready, before there is a request. Of its body is read which method it calls. What is not so simple (a
web page's call, a long body, a call sent ahead of the last one's answer) is refused by the gate, in full form.
"""

import asyncio
from collections import deque
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

import msgspec
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from a2a_server.edge.framing import Ending, Framed
from a2a_server.edge.overload import REFUSED, RETRY_AFTER, TAKEN, Kind, Load

TURN: Final = 0.01  # seconds, at least, between two times at which connections are heard again
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


class LoadShedder(Framed):
    """uvicorn's connection, which counts what it lets in as the load."""

    load: ClassVar[Load | None] = None
    refusals: ClassVar[Refusals]
    bench: ClassVar["PausedConnections"]
    _unheard: bytearray | None = None  # what came while it rests
    _has_ended_unheard = False  # the client's end came while it rests
    _held: bytearray | None = None  # the body of a call of which it is not known whether it may pass
    _kind: Kind | None = None  # by its path
    _early_until = 0.0  # when it may ask again, as it was told with a refusal
    _place: object  # by which the load knows this connection; what the load and requests keep of it keeps nothing else

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        self._place = object()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._unheard is None:
            super().data_received(data)
            return
        self._unheard += data
        if len(self._unheard) > HELD:
            self.flow.pause_reading()

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's never stays
        if self._unheard is None or self.scheme == "https":
            return super().eof_received()
        self._has_ended_unheard = True
        return True

    def on_headers_complete(self) -> None:
        if self.load is None or not self.load.is_pressed(early=self._is_early()):
            super().on_headers_complete()
            return
        path = self.url.partition(b"?")[0].decode("ascii", "replace")
        self._kind = self.load.kinds.of_path(self.parser.get_method().decode("ascii"), path)
        is_sent_ahead = self.cycle is not None and not self.cycle.response_complete
        if self._kind is not None and not self.load.refuses(self._kind, early=self._is_early()):
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
            self._complete()
            return
        assert self.load is not None
        kind, request_id = (self._kind, None) if self._kind is not None else self.load.kinds.of_body(self._held)
        if not self.load.refuses(kind, early=self._is_early()):
            self._let_go()
        elif any(name == b"origin" for name, _ in self.headers):  # what a page may read is in the full form
            self._let_go(is_refused=True)
        else:
            self._held = None
            self._turn_away(request_id)
            return
        self._complete()

    def on_response_complete(self) -> None:
        if self.load is not None:
            self.load.end(self._place)
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.load is not None:
            self.load.end(self._place)
        super().connection_lost(exc)
        self._held = self._unheard = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        if cycle.scope["http_version"] == "1.0" or cycle.waiting_for_100_continue:
            app = Ending(app, cycle)
        super()._start_asgi_task(cycle, app)
        self._weigh()

    def _complete(self) -> None:
        super().on_message_complete()
        if self.cycle is self._running:
            self._weigh()

    def _weigh(self) -> None:
        """The call that runs is load when all of it is there: a slow sender is none."""
        cycle = self._running
        if self.load is None or cycle is None or cycle.more_body or cycle.response_complete:
            return
        self.load.begin(self._place)
        self._early_until = 0.0
        cycle.scope[TAKEN] = partial(self.load.end, self._place)  # type: ignore[typeddict-unknown-key]  # of ours

    def _let_go(self, *, is_refused: bool = False) -> None:
        """Let the call in, with what has been held of it."""
        held, self._held = self._held, None
        if is_refused:
            assert self.load is not None
            self.load.turn_away(self._place)
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
        assert self.load is not None
        self._early_until = self.loop.time() + RETRY_AFTER
        self._unheard = bytearray()
        self.bench.rest(self, self.load.turn_away(self._place))

    def _is_early(self) -> bool:
        """Whether it was refused, and asks again before it is time."""
        return self._early_until != 0.0 and self._early_until > self.loop.time()

    def hear(self) -> None:
        """Read on, after a rest."""
        unheard, self._unheard = self._unheard, None
        if self.transport.is_closing() or unheard is None:
            return
        self.flow.resume_reading()
        if unheard:
            super().data_received(bytes(unheard))
        if self._has_ended_unheard and not self.eof_received():
            self.transport.close()
        if unheard or self._has_ended_unheard:
            return
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)


class PausedConnections:
    """Connections paused after a refusal: clients that retry at once must not take time from work.

    They are heard again many at a time: a turn of the loop for each one would cost more than the refusal.
    """

    def __init__(self) -> None:
        self._resting: deque[tuple[float, LoadShedder]] = deque()

    def rest(self, connection: LoadShedder, seconds: float) -> None:
        loop = connection.loop
        if not self._resting:
            loop.call_later(max(seconds, TURN), self._ring, loop)
        self._resting.append((loop.time() + seconds, connection))

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        due = []
        while self._resting and self._resting[0][0] <= loop.time():
            due.append(self._resting.popleft()[1])
        if self._resting:
            loop.call_later(max(TURN, self._resting[0][0] - loop.time()), self._ring, loop)
        for connection in due:
            connection.hear()
