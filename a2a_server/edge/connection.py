"""One HTTP connection: what uvicorn and its parser leave open is settled here, before there is a request.

The parser (llhttp) refuses by itself what makes two servers see two different requests: a length beside chunks, two
lengths, folded fields, bare line feeds, control characters. Beyond that the head is bounded, fields that come after
the body are no header fields, and no transfer coding is taken that this server cannot undo.
"""

import asyncio
import resource
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from a2a_server.edge.deadlines import Deadlines, TimedConnection
from a2a_server.edge.framing import HeadNotTaken
from a2a_server.edge.headers import NO_STORE, NOSNIFF
from a2a_server.edge.load_shedder import PausedConnections, Refusals
from a2a_server.edge.overload import RETRY_AFTER, Load
from a2a_server.protocol.errors import Overloaded, to_object, to_status

FEW_CHUNKS: Final = 4096  # of a body, however small; of more the average must have LEAST_CHUNK bytes
LEAST_CHUNK: Final = 16
FRAMING: Final = 64 * 1024  # bytes around a body's chunks and behind them, besides half of what is in the chunks
ACCEPTED_AT_ONCE: Final = 16
# Open files that connections must leave: for the database and executors, and for connections that have been accepted
# and are not counted yet, or not gone yet, which takes four turns of the loop.
RESERVED_FILES: Final = 64 + 4 * ACCEPTED_AT_ONCE


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLimits:
    """How large the head of a request may be: its target and its header fields."""

    size: int  # bytes
    fields: int


class Connections:
    """How many connections there are, and how many there may be: in all, and from one address.

    `is_exempt` says which addresses stand for many callers.
    """

    def __init__(self, limit: int, per_address: int, is_exempt: Callable[[str], bool]) -> None:
        self._limit = limit
        self._per_address = per_address
        self._is_exempt = is_exempt
        self._by_address: Counter[str] = Counter()
        self._count = 0

    def enter(self, address: str) -> bool:
        """Count one more, if there is room for it."""
        is_crowded = self._by_address[address] >= self._per_address and not self._is_exempt(address)
        if is_crowded or self._count >= self._limit:
            return False
        self._count += 1
        self._by_address[address] += 1
        return True

    def leave(self, address: str) -> None:
        """One that was counted is gone."""
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


def room(wanted: int) -> int:
    """How many connections the limit on open files has room for, after raising it as far as that is needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    if raised > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return max(1, raised - RESERVED_FILES)


class Connection(TimedConnection):
    """uvicorn's connection, with a bounded head; one for which there is no room is answered and closed at once."""

    limits: ClassVar[Connections | None] = None
    head: ClassVar[HeadLimits]
    _counted: str | None = None  # the address under which it is counted
    _is_in_head = False
    _size = 0  # bytes of the head that has begun
    _chunks = 0  # of the body that arrives
    _has_begun = False  # with the data that came last
    _raw = 0  # bytes that came since for the body alone, with what is around its chunks
    _middle = 0  # bytes that came since for it alone, whether the parser has reported them or not

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        super().connection_made(transport)
        if self.limits is None or self._counted is not None:
            return
        address = self.client[0] if self.client else ""
        if self.limits.enter(address):
            self._counted = address
        else:
            transport.write(self.plain(503, "Too many connections", (b"retry-after", b"5")))
            transport.close()

    def take_over(self, transport: asyncio.Transport, address: str, since: float) -> None:
        """Go on with a connection that was accepted then (by the loop's clock) and is counted under this address."""
        self._counted = address
        self.connection_made(transport)
        self._head_since = since

    def connection_lost(self, exc: Exception | None) -> None:
        if self.limits is not None and self._counted is not None:
            self.limits.leave(self._counted)
            self._counted = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """The parser reports no field that never ends, no chunk extension and no trailer.

        So data that held nothing but a head's middle, or a body's, is counted here.
        """
        self._has_begun = False
        super().data_received(data)
        is_middle = self._is_in_head and not self._has_begun and not self.transport.is_closing()
        self._middle = self._middle + len(data) if is_middle else 0
        if self._middle > self.head.size:
            self.end_with(431, "The head is too large")
        is_in_body = self._body_since is not None and not self._has_begun
        self._raw = self._raw + len(data) if is_in_body else 0
        if self._raw > FRAMING + self.head.size + self._body_size + self._body_size // 2:
            self.end_with(
                413, "The body's chunk headers and trailers are too large; send larger chunks and no trailers"
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = self._has_begun = True
        self._size = self._chunks = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._size += len(url)
        if self._size > self.head.size:  # RFC 9112 §3
            raise HeadNotTaken(f"The request target is longer than {self.head.size} bytes", 414)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:  # a trailer: what a proxy let pass there must not count as what it says itself
            return
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)
        if name.lower() == b"transfer-encoding" and (coding := value.strip().lower()) != b"chunked":
            # RFC 9112 §6.1, §6.3: where chunked is the last one, only the coding before it is not known.
            is_framed = coding.endswith((b",chunked", b", chunked")) and b"chunked" not in coding[:-8]
            raise HeadNotTaken("Only Transfer-Encoding: chunked is supported", 501 if is_framed else 400)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self.judge_head():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._is_set_aside:
            super().on_message_complete()

    def on_chunk_header(self) -> None:
        """Refuse a body of very many tiny chunks: each costs as much time as a large one."""
        if self._chunks > FEW_CHUNKS and self._body_size < LEAST_CHUNK * self._chunks:
            raise HeadNotTaken("The body has too many small chunks")
        self._chunks += 1

    def _count(self, size: int) -> None:
        self._size += size
        if self._size > self.head.size or len(self.headers) > self.head.fields:
            raise HeadNotTaken("The head is too large", 431)


def refusals() -> Refusals:
    """What is said at the load_shedder, as the gate says it too."""
    error = Overloaded(retry_after=RETRY_AFTER)
    head = b"HTTP/1.1 %d Service Unavailable\r\ncontent-type: application/json\r\n" % error.http_status
    told = [(name.lower().encode(), value.encode()) for name, value in error.headers.items()]
    head += b"".join([b"%b: %b\r\n" % field for field in (*told, NO_STORE, NOSNIFF)])
    after_id = b',"error":' + msgspec.json.encode(to_object(error)) + b"}"
    return Refusals(head, b'{"jsonrpc":"2.0","id":', after_id, msgspec.json.encode(to_status(error)))


def limited(connections: Connections, times: Deadlines, heads: HeadLimits, what_there_is: Load) -> type[Connection]:
    """The class that uvicorn makes its connections of, counted, held to these bounds, and part of this load."""

    class Limited(Connection):
        limits = connections
        deadlines = times
        head = heads
        load = what_there_is
        refusals = refusals()
        bench = PausedConnections()

    return Limited
