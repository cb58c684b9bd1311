"""A thin client of a running server: JSON-RPC calls and SSE streams."""

import ssl
from collections.abc import Generator, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Annotated, Any
from urllib.parse import quote
from uuid import uuid4

import httpx2
import typer

from a2a_server.auth.settings import is_loopback
from a2a_server.cli import unreachable
from a2a_server.cli.answers import Answers, Frame, decoded
from a2a_server.cli.output import Failure
from a2a_server.cli.resumption import Cursor, Resumption
from a2a_server.protocol.states import STATES
from a2a_server.protocol.types import TaskState
from a2a_server.protocol.web_url import web_url
from core.model.task import TERMINAL
from core.outside.content_coding import Decoder, NotDecodable, coding_of
from core.outside.trust import trusting

DEFAULT_URL = "http://127.0.0.1:8000/"
CALL_TIMEOUT = 60.0  # seconds
CONNECT_TIMEOUT = 10.0  # seconds
SILENCE = 60.0  # seconds without a byte after which a stream counts as broken; servers send a comment more often
CARD = ".well-known/agent-card.json"
MAX_DOCUMENT = 1024 * 1024  # bytes

Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="A2A_TOKEN", help="API key or token. Safer in A2A_TOKEN: other users may see a command line."
    ),
]
Url = Annotated[str, typer.Option("--url", envvar="A2A_URL", help="The server's address.")]
Ca = Annotated[
    str | None,
    typer.Option("--ca", metavar="FILE", help="CA bundle (PEM) to trust instead of SSL_CERT_FILE."),
]

AWAY = (502, 503, 504)  # statuses of a server, or of its gateway, that starts or stops
LAST_STATES = frozenset(STATES[status] for status in TERMINAL)
ASKS = TaskState.INPUT_REQUIRED


class Client:
    """A connection to one server. Raises Failure with a line for the user whenever something is wrong.

    `ca`: a PEM file of the authorities that are trusted in place of the usual ones.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: str | None = None,
        transport: httpx2.BaseTransport | None = None,
        resumption: Resumption | None = None,
    ) -> None:
        self.url = url.rstrip("/") + "/"
        self._resumption = resumption or Resumption()
        self._answers = Answers(self.url, has_token=token is not None)
        headers = {"A2A-Version": "1.0"}
        if token is not None:
            headers["Authorization"] = f"Bearer {_checked(token)}"
        try:
            address = web_url(url, may_have_user=True)
        except ValueError as error:
            raise Failure(f"{url} {error} (for example {DEFAULT_URL})", 2) from None
        try:
            self._http = httpx2.Client(
                base_url=self.url,
                transport=transport,
                timeout=_timeout(CALL_TIMEOUT),
                headers=headers,
                verify=_tls(address.scheme, ca),
                trust_env=not is_loopback(address.hostname or ""),  # a proxy cannot reach this machine's own loopback
            )
        except (ValueError, httpx2.InvalidURL) as error:
            raise Failure(f"{url} is not a URL: {error}", 2) from None

    def __enter__(self) -> "Client":
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
            raise Failure(self._reason(error) or unreachable.broken(self.url, error)) from error
        return self._answers.result(response)

    def send(self, params: Mapping[str, Any]) -> Generator[Frame, None, None]:
        """The A2A stream of a message, to the end of its task or to its question.

        A broken connection is resumed where it broke; before the task is known, the message is sent again under the
        same Idempotency-Key, so that no second task is created.
        """
        key = str(uuid4())
        cursor = Cursor()

        def connect() -> Iterator[Frame]:
            if not cursor.task_id:
                return self._stream("SendStreamingMessage", params, {"Idempotency-Key": key})
            headers = {"Last-Event-ID": str(cursor.after)} if cursor.after else {}
            return self._stream("SubscribeToTask", {"id": cursor.task_id}, headers)

        for frame in self._resumption.frames(self.url, connect, cursor, self._reason, is_known=False):
            result = frame.data.get("result") or {}
            holder = result.get("task") or result.get("statusUpdate") or {}
            cursor.task_id = cursor.task_id or holder.get("id") or holder.get("taskId") or ""
            cursor.after = frame.seq or cursor.after
            state = holder.get("status", {}).get("state", "")
            cursor.may_end = state in LAST_STATES or state == ASKS
            is_of_node = "nodeId" in (holder.get("metadata") or {})
            asks = state == ASKS and frame.seq is not None  # the last frame of its event
            cursor.has_ended = "message" in result or asks or (state in LAST_STATES and not is_of_node)
            yield frame

    def follow(self, task_id: str, after: int = 0) -> Generator[Frame, None, None]:
        """The events of a task's tree until its stream ends. A broken connection is resumed where it broke."""
        cursor = Cursor(task_id, after)

        def connect() -> Iterator[Frame]:
            return self._events(cursor.task_id, cursor.after)

        for frame in self._resumption.frames(self.url, connect, cursor, self._reason, is_known=True):
            cursor.has_ended = frame.data.get("type") == "stream_end"
            cursor.after = cursor.after if frame.seq is None else frame.seq
            if not cursor.has_ended:
                yield frame

    def card(self) -> dict[str, Any]:
        """The agent card."""
        card = decoded(self.document(CARD))
        if not isinstance(card, dict):
            raise Failure(f"{self.url} has no agent card")
        return card

    def document(self, address: str) -> bytes:
        """What is at an address, a path of this server or a whole one. Redirects are not followed."""
        try:
            with self._http.stream("GET", address, headers={"Accept-Encoding": "identity"}) as response:
                if (told := self._answers.refusal(response)) is not None:
                    raise Failure(told)
                if response.status_code != httpx2.codes.OK:
                    raise Failure(f"{response.url} was not found (HTTP {response.status_code})")
                decoder = Decoder(coding_of(response.headers.get("content-encoding", "")))
                return _whole(str(response.url), response.iter_raw(), decoder)
        except NotDecodable as error:
            raise Failure(f"{address} cannot be read: {error}") from error
        except httpx2.HTTPError as error:
            raise Failure(self._reason(error) or unreachable.broken(self.url, error)) from error
        except httpx2.InvalidURL as error:
            raise Failure(f"{address} is not a URL: {error}", 2) from None

    def _stream(self, method: str, params: Any, headers: Mapping[str, str]) -> Iterator[Frame]:
        """The frames of a streaming method. Raises HTTPError where the connection breaks or the server is away."""
        headers = {"Accept": "text/event-stream", **headers}
        request = _request(method, params)
        with self._http.stream("POST", "", json=request, headers=headers, timeout=_timeout(SILENCE)) as response:
            if response.status_code in AWAY and "Last-Event-ID" in headers:
                response.raise_for_status()
            yield from self._answers.frames(response)

    def _events(self, task_id: str, after: int) -> Iterator[Frame]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after else {})
        path = f"tasks/{quote(task_id, safe='')}/events"
        with self._http.stream("GET", path, headers=headers, timeout=_timeout(SILENCE)) as response:
            if response.status_code == httpx2.codes.NO_CONTENT:  # that event was the last one
                yield Frame(None, {"type": "stream_end"})
                return
            if response.status_code in AWAY:
                response.raise_for_status()
            yield from self._answers.frames(response)

    def _reason(self, error: httpx2.HTTPError) -> str | None:
        return unreachable.reason(self.url, error, seconds=CALL_TIMEOUT)


def _tls(scheme: str, ca: str | None) -> ssl.SSLContext:
    """What the client trusts: nothing without TLS, which spares it reading all the authorities."""
    return trusting(authority=ca) if scheme == "https" or ca is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


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
            raise Failure(f"{source} is larger than {MAX_DOCUMENT} bytes")
    decoder.end()
    return body


def _checked(token: str) -> str:
    """The token, if it can stand in a header: the HTTP client would quote it in its error."""
    if not token or not all("!" <= character <= "~" for character in token):
        raise Failure("the token (--token or A2A_TOKEN) is empty or has characters that a token cannot have", 2)
    return token


def _request(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _timeout(read: float) -> httpx2.Timeout:
    return httpx2.Timeout(CALL_TIMEOUT, connect=CONNECT_TIMEOUT, read=read)
