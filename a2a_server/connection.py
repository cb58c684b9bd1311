"""One HTTP connection: what uvicorn and its parser leave open is settled here, before there is a request.

The parser (llhttp) refuses by itself what makes two servers see two different requests: a length beside chunks, two
lengths, folded fields, bare line feeds, control characters. Beyond that the head is bounded, fields that come after
the body are no header fields, and no transfer coding is taken that nobody here would undo.
"""

from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD: Final = 16 * 1024  # bytes: the request's target and its header fields
MAX_FIELDS: Final = 100
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: 21\r\nconnection: close\r\n\r\nThe head is too large"
)


class HeadNotTaken(Exception):
    """Raised into the parser, which stops at that; uvicorn answers and closes then."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, with a bounded head."""

    _is_in_head = False
    _is_too_large = False
    _size = 0  # bytes of the head that has begun
    _fed = 0  # bytes that came for it so far, whether the parser has told of them or not

    def data_received(self, data: bytes) -> None:
        """A field that never ends is told of by nobody: what has come for this head is counted as well."""
        self._fed = self._fed + len(data) if self._is_in_head else 0
        if self._fed > MAX_HEAD:
            self._is_too_large = True
            self.send_400_response("")
            return
        super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, and close."""
        if not self._is_too_large:
            super().send_400_response(msg)
            return
        self.transport.write(_TOO_LARGE)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head, self._size = True, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:  # a trailer: what a proxy let pass there must not count as what it says itself
            return
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)
        if name.lower() == b"transfer-encoding" and value.strip().lower() != b"chunked":
            raise HeadNotTaken("another transfer coding than chunked")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > MAX_HEAD or len(self.headers) > MAX_FIELDS:
            self._is_too_large = True
            raise HeadNotTaken("the head is too large")
