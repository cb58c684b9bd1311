"""R17: clients that send or read as slowly as they may, seen from outside, beside one that is served all the time."""

import os
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.faults.report import report
from tests.faults.test_failpoints import Sabotaged

EACH = int(os.environ.get("SLOW_CLIENTS", "67"))  # of each kind
HEAD, BODY, TAKING = 1.0, 2.0, 2.0  # seconds
SETTINGS = {
    "A2A_SERVER_HEAD_TIMEOUT": str(HEAD),
    "A2A_SERVER_BODY_TIMEOUT": str(BODY),
    "A2A_SERVER_SEND_TIMEOUT": str(TAKING),
}
LATEST = 20.0  # seconds, with room for a machine that is busy; each is cut within a second of its deadline
CONTROL = 4.0  # seconds, twice the longest deadline
BLOB = 1_000_000
KINDS = ("head", "body", "read")

BEGUN = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


class Good:
    """A client that asks all the time, and notes how long each answer took."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, trust_env=False, timeout=30)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.seconds: list[float] = []
        self.failures: list[object] = []

    def _ask(self) -> None:
        while not self._is_over.is_set():
            begin = time.monotonic()
            response = self._client.post("/", json={"jsonrpc": "2.0", "id": 1, "method": "system.health"})
            self.seconds.append(time.monotonic() - begin)
            if response.status_code != 200:
                self.failures.append(response)
            self._is_over.wait(0.01)

    def __enter__(self) -> "Good":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        self._client.close()

    @property
    def p99(self) -> float:
        """Seconds."""
        return sorted(self.seconds)[int(0.99 * len(self.seconds))]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sabotaged]:
    process = Sabotaged(tmp_path, env=SETTINGS)
    yield process
    process.close()


def slow_clients(server: Sabotaged, each: int) -> dict[socket.socket, str]:
    """So many that stop in the head, in the body, and while they read an answer that no buffer holds."""
    task = server.call("tasks.create", {"name": "noop", "inputs": {"blob": "x" * BLOB}})["root_task_id"]
    body = b'{"jsonrpc":"2.0","id":1,"method":"tasks.get","params":{"task_id":"%b"}}' % task.encode()
    sent = {
        "head": BEGUN + b"X-Slow: ",
        "body": BEGUN + b"Content-Length: 1000\r\n\r\n{",
        "read": BEGUN + b"Content-Length: %d\r\n\r\n" % len(body) + body,
    }
    clients: dict[socket.socket, str] = {}
    for kind in [kind for kind in KINDS for _ in range(each)]:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(sent[kind])
        clients[client] = kind
    return clients


def cut(clients: dict[socket.socket, str], limit: float) -> Counter[str]:
    """How many of each kind the server ends within that time. Those that never read learn of it as an error."""
    ended: Counter[str] = Counter()
    by_number = {client.fileno(): client for client in clients}
    waiting = select.poll()
    for client, kind in clients.items():
        waiting.register(client, 0 if kind == "read" else select.POLLIN)
    ends_at = time.monotonic() + limit
    while by_number and (left := ends_at - time.monotonic()) > 0:
        for number, events in waiting.poll(1000 * left):
            client = by_number[number]
            if events & (select.POLLERR | select.POLLHUP) or client.recv(65536) == b"":
                ended[clients[client]] += 1
                waiting.unregister(client)
                del by_number[number]
    for client in clients:
        client.close()
    return ended


def test_slow_clients_are_cut_while_a_good_one_is_served(server: Sabotaged) -> None:
    server.start_with()
    clients = slow_clients(server, EACH)
    with Good(server.url) as good:
        ended = cut(clients, LATEST)
    assert ended == dict.fromkeys(KINDS, EACH)
    assert good.seconds and not good.failures
    assert [line for line in server.log if "Traceback" in line] == []
    figures = (
        f"{ended.total()} of {3 * EACH} cut; {len(good.seconds)} answers beside them, p99 {1000 * good.p99:.0f} ms"
    )
    report("R17", "slow in the head, in the body, and in reading", figures)


def test_without_deadlines_every_slow_client_stays(server: Sabotaged) -> None:
    """The positive control: connections as uvicorn's own. The gate's own time for bodies is made longer, too."""
    server.env["A2A_SERVER_BODY_TIMEOUT"] = "3600"
    server.start_with("forget deadlines")
    assert cut(slow_clients(server, 5), CONTROL) == Counter()
