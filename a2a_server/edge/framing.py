"""Where one request ends and the next one begins, in the bytes of a connection.

No byte of a body ever becomes a request, whatever its head says. The parser stops behind a head that asks for another
protocol, and takes what follows for that protocol. A server may ignore such a wish (RFC 9110 §7.8), and this one does:
a new parser reads the head without the field `Upgrade`, and then what follows it as its body.
"""

import re
from typing import Final

import httptools
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from a2a_server.edge.targets import origin_form

HALF_CLOSED: Final = "a2a_server.half_closed"  # in the scope: the client sends nothing more, or is gone
SENT_AHEAD: Final = 64  # requests that may wait on one connection until those before them are answered
_IGNORED: Final = b"upgrade"
_VERSIONS: Final = ("1.1", "1.0")
_REQUEST_LINE: Final = re.compile(rb"(?:\r\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64} [\x21-\x7e]+ HTTP/1\.[01]\r\n")


class HeadNotTaken(Exception):
    """Raised into the parser, which stops at that; the connection answers and closes then."""

    def __init__(self, text: str, status: int = 400) -> None:
        self.text = text
        self.status = status
        super().__init__(text)


class Framed(HttpToolsProtocol):
    """uvicorn's connection, which reads each body to its end, and nothing behind what it cannot read."""

    _running: RequestResponseCycle | None = None  # the call that is answered now, or was answered last
    _is_deaf = False  # nothing more is read: the connection ends, perhaps after the answers that it owes
    _is_set_aside = False  # the head that was read last is to be read again, without the field that is ignored
    _is_half_closed = False  # the client sends nothing more, and waits for answers, or is gone

    def data_received(self, data: bytes) -> None:
        """Read what has come. (TLS may hand over data after the connection was closed.)"""
        if self._is_deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        try:
            self._read(data)
        except httptools.HttpParserError as error:
            # No variable may hold the context: its traceback leads back to this frame, and both would wait for the
            # garbage collector, with the connection and its bytes.
            if isinstance(error.__context__, HeadNotTaken):
                self.end_with(error.__context__.status, error.__context__.text)
            elif isinstance(error, httptools.HttpParserInvalidMethodError) and _REQUEST_LINE.match(data):
                self.end_with(501, "This HTTP method is not supported")  # RFC 9110 §9.1
            else:
                self.send_400_response(f"This is not a valid HTTP request: {error}")

    def eof_received(self) -> bool | None:  # type: ignore[override]  # uvicorn's never stays
        """The client sends nothing more. It still gets the answers to what it has asked whole (RFC 9112 §9.6).

        Over TLS asyncio ends the connection, as TLS 1.2 demands (RFC 5246 §7.2.1).
        """
        if self.scheme == "https" or self.transport.is_closing():
            return None
        self.end_with()
        if self.transport.is_closing():
            return None
        self._is_half_closed = True
        if self._running is not None:
            self._running.scope[HALF_CLOSED] = True  # type: ignore[typeddict-unknown-key]  # of ours
            self._running.message_event.set()  # a stream learns of it, and looks whether the client is still there
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the request that is answered now, and drop what the connection holds.

        A connection and its newest request refer to each other, so both would wait for the garbage collector with all
        that they hold, and a timer that is still set would keep them. uvicorn stops the timer of orderly ends alone,
        and tells the newest request alone.
        """
        running = self._running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._is_deaf = True
        self._running = None
        self.pipeline.clear()
        self.cycle = self.scope = None  # type: ignore[assignment]  # as uvicorn does before the first request
        self.headers, self.url = [], b""

    def _read(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        while True:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as stopped:
                rest = memoryview(rest)[stopped.args[0] :]
                self._read_head_again()
            else:
                return

    def _read_head_again(self) -> None:
        """Give the head to a new parser, without the field for which the old one has stopped."""
        self._is_set_aside = False
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % field for field in self.headers if field[0] != _IGNORED]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        try:
            self.parser.feed_data(b"%b %b HTTP/%b\r\n%b\r\n" % (method, self.url, version, b"".join(fields)))
        except httptools.HttpParserUpgrade:
            raise httptools.HttpParserError("the head cannot be read without the field") from None

    def judge_head(self) -> bool:
        """Whether the head that is complete is that of a request; if not, it is read again.

        Raises HeadNotTaken for a tunnel (CONNECT), for a version in which requests end in another way, and for a
        target that is no address.
        """
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise HeadNotTaken("The version is not HTTP/1.0 or HTTP/1.1")
        if not self.parser.should_upgrade():
            if version == "1.0":
                self._judge_1_0()
            if self.url[:1] != b"/" or b"#" in self.url:
                self._judge_target()
            return True
        if self.parser.get_method() == b"CONNECT":
            raise HeadNotTaken("CONNECT is not supported")
        self._is_set_aside = True
        return False

    def _judge_1_0(self) -> None:
        if any(name == b"transfer-encoding" for name, _ in self.headers):  # RFC 9112 §6.1: its end is not known
            raise HeadNotTaken("HTTP/1.0 has no Transfer-Encoding")
        self.expect_100_continue = False  # RFC 9110 §10.1.1

    def _judge_target(self) -> None:
        """Make an absolute target one below this server; its authority is what counts, not `Host` (RFC 9112 §3.2.2)."""
        try:
            request = (self.parser.get_method(), self.url, self.parser.get_http_version())
            self.url = origin_form(*request, self.scope)
        except ValueError as error:
            raise HeadNotTaken(f"The request target {error}") from None

    def on_message_begin(self) -> None:
        """Refuse a request when too many before it wait for their answers."""
        if len(self.pipeline) >= SENT_AHEAD:
            raise HeadNotTaken("Too many pipelined requests")
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, and close."""
        self.end_with(400, msg)

    def plain(self, status: int, text: str, *fields: tuple[bytes, bytes]) -> bytes:
        """A whole answer, of one line of text, behind which the connection ends."""
        content = b"" if self.parser.get_method() == b"HEAD" else text.encode()  # RFC 9110 §9.3.2
        own = (
            *self.server_state.default_headers,  # Date: RFC 9110 §6.6.1
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(text)),
            (b"connection", b"close"),
            *fields,
        )
        return STATUS_LINE[status] + b"".join([b"%b: %b\r\n" % field for field in own]) + b"\r\n" + content

    def end_with(self, status: int = 0, text: str = "") -> None:
        """Read nothing more, and close with an answer of one line; without one where there is no status.

        Where requests that came before are still to be answered, the connection ends with those answers, without this
        one: the client would take it for one of theirs.
        """
        if self._is_deaf:
            return
        self._is_deaf = True
        newest, running = self.cycle, self._running
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
            self.transport.write(self.plain(status, text))
        self.transport.close()


class Ending:
    """The app, whose answer is framed as the rest of its connection allows.

    HTTP/1.0 knows no chunks, so that an answer of unknown length ends with its connection (RFC 9112 §6.1, §6.3). And
    it is unclear what follows an answer to a client that was never told to send its body (RFC 9110 §10.1.1).
    """

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = False

        async def sending(message: Message) -> None:
            nonlocal is_open
            cycle = self._cycle
            if message["type"] == "http.response.start":
                if cycle.waiting_for_100_continue:
                    cycle.keep_alive = False
                if scope["http_version"] == "1.0" and not _has_length(message):
                    is_open, cycle.chunked_encoding = True, False
            elif is_open:
                cycle.expected_content_length = len(message.get("body", b""))  # uvicorn counts down from it
            await send(message)

        await self._app(scope, receive, sending)


def _has_length(message: Message) -> bool:
    return any(name == b"content-length" for name, _ in message["headers"])
