"""What a server answers: the results of JSON-RPC calls and the frames of streams, or why they are none."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import httpx2
import msgspec

from a2a_server.cli import unreachable
from a2a_server.cli.output import Failure
from core.model.errors import Problem

MAX_EVENT = 64 * 1024 * 1024  # bytes of one event of a stream


class Frame(NamedTuple):
    """One event of a stream: its sequence number (the SSE id) and its JSON."""

    seq: int | None
    data: dict[str, Any]


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


class Answers:
    """Reads the answers of the server at `url`; `has_token`: whether it was shown a credential."""

    def __init__(self, url: str, *, has_token: bool) -> None:
        self._url = url
        self._has_token = has_token

    def result(self, response: httpx2.Response) -> Any:
        """What a JSON-RPC response brings. Raises ServerError, and Failure for what is none."""
        answer = decoded(response.content)
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise ServerError(answer["error"], advice=_advice(response.status_code, has_token=self._has_token))
        if isinstance(answer, dict) and "result" in answer:
            return answer["result"]
        raise Failure(
            unreachable.refusal(self._url, response, has_token=self._has_token)
            or unreachable.not_ours(self._url, response)
        )

    def frames(self, response: httpx2.Response) -> Iterator[Frame]:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.read()
            self.result(response)
            raise Failure("the server did not answer with a stream")
        for event_id, data in server_sent(response):
            event = decoded(data)
            if not isinstance(event, dict):
                raise Failure("the server sent an event that is not a JSON object")
            if "error" in event and "jsonrpc" in event:
                raise ServerError(event["error"])
            yield Frame(int(event_id) if event_id and event_id.isdecimal() else None, event)

    def refusal(self, response: httpx2.Response) -> str | None:
        """Why an A2A client cannot use an answer with this status; None if its content tells."""
        return unreachable.refusal(str(response.url), response, has_token=self._has_token)


def _advice(status: int, *, has_token: bool) -> str:
    if status != httpx2.codes.UNAUTHORIZED:
        return ""
    return "check A2A_TOKEN (or --token)" if has_token else "put an API key or a token in A2A_TOKEN (or --token)"


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


def decoded(body: bytes) -> Any:
    """The JSON value; None for what is none."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
