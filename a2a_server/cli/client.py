"""A thin client of a running server: JSON-RPC calls and SSE streams."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from ipaddress import ip_address
from types import TracebackType
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, urlsplit

import httpx2
import msgspec
import typer

from a2a_server.cli.output import Failure
from core.content_coding import Decoder, NotDecodable, coding_of

DEFAULT_URL = "http://127.0.0.1:8000/"
CALL_TIMEOUT = 60.0  # seconds
SILENCE = 60.0  # seconds without a byte after which a stream counts as broken; servers send a comment more often
RECONNECTS = 8  # in a row, without an event in between
MAX_PAUSE = 5.0  # seconds between two of them
CARD = ".well-known/agent-card.json"
MAX_DOCUMENT = 1024 * 1024  # bytes

Token = Annotated[
    str | None,
    typer.Option("--token", envvar="A2A_TOKEN", help="The credential: an API key or a token. Better in A2A_TOKEN."),
]
Url = Annotated[str, typer.Option("--url", envvar="A2A_URL", help="The server's address.")]


class Frame(NamedTuple):
    """One event of a stream: its sequence number (the SSE id) and its JSON."""

    seq: int | None
    data: dict[str, Any]


class ServerError(Failure):
    """The server answered with a JSON-RPC error."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        self.error = error
        message = str(error.get("message", "unknown error"))
        violations = [
            f"{violation.get('field')}: {violation.get('description')}"
            for detail in _objects(error.get("data"))
            for violation in _objects(detail.get("fieldViolations"))
        ]
        told = [violation for violation in violations if violation not in message]
        super().__init__(f"{'; '.join([message, *told])} (error {error.get('code')})")


class Server:
    """A connection to one server. Raises Failure with a line for the user whenever something is wrong."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        transport: httpx2.BaseTransport | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.url = url.rstrip("/") + "/"
        self._pause = pause
        headers = {"A2A-Version": "1.0"}
        if token is not None:
            headers["Authorization"] = f"Bearer {_checked(token)}"
        try:
            host = urlsplit(url).hostname or ""
            self._http = httpx2.Client(
                base_url=self.url,
                transport=transport,
                timeout=CALL_TIMEOUT,
                headers=headers,
                trust_env=not _is_loopback(host),  # a proxy cannot reach this machine's own loopback
            )
        except (ValueError, httpx2.InvalidURL) as error:
            raise Failure(f"{url} is not an address: {error}", 2) from None

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def call(self, method: str, params: Any) -> Any:
        """The method's result. Raises ServerError when it refuses."""
        try:
            response = self._http.post("", json=_request(method, params))
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        return _result(response.status_code, response.content)

    def stream(self, method: str, params: Any) -> Generator[Frame, None, None]:
        """The frames of a streaming method, each the whole JSON of one event."""
        headers = {"Accept": "text/event-stream"}
        try:
            with self._http.stream(
                "POST", "", json=_request(method, params), headers=headers, timeout=_stream_timeout()
            ) as response:
                yield from _frames(response)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error

    def follow(self, task_id: str, after: int = 0) -> Generator[Frame, None, None]:
        """The events of a task's tree until its stream ends. A broken connection is taken up where it broke."""
        broken = 0
        while True:
            try:
                for frame in self._events(task_id, after):
                    broken = 0
                    if frame.data.get("type") == "stream_end":
                        return
                    after = after if frame.seq is None else frame.seq
                    yield frame
                reason = "the stream ended early"
            except httpx2.HTTPError as error:
                reason = str(error)
            broken += 1
            if broken > RECONNECTS:
                raise Failure(f"lost the server at {self.url}: {reason}")
            self._pause(min(MAX_PAUSE, 0.1 * 2**broken))

    def card(self) -> dict[str, Any]:
        """The agent card."""
        card = _decoded(self.document(CARD))
        if not isinstance(card, dict):
            raise Failure(f"{self.url} has no agent card")
        return card

    def document(self, address: str) -> bytes:
        """What is at an address, a path of this server or a whole one. Redirects are not followed."""
        try:
            with self._http.stream("GET", address, headers={"Accept-Encoding": "identity"}) as response:
                if response.status_code != httpx2.codes.OK:
                    raise Failure(f"{response.url} is not there (HTTP {response.status_code})")
                decoder = Decoder(coding_of(response.headers.get("content-encoding", "")))
                return _whole(str(response.url), response.iter_raw(), decoder)
        except NotDecodable as error:
            raise Failure(f"{address} cannot be read: {error}") from error
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        except httpx2.InvalidURL as error:
            raise Failure(f"{address} is not an address: {error}", 2) from None

    def _events(self, task_id: str, after: int) -> Iterator[Frame]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after else {})
        path = f"tasks/{quote(task_id, safe='')}/events"
        with self._http.stream("GET", path, headers=headers, timeout=_stream_timeout()) as response:
            if response.status_code == httpx2.codes.NO_CONTENT:  # that event was the last one
                yield Frame(None, {"type": "stream_end"})
                return
            if response.status_code == httpx2.codes.SERVICE_UNAVAILABLE:  # it starts, or stops
                response.raise_for_status()
            yield from _frames(response)

    def _unreachable(self, error: httpx2.HTTPError) -> Failure:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return Failure(f"no server answers at {self.url}; start one with `a2a-server serve`")
        return Failure(f"the connection to {self.url} broke: {str(error) or type(error).__name__}")


def _whole(source: str, parts: Iterable[bytes], decoder: Decoder) -> bytes:
    """All parts, decoded. Raises NotDecodable, and Failure beyond MAX_DOCUMENT bytes, as they come or decoded."""
    body, came = b"", 0
    for part in parts:
        came += len(part)
        for piece in decoder.feed(part):
            body += piece
            if len(body) > MAX_DOCUMENT:
                break
        if max(came, len(body)) > MAX_DOCUMENT:
            raise Failure(f"{source} has more than {MAX_DOCUMENT} bytes")
    decoder.end()
    return body


def _checked(token: str) -> str:
    """The token, if it can stand in a header: the HTTP client would quote it in its error."""
    if not token or not all("!" <= character <= "~" for character in token):
        raise Failure("the token (--token or A2A_TOKEN) is empty or has characters that no token has", 2)
    return token


def sse(chunks: Iterable[bytes]) -> Iterator[tuple[str | None, bytes]]:
    """Id and data of each event in a stream of bytes (WHATWG HTML §9.2.6). Comments and empty events are skipped."""
    event_id: str | None = None
    data: list[bytes] = []
    for line in _lines(chunks):
        if not line:
            if data:
                yield event_id, b"\n".join(data)
            data = []
            continue
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            data.append(value)
        elif name == b"id":
            event_id = value.decode(errors="replace")


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # Not the client's own line reader: it also splits at characters that JSON strings may contain, such as U+2028.
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line.removesuffix(b"\r") for line in lines)


def _frames(response: httpx2.Response) -> Iterator[Frame]:
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        _result(response.status_code, response.read())
        raise Failure("the server answered without a stream")
    for event_id, data in sse(response.iter_bytes()):
        decoded = _decoded(data)
        if not isinstance(decoded, dict):
            raise Failure("the server sent an event that is no JSON object")
        if "error" in decoded and "jsonrpc" in decoded:
            raise ServerError(decoded["error"])
        yield Frame(int(event_id) if event_id and event_id.isdecimal() else None, decoded)


def _request(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _result(status: int, body: bytes) -> Any:
    answer = _decoded(body)
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        raise ServerError(answer["error"])
    if not isinstance(answer, dict) or "result" not in answer:
        raise Failure(f"the server answered HTTP {status} without a JSON-RPC response")
    return answer["result"]


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _stream_timeout() -> httpx2.Timeout:
    return httpx2.Timeout(CALL_TIMEOUT, read=SILENCE)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
