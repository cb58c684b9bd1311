"""Where one request ends and the next one begins, in the bytes of a connection.

No byte of a body ever becomes a request, whatever its head says. The parser stops behind a head that asks for another
protocol, and takes what follows for that protocol. A server may ignore such a wish (RFC 9110 §7.8), and this one does:
a new parser reads the head without the field `Upgrade`, and then what follows it as its body.
"""

from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

SENT_AHEAD: Final = 64  # requests that may wait on one connection until those before them are answered
_IGNORED: Final = b"upgrade"
_VERSIONS: Final = ("1.1", "1.0")


class HeadNotTaken(Exception):
    """Raised into the parser, which stops at that; the connection answers and closes then."""


class Framed(HttpToolsProtocol):
    """uvicorn's connection, which reads each body to its end, and nothing behind what it cannot read."""

    _running: RequestResponseCycle | None = None  # the call that is answered now, or was answered last
    _is_deaf = False  # nothing more is read: the connection ends, perhaps after the answers that it owes
    _is_set_aside = False  # the head that was read last is to be read again, without the field that is ignored

    def data_received(self, data: bytes) -> None:
        """Read what has come. (TLS may hand over data after the connection was closed.)"""
        if self._is_deaf or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        try:
            self._read(data)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

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

        Raises HeadNotTaken for a tunnel (CONNECT), and for a version in which requests end in another way.
        """
        if self.parser.get_http_version() not in _VERSIONS:
            raise HeadNotTaken("not a version of HTTP/1")
        if not self.parser.should_upgrade():
            return True
        if self.parser.get_method() == b"CONNECT":
            raise HeadNotTaken("this server makes no tunnels")
        self._is_set_aside = True
        return False

    def on_message_begin(self) -> None:
        """Refuse a request when too many before it wait for their answers."""
        if len(self.pipeline) >= SENT_AHEAD:
            raise HeadNotTaken("too many requests were sent ahead")
        super().on_message_begin()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, and close."""
        self.end_with(
            b"%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINE[400], len(msg), msg.encode())
        )

    def end_with(self, answer: bytes) -> None:
        """Read nothing more, and close with `answer`.

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
                answer = b""
        self.transport.write(answer)
        self.transport.close()
