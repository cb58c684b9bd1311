"""Streams of bytes in which requests begin and end in odd ways, and what two parsers read in them.

A stream is made from a seed and a number alone. It is a head, most often one of those that make parsers disagree, a
body that holds a whole request itself, and a plain request behind it. `ours` gives its pieces to a connection of this
server, in memory; `theirs` gives them to h11.
"""

import asyncio
import random
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import h11
import uvicorn
from uvicorn.server import ServerState

from a2a_server.edge.connection import Connection, Shared
from a2a_server.edge.connection_count import Connections
from a2a_server.edge.deadlines import Timeouts
from a2a_server.edge.head_bounds import HeadLimits
from a2a_server.edge.overload import Classifier, Load, Thresholds

INNER = b"POST /inner HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
BEHIND = b"GET /behind HTTP/1.1\r\nHost: h\r\n\r\n"
BODIES = (
    INNER,
    b"\r\n\r\n" + INNER,
    b"x",
    b'{"id": 1}',
    b"",
    b"0\r\n\r\n" + INNER,
    b"\n" + INNER,
    b"PRI * HTTP/2.0\r\n\r\n",
)
METHODS = ("POST",) * 2 + ("GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "QUERY", "CONNECT", "PRI", "FOO", "post")
TARGETS = ("/a",) * 2 + ("/a?b=c", "*", "http://h/a", "h:80", "//a/b", "/%00", "/a#b", "/a b", "", "/\xff")
VERSIONS = ("HTTP/1.1",) * 2 + ("HTTP/1.0", "HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", "")
UPGRADES: Sequence[tuple[str, ...]] = (
    *((),) * 6,
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"),
    ("Upgrade: h2c", "Connection: Upgrade"),
    ("Connection: upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: eA==", "Sec-WebSocket-Version: 13"),
    ("Connection: keep-alive, upgrade", "uPGRADE: TLS/1.0, h2c"),
    ("Connection: close, Upgrade", "Upgrade: h2c"),
    ("Connection: Upgrade", "Upgrade: "),
    ("Connection: Upgrade", "Upgrade: a", "Upgrade: b"),
    ("Connection: Upgrade", "Connection: keep-alive", "Upgrade: h2c"),
    ("Upgrade: h2c",),
    ("Connection: Upgrade",),
    ("Connection: close",),
    ("Connection: keep-alive",),
    ("Connection: x, Close",),
    ("Expect: 100-continue",),
)
ODD = (
    *("X: y",) * 2,
    "X : y", "X: a\r\n b", "X: a\nY: b", "X: a\rY: b", "X: a\x00b", "X\x00: a", "X", ": a", "X: \xe9", "X:\ty\t", "X:",
    " X: y", "X Y: z", "X: a\x0bb", "X: \x7f", "\xe9: x", "X: y\r", "Trailer: X", "TE: trailers",
)  # fmt: skip
LENGTHS = (
    *("Content-Length: {n}",) * 2,
    "Content-Length: {n}\r\nContent-Length: {n}", "Content-Length: {n}\r\nContent-Length: 3",
    "Content-Length: {n}, {n}",
    "Content-Length: 3", "Content-Length: 0", "Content-Length: {more}", "Content-Length: +{n}", "Content-Length: -{n}",
    "Content-Length: 0x{n}", "Content-Length: 0{n}", "Content-Length: {n} ", "Content-Length: {n}\t",
    "Content-Length: ",
    "Content-Length: {n}.0", "Content-Length : {n}", "content-LENGTH:{n}", "Content-Length: 1 {n}",
    "Content_Length: {n}",
    "Content-Length: 99999999999999999999{n}", "Content-Length: \x0b{n}", "Content-Length:\r\n {n}", "",
)  # fmt: skip
CODINGS = (
    *("Transfer-Encoding: chunked",) * 2,
    "Transfer-Encoding: Chunked", "Transfer-Encoding: chunked ", "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip", "Transfer-Encoding: identity", "Transfer-Encoding: xchunked",
    "Transfer-Encoding: \x0bchunked", "Transfer-Encoding : chunked", "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\r\nContent-Length: {n}", "Content-Length: {n}\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: identity\r\nContent-Length: {n}", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding:",
    "Transfer-Encoding: chunked;a=b", "Transfer_Encoding: chunked", "Transfer-Encoding: ,chunked",
)  # fmt: skip
SIZES = (
    *("{n:x}",) * 10,
    "{n:X}", "000{n:x}", "{n:x};a=b", '{n:x};a="\\";b"', "{n:x} ", " {n:x}", "{n:x};", "0x{n:x}", "+{n:x}", "-{n:x}",
    "{n:x}\t", "{n}", "1{n:x}", "{n:x};a\nb", "{n:x};\r", "ffffffffffffffff{n:x}", "", "{n:x}\x00", "{n:x}g", "{n:x},",
)  # fmt: skip
ENDS = (
    *("0\r\n\r\n",) * 2,
    "0\r\nX: y\r\n\r\n",
    "00\r\n\r\n",
    "0;a\r\n\r\n",
    "0\n\n",
    "0\r\n",
    "0\r\nX: y\n\n",
    "0\r\nContent-Length: 9\r\n\r\n",
)
_PATH = re.compile(rb"(?:http://[^/]*)?([^#]*)")  # of a target, as an application gets it
_SPACES = re.compile(rb"\A([A-Z-]+) +([^ \r\n]+) +(?=HTTP/)")
CHUNK_ENDS = (*("\r\n",) * 10, "\n", "", "\r\r\n", "x\r\n")
PARTS = ("method", "target", "version", "field", "framing", "line end", "chunk", "end", "byte")  # that may be odd
LINE_ENDS = (*("\r\n",) * 2, "\n", "\r", "\n\r")


class Stream(NamedTuple):
    """What a client sends, and whether nothing in it is odd, so that all of it must be served."""

    data: bytes
    is_plain: bool = False


class Read(NamedTuple):
    """What was read in a stream: requests (method, target, body) in order, and whether the connection was closed."""

    requests: tuple[tuple[str, bytes, bytes], ...]
    is_closed: bool


def stream(seed: int, number: int) -> Stream:
    """The stream of this number. Every fourth has nothing in it that a server may refuse, the others have oddities."""
    chance = random.Random(f"{seed}/{number}")
    odd = set() if number % 4 == 0 else set(chance.sample(PARTS, chance.randint(1, 3)))

    def pick(part: str, choices: Sequence[str]) -> str:
        return chance.choice(choices) if part in odd else choices[0]

    body = chance.choice(BODIES)
    numbers = {"n": len(body), "more": len(body) + len(BEHIND)}
    is_chunked = chance.random() < 0.5
    framing = pick("framing", CODINGS if is_chunked else LENGTHS).format(**numbers)
    upgrade = chance.choice([each for each in UPGRADES if odd or "lose" not in "".join(each)])
    fields = ["Host: h", framing, pick("field", ODD), *upgrade]
    if odd:
        chance.shuffle(fields)
    start = f"{pick('method', METHODS)} {pick('target', TARGETS)} {pick('version', VERSIONS)}"
    eol = pick("line end", LINE_ENDS)
    head = eol.join([start, *(each for each in fields if each), "", ""]).encode("latin-1")
    if "byte" in odd:
        head = _mutated(head, chance)
    return Stream(head + (_chunks(body, pick, chance) if is_chunked else body) + BEHIND, not odd)


def _chunks(body: bytes, pick: Callable[[str, Sequence[str]], str], chance: random.Random) -> bytes:
    parts = []
    while body:
        size = chance.randint(1, len(body))
        part, body = body[:size], body[size:]
        parts += [pick("chunk", SIZES).format(n=len(part)).encode(), b"\r\n", part, pick("chunk", CHUNK_ENDS).encode()]
    return b"".join(parts) + pick("end", ENDS).encode()


def _mutated(head: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(head))
    put = chance.choice((b"", b"\x00", b"\r", b"\n", b" ", b"\r\n", b"\xff", b":", b"\t"))
    return head[:at] + put + head[at + chance.randint(0, 1) :]


def splits(data: bytes, seed: int, most: int) -> Iterator[tuple[bytes, ...]]:
    """The stream in one piece, byte by byte, cut in two at each place (or at so many of them), and cut at random."""
    yield (data,)
    yield tuple(data[n : n + 1] for n in range(len(data)))
    chance = random.Random(seed)
    places = range(1, len(data))
    for at in chance.sample(places, min(most, len(places))):
        yield data[:at], data[at:]
    for _ in range(4):
        cuts = [0, *sorted(chance.sample(places, 3)), len(data)]
        yield tuple(data[a:b] for a, b in pairwise(cuts))


class Wire(asyncio.Transport):
    """A transport without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self._is_closing = True

    def is_closing(self) -> bool:
        return self._is_closing

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Server:
    """Connections of this server, whose application writes down what it is asked."""

    def __init__(self) -> None:
        self._shared = Shared(
            connections=Connections(10, 10, lambda _: True),
            timeouts=Timeouts(head=10.0, body=30.0, body_rate=1, taking=30.0),
            heads=HeadLimits(size=16_384, fields=100),
            load=Load(Thresholds(soft=10**6, hard=10**6), Classifier({}, {})),
        )
        self._config = uvicorn.Config(
            self._app, interface="asgi3", ws="none", lifespan="off", log_config=None, proxy_headers=False
        )
        self._config.load()
        self._served: list[tuple[str, bytes, bytes]] = []

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        if sum(name == b"host" for name, _ in scope["headers"]) != 1:  # as the gate does
            await send({"type": "http.response.start", "status": 400, "headers": [(b"connection", b"close")]})
            await send({"type": "http.response.body", "body": b""})
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message["body"]
            if not message["more_body"]:
                break
        target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        self._served.append((scope["method"], target, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def connection(self, state: ServerState) -> Connection:
        """A connection that nothing has been sent on yet."""
        return Connection(self._config, state, {}, shared=self._shared)

    async def ours(self, pieces: Sequence[bytes], *, waits: bool) -> Read:
        """What a connection reads in the pieces; with `waits` the client waits after each for what is answered.

        They are handed over even when the connection has been closed, as TLS does.
        """
        self._served = []
        state, wire = ServerState(), Wire()
        connection = self.connection(state)
        connection.connection_made(wire)
        for piece in pieces:
            connection.data_received(piece)
            if waits:
                await self._settle(state, wire)
        await self._settle(state, wire)
        read = Read(tuple(self._served), wire.is_closing())
        connection.connection_lost(None)
        await self._settle(state, wire)
        return read

    async def _settle(self, state: ServerState, wire: Wire) -> None:
        """Let the tasks run until none of them makes progress."""
        seen = None
        while (now := (len(wire.written), len(self._served), len(state.tasks), state.total_requests)) != seen:
            seen = now
            for _ in range(3):
                await asyncio.sleep(0)


def theirs(data: bytes) -> Read:
    """What h11 reads in the stream, when each request is answered with 200.

    It gets the requests one by one, without the empty lines between them (RFC 9112 §2.2) and with one space between
    the words of a request's first line (§3): a server may read both. It takes no other versions than HTTP/1.0 and 1.1.
    """
    requests: list[tuple[str, bytes, bytes]] = []
    while data := data.lstrip(b"\r\n"):
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=10**6)
        connection.receive_data(_SPACES.sub(rb"\1 \2 ", data))
        try:
            request = _whole_request(connection)
        except h11.RemoteProtocolError:
            return Read(tuple(requests), True)
        if request is None:
            break
        if request[0] == "CONNECT":  # a tunnel, which this server does not make
            return Read(tuple(requests), True)
        requests.append(request)
        connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
        connection.send(h11.EndOfMessage())
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            return Read(tuple(requests), True)
        data = connection.trailing_data[0]
    return Read(tuple(requests), False)


def _whole_request(connection: h11.Connection) -> tuple[str, bytes, bytes] | None:
    """The first request, or None when it has no end. Raises h11.RemoteProtocolError."""
    method, path, body = "", b"", b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            if event.http_version not in (b"1.0", b"1.1"):
                raise h11.RemoteProtocolError("another version")
            method = event.method.decode()
            matched = _PATH.match(event.target)
            assert matched is not None
            path = b"/" if (method, matched[1]) == ("OPTIONS", b"*") else matched[1]  # RFC 9112 §3.2.4
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            return method, path, body
        else:
            return None


def fault(stream: Stream, ours: Read, theirs: Read) -> str:
    """What is wrong with what we read; empty where nothing is.

    We may stop earlier than h11, which takes bare line feeds, folded fields and a length beside chunks, but then the
    connection must be closed; and never later, nor read another request.
    """
    common = len(ours.requests)
    if stream.is_plain and (ours.requests != theirs.requests or ours.is_closed != theirs.is_closed):
        return "a plain stream was not read as h11 reads it"
    if ours.requests != tuple(theirs.requests[:common]):
        return "a request was served that h11 does not read there"
    if common < len(theirs.requests) and not ours.is_closed:
        return "fewer requests were served, and the connection was left open"
    if theirs.is_closed and not ours.is_closed:
        return "the connection was left open where h11 cannot read on"
    return ""
