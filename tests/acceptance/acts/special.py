"""What some cases ask of their runner in words: headers, schemas, webhooks, several streams, a foreigner's task."""

import json
import queue
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from a2a.types import AgentCard, SendMessageResponse, StreamResponse
from google.protobuf.json_format import ParseDict

from tests.acceptance.acts.bindings import call, opened
from tests.acceptance.acts.matching import TERMINAL
from tests.acceptance.acts.player import Player

PATIENCE = 15.0  # seconds that a webhook may take
LONG = {"message": {"role": "ROLE_USER", "parts": [{"text": "tck-long-running start"}]}}


class Receiver(ThreadingHTTPServer):
    """A webhook that keeps what it is sent."""

    daemon_threads = True

    def __init__(self) -> None:
        self.taken: queue.Queue[tuple[Mapping[str, str], Any]] = queue.Queue()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/webhook"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.taken.put((dict(self.headers), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the test says what is wrong."""


def cached(player: Player, receiver: Receiver) -> None:
    headers = _only_answer(player).headers
    assert "max-age" in headers.get("cache-control", "") or headers.get("etag")


def card_by_schema(player: Player, receiver: Receiver) -> None:
    ParseDict(_only_answer(player).body, AgentCard())  # a field that a2a.proto does not have raises


def answer_by_schema(player: Player, receiver: Receiver) -> None:
    ParseDict(_only_answer(player).body, SendMessageResponse())


def media_type_of_rest(player: Player, receiver: Receiver) -> None:
    assert _only_answer(player).headers["content-type"].startswith("application/a2a+json")


def missing_and_foreign_are_one(player: Player, receiver: Receiver) -> None:
    """The two errors differ in the id that was asked for, and in nothing else."""
    told = []
    for task_id in (player.given["otherUserTaskId"], "00000000-0000-0000-0000-000000000000"):
        answer = call(player.binding, "get_task", {"id": task_id})
        assert answer.error is not None
        told.append(json.dumps(answer.error).replace(task_id, "ID"))
    assert told[0] == told[1]


def streams_tell_the_same(player: Player, receiver: Receiver) -> None:
    """What comes after the later one's first event, a snapshot of the task, came to the earlier one as well."""
    with _two_streams(player) as (one, other):
        first, second = list(one), list(other)
    shared = second[1:]
    assert shared and _is_over(shared[-1])
    assert first[-len(shared) :] == shared


def streams_end_alone(player: Player, receiver: Receiver) -> None:
    with _two_streams(player) as (one, other):
        assert "task" in next(one)
        one.close()
        assert _is_over(list(other)[-1])


def stream_is_resumed(player: Player, receiver: Receiver) -> None:
    with opened(player.binding, "send_streaming_message", LONG) as (_, events):
        task_id = next(events)["task"]["id"]
    again = call(player.binding, "subscribe_to_task", {"id": task_id}).events
    assert again[0]["task"]["id"] == task_id
    assert _is_over(again[-1])


def webhook_is_called(player: Player, receiver: Receiver) -> None:
    """At least once, with a StreamResponse, and with the credentials where the case gave any (`test-token`)."""
    task_id = player.variables[f"{player.case.steps[0]['id']}.taskId"]
    gives_credentials = "test-token" in json.dumps(player.case.steps)
    while True:
        headers, body = receiver.taken.get(timeout=PATIENCE)
        (payload,) = body.values()
        if task_id not in (payload.get("taskId"), payload.get("id")):
            continue  # of an earlier case
        ParseDict(body, StreamResponse())
        assert headers.get("Authorization") == ("Bearer test-token" if gives_credentials else None)
        if _is_over(body):
            return


Check = Callable[[Player, Receiver], None]
CHECKS: Mapping[str, Check] = {
    "CARD-CACHE-001": cached,
    "CARD-SCHEMA-001": card_by_schema,
    "DM-SERIAL-002": answer_by_schema,
    "REST-CT-001": media_type_of_rest,
    "CORE-ERR-009": missing_and_foreign_are_one,
    "SEC-AUTH-003": missing_and_foreign_are_one,
    "STREAM-MULTI-001": streams_tell_the_same,
    "STREAM-MULTI-002": streams_end_alone,
    "STREAM-RESUB-001": stream_is_resumed,
    "PUSH-DELIV-001": webhook_is_called,
    "PUSH-DELIV-002": webhook_is_called,
    "PUSH-DELIV-003": webhook_is_called,
    "SEC-PUSH-001": webhook_is_called,
}


def _only_answer(player: Player) -> Any:
    (answer,) = player.answers.values()
    return answer


def _is_over(event: Mapping[str, Any]) -> bool:
    (payload,) = event.values()
    return payload.get("status", {}).get("state") in TERMINAL


@contextmanager
def _two_streams(player: Player) -> Iterator[tuple[Any, Any]]:
    """Two readers of a task that goes on for a while."""
    start = LONG | {"configuration": {"returnImmediately": True}}
    params = {"id": call(player.binding, "send_message", start).body["task"]["id"]}
    with (
        opened(player.binding, "subscribe_to_task", params) as (_, one),
        opened(player.binding, "subscribe_to_task", params) as (_, other),
    ):
        yield one, other
