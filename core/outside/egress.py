"""The one guard that every outbound HTTP call passes: it judges the address that is connected to, not the URL's text.

The name is resolved here, every address it has is checked, and the connection goes to the very address that was
checked: a name that changes its mind between the check and the connection (DNS rebinding) gains nothing. Redirects
are new connections, so they meet the same check. Of the environment, SSL_CERT_FILE and SSL_CERT_DIR are read (`trust`),
proxies and netrc are not.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore2
import httpx2

from core.model.errors import ConfigurationError
from core.outside.fetched import EgressError, Incoming, ResponseTooLarge, Room, read_body
from core.outside.names import NameLookups, Resolver, system_resolver
from core.outside.trust import trusting
from core.outside.wire import MAX_HEAD, Metered, Wire

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# What IANA does not hand out for use in the whole Internet (the special-purpose registries, RFC 6890 and its
# successors), and where clouds answer with credentials. IPv6 beyond 2000::/3 is forbidden as a whole: that is where
# loopback, link-local, site-local, unique-local, multicast and the cloud address fd00:ec2::254 are.
FORBIDDEN: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network, unspecified
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by carriers (CGNAT); 100.100.100.200 is a cloud's metadata
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's host agent, in public space
        "169.254.0.0/16",  # link-local; 169.254.169.254 is metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is a cloud's metadata
        "192.0.2.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        "2001::/23",  # protocol assignments; Teredo, which embeds any IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4, which embeds any IPv4 address
        "3fff::/20",
    )
)
GLOBAL_IPV6 = IPv6Network("2000::/3")
EMBEDDED_IPV4 = (  # mapped, compatible, NAT64
    IPv6Network("::ffff:0:0/96"),
    IPv6Network("::/96"),
    IPv6Network("64:ff9b::/96"),
)

MAX_ADDRESSES_TRIED = 4
MAX_FIELDS = 200  # header fields of an answer
FRAMING = 2  # times the bytes of a body that it may take with its framing

# What went wrong, in words that are safe to show.
FAILURES: Mapping[str, tuple[type[Exception], ...]] = {
    "the URL is not valid": (httpx2.InvalidURL, httpcore2.UnsupportedProtocol),
    "could not connect": (httpcore2.ConnectError, httpcore2.ConnectTimeout),
    "the answer is not valid HTTP": (httpx2.RemoteProtocolError, httpcore2.RemoteProtocolError),
    "the request is not valid HTTP": (httpcore2.LocalProtocolError, UnicodeEncodeError),
    "the connection broke": (httpcore2.TimeoutException, httpcore2.NetworkError),
}
KNOWN_FAILURES = tuple(kind for kinds in FAILURES.values() for kind in kinds)

HEADERS_FOR_ANYBODY = frozenset(
    {"accept", "accept-encoding", "accept-language", "user-agent", "content-type"}
    | {"content-length", "transfer-encoding", "host", "connection"}  # of the message itself
)

HOST_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?\.?")


class DestinationNotAllowed(EgressError):
    """The policy forbids the address. Says no more than that, so that it cannot be used to map a network."""

    def __init__(self) -> None:
        super().__init__("destination not allowed")


class FetchTimeout(EgressError):
    """The call as a whole took longer than it may."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """One entry of the allow-list: a network or a host's name, perhaps with one port."""

    network: Network | None
    host: str | None
    port: int | None

    def covers(self, host: str, address: Address, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        return address in self.network if self.network is not None else host == self.host


def parse_allowance(text: str) -> Allowance:
    """Read one entry: `127.0.0.1`, `10.0.0.0/8`, `[::1]:8080`, `internal.example` or `internal.example:8080`.

    Raises ConfigurationError.
    """
    entry = text.strip().lower()
    if (network := _network(entry)) is not None:
        return Allowance(network, None, None)
    host, separator, port = entry.rpartition(":")
    if not separator:
        host, port = entry, ""
    if (separator and not port.isdecimal()) or (port and not 0 < int(port) < 65536):
        raise ConfigurationError(f"egress: {text!r} is not an address, a network or a host with a port")
    number = int(port) if port else None
    if (network := _network(host.removeprefix("[").removesuffix("]"))) is not None:
        return Allowance(network, None, number)
    if not HOST_NAME.fullmatch(host):
        raise ConfigurationError(f"egress: {text!r} is not an address, a network or a host's name")
    return Allowance(None, host.rstrip("."), number)


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


@dataclass(frozen=True)
class EgressPolicy:
    """Where calls may go, and how large and long they may be. Set by the operator, never by a task."""

    allowed: tuple[str, ...] = ()  # private places that are open all the same; public ones always are
    max_bytes: int = 10 * 1024 * 1024  # of the body, as it comes and decoded
    timeout: float = 30.0  # seconds for a whole call, redirects and body included
    max_redirects: int = 5
    allowances: tuple[Allowance, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "allowances", tuple(parse_allowance(text) for text in self.allowed))

    def permits(self, host: str, address: str, port: int) -> bool:
        """Whether a connection to this address of this host is allowed."""
        try:
            reached = unmapped(ip_address(address))
        except ValueError:
            return False
        name = host.lower().rstrip(".")
        return not is_forbidden(reached) or any(rule.covers(name, reached, port) for rule in self.allowances)


def unmapped(address: Address) -> Address:
    """The IPv4 address that an IPv4-mapped one stands for: the kernel connects to that."""
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def is_forbidden(address: Address) -> bool:
    """Whether the address is anything but an ordinary public one."""
    if isinstance(address, IPv6Address):
        if any(address in network for network in EMBEDDED_IPV4):
            return is_forbidden(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address.scope_id is not None or address not in GLOBAL_IPV6:
            return True
    return any(address in network for network in FORBIDDEN if network.version == address.version)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens the connections of one call: looks the name up, checks every address, connects to one that was checked."""

    def __init__(
        self,
        policy: EgressPolicy,
        names: NameLookups,
        owner: str,
        wire: Wire,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._policy = policy
        self._names = names
        self._owner = owner
        self._wire = wire
        self._network = network or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        addresses = await self._checked(host, port)
        share = timeout / len(addresses) if timeout is not None else None
        for address in addresses[:-1]:
            try:
                found = await self._network.connect_tcp(address, port, share, local_address, socket_options)
                return Metered(found, self._wire)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        last = await self._network.connect_tcp(addresses[-1], port, share, local_address, socket_options)
        return Metered(last, self._wire)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        raise DestinationNotAllowed

    async def _checked(self, host: str, port: int) -> list[str]:
        try:
            ip_address(host)
            found: Sequence[str] = [host]  # an address needs no look-up
        except ValueError:
            try:
                found = await self._names.find(self._owner, host, port)
            except (OSError, ValueError) as error:  # TimeoutError is an OSError
                raise httpcore2.ConnectError("the host name was not found") from error
        # One bad address among good ones is what an attack looks like: all or nothing.
        if not found or not all(self._policy.permits(host, address, port) for address in found):
            raise DestinationNotAllowed
        return list(found[:MAX_ADDRESSES_TRIED])


class _Body(httpx2.AsyncByteStream):
    """The body of a response, as the HTTP client wants it."""

    def __init__(self, response: httpcore2.Response) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._response.aiter_stream():
            yield part

    async def aclose(self) -> None:
        await self._response.aclose()


class _Transport(httpx2.AsyncBaseTransport):
    """Sends each request of one call, redirects too, over guarded connections."""

    def __init__(self, backend: GuardedBackend, wire: Wire, ssl_context: ssl.SSLContext) -> None:
        self._wire = wire
        # Nothing is kept open between requests, so each of them is checked.
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context, max_keepalive_connections=0, network_backend=backend
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        if not url.scheme or not url.host:
            raise httpx2.InvalidURL("no scheme or no host")
        if url.scheme not in ("http", "https"):
            raise DestinationNotAllowed
        self._wire.expect_head()
        response = await self._pool.handle_async_request(
            httpcore2.Request(
                method=request.method,
                url=httpcore2.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        self._wire.expect_body()
        if len(response.headers) > MAX_FIELDS:
            await response.aclose()
            raise ResponseTooLarge(f"the answer's head has more than {MAX_FIELDS} fields")
        return httpx2.Response(
            response.status, headers=response.headers, stream=_Body(response), extensions=response.extensions
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One call to make."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] | None = None
    body: bytes | None = None
    timeout: float | None = None  # seconds; the policy's when it is shorter or this is None
    follow_redirects: bool = False
    reads_body: bool = True  # else the answer ends for us with its headers
    owner: str = ""  # on whose behalf: callers share name look-ups fairly; empty: the server's own


def redirected(before: httpx2.Request, after: httpx2.Request) -> httpx2.Request:
    """The request that follows a redirect. Another origin gets no header that could carry a secret."""
    if (before.url.scheme, before.url.host, before.url.port) != (after.url.scheme, after.url.host, after.url.port):
        for name in set(after.headers) - HEADERS_FOR_ANYBODY:
            del after.headers[name]
    return after


class Egress:
    """Makes outbound calls under one policy. `network` opens the connections that the policy permits."""

    def __init__(
        self,
        policy: EgressPolicy,
        *,
        resolve: Resolver = system_resolver,
        network: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self.policy = policy
        self._names = NameLookups(resolve)
        self._network = network
        self._ssl_context: ssl.SSLContext | None = None

    async def _certificates(self) -> ssl.SSLContext:
        """Made once, at the first call, and beside the event loop: reading all certificates took up to 0.7 s of it."""
        if self._ssl_context is None:
            self._ssl_context = await asyncio.to_thread(trusting)
        return self._ssl_context

    async def fetch(self, call: Outgoing, room: Room | None = None) -> Incoming:
        """Make the call and read the answer, whatever its status. `room` pays for the answer's memory.

        Raises DestinationNotAllowed, ResponseTooLarge, AnswerNotReadable, FetchTimeout, EgressError when no answer
        came, and what `room` raises. Cancelling it drops the connection.
        """
        limit = self.policy.timeout if call.timeout is None else min(call.timeout, self.policy.timeout)
        certificates = await self._certificates()  # not within the limit, which is for the other side
        try:
            async with asyncio.timeout(limit):
                return await self._fetch(call, limit, room, certificates)
        except TimeoutError as error:
            raise FetchTimeout(f"no complete answer within {limit:g} s") from error
        except KNOWN_FAILURES as error:
            raise EgressError(next(text for text, types in FAILURES.items() if isinstance(error, types))) from error

    async def _fetch(self, call: Outgoing, limit: float, room: Room | None, certificates: ssl.SSLContext) -> Incoming:
        started = time.perf_counter()
        wire = Wire(FRAMING * self.policy.max_bytes + MAX_HEAD)
        backend = GuardedBackend(self.policy, self._names, call.owner, wire, self._network)
        transport = _Transport(backend, wire, certificates)
        async with httpx2.AsyncClient(
            transport=transport, trust_env=False, timeout=limit, headers={"Accept-Encoding": "identity"}
        ) as client:
            request = client.build_request(
                call.method, call.url, headers=dict(call.headers), params=call.params, content=call.body
            )
            for _ in range(self.policy.max_redirects + 1):
                response = await client.send(request, stream=True, follow_redirects=False)
                try:
                    if not call.follow_redirects or response.next_request is None:
                        return await self._incoming(response, started, room, reads_body=call.reads_body)
                finally:
                    await response.aclose()  # the body of a redirect is not read: nothing bounds it
                request = redirected(request, response.next_request)
        raise EgressError(f"more than {self.policy.max_redirects} redirects")

    async def _incoming(
        self, response: httpx2.Response, started: float, room: Room | None, *, reads_body: bool
    ) -> Incoming:
        headers = dict(response.headers)
        body = await read_body(response.aiter_raw(), headers, self.policy.max_bytes, room) if reads_body else b""
        return Incoming(
            status_code=response.status_code,
            headers=headers,
            body=body,
            url=str(response.url),
            elapsed=time.perf_counter() - started,
        )
