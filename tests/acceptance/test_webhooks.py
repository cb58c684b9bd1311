"""R15, small: webhooks of a real server, against a receiver that fails, hangs and resets, over five kills."""

import json
import random
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.process import ServerProcess
from tests.acceptance.threads import serving

TASKS = 200
KILLS = 5
SHORT = (
    ("A2A_SERVER_PUSH_TIMEOUT", "0.5"),
    ("A2A_SERVER_PUSH_RETRY_INITIAL", "0.05"),
    ("A2A_SERVER_PUSH_RETRY_LONGEST", "0.2"),
)


class Receiver(ThreadingHTTPServer):
    """Takes what it is sent: 30 % answered with 500, 10 % hanging, 5 % reset, 5 % redirected; the rest is taken."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.taken: list[tuple[str, str, dict[str, Any]]] = []  # path, id, body; in the order of arrival
        self.changed = threading.Condition()
        self.ended = threading.Event()
        self.elsewhere = 0  # requests that followed a redirect
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A server that was killed in the middle of a delivery is what this test is about."""

    def finished(self) -> int:
        """How many webhooks have been told the end of their task."""
        return len({path for path, _, body in self.taken if _is_end(body)})

    def wait_for(self, count: int, timeout: float) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.finished() >= count, timeout), f"only {self.finished()} ended"


def _is_end(body: dict[str, Any]) -> bool:
    return "COMPLETED" in body.get("statusUpdate", {}).get("status", {}).get("state", "")


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/elsewhere":
            self.server.elsewhere += 1
        fate = self.server.chance.random()
        if fate < 0.30:
            self._answer(500)
        elif fate < 0.40:
            self.server.ended.wait(2.0)
        elif fate < 0.45:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
        elif fate < 0.50:
            self.send_response(307)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            with self.server.changed:
                self.server.taken.append((self.path, self.headers["webhook-id"], body))
                self.server.changed.notify_all()
            self._answer(204)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Not on the tests' output."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    seed = random.randrange(2**32)
    print(f"seed={seed}")
    with serving(Receiver(random.Random(seed))) as server:
        yield server
        server.ended.set()


def send(server: ServerProcess, receiver: Receiver, n: int) -> str:
    webhook = {"url": f"{receiver.url}/{n}", "id": "c", "authentication": {"scheme": "Bearer", "credentials": "x"}}
    parts = [{"data": {"seconds": 0.001}}]
    message = {"messageId": f"m{n}", "role": "ROLE_USER", "parts": parts, "metadata": {"skillId": "work"}}
    configuration = {"returnImmediately": True, "taskPushNotificationConfig": webhook}
    sent = server.call("SendMessage", {"message": message, "configuration": configuration})
    return str(sent["task"]["id"])


def test_every_event_arrives_in_order_whatever_the_receiver_does_and_whenever_the_server_dies(
    tmp_path: Path, receiver: Receiver
) -> None:
    server = ServerProcess(tmp_path, "--egress-allow", "127.0.0.1", env=dict(SHORT)).start()
    try:
        tasks = []
        kill_after = {TASKS * (k + 1) // (KILLS + 1) for k in range(KILLS)}
        for n in range(TASKS):
            tasks.append(send(server, receiver, n))
            if n in kill_after:
                server.kill()
                server.start()
        receiver.wait_for(TASKS, timeout=90)
        assert server.call("push.deliveries")["deliveries"] == []
    finally:
        server.close()

    assert receiver.elsewhere == 0, "a redirect was followed"
    for n, task_id in enumerate(tasks):
        told = [(message_id, body) for path, message_id, body in receiver.taken if path == f"/{n}"]
        first = list(dict.fromkeys(message_id for message_id, _ in told))
        sequence = [tuple(map(int, message_id.split("_")[1:])) for message_id in first]
        assert sequence == sorted(sequence), "events came out of order"
        bodies = {
            message_id: {json.dumps(body, sort_keys=True) for i, body in told if i == message_id}
            for message_id in first
        }
        assert all(len(each) == 1 for each in bodies.values()), "one id stands for two events"
        kinds = [next(iter(json.loads(bodies[each].copy().pop()))) for each in first]
        assert kinds[-2:] == ["artifactUpdate", "statusUpdate"], kinds
        assert kinds[0] == "statusUpdate"
        assert all(next(iter(body.values()))["taskId"] == task_id for _, body in told)
    repeats = len(receiver.taken) - len({(path, message_id) for path, message_id, _ in receiver.taken})
    print(f"{TASKS} tasks, {KILLS} kills, {len(receiver.taken)} deliveries taken, {repeats} of them repeats")
