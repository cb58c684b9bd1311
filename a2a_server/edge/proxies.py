"""A server behind others: what a proxy says of the request that it passes on, and the path under which it has us.

`X-Forwarded-For`, `-Proto` and `-Host` are believed when they come from a proxy that the operator trusts, and from
no others. Of several values the last one counts: the proxy that we know has written that one. Not uvicorn's
ProxyHeadersMiddleware, which knows neither `X-Forwarded-Host` nor a prefix.
"""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from a2a_server.edge.targets import replace_host

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class BehindProxy:
    """The app, with the caller's address instead of the proxy's, and paths without the prefix.

    Every route answers under `root_path`, and without it: some proxies take it away. `trusted` are addresses and
    networks.
    """

    def __init__(self, app: ASGIApp, *, root_path: str = "", trusted: Iterable[str] = ()) -> None:
        self._app = app
        self._root_path = root_path
        self._trusted = tuple(ip_network(each) for each in trusted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if self._trusted and scope["client"] and self._trusts(_address(scope["client"][0])):
                self._believe(scope)
            if self._root_path:
                self._unmount(scope)
        await self._app(scope, receive, send)

    def _unmount(self, scope: Scope) -> None:
        scope["app_root_path"] = self._root_path  # Starlette's name for what it puts before the addresses it makes
        prefix, path, raw = self._root_path, scope["path"], scope["raw_path"]
        if (path + "/").startswith(prefix + "/") and raw.startswith(prefix.encode()):
            scope["path"] = path[len(prefix) :] or "/"
            scope["raw_path"] = raw[len(prefix) :] or b"/"

    def _believe(self, scope: Scope) -> None:
        said: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            if name.startswith(b"x-forwarded-"):
                said.setdefault(name, []).extend(each.strip() for each in value.decode("latin-1").split(","))
        if (caller := self._caller(said.get(b"x-forwarded-for", []))) is not None:
            scope["client"] = (str(caller), 0)
        if (scheme := said.get(b"x-forwarded-proto", [""])[-1].lower()) in ("http", "https"):
            scope["scheme"] = scheme
        if host := said.get(b"x-forwarded-host", [""])[-1]:
            replace_host(scope["headers"], host.encode("latin-1"), adds=scope["http_version"] == "1.0")

    def _caller(self, chain: list[str]) -> Address | None:
        """The nearest address that is not a trusted proxy's; what is further away may be anybody's invention."""
        nearest: Address | None = None
        for text in reversed(chain):
            address = _address(text)
            if address is None:
                break
            nearest = address
            if not self._trusts(address):
                break
        return nearest

    def _trusts(self, address: Address | None) -> bool:
        return address is not None and any(address in network for network in self._trusted)


def exempt(trusted: Iterable[str]) -> Callable[[str], bool]:
    """Which peers may stand for many callers: trusted proxies, and what runs on this machine."""
    networks = tuple(ip_network(each) for each in trusted)

    def is_exempt(peer: str) -> bool:
        address = _address(peer)
        return address is None or address.is_loopback or any(address in network for network in networks)

    return is_exempt


def _address(text: str) -> Address | None:
    """An address, as proxies write it: perhaps with a port, IPv6 then in brackets."""
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
