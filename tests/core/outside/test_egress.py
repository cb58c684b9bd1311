"""The egress guard: what it lets through, and that nothing else is ever connected to."""

import asyncio
import contextlib
import gzip
import ipaddress
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from core.model.errors import ConfigurationError
from core.outside import egress, trust
from core.outside.egress import (
    DestinationNotAllowed,
    Egress,
    EgressPolicy,
    FetchTimeout,
    GuardedBackend,
    Outgoing,
    is_forbidden,
    parse_allowance,
)
from core.outside.fetched import AnswerNotReadable, EgressError, ResponseTooLarge
from core.outside.names import NameLookups
from core.outside.wire import MAX_HEAD, Wire

FORBIDDEN_ADDRESSES = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.1.2.3 168.63.129.16
169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1
192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::10.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:169.254.169.254 ::ffff:7f00:1 64:ff9b::7f00:1
64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1::1 2001:2::1 2001:10::1 2001:20::1
2001:db8::1 2002:7f00:1::1 2002:a00:1::1 2002:808:808::1 3fff::1 5f00::1 fc00::1 fd00::1 fd00:ec2::254 fe80::1 fe80::1%1
fec0::1 feff::1 ff00::1 ff02::1
""".split()  # noqa: SIM905 - a hundred quoted strings are harder to read
PUBLIC_ADDRESSES = """
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 168.63.129.15 172.15.255.255
172.32.0.0 192.167.255.255 198.17.255.255 223.255.255.255 2606:4700::1111 2a00:1450:4001::1 ::ffff:8.8.8.8
64:ff9b::808:808
""".split()  # noqa: SIM905 - a hundred quoted strings are harder to read
# What stands for the loopback address, or a private one, in a URL.
HOSTILE_HOSTS = """
127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0x7f.0.0.1 0177.0.0.1 017700000001 0 0.0.0.0 0x0 localhost
localhost. LOCALHOST 127.0.0.1. public@127.0.0.1 public:secret@127.0.0.1 [::1] [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1]
[::ffff:7f00:1] [::127.0.0.1] [64:ff9b::7f00:1] [2002:7f00:1::] [fe80::1] [fd00:ec2::254] 169.254.169.254 2852039166
0xa9fea9fe 0251.0376.0251.0376 100.100.100.200 168.63.129.16 192.0.0.192 10.0.0.1 192.168.1.1 １２７.0.0.1 ⑫7.0.0.1
""".split()  # noqa: SIM905 - a hundred quoted strings are harder to read

Handler = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Canary:
    """A small HTTP server that counts who connects."""

    answer: Handler
    port: int = 0
    connections: int = 0
    requests: list[bytes] = field(default_factory=list)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.serving.add(asyncio.current_task())
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                self.requests.append(head)
                self.asked.set()
                await self.answer(head, writer)
                await reader.read()
            self.hung_up.set()
        finally:
            writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def canary(answer: Handler) -> AsyncIterator[Canary]:
    found = Canary(answer)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found
        if found.serving:
            await asyncio.wait(found.serving, timeout=5)


def replies(status: str, *headers: str, body: bytes = b"") -> Handler:
    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body)}", *headers, "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()

    return answer


async def silent(head: bytes, writer: asyncio.StreamWriter) -> None:
    """Never answers."""


@dataclass
class FakeResolver:
    """Gives the next of its answers each time it is asked."""

    answers: list[list[str]]
    asked: int = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


OPEN = EgressPolicy(allowed=("127.0.0.1",))


@pytest.mark.parametrize("text", FORBIDDEN_ADDRESSES)
def test_address_that_is_not_public_is_forbidden(text: str) -> None:
    assert is_forbidden(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PUBLIC_ADDRESSES)
def test_public_address_is_not_forbidden(text: str) -> None:
    assert not is_forbidden(ipaddress.ip_address(text))


@pytest.mark.asyncio
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_no_spelling_of_a_private_host_reaches_it(scheme: str) -> None:
    """The canary listens where most of the spellings lead; names are looked up by the system's own resolver."""
    async with canary(replies("200 OK")) as listener:
        egress = Egress(EgressPolicy())
        for host in HOSTILE_HOSTS:
            for follow in (False, True):
                with pytest.raises(EgressError) as caught:
                    await egress.fetch(Outgoing(url=f"{scheme}://{host}:{listener.port}/", follow_redirects=follow))
                assert str(caught.value) in ("destination not allowed", "the URL is not valid", "could not connect")
        assert listener.connections == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("address", FORBIDDEN_ADDRESSES)
async def test_name_with_one_private_address_among_public_ones_is_refused(address: str) -> None:
    egress = Egress(EgressPolicy(), resolve=FakeResolver([["93.184.216.34", address]]))
    with pytest.raises(DestinationNotAllowed, match=r"^destination not allowed$"):
        await egress.fetch(Outgoing(url="http://innocent.example/"))


@pytest.mark.asyncio
async def test_connection_goes_to_the_address_that_was_checked() -> None:
    """Rebinding: a second look-up would lead elsewhere, and there is none."""
    async with canary(replies("200 OK", body=b"yes")) as listener:
        resolver = FakeResolver([["127.0.0.1"], ["10.0.0.1"]])
        answer = await Egress(OPEN, resolve=resolver).fetch(Outgoing(url=f"http://rebinds.example:{listener.port}/"))
        assert (answer.status_code, answer.body, resolver.asked) == (200, b"yes", 1)
        assert b"host: rebinds.example" in listener.requests[0].lower()


@pytest.mark.asyncio
async def test_name_that_rebinds_to_a_private_address_between_two_calls_is_refused() -> None:
    async with canary(replies("200 OK")) as listener:
        egress = Egress(EgressPolicy(allowed=("10.9.9.9",)), resolve=FakeResolver([["127.0.0.1"], ["127.0.0.1"]]))
        for _ in range(2):
            with pytest.raises(DestinationNotAllowed):
                await egress.fetch(Outgoing(url=f"http://rebinds.example:{listener.port}/"))
        assert listener.connections == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_to_a_private_address_is_refused(status: int) -> None:
    async with canary(replies("200 OK")) as hidden:
        for target in (f"http://127.0.0.1:{hidden.port}/", f"//2130706433:{hidden.port}/", "http://rebinds.example/"):
            async with canary(replies(f"{status} Moved", f"location: {target}")) as first:
                policy = EgressPolicy(allowed=(f"127.0.0.1:{first.port}",))
                egress = Egress(policy, resolve=FakeResolver([["127.0.0.1"]]))
                with pytest.raises(DestinationNotAllowed):
                    await egress.fetch(Outgoing(url=f"http://127.0.0.1:{first.port}/", follow_redirects=True))
        assert hidden.connections == 0


@pytest.mark.asyncio
@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1:70/x", "unix:/run/x"])
async def test_redirect_to_another_scheme_is_refused(target: str) -> None:
    async with canary(replies("302 Found", f"location: {target}")) as first:
        with pytest.raises(EgressError, match=r"^(destination not allowed|the URL is not valid)$"):
            await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{first.port}/", follow_redirects=True))


@pytest.mark.asyncio
async def test_redirect_is_an_answer_unless_it_is_to_be_followed() -> None:
    async with (
        canary(replies("200 OK", body=b"here")) as end,
        canary(replies("302 Found", f"location: http://127.0.0.1:{end.port}/x")) as first,
    ):
        url = f"http://127.0.0.1:{first.port}/"
        assert (await Egress(OPEN).fetch(Outgoing(url=url))).status_code == 302
        assert end.connections == 0
        followed = await Egress(OPEN).fetch(Outgoing(url=url, follow_redirects=True))
    assert (await followed.text(), followed.url) == ("here", f"http://127.0.0.1:{end.port}/x")


@pytest.mark.asyncio
async def test_redirect_to_another_origin_carries_no_secret() -> None:
    async with (
        canary(replies("200 OK")) as end,
        canary(replies("307 Moved", f"location: http://127.0.0.1:{end.port}/")) as first,
    ):
        secrets = {
            "Authorization": "Bearer s3cret",
            "X-Api-Key": "s3cret",
            "Cookie": "s3cret",
            "Accept": "text/plain",
        }
        call = Outgoing(url=f"http://127.0.0.1:{first.port}/", headers=secrets, follow_redirects=True)
        await Egress(OPEN).fetch(call)
    assert first.requests[0].count(b"s3cret") == 3
    assert b"s3cret" not in end.requests[0]
    assert b"text/plain" in end.requests[0]


@pytest.mark.asyncio
async def test_redirects_without_end_are_given_up() -> None:
    async with canary(replies("302 Found", "location: /again")) as first:
        policy = EgressPolicy(allowed=("127.0.0.1",), max_redirects=3)
        with pytest.raises(EgressError, match="more than 3 redirects"):
            await Egress(policy).fetch(Outgoing(url=f"http://127.0.0.1:{first.port}/", follow_redirects=True))
        assert len(first.requests) == 4


@pytest.mark.asyncio
@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://1.1.1.1/", "//1.1.1.1/", "just text", "http://", ""])
async def test_url_that_is_not_http_is_refused(url: str) -> None:
    with pytest.raises(EgressError, match=r"^(destination not allowed|the URL is not valid)$"):
        await Egress(EgressPolicy()).fetch(Outgoing(url=url))


@pytest.mark.asyncio
async def test_body_beyond_the_limit_is_refused() -> None:
    policy = EgressPolicy(allowed=("127.0.0.1",), max_bytes=1000)
    async with canary(replies("200 OK", body=b"x" * 1001)) as listener:
        with pytest.raises(ResponseTooLarge, match="1000 bytes"):
            await Egress(policy).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))
        await asyncio.wait_for(listener.hung_up.wait(), 5)
    async with canary(replies("200 OK", body=b"x" * 1000)) as listener:
        answer = await Egress(policy).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))
        assert len(answer.body) == 1000


@pytest.mark.asyncio
async def test_limit_counts_the_decoded_body() -> None:
    """A small compressed body must not become a large one in memory."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    async with canary(replies("200 OK", "content-encoding: gzip", body=bomb)) as listener:
        with pytest.raises(ResponseTooLarge):
            await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))


@pytest.mark.asyncio
async def test_body_of_a_redirect_is_not_read() -> None:
    async def endless(head: bytes, writer: asyncio.StreamWriter) -> None:
        if b"GET /end " in head:
            await replies("200 OK", body=b"end")(head, writer)
            return
        writer.write(b"HTTP/1.1 302 Found\r\nlocation: /end\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b"400\r\n" + b"x" * 1024 + b"\r\n")
            await writer.drain()

    async with canary(endless) as listener:
        url = f"http://127.0.0.1:{listener.port}/"
        assert await (await Egress(OPEN).fetch(Outgoing(url=url, follow_redirects=True))).text() == "end"


@pytest.mark.asyncio
async def test_time_limit_is_the_shorter_of_policy_and_call() -> None:
    async with canary(silent) as listener:
        url = f"http://127.0.0.1:{listener.port}/"
        with pytest.raises(FetchTimeout, match=r"within 0\.05 s"):
            await Egress(OPEN).fetch(Outgoing(url=url, timeout=0.05))
        hurried = EgressPolicy(allowed=("127.0.0.1",), timeout=0.05)
        with pytest.raises(FetchTimeout, match=r"within 0\.05 s"):
            await Egress(hurried).fetch(Outgoing(url=url, timeout=3600))
        await asyncio.wait_for(listener.hung_up.wait(), 5)


@pytest.mark.asyncio
async def test_time_limit_counts_the_whole_call() -> None:
    """A server that always sends a little more never lets a single read time out."""

    async def drip(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0)

    async with canary(drip) as listener:
        with pytest.raises(FetchTimeout):
            await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/", timeout=0.1))


@pytest.mark.asyncio
async def test_cancelling_drops_the_connection() -> None:
    async with canary(silent) as listener:
        call = asyncio.ensure_future(Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/")))
        await listener.asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(listener.hung_up.wait(), 5)


@pytest.mark.asyncio
async def test_environment_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async with canary(replies("200 OK")) as proxy, canary(replies("200 OK", body=b"direct")) as listener:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        answer = await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))
        assert (await answer.text(), proxy.connections) == ("direct", 0)


@pytest.mark.asyncio
async def test_second_address_is_tried_when_the_first_does_not_answer() -> None:
    async with canary(replies("200 OK", body=b"second")) as listener:
        policy = EgressPolicy(allowed=("127.0.0.0/8", "::1"))
        egress = Egress(policy, resolve=FakeResolver([["::1", "127.0.0.1"]]))
        assert await (await egress.fetch(Outgoing(url=f"http://two.example:{listener.port}/"))).text() == "second"


@pytest.mark.asyncio
async def test_name_that_nobody_knows_could_not_be_connected_to() -> None:
    async def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    with pytest.raises(EgressError, match=r"^could not connect$"):
        await Egress(EgressPolicy(), resolve=unknown).fetch(Outgoing(url="http://nowhere.example/"))
    with pytest.raises(DestinationNotAllowed):
        await Egress(EgressPolicy(), resolve=FakeResolver([[]])).fetch(Outgoing(url="http://nowhere.example/"))


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"not http at all\r\n\r\n", "the answer is not valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-encoding: gzip\r\n\r\nhello",
            "the answer's compressed data is not valid",
        ),
    ],
)
async def test_broken_answer_is_an_egress_error(answer: bytes, message: str) -> None:
    async def broken(head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()

    async with canary(broken) as listener:
        with pytest.raises(EgressError, match=message):
            await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))


@pytest.mark.asyncio
async def test_header_with_a_line_break_is_refused() -> None:
    async with canary(replies("200 OK")) as listener:
        for value in ("a\r\nX-Smuggled: 1", "\N{SNOWMAN}"):
            with pytest.raises(EgressError, match="the request is not valid HTTP"):
                await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/", headers={"X-A": value}))
        assert listener.requests == []


@pytest.mark.parametrize(
    ("entry", "host", "address", "port", "is_allowed"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", 80, True),
        ("127.0.0.1", "any.example", "127.0.0.1", 80, True),
        ("127.0.0.1", "any.example", "::ffff:127.0.0.1", 80, True),
        ("127.0.0.1", "any.example", "127.0.0.2", 80, False),
        ("127.0.0.1:8080", "any.example", "127.0.0.1", 80, False),
        ("10.0.0.0/8", "any.example", "10.200.0.1", 80, True),
        ("10.0.0.0/8", "any.example", "11.0.0.1", 80, True),
        ("[::1]:8080", "::1", "::1", 8080, True),
        ("::1", "::1", "::1", 8080, True),
        ("fd00::/8", "any.example", "fd12::1", 443, True),
        ("Internal.example:8080", "INTERNAL.example.", "10.0.0.1", 8080, True),
        ("internal.example:8080", "internal.example", "10.0.0.1", 8081, False),
        ("internal.example", "evil.internal.example", "10.0.0.1", 80, False),
        ("internal.example", "internal.example.evil.example", "10.0.0.1", 80, False),
    ],
)
def test_allowance_opens_what_it_names_only(entry: str, host: str, address: str, port: int, is_allowed: bool) -> None:
    assert EgressPolicy(allowed=(entry,)).permits(host, address, port) is is_allowed


@pytest.mark.parametrize(
    "entry", ["", "10.0.0.1/8", "host:0", "host:99999", "host:http", "http://host", "a b", "*", "-x"]
)
def test_allowance_that_cannot_be_read_stops_the_start(entry: str) -> None:
    with pytest.raises(ConfigurationError, match="egress"):
        parse_allowance(entry)


def test_address_that_cannot_be_read_is_not_permitted() -> None:
    assert not EgressPolicy(allowed=("0.0.0.0/0",)).permits("a.example", "not an address", 80)


@pytest.mark.asyncio
async def test_local_sockets_are_no_destination() -> None:
    with pytest.raises(DestinationNotAllowed):
        await GuardedBackend(OPEN, NameLookups(FakeResolver([])), "", Wire(1)).connect_unix_socket("/run/some.sock")


def sends(*pieces: bytes, repeat: bytes = b"") -> Handler:
    """Sends these bytes, and then one piece again and again until the other side has enough."""

    async def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
        while repeat and not writer.transport.is_closing():
            writer.write(repeat)
            await writer.drain()

    return answer


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"transfer-encoding: chunked\r\n"
ENDLESS = {
    "head": (OK, b"x-more: yes\r\n"),
    "long head line": (OK + b"x-long: ", b"x" * 4096),
    "answers before the answer": (b"", b"HTTP/1.1 103 Hints\r\n\r\n" * 100),
    "body without length": (OK + b"\r\n", b"x" * 65536),
    "body in small chunks": (CHUNKED + b"\r\n", b"1\r\nx\r\n" * 10_000),
    "chunk extensions": (CHUNKED + b"\r\n", b"1;" + b"e" * 4096 + b"\r\nx\r\n"),
    "trailers": (CHUNKED + b"\r\n0\r\n", b"x-trailer: yes\r\n" * 1000),
    "bytes behind compressed data": (OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(b"x"), b"\0" * 65536),
    "compressed nothing": (
        OK + b"content-encoding: gzip\r\n\r\n" + b"\x1f\x8b\x08\0\0\0\0\0\0\xff",
        b"\0\0\0\xff\xff" * 10_000,
    ),
    "compressed data": (OK + b"content-encoding: gzip\r\n\r\n", gzip.compress(b"\0" * 50_000_000)),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("what", ENDLESS)
async def test_answer_without_end_is_given_up_by_its_size(what: str) -> None:
    begin, repeat = ENDLESS[what]
    policy = EgressPolicy(allowed=("127.0.0.1",), max_bytes=200_000)
    async with canary(sends(begin, repeat=repeat)) as listener:
        with pytest.raises(EgressError) as caught:
            await asyncio.wait_for(Egress(policy).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/")), 20)
        assert not isinstance(caught.value, FetchTimeout)
        await asyncio.wait_for(listener.hung_up.wait(), 5)


@pytest.mark.asyncio
async def test_answer_of_which_nothing_is_read_has_a_bounded_head_too() -> None:
    """As of a webhook's receiver."""
    async with canary(sends(OK, repeat=b"x-more: yes\r\n")) as listener:
        with pytest.raises(ResponseTooLarge, match=f"head is longer than {MAX_HEAD} bytes"):
            await Egress(OPEN).fetch(
                Outgoing(url=f"http://127.0.0.1:{listener.port}/", method="POST", reads_body=False)
            )


@pytest.mark.asyncio
@pytest.mark.parametrize(("fields", "is_taken"), [(200, True), (201, False)])
async def test_head_has_a_bounded_number_of_fields(fields: int, is_taken: bool) -> None:
    names = [f"a{n}: x" for n in range(fields - 1)]  # and content-length
    async with canary(replies("200 OK", *names)) as listener:
        call = Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))
        if is_taken:
            assert len((await call).headers) == 200
        else:
            with pytest.raises(ResponseTooLarge, match="head has more than 200 fields"):
                await call


@pytest.mark.asyncio
async def test_certificates_are_read_once_and_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """They took up to 0.7 s of a busy one."""
    threads: list[int] = []
    for name in (trust.FILE, trust.FOLDER):
        monkeypatch.delenv(name, raising=False)

    def create(*, trust_env: bool) -> ssl.SSLContext:
        threads.append(threading.get_ident())
        return ssl.create_default_context()

    monkeypatch.setattr(egress.httpx2, "create_ssl_context", create)
    calls = Egress(OPEN)
    async with canary(replies("200 OK")) as listener:
        for _ in range(2):
            await calls.fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))
    assert len(threads) == 1 and threads[0] != threading.get_ident()


@pytest.mark.asyncio
async def test_identity_is_asked_for() -> None:
    async with canary(replies("200 OK")) as listener:
        await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))
    assert b"accept-encoding: identity\r\n" in listener.requests[0].lower()


@pytest.mark.asyncio
async def test_one_coding_is_decoded_and_others_are_named_as_not_taken() -> None:
    async with canary(replies("200 OK", "content-encoding: gzip", body=gzip.compress(b"hello"))) as listener:
        assert (await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))).body == b"hello"
    for named in ("br", "zstd", "gzip, gzip", "gzip, gzip, gzip, gzip, gzip", "bz2", "rot13"):
        async with canary(replies("200 OK", f"content-encoding: {named}", body=b"hello")) as listener:
            with pytest.raises(AnswerNotReadable, match="content coding"):
                await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))


@pytest.mark.asyncio
async def test_coding_of_an_answer_without_body_does_not_matter() -> None:
    async with canary(replies("204 No Content", "content-encoding: br")) as listener:
        assert (await Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/"))).body == b""


@pytest.mark.asyncio
async def test_others_have_their_turn_while_a_large_answer_is_decoded() -> None:
    """Many small chunks come with one read, and a few bytes decode to many."""
    bomb = gzip.compress(b"\0" * 9_000_000)
    small = CHUNKED + b"\r\n" + b"1\r\nx\r\n" * 9_000 + b"0\r\n\r\n"
    for answer in (replies("200 OK", "content-encoding: gzip", body=bomb), sends(small)):
        async with canary(answer) as listener:
            call = asyncio.ensure_future(Egress(OPEN).fetch(Outgoing(url=f"http://127.0.0.1:{listener.port}/")))
            await listener.asked.wait()
            turns = 0
            while not call.done():
                await asyncio.sleep(0)
                turns += 1
            assert len((await call).body) in (9_000_000, 9_000)
            assert turns > 30
