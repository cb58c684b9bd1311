"""Connections that are too slow end, and those that are not stay: each deadline just before and at its moment."""

import asyncio
import json
import socket
from collections.abc import Coroutine
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from a2a_server.edge.connection import Connection, Shared
from a2a_server.edge.connection_count import Connections
from a2a_server.edge.deadlines import RATE_AFTER, Deadlines, Due, Exchange, Timeouts
from a2a_server.edge.head_bounds import HeadLimits
from a2a_server.edge.overload import Classifier, Load, Thresholds
from tests.a2a_server.conftest import message, running, until
from tests.a2a_server.test_app import raw
from tests.a2a_server.views.test_streams import rpc

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n\r\n"


class Clock:
    """An event loop's clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def time(self) -> float:
        return self.now

    def create_task(self, work: Coroutine[Any, Any, None]) -> "asyncio.Future[None]":
        """The application is never run; a test says itself what it answers."""
        work.close()
        return asyncio.get_running_loop().create_future()

    def call_later(self, delay: float, callback: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(3600, callback)


class Transport:
    """What happens to the client's end."""

    def __init__(self) -> None:
        self.written = b""
        self.unsent = 0
        self.end = ""
        self.linger: Any = None

    def get_extra_info(self, name: str) -> Any:
        return self if name == "socket" else None

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        assert (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER)
        self.linger = value

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 80)

    getpeername = getsockname

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def is_closing(self) -> bool:
        return self.end != ""

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.end = "closed"

    def abort(self) -> None:
        self.end = "reset"

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


TIMEOUTS = Timeouts(head=10, body=30, body_rate=1024, taking=20)


class Bench:
    """One connection, its client and its clock."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.transport = Transport()
        config = uvicorn.Config(app=lambda scope: None, log_config=None, lifespan="off", ws="none")
        shared = Shared(
            connections=Connections(10, 10, lambda _: True),
            timeouts=TIMEOUTS,
            heads=HeadLimits(size=16_384, fields=100),
            load=Load(Thresholds(soft=10**6, hard=10**6), Classifier({}, {})),
        )
        loop = cast("asyncio.AbstractEventLoop", self.clock)
        self.connection = Connection(config, ServerState(), {}, _loop=loop, shared=shared)
        self.connection.connection_made(cast("asyncio.Transport", self.transport))

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def answer(self, status: int = 200) -> None:
        await self.connection.cycle.send({"type": "http.response.start", "status": status, "headers": []})
        await self.connection.cycle.send({"type": "http.response.body", "body": b""})

    def ends_after(self, seconds: float) -> str:
        """How the connection ends at that moment, and not a second before."""
        for step in (seconds - 1, 1):
            assert self.transport.end == ""
            self.clock.now += step
            self.connection.enforce()
        return self.transport.end


# Without a connection: when what is due


@pytest.mark.parametrize(
    ("after", "exchange", "due"),
    [
        (9.9, Exchange(), None),
        (10, Exchange(), Due.ARRIVING),
        (10, Exchange(is_ending=True), Due.ARRIVING),
        (1000, Exchange(is_answering=True), None),
        (1000, Exchange(is_answering=True, unsent=1), Due.TAKING),
    ],
)
def test_head_is_due_after_its_time_unless_an_answer_is_waited_for(
    after: float, exchange: Exchange, due: Due | None
) -> None:
    assert Deadlines(TIMEOUTS, 7.0).due(7.0 + after, exchange) is due


FAST = 1_000_000  # bytes


@pytest.mark.parametrize(
    ("after", "exchange", "due"),
    [
        (RATE_AFTER - 0.1, Exchange(), None),
        (RATE_AFTER, Exchange(), Due.ARRIVING),
        (RATE_AFTER, Exchange(body=5120), None),
        (RATE_AFTER, Exchange(body=5119), Due.ARRIVING),
        (29.9, Exchange(body=FAST), None),
        (30, Exchange(body=FAST), Due.ARRIVING),
        (30, Exchange(body=FAST, is_answering=True), Due.ARRIVING),
        (30, Exchange(body=FAST, is_answering=True, has_responded=True), None),
        (30, Exchange(body=FAST, has_responded=True), Due.ARRIVING),
        (30, Exchange(waits_for_us=True), None),
        (30, Exchange(is_ending=True), None),
    ],
)
def test_body_is_due_by_its_time_and_by_its_rate_unless_the_client_may_not_send(
    after: float, exchange: Exchange, due: Due | None
) -> None:
    deadlines = Deadlines(TIMEOUTS, 7.0)
    deadlines.body_begins(8.0)
    assert deadlines.due(8.0 + after, exchange) is due


def test_bytes_that_came_before_a_wait_for_us_do_not_count_for_the_rate_behind_it() -> None:
    deadlines = Deadlines(TIMEOUTS, 0.0)
    deadlines.body_begins(0.0)
    assert deadlines.due(100.0, Exchange(body=FAST, waits_for_us=True)) is None
    assert deadlines.due(100.0 + RATE_AFTER, Exchange(body=FAST + 5120)) is None
    assert deadlines.due(100.0 + RATE_AFTER, Exchange(body=FAST + 5119)) is Due.ARRIVING


def test_nothing_is_due_between_requests() -> None:
    deadlines = Deadlines(TIMEOUTS, 0.0)
    deadlines.body_begins(1.0)
    deadlines.body_ends()
    assert deadlines.due(1_000.0, Exchange()) is None


def test_head_that_has_begun_gets_no_more_time_and_none_begins_in_a_body() -> None:
    deadlines = Deadlines(TIMEOUTS, 0.0)
    deadlines.head_begins(5.0)
    assert deadlines.head_since == 0.0
    deadlines.body_begins(6.0)
    deadlines.head_begins(7.0)
    assert (deadlines.head_since, deadlines.body_since) == (None, 6.0)
    deadlines.body_ends()
    deadlines.head_begins(8.0)
    assert deadlines.head_since == 8.0


@pytest.mark.parametrize(
    ("unsent", "due"),
    [
        ([10, 10], Due.TAKING),
        ([10, 11], Due.TAKING),
        ([10, 9], None),
        ([10, 0], None),
        ([0, 10], Due.TAKING),
    ],
)
def test_reader_that_takes_nothing_is_due_and_one_that_takes_little_is_not(unsent: list[int], due: Due | None) -> None:
    """It was seen to take some at 1.0 at the latest, where nothing waited; else when it was accepted."""
    deadlines = Deadlines(TIMEOUTS, 1.0)
    deadlines.body_begins(1.0)
    deadlines.body_ends()
    before, now = unsent
    assert deadlines.due(1.0, Exchange(unsent=before)) is None
    assert deadlines.due(20.9, Exchange(unsent=now)) is None
    assert deadlines.due(21.0, Exchange(unsent=now)) is due


# A connection


@pytest.mark.asyncio
async def test_connection_that_says_nothing_is_closed_without_a_word() -> None:
    bench = Bench()
    assert bench.ends_after(10) == "closed"
    assert bench.transport.written == b""


@pytest.mark.asyncio
async def test_head_that_grows_slowly_gets_no_more_time() -> None:
    bench = Bench()
    bench.clock.now += 5
    bench.send(HEAD)
    bench.clock.now += 1
    bench.send(b"X-A: a")
    assert bench.ends_after(4) == "closed"


@pytest.mark.asyncio
async def test_head_of_a_later_request_has_a_time_of_its_own() -> None:
    bench = Bench()
    bench.send(GET)
    await bench.answer()
    bench.clock.now += 100
    bench.connection.enforce()
    bench.send(b"GET ")
    assert bench.ends_after(10) == "closed"


@pytest.mark.asyncio
async def test_empty_lines_do_not_keep_a_connection() -> None:
    """The parser tells nobody of them, and uvicorn takes them for life."""
    bench = Bench()
    bench.send(GET)
    await bench.answer()
    bench.send(b"\r\n")
    bench.clock.now += 9
    bench.send(b"\r\n")
    assert bench.ends_after(1) == "closed"


@pytest.mark.asyncio
async def test_answer_may_take_its_time_whatever_the_client_sends_meanwhile() -> None:
    bench = Bench()
    bench.send(GET + b"GET ")
    bench.clock.now += 100
    bench.connection.enforce()
    assert bench.transport.end == ""


@pytest.mark.asyncio
async def test_body_is_late_after_its_time_however_fast_it_is() -> None:
    bench = Bench()
    bench.send(HEAD + LENGTH % 1_000_000 + b"a" * 60_000)
    assert bench.ends_after(30) == "closed"
    assert bench.transport.written.startswith(b"HTTP/1.1 408 ")


@pytest.mark.asyncio
async def test_answer_to_a_late_request_is_as_long_as_it_says() -> None:
    bench = Bench()
    bench.send(HEAD + LENGTH % 1_000_000)
    bench.clock.now += 30
    bench.connection.enforce()
    head, _, body = bench.transport.written.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head


@pytest.mark.parametrize(("size", "end"), [(1024 * 6 - 1, "closed"), (1024 * 6, "")])
@pytest.mark.asyncio
async def test_body_has_a_least_rate(size: int, end: str) -> None:
    bench = Bench()
    bench.send(HEAD + LENGTH % 1_000_000 + b"a" * size)
    bench.clock.now += 6
    bench.connection.enforce()
    assert bench.transport.end == end


@pytest.mark.asyncio
async def test_body_may_begin_slowly() -> None:
    bench = Bench()
    bench.send(HEAD + LENGTH % 100)
    assert bench.ends_after(RATE_AFTER) == "closed"


@pytest.mark.asyncio
async def test_time_in_which_the_body_waits_for_us_does_not_count() -> None:
    """We have stopped reading, or have not told the client yet to go on."""
    paused, expecting = Bench(), Bench()
    paused.send(HEAD + LENGTH % 1_000_000 + b"a" * 70_000)
    expecting.send(HEAD + b"Expect: 100-continue\r\n" + LENGTH % 100)
    assert paused.connection.flow.read_paused
    for bench in (paused, expecting):
        bench.clock.now += 100
        bench.connection.enforce()
        assert bench.transport.end == ""
    paused.connection.flow.resume_reading()
    expecting.connection.cycle.waiting_for_100_continue = False
    for bench in (paused, expecting):
        assert bench.ends_after(RATE_AFTER) == "closed"


@pytest.mark.asyncio
async def test_body_that_nobody_reads_any_more_must_end_too() -> None:
    """It was answered before it had come; each byte of it would keep uvicorn's connection."""
    bench = Bench()
    bench.send(HEAD + LENGTH % 1_000_000)
    await bench.answer(404)
    written = bench.transport.written
    assert bench.ends_after(RATE_AFTER) == "closed"
    assert bench.transport.written == written, "two answers to one request"


@pytest.mark.asyncio
async def test_refusal_reads_on_and_closes_by_itself() -> None:
    bench = Bench()
    bench.send(HEAD + LENGTH % 1_000_000)
    await bench.connection.cycle.send({"type": "http.response.start", "status": 413, "headers": []})
    bench.clock.now += 30
    bench.connection.enforce()
    assert bench.transport.end == ""


@pytest.mark.asyncio
async def test_reader_that_takes_nothing_is_reset_and_one_that_takes_little_is_not() -> None:
    bench = Bench()
    bench.send(GET)
    bench.transport.unsent = 50_000
    for _ in range(40):
        bench.clock.now += 19
        bench.transport.unsent -= 1
        bench.connection.enforce()
    assert bench.ends_after(20) == "reset"
    assert bench.transport.linger is not None


@pytest.mark.asyncio
async def test_what_is_closing_must_be_taken_too() -> None:
    """uvicorn would wait for ever for a client to take the last bytes."""
    bench = Bench()
    bench.transport.unsent = 10
    bench.transport.end = "closed"
    for now in (0, 19, 1):
        bench.clock.now += now
        bench.connection.enforce()
    assert bench.transport.end == "reset"


# With real sockets


@pytest.mark.asyncio
async def test_slow_clients_are_closed_while_an_answer_is_waited_for() -> None:
    async with running(head_timeout=0.2) as server, server.client() as client:
        answer = asyncio.create_task(client.post("/", json=rpc("SendMessage", message("hold"))))
        await server.lab.started["hold"].wait()
        assert await asyncio.gather(raw(server, b""), raw(server, HEAD)) == ["", ""]
        server.lab.released["hold"].set()
        assert (await answer).status_code == 200


@pytest.mark.asyncio
async def test_body_below_the_rate_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("a2a_server.edge.deadlines.RATE_AFTER", 0.1)
    async with running() as server:
        assert (await raw(server, HEAD + LENGTH % 1000 + b"{")).startswith("HTTP/1.1 408 ")
        await until(lambda: not server.server.server_state.connections)


@pytest.mark.asyncio
async def test_reader_of_a_plain_answer_that_takes_nothing_is_reset() -> None:
    """More than the buffers of both kernels and of the server hold."""
    loop = asyncio.get_running_loop()
    async with running(send_timeout=0.2, keep_alive=0.1) as server:
        async with server.client() as client:
            task = rpc("tasks.create", {"name": "echo", "inputs": {"blob": "x" * 4_000_000}})
            made = (await client.post("/", json=task)).json()["result"]
        body = json.dumps(rpc("tasks.get", {"task_id": made["id"]})).encode()
        connections = server.server.server_state.connections
        with socket.socket() as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            await loop.sock_connect(stalled, ("127.0.0.1", server.port))
            await loop.sock_sendall(stalled, HEAD + LENGTH % len(body) + body)
            await until(lambda: any(each.transport.get_write_buffer_size() for each in connections))
            await until(lambda: not connections)
            with pytest.raises(ConnectionResetError):
                while await loop.sock_recv(stalled, 65536):
                    pass
