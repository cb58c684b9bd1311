"""One HTTP connection: uvicorn's, with our bounds, deadlines and admission.

This is the only module that inherits from uvicorn. It acts; three parts without I/O decide. For whatever happens they
are asked in one order: HeadBounds (is this a request?), Deadlines (does it come in time?), Admission (is it taken?),
and then uvicorn goes on. The transport tells `Connection` what happens, the parser tells `RequestReader`.

No byte of a body ever becomes a request, whatever its head says. The parser stops behind a head that asks for another
protocol, and takes what follows for that protocol. A server may ignore such a wish (RFC 9110 §7.8), and this one does:
a new parser reads the head without the field `Upgrade`, and then what follows it as its body.
"""

import asyncio
import logging
import re
import socket
import ssl
import struct
from dataclasses import dataclass, field
from typing import Any, Final

import httptools
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from a2a_server.edge.admission import Admission, Verdict
from a2a_server.edge.connection_count import Connections
from a2a_server.edge.deadlines import Deadlines, Due, Exchange, Timeouts
from a2a_server.edge.framing import HALF_CLOSED, Ending
from a2a_server.edge.head_bounds import HeadBounds, HeadLimits, HeadNotTaken, path_of
from a2a_server.edge.limits import PERMIT, Permit
from a2a_server.edge.overload import REFUSED, TAKEN, Load
from a2a_server.edge.paused import PausedConnections
from a2a_server.edge.refusals import Refusals, last_answer, refusals

logger = logging.getLogger(__name__)

_IGNORED: Final = b"upgrade"
_REQUEST_LINE: Final = re.compile(rb"(?:\r\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} [\x21-\x7e]+ HTTP/1\.[01]\r\n")
_NO_LINGER: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What the connections of one server have in common."""

    connections: Connections
    timeouts: Timeouts
    heads: HeadLimits
    load: Load
    tls: ssl.SSLContext | None = None  # of the handshakes that are made here
    paused: PausedConnections = field(default_factory=PausedConnections)
    refusals: Refusals = field(default_factory=refusals)


class Connection(HttpToolsProtocol):
    """What the transport tells of a connection, and what is done to it. `enforce` is called once a second."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        shared: Shared,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._shared = shared
        self.counted: str | None = None  # the address under which it is counted
        self.deadlines = Deadlines(shared.timeouts, self.loop.time())
        self.admission = Admission(shared.load)
        self._reader = RequestReader(self, HeadBounds(shared.heads))
        self.running: RequestResponseCycle | None = None  # the call that is answered now, or was answered last
        self._is_deaf = False  # nothing more is read: the connection ends, perhaps after the answers that it owes
        self._is_half_closed = False  # the client sends nothing more, and waits for answers, or is gone

    # What the transport tells

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Count it; one for which there is no room is answered and closed at once."""
        super().connection_made(transport)
        if self.counted is not None:
            return
        address = self.client[0] if self.client else ""
        if self._shared.connections.enter(address):
            self.counted = address
        else:
            headers = [*self.server_state.default_headers, (b"retry-after", b"5")]
            transport.write(last_answer(503, "Too many connections", headers))
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Read what has come. (TLS may hand over data after the connection was closed.)"""
        if self._is_deaf or self.transport.is_closing():
            return
        if self.deadlines.head_since is None and (self.cycle is None or self.cycle.response_complete):
            self.deadlines.head_begins(self.loop.time())
        if self.admission.is_paused:
            if self.admission.keep(data):
                self.flow.pause_reading()
            return
        self._unset_keepalive_if_required()
        try:
            self._reader.feed(data)
        except HeadNotTaken as error:
            self.end_with(error.status, error.text)
        except httptools.HttpParserError as error:
            # No variable may hold the context: its traceback leads back to this frame, and both would wait for the
            # garbage collector, with the connection and its bytes.
            if isinstance(error.__context__, HeadNotTaken):
                self.end_with(error.__context__.status, error.__context__.text)
            elif isinstance(error, httptools.HttpParserInvalidMethodError) and _REQUEST_LINE.match(data):
                self.end_with(501, "This HTTP method is not supported")  # RFC 9110 §9.1
            else:
                self.end_with(400, f"This is not a valid HTTP request: {error}")

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's never stays
        """The client sends nothing more. It still gets the answers to what it has asked whole (RFC 9112 §9.6).

        Over TLS asyncio ends the connection, as TLS 1.2 demands (RFC 5246 §7.2.1).
        """
        if self.scheme == "https" or self.transport.is_closing():
            return None
        if self.admission.is_paused:
            self.admission.keep_end()
            return True
        self.end_with()
        if self.transport.is_closing():
            return None
        self._is_half_closed = True
        if self.running is not None:
            self.running.scope[HALF_CLOSED] = True  # type: ignore[typeddict-unknown-key]  # of ours
            _note_leaving(self.running)
            self.running.message_event.set()  # a stream learns of it, and looks whether the client is still there
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is answered now, and drop what the connection holds.

        A connection and its newest request refer to each other, so both would wait for the garbage collector with all
        that they hold, and a timer that is still set would keep them. uvicorn stops the timer of orderly ends alone,
        and tells the newest request alone.
        """
        if self.counted is not None:
            self._shared.connections.leave(self.counted)
            self.counted = None
        self.admission.close()
        running = self.running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
            _note_leaving(running)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._is_deaf = True
        self.running = None
        self.pipeline.clear()
        self.cycle = self.scope = self._reader = None  # type: ignore[assignment]  # as uvicorn does with the parser
        self.headers, self.url = [], b""

    # What uvicorn does

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]  # looser
        self.running = cycle
        if cycle.scope["http_version"] == "1.0" or cycle.waiting_for_100_continue:
            app = Ending(app, cycle)
        super()._start_asgi_task(cycle, app)  # type: ignore[arg-type]  # stricter
        self.weigh()

    def on_response_complete(self) -> None:
        self.admission.end()
        super().on_response_complete()

    def weigh(self) -> None:
        """The call that is answered now is load when all of it is there: a slow sender is none."""
        cycle = self.running
        if cycle is not None and not cycle.more_body and not cycle.response_complete:
            cycle.scope[TAKEN] = self.admission.begin()  # type: ignore[typeddict-unknown-key]  # of ours

    # What is done to it

    def reject(self) -> None:
        """Answer a call that is one too many, and read nothing for a while."""
        if self.transport.is_closing():
            return
        self.transport.write(self._shared.refusals.answer(self.admission.rejected))
        if self.parser.should_keep_alive():
            self._shared.paused.rest(self, self.admission.pause(self.loop.time()))
        else:
            self.transport.close()

    def resume(self) -> None:
        """Read on, after a pause."""
        unread = self.admission.resume()
        if unread is None or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if unread.data:
            self.data_received(unread.data)
        if unread.has_ended and not self.eof_received():
            self.transport.close()
        if unread.data or unread.has_ended:
            return
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def enforce(self) -> None:
        """End the connection if its client has missed a deadline."""
        cycle = self.cycle  # None also for a first call that is held
        is_answering = cycle is not None and not cycle.response_complete  # or it waits for its turn
        is_expected = cycle is not None and cycle.waiting_for_100_continue and not cycle.response_started
        exchange = Exchange(
            unsent=self.transport.get_write_buffer_size(),
            body=self._reader.body_size,
            is_answering=is_answering,
            has_responded=is_answering and cycle.response_started,
            waits_for_us=self.flow.read_paused or is_expected,
            is_ending=self._is_deaf,
        )
        due = self.deadlines.due(self.loop.time(), exchange)
        if due is Due.TAKING:
            logger.info("closed the connection of a slow reader: no progress for %g s", self._shared.timeouts.taking)
            _reset(self.transport)
        elif self._is_half_closed and _is_gone(self.transport):
            self.transport.abort()
        elif due is Due.ARRIVING and not self.transport.is_closing():
            logger.debug("closed a connection: its request took too long to arrive")
            if self.deadlines.body_since is not None and is_answering:
                self.end_with(408, "The request took too long to arrive")
            else:
                self.transport.close()  # nothing was asked, or it was answered already

    def end_with(self, status: int = 0, text: str = "") -> None:
        """Read nothing more, and close with an answer of one line; without one where there is no status.

        Where requests that came before are still to be answered, the connection ends with those answers, without this
        one: the client would take it for one of theirs.
        """
        if self._is_deaf:
            return
        self._is_deaf = True
        newest, running = self.cycle, self.running
        if newest is not None and not newest.response_complete:
            if not newest.more_body:
                newest.keep_alive = False
                return
            if newest is not running and running is not None:  # it will never be complete, and has not begun
                (self.pipeline[1][0] if len(self.pipeline) > 1 else running).keep_alive = False
                return
            if newest.response_started:
                status = 0
        if status:
            headers = self.server_state.default_headers  # Date: RFC 9110 §6.6.1
            self.transport.write(last_answer(status, text, headers, is_head=self.parser.get_method() == b"HEAD"))
        self.transport.close()


class RequestReader:
    """What the parser tells of a connection: each part is asked in its turn, and then uvicorn's own method goes on."""

    def __init__(self, connection: Connection, bounds: HeadBounds) -> None:
        self._connection = connection
        self._bounds = bounds
        self._is_set_aside = False  # the head that was read last is to be read again, without the field that is ignored
        self.body_size = 0  # bytes that have arrived of the body that arrived last
        self._new_parser()

    def feed(self, data: bytes) -> None:
        """Read data, all of it. Raises HeadNotTaken, as such or as the context of the parser's error."""
        rest: bytes | memoryview = data
        connection = self._connection
        while True:
            try:
                connection.parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as stopped:
                rest = memoryview(rest)[stopped.args[0] :]
                self._read_head_again()
        if not connection.transport.is_closing():
            self._bounds.read(len(data), None if connection.deadlines.body_since is None else self.body_size)

    def _new_parser(self) -> None:
        self._connection.parser = parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def _read_head_again(self) -> None:
        """Give the head to a new parser, without the field for which the old one has stopped."""
        self._is_set_aside = False
        connection, old = self._connection, self._connection.parser
        method, version = old.get_method(), old.get_http_version().encode()
        fields = [b"%b: %b\r\n" % each for each in connection.headers if each[0] != _IGNORED]
        self._new_parser()
        try:
            head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, connection.url, version, b"".join(fields))
            connection.parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            raise httptools.HttpParserError("the head cannot be read without the field") from None

    def on_message_begin(self) -> None:
        connection = self._connection
        self._bounds.begin(len(connection.pipeline))
        if connection.deadlines.head_since is None:  # a request that follows another one in the same data
            connection.deadlines.head_begins(connection.loop.time())
        connection.on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._bounds.target(len(url))
        self._connection.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._bounds.field(name, value):
            self._connection.on_header(name, value)

    def on_headers_complete(self) -> None:
        connection = self._connection
        parser = connection.parser
        method, version, now = parser.get_method(), parser.get_http_version(), connection.loop.time()
        if not self._bounds.complete(method, version, is_upgrade=parser.should_upgrade()):
            self._is_set_aside = True
            return
        if version == "1.0":
            connection.expect_100_continue = False  # RFC 9110 §10.1.1
        connection.url = path_of(method, connection.url, version, connection.scope)
        connection.deadlines.body_begins(now)
        self.body_size = 0
        cycle = connection.cycle
        is_sent_ahead = cycle is not None and not cycle.response_complete
        is_plain = not is_sent_ahead and not connection.expect_100_continue
        self._act(connection.admission.judge_head(now, method, connection.url, is_plain=is_plain))

    def on_chunk_header(self) -> None:
        self._bounds.chunk(self.body_size)

    def on_body(self, body: bytes) -> None:
        self.body_size += len(body)
        connection = self._connection
        if connection.admission.held is None:
            connection.on_body(body)
        elif (verdict := connection.admission.judge_piece(body)) is not Verdict.HOLD:
            self._act(verdict)

    def on_message_complete(self) -> None:
        if self._is_set_aside:
            return
        connection = self._connection
        connection.deadlines.body_ends()
        if connection.admission.held is not None:
            is_from_page = any(name == b"origin" for name, _ in connection.headers)
            verdict = connection.admission.judge_body(connection.loop.time(), is_from_page=is_from_page)
            self._act(verdict)
            if verdict is Verdict.REJECT:
                return
        connection.on_message_complete()
        if connection.cycle is connection.running:
            connection.weigh()

    def _act(self, verdict: Verdict) -> None:
        """Do what was decided on the call whose head was read last."""
        connection = self._connection
        if verdict is Verdict.REJECT:
            connection.reject()
        elif verdict is not Verdict.HOLD:
            is_refused = verdict is Verdict.REFUSE
            held = connection.admission.release(is_refused=is_refused)
            if is_refused:
                connection.scope[REFUSED] = True  # type: ignore[typeddict-unknown-key]  # of ours
            connection.on_headers_complete()
            if held:
                connection.on_body(held)


def _is_gone(transport: asyncio.Transport) -> bool:
    """Whether a client that sends nothing more has closed the connection: then what was written to it came back."""
    return bool(transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def _reset(transport: asyncio.Transport) -> None:
    """Drop the connection: closing would wait until the client has taken the rest.

    A reset frees what waits in the kernel's buffers too, at once.
    """
    handle = transport.get_extra_info("socket")
    handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def _note_leaving(cycle: RequestResponseCycle) -> None:
    """Tell the request that its client may be gone."""
    permit = cycle.scope.get(PERMIT)
    if isinstance(permit, Permit):
        permit.has_left = True
