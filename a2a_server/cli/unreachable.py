"""Why a server cannot be reached, each reason in one line that says what to do."""

import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2

PROBE = 3.0  # seconds for a look at whether an address speaks TLS


def reason(url: str, error: httpx2.HTTPError, *, seconds: float) -> str | None:
    """Why the address did not answer, if a retry will not help now; else None.

    `seconds`: how long an answer was waited for.
    """
    address = urlsplit(url)
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {url} is not trusted: {cause.verify_message}; give its CA "
                "bundle with --ca or in SSL_CERT_FILE"
            )
        if isinstance(cause, ssl.SSLError):
            return _without_tls(url, cause)
        if isinstance(cause, socket.gaierror):
            return f"the host {address.hostname} of {url} was not found: {cause.strerror}; check the address"
    if isinstance(error, httpx2.ProxyError):
        return f"the proxy on the way to {url} refused: {error}; set NO_PROXY={address.hostname} to bypass it"
    if isinstance(error, httpx2.ConnectTimeout | httpx2.ReadTimeout | httpx2.WriteTimeout | httpx2.PoolTimeout):
        return f"{url} did not answer within {seconds:g} s; check the address and the network"
    if isinstance(error, httpx2.ConnectError):
        return f"no server answers at {url} ({_system(error)}); start one with `a2a-server serve`, or check the address"
    if address.scheme == "http" and _speaks_tls(address.hostname or "", address.port or 80):
        return f"the server at {url} requires TLS; use https://{address.netloc}{address.path}"
    return None


def broken(url: str, error: httpx2.HTTPError) -> str:
    """What to say of a connection that worked at first, or failed in some other way."""
    return f"the connection to {url} broke: {str(error) or type(error).__name__}; try again"


def refusal(url: str, response: httpx2.Response, *, has_token: bool) -> str | None:
    """Why an A2A client cannot use an answer with this status; None if its content tells."""
    status = response.status_code
    if response.is_redirect:
        return f"{url} redirects to {response.headers['location']} (HTTP {status}); use that address"
    if status in (401, 403):
        told = "rejected the credential" if has_token else "requires a credential"
        return f"{url} {told} (HTTP {status}); put an API key or a token in A2A_TOKEN, or give it with --token"
    if status in (502, 504):
        return f"the gateway at {url} cannot reach its server (HTTP {status}); try again later"
    return None


def not_ours(url: str, response: httpx2.Response) -> str:
    """The reason for an answer that is not a JSON-RPC response."""
    kind = response.headers.get("content-type", "").partition(";")[0] or "no content type"
    return (
        f"{url} is not an A2A server: it answered HTTP {response.status_code} ({kind}) without JSON-RPC; check "
        "the address and its path"
    )


def _without_tls(url: str, error: ssl.SSLError) -> str:
    words = (error.reason or str(error)).replace("_", " ").lower()
    if error.reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG"):
        return f"the server at {url} does not speak TLS ({words}); use http://{url.partition('://')[2]}"
    if "certificate required" in words or "handshake failure" in words:
        return f"the server at {url} requires a client certificate, which this command does not support ({words})"
    return f"TLS with {url} failed: {words}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and all that led to it."""
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def _system(error: BaseException) -> str:
    """The operating system's words."""
    told = [cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror]
    return told[-1].lower() if told else "no connection"


def _speaks_tls(host: str, port: int) -> bool:
    """Whether a TLS handshake begins there; whose certificate it is does not matter."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), PROBE) as connection,
            context.wrap_socket(connection, server_hostname=host),
        ):
            return True
    except (OSError, ValueError):
        return False
