"""R20, the SSRF matrix: every spelling of a private place × every sink × every way to it; nothing is ever connected to.

Connections really happen: whatever address the guard lets through is dialled at a canary on the loopback. So a place
that this machine cannot reach (a cloud's metadata, somebody's 10.0.0.1) counts as well, and the positive control shows
that each cell of the matrix does arrive at a canary once the guard's check is taken out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from typing import Any

import httpcore2
import httpx2
import pytest

from core.executors.builtins.rest import RestExecutor
from core.model.errors import CoreError
from core.outside.egress import Egress, EgressPolicy, Outgoing
from core.outside.fetched import EgressError
from tests.core.executors.context import make_context

PUBLIC = "93.184.216.34"  # an address that the guard lets through; the front server answers for it
PUBLIC_NAME = "public.example"
REDIRECTS = (301, 302, 303, 307, 308)
PORTS = ("", ":80", ":8080", ":22", ":6379", ":65535")

# A host as it is spelled in a URL, and the address that a resolver, or the system's inet_aton, makes of it.
FORMS: tuple[tuple[str, str], ...] = (
    # The loopback, as IPv4 can be written.
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.2", "127.0.0.2"),
    ("127.1", "127.0.0.1"),
    ("127.0.1", "127.0.0.1"),
    ("2130706433", "127.0.0.1"),
    ("0x7f000001", "127.0.0.1"),
    ("0x7f.0x0.0x0.0x1", "127.0.0.1"),
    ("0x7f.1", "127.0.0.1"),
    ("017700000001", "127.0.0.1"),
    ("0177.0.0.1", "127.0.0.1"),
    ("0177.0.0.01", "127.0.0.1"),
    ("127.0.0.1.", "127.0.0.1"),
    ("0", "0.0.0.0"),
    ("0x0", "0.0.0.0"),
    ("0.0.0.0", "0.0.0.0"),
    # Full-width digits, which IDNA maps to ASCII ones.
    ("１２７.0.0.1", "127.0.0.1"),
    ("127。0。0。1", "127.0.0.1"),
    # Names.
    ("localhost", "127.0.0.1"),
    ("LOCALHOST", "::1"),
    ("localhost.", "127.0.0.1"),
    ("ｌｏｃａｌｈｏｓｔ", "127.0.0.1"),
    ("bücher.example", "10.0.0.1"),
    ("metadata.google.internal", "169.254.169.254"),
    ("127.0.0.1.nip.example", "127.0.0.1"),
    # A user in front of the host.
    ("public.example@127.0.0.1", "127.0.0.1"),
    ("public.example:80@127.0.0.1", "127.0.0.1"),
    ("user:secret@[::1]", "::1"),
    # IPv6: loopback, unspecified, and IPv4 inside it.
    ("[::1]", "::1"),
    ("[0:0:0:0:0:0:0:1]", "::1"),
    ("[0000:0000:0000:0000:0000:0000:0000:0001]", "::1"),
    ("[::]", "::"),
    ("[::127.0.0.1]", "::7f00:1"),
    ("[::ffff:127.0.0.1]", "::ffff:7f00:1"),
    ("[::ffff:7f00:1]", "::ffff:7f00:1"),
    ("[0:0:0:0:0:ffff:a9fe:a9fe]", "::ffff:a9fe:a9fe"),
    ("[::ffff:0:127.0.0.1]", "::ffff:0:7f00:1"),
    ("[64:ff9b::127.0.0.1]", "64:ff9b::7f00:1"),
    ("[64:ff9b::a9fe:a9fe]", "64:ff9b::a9fe:a9fe"),
    ("[64:ff9b:1::7f00:1]", "64:ff9b:1::7f00:1"),
    ("[2002:7f00:1::]", "2002:7f00:1::"),
    ("[2002:a9fe:a9fe::1]", "2002:a9fe:a9fe::1"),
    ("[2001:0:4136:e378:8000:63bf:80ff:fffe]", "2001:0:4136:e378:8000:63bf:80ff:fffe"),  # Teredo of 127.0.0.1
    # IPv6: link-local, site-local, unique-local, multicast, a cloud's metadata.
    ("[fe80::1]", "fe80::1"),
    ("[fec0::1]", "fec0::1"),
    ("[fc00::1]", "fc00::1"),
    ("[fd00:ec2::254]", "fd00:ec2::254"),
    ("[ff02::1]", "ff02::1"),
    # IPv4: metadata of clouds.
    ("169.254.169.254", "169.254.169.254"),
    ("2852039166", "169.254.169.254"),
    ("0xa9fea9fe", "169.254.169.254"),
    ("0251.0376.0251.0376", "169.254.169.254"),
    ("100.100.100.200", "100.100.100.200"),
    ("168.63.129.16", "168.63.129.16"),
    ("192.0.0.192", "192.0.0.192"),
    # IPv4: private, shared, multicast, broadcast.
    ("10.0.0.1", "10.0.0.1"),
    ("172.16.0.1", "172.16.0.1"),
    ("192.168.1.1", "192.168.1.1"),
    ("100.64.0.1", "100.64.0.1"),
    ("224.0.0.1", "224.0.0.1"),
    ("255.255.255.255", "255.255.255.255"),
)


@dataclass(frozen=True)
class Sink:
    """Something of ours that calls a URL which somebody else chose. Add a line to SINKS for each."""

    name: str
    call: Callable[[str, Egress], Awaitable[Any]]
    follows: bool = True  # redirects; one that does not must not even look where they lead


async def fetched(url: str, guard: Egress) -> None:
    await guard.fetch(Outgoing(url=url, follow_redirects=True))


async def posted(url: str, guard: Egress) -> None:
    await guard.fetch(Outgoing(url=url, method="POST", body=b"{}"))


async def executed(url: str, guard: Egress) -> None:
    inputs = {"url": url, "method": "POST", "json": {}, "follow_redirects": True}
    await RestExecutor(guard).execute(inputs, make_context(inputs=inputs))


SINKS: tuple[Sink, ...] = (
    Sink("fetch", fetched),
    Sink("fetch, no redirects", posted, follows=False),
    Sink("rest_executor", executed),
)


@dataclass
class Listener:
    """A small HTTP server that counts who connects."""

    answer: bytes
    connections: int = 0
    address: tuple[str, int] = ("", 0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            await writer.drain()
        writer.close()


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


@dataclass
class Field:
    """The listeners, the fake resolver and the dialler that brings every connection to a listener."""

    front: Listener = field(default_factory=lambda: Listener(OK))
    canaries: dict[str, Listener] = field(default_factory=dict)  # by the loopback address they listen at
    answers: dict[str, list[list[str]]] = field(default_factory=dict)  # name -> its answers, one a look-up

    @cached_property
    def guard(self) -> Egress:
        return Egress(EgressPolicy(), resolve=self.resolve, network=Dialler(self))

    @property
    def hits(self) -> int:
        return sum(canary.connections for canary in self.canaries.values())

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        """The next answer for the name; what the system makes of a form; else no such name."""
        if host in self.answers:
            left = self.answers[host]
            return left.pop(0) if len(left) > 1 else left[0]
        if (address := AS_THE_SYSTEM.get(host)) is None:
            raise OSError("no such name")
        return [address]

    def listener(self, address: str) -> Listener:
        if address == PUBLIC:
            return self.front
        return self.canaries.get(address) or self.canaries["::1" if ip_address(address).version == 6 else "127.0.0.1"]


class Dialler(httpcore2.AnyIOBackend):
    """Leads every connection, to whatever address, to one of the field's listeners."""

    def __init__(self, field: Field) -> None:
        super().__init__()
        self._field = field

    async def connect_tcp(self, host: str, port: int, *rest: Any) -> httpcore2.AsyncNetworkStream:
        return await super().connect_tcp(*self._field.listener(host).address, *rest)


def as_sent(host: str) -> str | None:
    """A form's host as the resolver gets it: without user, in ASCII; None where the HTTP client sees no URL."""
    try:
        return httpx2.URL(f"http://{host}/").raw_host.decode()
    except httpx2.InvalidURL:
        return None


AS_THE_SYSTEM = {as_sent(host): address for host, address in FORMS}


@asynccontextmanager
async def fields() -> AsyncIterator[Field]:
    """A front server, and canaries at several addresses of the loopback."""
    it = Field(canaries={address: Listener(OK) for address in ("127.0.0.1", "127.0.0.2", "::1")})
    async with AsyncExitStack() as stack:
        for address, listener in (*it.canaries.items(), ("127.0.0.1", it.front)):
            server = await asyncio.start_server(listener.serve, address, 0)
            listener.address = server.sockets[0].getsockname()[:2]
            await stack.enter_async_context(server)
        yield it


async def attempt(sink: Sink, url: str, guard: Egress) -> None:
    """One call; how it fails is the sink's own business, but it is not with a bug."""
    with suppress(CoreError):
        await sink.call(url, guard)


async def direct(it: Field, sink: Sink, number: int, form: tuple[str, str]) -> None:
    """The URL names the place."""
    url = f"http://{form[0]}{PORTS[number % len(PORTS)]}/latest/meta-data"
    await attempt(sink, url, it.guard)


async def by_name(it: Field, sink: Sink, number: int, form: tuple[str, str]) -> None:
    """A name of somebody's leads there, alone or behind an address that is fine."""
    it.answers["hostile.example"] = [[form[1]] if number % 2 else [form[1], PUBLIC]]
    await attempt(sink, "http://hostile.example/", it.guard)


async def rebinding(it: Field, sink: Sink, number: int, form: tuple[str, str]) -> None:
    """The name is fine when it is looked up first, and leads there the second time."""
    it.answers["rebinds.example"] = [[PUBLIC], [form[1]]]
    guard = it.guard
    before = it.front.connections
    for _ in range(2):
        await attempt(sink, "http://rebinds.example/", guard)
    assert it.front.connections == before + 1, "the first look-up led to the front"


async def redirected(it: Field, sink: Sink, number: int, form: tuple[str, str]) -> None:
    """A public server sends us there."""
    status = REDIRECTS[number % len(REDIRECTS)]
    location = f"http://{form[0]}/".encode()
    it.front.answer = b"HTTP/1.1 %d Moved\r\nlocation: %b\r\ncontent-length: 0\r\n\r\n" % (status, location)
    it.answers[PUBLIC_NAME] = [[PUBLIC]]
    before = it.front.connections
    await attempt(sink, f"http://{PUBLIC_NAME}/", it.guard)
    assert it.front.connections == before + 1, "the public server was asked"


Way = Callable[[Field, Sink, int, tuple[str, str]], Awaitable[None]]
WAYS: tuple[Way, ...] = (direct, by_name, rebinding, redirected)


def cells(sinks: Iterable[Sink]) -> Iterable[Any]:
    return [pytest.param(sink, way, id=f"{sink.name}-{way.__name__}") for sink in sinks for way in WAYS]


def test_matrix_has_sixty_forms_that_differ() -> None:
    assert len(set(FORMS)) == len(FORMS) == 60


async def try_every_form(sink: Sink, way: Way) -> None:
    """No form reaches a canary."""
    async with fields() as it:
        for number, form in enumerate(FORMS):
            await way(it, sink, number, form)
            assert it.hits == 0, form


async def arrive_unguarded(sink: Sink, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: each cell is a call that would have arrived, except where the HTTP client sees no URL."""
    monkeypatch.setattr(EgressPolicy, "permits", lambda *_: True)
    async with fields() as it:
        for number, form in enumerate(FORMS):
            before = it.hits
            await way(it, sink, number, form)
            is_spelled = way in (direct, redirected)
            never = (is_spelled and as_sent(form[0]) is None) or (way is redirected and not sink.follows)
            assert it.hits - before == (0 if never else 1), form


@pytest.mark.parametrize(("sink", "way"), cells(SINKS))
@pytest.mark.asyncio
async def test_no_form_reaches_a_canary(sink: Sink, way: Way) -> None:
    await try_every_form(sink, way)


@pytest.mark.parametrize(("sink", "way"), cells(SINKS))
@pytest.mark.asyncio
async def test_every_form_reaches_a_canary_without_the_check(
    sink: Sink, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    await arrive_unguarded(sink, way, monkeypatch)


@pytest.mark.parametrize("sink", SINKS, ids=lambda sink: sink.name)
@pytest.mark.parametrize("port", [1, 22, 25, 80, 443, 6379, 65535])
@pytest.mark.asyncio
async def test_no_port_and_no_tls_makes_a_private_place_reachable(sink: Sink, port: int) -> None:
    async with fields() as it:
        for scheme in ("http", "https"):
            for host in ("127.0.0.1", "[::1]", "169.254.169.254", "localhost"):
                await attempt(sink, f"{scheme}://{host}:{port}/", it.guard)
        assert it.hits == 0


@pytest.mark.parametrize("sink", SINKS, ids=lambda sink: sink.name)
@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "gopher://127.0.0.1:70/_x",
        "dict://127.0.0.1:6379/info",
        "ldap://127.0.0.1/",
        "unix:///run/docker.sock",
        "data:text/plain,x",
        "jar:http://127.0.0.1!/",
        "//127.0.0.1/",
        "http:127.0.0.1/",
        "http:///127.0.0.1/",
        "http://127.0.0.1\\@public.example/",
        "http://public.example#@127.0.0.1/",
        "http://127.0.0.1\r\nHost: public.example/",
        "http://127.0.0.1 @public.example/",
        "http://[::1%25lo]/",
        "http://[fe80::1%25eth0]/",
        "http://127.0.0.1%00.public.example/",
        "http://%31%32%37.0.0.1/",
        "http://127.0.0.1:99999/",
    ],
)
@pytest.mark.asyncio
async def test_odd_url_reaches_nothing_private(sink: Sink, url: str) -> None:
    """Other schemes, and URLs that two parsers may read in two ways: here there is only one parser."""
    async with fields() as it:
        it.answers[PUBLIC_NAME] = [[PUBLIC]]
        await attempt(sink, url, it.guard)
        assert it.hits == 0


@pytest.mark.asyncio
async def test_refusal_tells_no_more_than_that_it_is_one() -> None:
    """Whoever asks must not be able to map a network: open, closed and absent look the same."""
    async with fields() as it:
        guard = it.guard
        for host, _ in FORMS:
            with pytest.raises(EgressError) as refused:
                await fetched(f"http://{host}/", guard)
            told = "the URL is not valid" if as_sent(host) is None else "destination not allowed"
            assert str(refused.value) == told
