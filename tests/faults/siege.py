"""One caller's attack on a server, from a process of its own: everything at once that a caller may send.

Usage: python -m tests.faults.siege URL KEY SECONDS. At the end it prints how often each kind got which answer, as JSON.
The hosts that the caller lets the server call live here, too: they answer with much that is sent as little, or never.
"""

import gzip
import json
import socket
import sys
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2

MIB = 1 << 20


def four_times_compressed() -> bytes:
    """Gigabytes of empty blocks, compressed four times over: some kilobytes."""
    data = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\0\0\xff\xff" * (MIB // 5)
    for repeats in (200, 50, 1):
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        data = b"".join(packer.compress(data) for _ in range(repeats)) + packer.flush()
    return data


ANSWERS = {
    "/coded": ("gzip, gzip, gzip, gzip", "text/plain", four_times_compressed()),
    "/values": ("gzip", "application/json", gzip.compress(b"[" + b"{}," * (7 * MIB // 3) + b"{}]")),
    "/large": ("gzip", "text/plain", gzip.compress(b"x" * (10 * MIB - 2000))),
}


class Host(BaseHTTPRequestHandler):
    """The attacker's host."""

    def do_GET(self) -> None:
        if self.path == "/tail":
            return self._tail()
        coding, kind, body = ANSWERS[self.path]
        self.send_response(200)
        self.send_header("Content-Encoding", coding)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _tail(self) -> None:
        """Bytes without end behind the compressed data."""
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(gzip.compress(b"x"))
        while True:
            self.wfile.write(bytes(1 << 16))

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """The server hangs up: that is what it should do."""


class Attacker:
    """The caller. Counts what became of each kind of attack."""

    def __init__(self, url: str, key: str, until: float) -> None:
        self._url, self._key, self._until = url, key, until
        self.seen: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.hole = socket.create_server(("127.0.0.1", 0), backlog=5000)
        self.hosts = Quiet(("127.0.0.1", 0), Host)
        threading.Thread(target=self.hosts.serve_forever, daemon=True).start()

    def url_of(self, path: str) -> str:
        return f"http://127.0.0.1:{self.hosts.server_port}{path}"

    def call(self, kind: str, method: str, params: Any) -> Any:
        """The answer, counted by its error's code; None where there was none."""
        headers = {"Authorization": f"Bearer {self._key}", "A2A-Version": "1.0"}
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        try:
            answer = httpx2.post(self._url, json=body, headers=headers, timeout=30, trust_env=False).json()
        except (httpx2.HTTPError, ValueError) as error:
            self.seen[kind][type(error).__name__] += 1
            return None
        code = answer.get("error", {}).get("code", "taken") if isinstance(answer, dict) else "?"
        self.seen[kind][str(code)] += 1
        return answer

    def send(self, kind: str, skill: str, data: Any, **configuration: Any) -> Any:
        said = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": data}], "metadata": {"skillId": skill}}
        return self.call(
            kind, "SendMessage", {"message": said, "configuration": {"returnImmediately": True, **configuration}}
        )

    def tree(self, kind: str, tasks: list[dict[str, Any]]) -> Any:
        said = {"messageId": "m", "role": "ROLE_USER", "parts": [{"data": {"tasks": tasks}}]}
        return self.call(kind, "SendMessage", {"message": said, "configuration": {"returnImmediately": True}})

    def again(self, attack: Callable[[], None], most: int) -> None:
        for _ in range(most):
            if time.monotonic() > self._until:
                return
            attack()


def fetch_tree(url: str, count: int) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = [{"id": "r", "name": "r"}]
    for n in range(count):
        task = {"id": str(n), "name": f"n{n}", "parent_id": "r", "inputs": {"url": url}}
        tasks.append({**task, "schemas": {"method": "rest_executor"}})
    return [*tasks, {"name": "sleepy", "parent_id": "r", "inputs": {"seconds": 600}}]


def fan(count: int, **fields: Any) -> list[dict[str, Any]]:
    tasks = [{"id": str(n), "name": "quick", "parent_id": "r", **fields} for n in range(count)]
    return [{"id": "r", "name": "r"}, *tasks]


def woven(count: int) -> list[dict[str, Any]]:
    """A tree in which each task depends on the 95 before it."""
    tasks: list[dict[str, Any]] = [{"id": "0", "name": "quick"}]
    for n in range(1, count):
        needs = [str(m) for m in range(max(0, n - 95), n)]
        tasks.append({"id": str(n), "name": "quick", "parent_id": "0", "dependencies": needs})
    return tasks


def judged(values: int, parts: int) -> list[dict[str, Any]]:
    """A task whose schema costs values times parts."""
    schema = {"properties": {"json": {"items": {"enum": [*range(1, parts), 0]}}}}
    inputs = {"url": "http://a.invalid", "json": [0] * values}
    return [{"name": "rest_executor", "inputs": inputs, "schemas": {"input_schema": schema}}]


def attacks(a: Attacker) -> dict[str, tuple[Callable[[], Any], int]]:
    """Each kind of attack, and how often it is made at the most."""
    hole = f"http://127.0.0.1:{a.hole.getsockname()[1]}/"
    own = {"input_schema": {"properties": {"p": {"anyOf": [{"type": "string", "minLength": k} for k in range(8)]}}}}
    return {
        "coded": (lambda: a.send("coded", "rest_executor", {"url": a.url_of("/coded")}), 20),
        "tail": (lambda: a.send("tail", "rest_executor", {"url": a.url_of("/tail")}), 20),
        "values fetched": (lambda: a.tree("values fetched", fetch_tree(a.url_of("/values"), 30)), 5),
        "large fetched": (lambda: a.tree("large fetched", fetch_tree(a.url_of("/large"), 40)), 5),
        "schema": (lambda: a.tree("schema", judged(900_000, 1_980)), 5),
        "small schemas": (lambda: a.tree("small schemas", fan(9000, schemas=own)), 5),
        "slots": (lambda: a.send("slots", "sleepy", {"seconds": 3600}), 300),
        "threads": (lambda: a.send("threads", "slow", {"seconds": 3600}), 128),
        "priority": (lambda: a.tree("priority", fan(3000, priority=-(2**63))), 10),
        "webhooks": (
            lambda: a.send("webhooks", "quick", {}, taskPushNotificationConfig={"url": hole}),
            400,
        ),
        "black hole": (lambda: a.send("black hole", "rest_executor", {"url": hole}), 300),
        "open inputs": (lambda: a.send("open inputs", "sleepy", {"seconds": 600, "x": "x" * (9 * MIB)}), 40),
        "objects": (lambda: a.send("objects", "quick", {"a": [{}] * 990_000}), 10),
        "edges": (lambda: a.tree("edges", woven(9000)), 5),
        "wrong fields": (
            lambda: a.tree("wrong fields", [{"name": "quick", **{f"f{k}": 1 for k in range(90)}}] * 9000),
            5,
        ),
        "wide tree": (lambda: a.tree("wide tree", fan(9_999)), 5),
        "lists": (
            lambda: a.call("lists", "ListTasks", {"pageSize": 100, "includeArtifacts": True}),
            100_000,
        ),
        "many lists": (lambda: a.call("many lists", "ListTasks", {"contextId": "nowhere"}), 100_000),
    }


def main() -> None:
    url, key, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
    attacker = Attacker(url, key, time.monotonic() + seconds)
    threads = []
    for kind, (attack, most) in attacks(attacker).items():
        for _ in range(10 if kind == "lists" else 2):
            threads.append(threading.Thread(target=attacker.again, args=(attack, most), daemon=True))
    print("begun", flush=True)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.1, attacker._until + 5 - time.monotonic()))
    print(json.dumps(attacker.seen))


if __name__ == "__main__":
    main()
