"""A thin client of a running server: JSON-RPC calls and SSE streams."""

import ssl
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote
from uuid import uuid4

import httpx2
import msgspec
import typer

from a2a_server.auth.settings import is_loopback
from a2a_server.cli import unreachable
from a2a_server.cli.output import Failure, clean
from a2a_server.protocol.web_url import web_url
from core.model.errors import Problem
from core.outside.content_coding import Decoder, NotDecodable, coding_of
from core.outside.trust import trusting

DEFAULT_URL = "http://127.0.0.1:8000/"
CALL_TIMEOUT = 60.0  # seconds
CONNECT_TIMEOUT = 10.0  # seconds
SILENCE = 60.0  # seconds without a byte after which a stream counts as broken; servers send a comment more often
RECONNECTS = 14  # in a row, without an event in between: 53 seconds
FIRST_RECONNECTS = 5  # while nothing has answered there yet: 6 seconds
MAX_PAUSE = 5.0  # seconds between two of them
CARD = ".well-known/agent-card.json"
MAX_DOCUMENT = 1024 * 1024  # bytes
MAX_EVENT = 64 * 1024 * 1024  # bytes of one event of a stream

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
LAST_STATES = ("TASK_STATE_COMPLETED", "TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED")
ASKS = "TASK_STATE_INPUT_REQUIRED"


class Frame(NamedTuple):
    """One event of a stream: its sequence number (the SSE id) and its JSON."""

    seq: int | None
    data: dict[str, Any]


@dataclass(slots=True)
class Cursor:
    """How far a stream was read: the task, the number of the last event, whether that may or does end it."""

    task_id: str = ""
    after: int = 0
    may_end: bool = False
    has_ended: bool = False


class ServerError(Failure):
    """The server answered with a JSON-RPC error."""

    def __init__(self, error: Mapping[str, Any], *, advice: str = "") -> None:
        self.error = error
        message = str(error.get("message", "unknown error"))
        self.problems = [
            Problem(str(violation.get("field", "")), str(violation.get("description", "")))
            for detail in _objects(error.get("data"))
            for violation in _objects(detail.get("fieldViolations"))
        ]
        told = [violation for p in self.problems if (violation := f"{p.field}: {p.message}") not in message]
        told += [advice] if advice else []
        super().__init__(f"{'; '.join([message, *told])} (error {error.get('code')})")


def say(notice: str) -> None:
    """Tell the user, beside what the command prints."""
    print(f"a2a-server: {clean(notice)}", file=sys.stderr, flush=True)


class Server:
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
        pause: Callable[[float], None] = time.sleep,
        notice: Callable[[str], None] = say,
    ) -> None:
        self.url = url.rstrip("/") + "/"
        self._pause = pause
        self._notice = notice
        self._has_token = token is not None
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
        return self._result(response)

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

        for frame in self._resumed(connect, cursor, is_known=False):
            result = frame.data.get("result") or {}
            holder = result.get("task") or result.get("statusUpdate") or {}
            cursor.task_id = cursor.task_id or holder.get("id") or holder.get("taskId") or ""
            cursor.after = frame.seq or cursor.after
            state = holder.get("status", {}).get("state", "")
            cursor.may_end = state in (*LAST_STATES, ASKS)
            is_of_node = "nodeId" in (holder.get("metadata") or {})
            asks = state == ASKS and frame.seq is not None  # the last frame of its event
            cursor.has_ended = "message" in result or asks or (state in LAST_STATES and not is_of_node)
            yield frame

    def follow(self, task_id: str, after: int = 0) -> Generator[Frame, None, None]:
        """The events of a task's tree until its stream ends. A broken connection is resumed where it broke."""
        cursor = Cursor(task_id, after)
        for frame in self._resumed(lambda: self._events(cursor.task_id, cursor.after), cursor, is_known=True):
            cursor.has_ended = frame.data.get("type") == "stream_end"
            cursor.after = cursor.after if frame.seq is None else frame.seq
            if not cursor.has_ended:
                yield frame

    def _resumed(
        self, connect: Callable[[], Iterator[Frame]], cursor: "Cursor", *, is_known: bool
    ) -> Generator[Frame, None, None]:
        """The frames of one connection after the other, until the cursor has ended.

        `is_known`: the server has answered before, so it is waited for when it is away. Raises Failure.
        """
        broken = 0
        while True:
            try:
                for frame in connect():
                    broken, is_known = 0, True
                    yield frame
                    if cursor.has_ended:
                        return
                if cursor.may_end:
                    return
                reason = "the stream ended early"
            except httpx2.HTTPError as error:
                if not is_known and (told := self._reason(error)) is not None:
                    raise Failure(told) from error
                reason = str(error) or type(error).__name__
            broken += 1
            if broken == 1:
                self._notice(f"lost the server at {self.url} ({reason}); reconnecting")
            if broken > FIRST_RECONNECTS and not is_known:
                raise Failure(
                    f"what listens at {self.url} does not answer as a web server ({reason}); check the address"
                )
            if broken > RECONNECTS:
                raise Failure(f"lost the server at {self.url}: {reason}; the tasks resume when it is back")
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
                if (told := unreachable.refusal(str(response.url), response, has_token=self._has_token)) is not None:
                    raise Failure(told)
                if response.status_code != httpx2.codes.OK:
                    raise Failure(f"{response.url} was not found (HTTP {response.status_code})")
                decoder = Decoder(coding_of(response.headers.get("content-encoding", "")))
                return _whole(str(response.url), response.iter_raw(), decoder)
        except NotDecodable as error:
            raise Failure(f"{address} cannot be read: {error}") from error
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error
        except httpx2.InvalidURL as error:
            raise Failure(f"{address} is not a URL: {error}", 2) from None

    def _stream(self, method: str, params: Any, headers: Mapping[str, str]) -> Iterator[Frame]:
        """The frames of a streaming method. Raises HTTPError where the connection breaks or the server is away."""
        headers = {"Accept": "text/event-stream", **headers}
        request = _request(method, params)
        with self._http.stream("POST", "", json=request, headers=headers, timeout=_timeout(SILENCE)) as response:
            if response.status_code in AWAY and "Last-Event-ID" in headers:
                response.raise_for_status()
            yield from self._frames(response)

    def _events(self, task_id: str, after: int) -> Iterator[Frame]:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after else {})
        path = f"tasks/{quote(task_id, safe='')}/events"
        with self._http.stream("GET", path, headers=headers, timeout=_timeout(SILENCE)) as response:
            if response.status_code == httpx2.codes.NO_CONTENT:  # that event was the last one
                yield Frame(None, {"type": "stream_end"})
                return
            if response.status_code in AWAY:
                response.raise_for_status()
            yield from self._frames(response)

    def _frames(self, response: httpx2.Response) -> Iterator[Frame]:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.read()
            self._result(response)
            raise Failure("the server did not answer with a stream")
        for event_id, data in server_sent(response):
            decoded = _decoded(data)
            if not isinstance(decoded, dict):
                raise Failure("the server sent an event that is not a JSON object")
            if "error" in decoded and "jsonrpc" in decoded:
                raise ServerError(decoded["error"])
            yield Frame(int(event_id) if event_id and event_id.isdecimal() else None, decoded)

    def _result(self, response: httpx2.Response) -> Any:
        """What a JSON-RPC response brings. Raises ServerError, and Failure for what is none."""
        answer = _decoded(response.content)
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise ServerError(answer["error"], advice=_advice(response.status_code, has_token=self._has_token))
        if isinstance(answer, dict) and "result" in answer:
            return answer["result"]
        raise Failure(
            unreachable.refusal(self.url, response, has_token=self._has_token)
            or unreachable.not_ours(self.url, response)
        )

    def _reason(self, error: httpx2.HTTPError) -> str | None:
        return unreachable.reason(self.url, error, seconds=CALL_TIMEOUT)

    def _unreachable(self, error: httpx2.HTTPError) -> Failure:
        return Failure(
            self._reason(error)
            or f"the connection to {self.url} broke: {str(error) or type(error).__name__}; try again"
        )


def _tls(scheme: str, ca: str | None) -> ssl.SSLContext:
    """What the client trusts: nothing without TLS, which spares it reading all the authorities."""
    return trusting(authority=ca) if scheme == "https" or ca is not None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _advice(status: int, *, has_token: bool) -> str:
    if status != httpx2.codes.UNAUTHORIZED:
        return ""
    return "check A2A_TOKEN (or --token)" if has_token else "put an API key or a token in A2A_TOKEN (or --token)"


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


def server_sent(response: httpx2.Response) -> Iterator[tuple[str, bytes]]:
    """Id and data of each event (WHATWG HTML §9.2.6). Comments and events without data are skipped.

    Raises Failure for an event of more than MAX_EVENT bytes: reading it once more would not help.
    """
    try:
        for event in httpx2.EventSource(response, max_event_size=MAX_EVENT):
            if event.data:
                yield event.id, event.data.encode()
    except httpx2.SSEError as error:
        raise Failure(f"the server's stream cannot be read: {error}") from error


def _request(method: str, params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _timeout(read: float) -> httpx2.Timeout:
    return httpx2.Timeout(CALL_TIMEOUT, connect=CONNECT_TIMEOUT, read=read)
