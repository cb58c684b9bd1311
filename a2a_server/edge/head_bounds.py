"""What the head of a request may be, and what may stand around its body. Pure: it is told what was read, and raises.

The parser (llhttp) refuses by itself what makes two servers see two different requests: a length beside chunks, two
lengths, folded fields, bare line feeds, control characters. Beyond that the head is bounded, fields that come after
the body are no header fields, and no transfer coding is taken that this server cannot undo.
"""

from dataclasses import dataclass
from typing import Any, Final

from a2a_server.edge.targets import origin_form

SENT_AHEAD: Final = 64  # requests that may wait on one connection until those before them are answered
FEW_CHUNKS: Final = 4096  # of a body, however small; of more the average must have LEAST_CHUNK bytes
LEAST_CHUNK: Final = 16
FRAMING: Final = 64 * 1024  # bytes around a body's chunks and behind them, besides half of what is in the chunks
_VERSIONS: Final = ("1.1", "1.0")


class HeadNotTaken(Exception):
    """What was read is no request that is taken: the connection answers with this text, and closes."""

    def __init__(self, text: str, status: int = 400) -> None:
        self.text = text
        self.status = status
        super().__init__(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """How large the head of a request may be: its target and its header fields."""

    size: int  # bytes
    fields: int


class HeadBounds:
    """The bounds of one connection's heads, one after the other. Every method may raise HeadNotTaken."""

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self.is_in_head = False
        self._has_begun = False  # a head has begun in the data that is being read
        self._size = 0  # bytes of the head that has begun
        self._fields = 0
        self._is_coded = False  # it has a Transfer-Encoding
        self._chunks = 0  # of the body that arrives
        self._middle = 0  # bytes that came since for the head alone, whether the parser has reported them or not
        self._raw = 0  # bytes that came since for the body alone, with what is around its chunks

    def begin(self, waiting: int) -> None:
        """A head begins, while so many requests wait for their answers."""
        if waiting >= SENT_AHEAD:
            raise HeadNotTaken("Too many pipelined requests")
        self.is_in_head = self._has_begun = True
        self._is_coded = False
        self._size = self._fields = self._chunks = 0

    def target(self, size: int) -> None:
        """So many bytes of the target have come."""
        self._size += size
        if self._size > self._limits.size:  # RFC 9112 §3
            raise HeadNotTaken(f"The request target is longer than {self._limits.size} bytes", 414)

    def field(self, name: bytes, value: bytes) -> bool:
        """Whether it is a header field. A trailer is none: what a proxy let pass there must not count as its own."""
        if not self.is_in_head:
            return False
        self._size += len(name) + len(value) + 4
        self._fields += 1
        if self._size > self._limits.size or self._fields > self._limits.fields:
            raise HeadNotTaken("The head is too large", 431)
        if name.lower() == b"transfer-encoding":
            self._is_coded = True
            if (coding := value.strip().lower()) != b"chunked":
                # RFC 9112 §6.1, §6.3: where chunked is the last one, only the coding before it is not known.
                is_framed = coding.endswith((b",chunked", b", chunked")) and b"chunked" not in coding[:-8]
                raise HeadNotTaken("Only Transfer-Encoding: chunked is supported", 501 if is_framed else 400)
        return True

    def complete(self, method: bytes, version: str, *, is_upgrade: bool) -> bool:
        """The head is whole. Whether it is that of a request; if not, it asks for another protocol, which is ignored.

        Not taken are a tunnel (CONNECT) and a version in which requests end in another way.
        """
        self.is_in_head = False
        if version not in _VERSIONS:
            raise HeadNotTaken("The version is not HTTP/1.0 or HTTP/1.1")
        if is_upgrade:
            if method == b"CONNECT":
                raise HeadNotTaken("CONNECT is not supported")
            return False
        if self._is_coded and version == "1.0":  # RFC 9112 §6.1: its end is not known
            raise HeadNotTaken("HTTP/1.0 has no Transfer-Encoding")
        return True

    def chunk(self, body: int) -> None:
        """A chunk begins, behind so many bytes of its body. A tiny one costs as much time as a large one."""
        if self._chunks > FEW_CHUNKS and body < LEAST_CHUNK * self._chunks:
            raise HeadNotTaken("The body has too many small chunks")
        self._chunks += 1

    def read(self, size: int, body: int | None) -> None:
        """Data of this size was read. `body`: how many bytes of one have come; None while none arrives.

        The parser reports no field that never ends, no chunk extension and no trailer, so data that held nothing but a
        head's middle, or a body's, is counted here.
        """
        is_more, self._has_begun = not self._has_begun, False
        self._middle = self._middle + size if is_more and self.is_in_head else 0
        if self._middle > self._limits.size:
            raise HeadNotTaken("The head is too large", 431)
        self._raw = self._raw + size if is_more and body is not None else 0
        if body is not None and self._raw > FRAMING + self._limits.size + body + body // 2:
            raise HeadNotTaken(
                "The body's chunk headers and trailers are too large; send larger chunks and no trailers", 413
            )


def path_of(method: bytes, target: bytes, version: str, scope: Any) -> bytes:
    """Path and query of a target, in the scope of its request. Raises HeadNotTaken for one that is no address.

    An absolute target becomes one below this server; its authority is what counts, not `Host` (RFC 9112 §3.2.2).
    """
    if target[:1] == b"/" and b"#" not in target:
        return target
    try:
        return origin_form(method, target, version, scope)
    except ValueError as error:
        raise HeadNotTaken(f"The request target {error}") from None
