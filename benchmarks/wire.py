"""A plain blocking client: calls, and streams of server-sent events line by line."""

import json
import socket
from collections.abc import Iterator
from typing import Any

from benchmarks.load import http_request


def rpc(method: str, params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()


def message(text: str, skill: str = "", data: Any = None) -> dict[str, Any]:
    """Params of SendMessage."""
    parts = [{"text": text}] if data is None else [{"data": data}]
    said = {"messageId": "m1", "role": "ROLE_USER", "parts": parts}
    return {"message": said} | ({"metadata": {"skillId": skill}} if skill else {})


def call(port: int, method: str, params: Any, *, timeout: float = 120) -> Any:
    """The result of a call. Ends the program on anything else."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        connection.sendall(http_request(rpc(method, params), "Connection: close\r\n"))
        answer = b"".join(iter(lambda: connection.recv(1 << 20), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200") or b'"error"' in body[:200]:
        raise SystemExit(f"{method}: {answer[:1_000]!r}")
    return json.loads(body)["result"]


def task_of(result: Any) -> dict[str, Any]:
    task: dict[str, Any] = result["task"]
    return task


def open_stream(port: int, method: str, params: Any) -> socket.socket:
    """A connection over which the events come."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=120)
    connection.sendall(http_request(rpc(method, params), "Accept: text/event-stream\r\n"))
    return connection


def events(connection: socket.socket) -> Iterator[bytes]:
    """The data of each event, until the stream ends or the caller has seen enough."""
    with connection, connection.makefile("rb") as lines:
        status = lines.readline()
        if not status.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"no stream: {status!r} {lines.read(1_000)!r}")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
            elif line in (b"0\r\n",):  # the last chunk
                return
