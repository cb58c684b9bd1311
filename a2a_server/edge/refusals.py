"""What a connection answers by itself, below ASGI: the bytes."""

from typing import NamedTuple

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from a2a_server.edge.admission import Rejected
from a2a_server.edge.headers import NO_STORE, NOSNIFF
from a2a_server.edge.origins import Headers
from a2a_server.protocol.errors import Overloaded, to_object, to_status


class Refusals(NamedTuple):
    """The two refusals that stand ready: of JSON-RPC, around the id of the request, and of HTTP+JSON."""

    head: bytes  # without Content-Length
    before_id: bytes
    after_id: bytes
    plain: bytes

    def answer(self, rejected: Rejected) -> bytes:
        """The whole response."""
        body = self.plain
        if rejected.kind is None:
            body = self.before_id + msgspec.json.encode(rejected.request_id) + self.after_id
        return b"%bcontent-length: %d\r\n\r\n%b" % (self.head, len(body), body)


def refusals() -> Refusals:
    """What is said to a call that is one too many, as the gate says it too."""
    error = Overloaded()
    head = b"HTTP/1.1 %d Service Unavailable\r\ncontent-type: application/json\r\n" % error.http_status
    told = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    head += b"".join([b"%b: %b\r\n" % field for field in (*told, NO_STORE, NOSNIFF)])
    after_id = b',"error":' + msgspec.json.encode(to_object(error)) + b"}"
    return Refusals(head, b'{"jsonrpc":"2.0","id":', after_id, msgspec.json.encode(to_status(error)))


def last_answer(status: int, text: str, headers: Headers, *, is_head: bool = False) -> bytes:
    """A whole answer, of one line of text, behind which the connection ends. `is_head`: to a HEAD, without the text."""
    own = (
        *headers,
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
        (b"connection", b"close"),
    )
    content = b"" if is_head else text.encode()  # RFC 9110 §9.3.2
    return STATUS_LINE[status] + b"".join([b"%b: %b\r\n" % field for field in own]) + b"\r\n" + content
