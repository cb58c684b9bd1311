"""Web origins (RFC 6454): whose requests are taken, and whose pages may read the answers (CORS, Fetch §3.2).

Browsers say the origin of the page that makes a request; other clients say none, and are not concerned. By default no
page of another origin gets anywhere: a server on loopback is private to its machine, its agent card included.

Not Starlette's CORSMiddleware: here the readers depend on the path, errors are answered in the shape of their endpoint,
and the origin that a request is for is judged, too.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

Headers = list[tuple[bytes, bytes]]

ANY = "*"
PUBLIC_DOCUMENTS = "/.well-known/"  # the agent card and what belongs to it (RFC 8615)
PREFLIGHT_MAX_AGE = 600  # seconds
_DEFAULT_PORTS = {"http": 80, "https": 443}

_ASKED = (b"access-control-request-method", b"access-control-request-headers")
_PREFLIGHT: Headers = [
    (b"access-control-allow-methods", b"GET, POST, DELETE"),
    (
        b"access-control-allow-headers",
        b"Content-Type, Authorization, X-API-Key, A2A-Version, A2A-Extensions, X-A2A-Extensions, Idempotency-Key, "
        b"Last-Event-ID",
    ),
    (b"access-control-max-age", str(PREFLIGHT_MAX_AGE).encode()),
    (b"vary", b", ".join(_ASKED)),
]
_EXPOSED = (b"access-control-expose-headers", b"A2A-Extensions, Retry-After, WWW-Authenticate, ETag")


def origin_of(text: str) -> str:
    """An origin as it is compared: scheme, host and port, lower case, no default port. Raises ValueError."""
    url = urlsplit(text.lower())
    if (
        not url.scheme
        or not url.hostname
        or url.path not in ("", "/")
        or url.query
        or url.fragment
        or "@" in url.netloc
    ):
        raise ValueError("not a scheme and host with an optional port")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    port = "" if url.port in (None, _DEFAULT_PORTS.get(url.scheme)) else f":{url.port}"
    return f"{url.scheme}://{host}{port}"


class Origins:
    """The rules of one server.

    `allowed` are taken beside the origin that the request is for; `readers` may read the answers, too, or any origin
    where they hold "*". With `credentials` browsers send cookies and client certificates along.
    """

    def __init__(
        self,
        *,
        allowed: Iterable[str] = (),
        readers: Iterable[str] = (),
        credentials: bool = False,
        opens_documents: bool = False,
    ) -> None:
        self._reads_any = ANY in (readers := list(readers))
        self._readers = frozenset(origin_of(each) for each in readers if each != ANY)
        self._allowed = self._readers | {origin_of(each) for each in allowed}
        self._credentials = credentials
        self._opens_documents = opens_documents

    def admits(self, origin: str, host: str, path: str) -> bool:
        """Whether a request of this origin, for this `Host`, is taken."""
        try:
            return (
                urlsplit(origin).netloc.lower() == host.lower()  # our own, over whichever scheme a proxy has
                or self._reads_any
                or self._is_document(path)
                or origin_of(origin) in self._allowed
            )
        except ValueError:
            return False

    def reading(self, origin: str | None, path: str) -> Headers:
        """The headers that let the page of this origin read the answer."""
        # Where the answer's headers differ by origin, caches must not give one origin's answer to another one.
        headers: Headers = [(b"vary", b"Origin")] if self._readers else []
        if origin is not None and self._may_read(origin):
            headers += [(b"access-control-allow-origin", origin.encode("latin-1")), _EXPOSED]
            if self._credentials:
                headers.append((b"access-control-allow-credentials", b"true"))
        elif self._reads_any or self._is_document(path):
            headers += [(b"access-control-allow-origin", b"*"), _EXPOSED]
        return headers

    def preflight(self, origin: str, path: str) -> Headers | None:
        """The answer to a browser's question whether its page may ask; None where that is not for its page."""
        if not (self._reads_any or self._is_document(path) or self._may_read(origin)):
            return None
        return [*self.reading(origin, path), *_PREFLIGHT]

    def _may_read(self, origin: str) -> bool:
        try:
            return origin_of(origin) in self._readers
        except ValueError:
            return False

    def _is_document(self, path: str) -> bool:
        return self._opens_documents and path.startswith(PUBLIC_DOCUMENTS)
