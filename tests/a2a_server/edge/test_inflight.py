"""The bytes of bodies and answers, of each caller and of all: at the bound, past it, and given back."""

import asyncio
import json
import socket
from typing import Any

import pytest

from a2a_server.bindings.aside import LARGE
from a2a_server.bindings.sse import CROWDED
from a2a_server.config import Config, load
from a2a_server.edge.inflight import PIECE, SMALL, VALUE, InFlight
from a2a_server.edge.limits import NO_LIMITS, Callers, Permit
from a2a_server.protocol.errors import Overloaded, RateLimited
from core.model.errors import ConfigurationError
from core.model.task import ANONYMOUS
from tests.a2a_server.conftest import RunningServer, message, running, until
from tests.a2a_server.edge.test_deadlines import HEAD, LENGTH
from tests.a2a_server.views.test_streams import rpc

MIB = 1024 * 1024
SETTINGS: dict[str, Any] = {"max_body": MIB, "max_http_bytes_per_caller": 2 * MIB, "max_http_bytes": 3 * MIB}


def permit(inflight: InFlight, owner: str) -> Permit:
    made = Callers(inflight=inflight).permit()
    made.admit(owner, NO_LIMITS)
    return made


def test_one_caller_holds_so_many_bytes_and_no_more() -> None:
    inflight = InFlight(per_caller=100, total=1000)
    first, second = permit(inflight, "ann"), permit(inflight, "ann")
    first.hold(60)
    second.hold(40)
    with pytest.raises(RateLimited) as refused:
        second.hold(41)
    assert refused.value.headers["Retry-After"] == "1"
    permit(inflight, "bob").hold(100)
    first.let_go()
    second.hold(100)
    assert inflight.total == 200


def test_all_callers_hold_so_many_bytes_and_no_more() -> None:
    inflight = InFlight(per_caller=100, total=150)
    permit(inflight, "ann").hold(100)
    bob = permit(inflight, "bob")
    with pytest.raises(Overloaded):
        bob.hold(51)
    bob.hold(50)


def test_what_is_held_is_told_in_all_and_given_back_once() -> None:
    inflight = InFlight(per_caller=100, total=100)
    it = permit(inflight, "ann")
    for size in (10, 5, 30):
        it.hold(size)
    assert inflight.total == 30, "the most that it said"
    it.release()
    it.release()
    assert inflight.total == 0
    Permit().hold(10**9)  # without a server behind it nothing is counted


def filled(size: int) -> bytes:
    given = rpc("SendMessage", message("echo"))
    given["params"]["message"]["parts"] = [{"text": "x"}]
    given["padding"] = "x" * (size - len(json.dumps(given)) - len(', "padding": ""'))
    return json.dumps(given).encode()


async def begun(server: RunningServer, body: bytes, sent: int, *, key: str = "") -> Any:
    """A connection on which so many bytes of a body have come, and no more."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(HEAD + b"A2A-Version: 1.0\r\n" + LENGTH % len(body) + body[:sent])
    return reader, writer


def held(server: RunningServer) -> int:
    inflight = server.application.inflight
    return inflight.total


@pytest.mark.asyncio
async def test_a_body_past_the_bound_is_refused_and_a_small_call_is_not() -> None:
    body = filled(MIB)
    async with running(**SETTINGS) as server, server.client() as client:
        waiting = [await begun(server, body, MIB - 1) for _ in range(2)]
        await until(lambda: held(server) >= 2 * MIB - 2)
        refused = await client.post("/", content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code == 429 and refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == -32050
        small = await client.post("/", json=rpc("system.health", {}))
        assert small.json()["result"]["status"] == "healthy"
        for _, writer in waiting:
            writer.close()
        await until(lambda: held(server) == 0)
        taken = await client.post("/", content=body, headers={"Content-Type": "application/json", "A2A-Version": "1.0"})
        assert taken.status_code == 200 and "result" in taken.json()
        assert held(server) == 0


@pytest.mark.parametrize("path", ["/", "/message:send"])
@pytest.mark.asyncio
async def test_many_small_values_count_with_the_memory_they_take(path: str) -> None:
    values = 2 * MIB // VALUE
    body = b'{"x": [' + b"1," * values + b"1]}"
    assert LARGE < len(body) < MIB
    async with running(**SETTINGS) as server, server.client() as client:
        refused = await client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert refused.status_code == 429
        assert held(server) == 0


@pytest.mark.asyncio
async def test_answers_that_are_not_taken_are_bounded_and_a_read_past_that_is_refused() -> None:
    """Found from outside: answers that no client read took 2.2 GiB."""
    async with running(**SETTINGS) as server, server.client() as client:
        sent = rpc("SendMessage", message("echo", {"data": {"x": "y" * 400_000}}))
        task = (await client.post("/", json=sent, headers={"A2A-Version": "1.0"})).json()["result"]["task"]
        read = json.dumps(rpc("GetTask", {"id": task["id"]})).encode()
        lines = []
        for _ in range(8):
            line = socket.socket()
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            line.connect(("127.0.0.1", server.port))
            line.sendall(HEAD + b"A2A-Version: 1.0\r\n" + LENGTH % len(read) + read)
            lines.append(line)
        await until(lambda: held(server) > MIB)
        refused = await client.post(
            "/", content=read, headers={"Content-Type": "application/json", "A2A-Version": "1.0"}
        )
        assert refused.status_code == 429 and held(server) <= 2 * MIB
        for line in lines:
            line.close()
        await until(lambda: held(server) == 0)


@pytest.mark.asyncio
async def test_what_a_call_has_begun_is_told_even_past_the_bound() -> None:
    """Else its caller would send it again."""
    async with running(**SETTINGS) as server, server.client() as client:
        inflight = server.application.inflight
        inflight.take(ANONYMOUS, 2 * MIB - 300_000)  # there is room for the body, and none for its answer
        sent = rpc("SendMessage", message("echo", {"data": {"x": "y" * 200_000}}))
        answer = (await client.post("/", json=sent, headers={"A2A-Version": "1.0"})).json()
        assert answer["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        read = rpc("GetTask", {"id": answer["result"]["task"]["id"]})
        inflight.take(ANONYMOUS, 200_000)
        assert (await client.post("/", json=read, headers={"A2A-Version": "1.0"})).status_code == 429


async def unread(server: RunningServer, path: str) -> socket.socket:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect(("127.0.0.1", server.port))
    line.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return line


@pytest.mark.asyncio
async def test_a_large_event_waits_in_pieces_and_a_stream_past_the_bound_ends_resumably() -> None:
    async with running(**SETTINGS) as server, server.client() as client:
        sent = rpc("SendMessage", message("echo", {"data": {"x": "y" * 900_000}}))
        task_id = (await client.post("/", json=sent, headers={"A2A-Version": "1.0"})).json()["result"]["task"]["id"]
        path = f"/tasks/{task_id}/events"
        whole = (await client.get(path)).text
        assert whole.endswith('"type":"stream_end"}\n\n')
        await until(lambda: held(server) == 0)
        with await unread(server, path):
            await until(lambda: held(server) >= 900_000)
            buffered = [each.transport.get_write_buffer_size() for each in server.server.server_state.connections]
            assert max(buffered) <= 2 * PIECE + 65_536
            cut = (await client.get(path)).text
            assert cut.endswith(CROWDED.decode())
            last = [line.removeprefix("id: ") for line in cut.splitlines() if line.startswith("id: ")]
        await until(lambda: held(server) == 0)
        rest = (await client.get(path, headers={"Last-Event-ID": last[-1]} if last else {})).text
        assert len(rest) + len(cut) - len(CROWDED) == len(whole)


def test_settings_that_no_body_would_fit_are_refused(tmp_path: Any) -> None:
    config = Config()
    assert SMALL < config.max_body <= config.max_http_bytes_per_caller <= config.max_http_bytes
    for name, value in (("MAX_HTTP_BYTES_PER_CALLER", "1000"), ("MAX_HTTP_BYTES", "1000")):
        with pytest.raises(ConfigurationError, match=name):
            load({}, {f"A2A_SERVER_{name}": value}, tmp_path)
