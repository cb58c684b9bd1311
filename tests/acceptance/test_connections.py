"""More connections than the process may have open files (T16): a real server process, and a storm."""

import selectors
import socket
from contextlib import suppress
from pathlib import Path

import httpx2

from a2a_server.edge.connection_count import RESERVED_FILES
from tests.acceptance.process import ServerProcess

OPEN_FILES = 300
ROOM = OPEN_FILES - RESERVED_FILES
STORM = 1000


def test_storm_of_connections_is_told_so_and_leaves_no_trace(tmp_path: Path) -> None:
    """asyncio alone accepts until no file is left, and then logs thousands of errors a second."""
    server = ServerProcess(tmp_path)
    server.command = ["sh", "-c", f'ulimit -n {OPEN_FILES}; exec "$@"', "sh", *server.command]
    server.start()
    connections = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(STORM)]
    with selectors.DefaultSelector() as waiting:
        for connection in connections:
            waiting.register(connection, selectors.EVENT_READ)
        told = 0
        while told < STORM - ROOM:
            ready = waiting.select(timeout=10)
            assert ready, f"{told} were told, and then nobody any more"
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                assert key.fileobj.recv(100).startswith(b"HTTP/1.1 503 ")
                waiting.unregister(key.fileobj)
                told += 1
        assert not waiting.select(timeout=0), "as many as there is room for are kept"
    for connection in connections:
        connection.close()
    assert is_well(server)
    task = {"name": "system_info_executor", "inputs": {"resource": "cpu"}}
    assert server.call("tasks.execute", {"wait": True, "tasks": [task]})["status"] == "completed"
    assert server.terminate() == 0
    server.close()
    expected = ("listening", ": stopping, within ", ": stopped\n")
    assert [line for line in server.log if not any(each in line for each in expected)] == []


def is_well(server: ServerProcess) -> bool:
    """Whether it answers again; it may still be busy with the connections that are gone."""
    for _ in range(1000):
        with suppress(httpx2.TransportError):
            if server.client.get("/healthz").status_code == 200:
                return True
    return False
