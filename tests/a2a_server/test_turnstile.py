"""What a caller gets to see while the server has too much to do, in raw bytes, from a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import pytest
import pytest_asyncio

from a2a_server import overload
from a2a_server.overload import COST, MOST_SAVED, SHARE_OF_TIME, SHARE_OF_WORK, Allowance
from a2a_server.turnstile import HELD
from tests.a2a_server.conftest import RunningServer, message, running, until

HEAD = "Host: localhost\r\nContent-Type: application/json\r\nA2A-Version: 1.0\r\n"
SOFT, HARD = 2, 3


class Line:
    """A connection, over which calls go one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, server: RunningServer) -> "Line":
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    def send(self, body: str, path: str = "/", *fields: str, verb: str = "POST") -> None:
        more = "".join(f"{field}\r\n" for field in fields)
        head = f"{verb} {path} HTTP/1.1\r\n{HEAD}{more}Content-Length: {len(body)}\r\n\r\n"
        self._writer.write((head + body).encode())

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], Any]:
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.strip().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await self._reader.readexactly(int(fields["content-length"]))
        return int(status.split()[1]), fields, json.loads(body) if body else None

    async def ask(self, *given: str, verb: str = "POST") -> tuple[int, dict[str, str], Any]:
        self.send(*given, verb=verb)
        return await self.answer()

    async def end(self) -> bytes:
        return await self._reader.read()

    def close(self) -> None:
        self._writer.close()


def call(method: str, params: Any = None, request_id: Any = 7) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params or {}, "id": request_id})


WORK = call("SendMessage", message("echo"))


@pytest_asyncio.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningServer]:
    """One that stays as busy and as late as it once was."""
    for name in ("YOUNG", "YOUNG_WHILE_LATE", "KEPT"):
        monkeypatch.setattr(overload, name, inf)
    async with running(overload_soft=SOFT, overload_hard=HARD, overload_wait=1e-9) as it:
        yield it


async def occupy(server: RunningServer, count: int) -> list[Line]:
    """So many calls that wait for an executor; when they have begun, reads are late."""
    lines = []
    for _ in range(count):
        line, key = await Line.to(server), str(len(server.lab.started))
        line.send(call("SendMessage", message("hold", {"data": {"key": key}})))
        await server.lab.started[key].wait()
        lines.append(line)
    server.application.load.waited(1.0)
    server.application.load.waited(1.0)
    server.application.load.waited(1.0)
    return lines


@pytest.mark.asyncio
async def test_work_at_the_soft_threshold_is_taken_and_one_more_is_refused_until_there_is_room(
    server: RunningServer,
) -> None:
    lines = await occupy(server, SOFT - 1)
    line = await Line.to(server)
    assert (await line.ask(WORK))[0] == 200
    lines += await occupy(server, 1)

    status, fields, body = await line.ask(WORK)

    assert (status, body["id"], body["error"]["code"]) == (503, 7, -32051)
    assert fields["retry-after"] == body["error"]["data"][0]["metadata"]["retryAfter"] == "1"
    assert (fields["cache-control"], fields["x-content-type-options"]) == ("no-store", "nosniff")
    assert (await line.ask(call("ListTasks")))[0] == 200, "reads go on, on the same connection"
    for released in server.lab.released.values():
        released.set()
    await until(lambda: server.application.load.busy == 0)
    assert (await line.ask(WORK))[0] == 200
    for each in (line, *lines):
        each.close()


@pytest.mark.asyncio
async def test_what_is_refused_in_each_way_in(server: RunningServer) -> None:
    lines = await occupy(server, SOFT)
    line = await Line.to(server)
    for body in (WORK, call("message/send"), call("tasks.create"), f"[{WORK},{call('CancelTask')}]", "no JSON"):
        assert (await line.ask(body))[0] == 503, body
    for path in ("/message:send", "/some-tenant/message:stream"):
        status, fields, told = await line.ask("{}", path)
        assert (status, told["error"]["status"], fields["retry-after"]) == (503, "UNAVAILABLE", "1")
    for body in (call("CancelTask", {"id": "x"}), call("system.health"), call("GetTask", {"id": "x"})):
        assert (await line.ask(body))[0] == 200, body
    assert (await line.ask("", "/tasks/x:cancel"))[0] == 404
    assert (await line.ask("", "/healthz", verb="GET"))[0] == 200
    for each in (line, *lines):
        each.close()


@pytest.mark.asyncio
async def test_past_the_hard_threshold_only_cancels_and_health_are_taken(server: RunningServer) -> None:
    lines = await occupy(server, SOFT)
    reading = await Line.to(server)  # a stream is no work, and stays
    task_id = (await reading.ask(call("ListTasks")))[2]["result"]["tasks"][0]["id"]
    reading.send(call("SubscribeToTask", {"id": task_id}))
    await until(lambda: server.application.load.busy == HARD)
    line = await Line.to(server)
    for body in (call("GetTask", {"id": task_id}), call("ListTasks"), call("rpc.discover")):
        assert (await line.ask(body))[0] == 503, body
    assert (await line.ask("", f"/tasks/{task_id}", verb="GET"))[0] == 503
    for path in ("/healthz", "/readyz"):
        assert (await line.ask("", path, verb="GET"))[0] == 200
    assert (await line.ask(call("system.health")))[0] == 200
    canceled = (await line.ask(call("CancelTask", {"id": task_id})))[2]
    assert canceled["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    for each in (line, reading, *lines):
        each.close()


@pytest.mark.asyncio
async def test_what_is_not_simple_is_refused_in_full(server: RunningServer) -> None:
    """A page's call, a long body, one in pieces without a length, and one that waits to be asked for its body."""
    lines = await occupy(server, SOFT)
    long = WORK.ljust(HELD + 1)
    chunk = b"%x\r\n%b\r\n" % (len(long), long.encode())
    start = f"POST / HTTP/1.1\r\n{HEAD}"
    for sent in (
        f"{start}Origin: http://localhost\r\nContent-Length: {len(WORK)}\r\n\r\n{WORK}".encode(),
        f"{start}Content-Length: {len(long)}\r\n\r\n{long}".encode(),
        f"{start}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk + b"0\r\n\r\n",
        f"{start}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n".encode(),
    ):
        line = await Line.to(server)
        line.write(sent)
        status, fields, told = await line.answer()
        assert (status, told["error"]["code"], fields["retry-after"]) == (503, -32051, "1"), sent[:200]
        assert fields["connection"] == "close"
        line.close()
    cancel = call("CancelTask", {"id": "x"})
    line = await Line.to(server)
    line.write(f"{start}Transfer-Encoding: chunked\r\n\r\n{len(cancel):x}\r\n{cancel}\r\n0\r\n\r\n".encode())
    assert (await line.answer())[2]["error"]["code"] == -32001, "in pieces, too, a cancel passes"
    for each in (line, *lines):
        each.close()


@pytest.mark.asyncio
async def test_calls_sent_ahead_are_answered_in_their_order(server: RunningServer) -> None:
    lines = await occupy(server, SOFT - 1)
    ahead = await Line.to(server)
    ahead.send(call("SendMessage", message("hold", {"data": {"key": "ahead"}}), 1))
    await server.lab.started["ahead"].wait()
    ahead.send(call("SendMessage", message("echo"), 2))
    server.lab.released["ahead"].set()
    assert (await ahead.answer())[2]["id"] == 1
    assert (await ahead.answer())[0] == 503
    held = await occupy(server, 1)
    line = await Line.to(server)
    for n in range(3):
        line.send(call("SendMessage", message("echo"), n))
    assert [(await line.answer())[2]["id"] for _ in range(3)] == [0, 1, 2]
    for each in (ahead, line, *lines, *held):
        each.close()


@pytest.mark.asyncio
async def test_refused_call_that_closes_is_closed(server: RunningServer) -> None:
    lines = await occupy(server, SOFT)
    line = await Line.to(server)
    assert (await line.ask(WORK, "/", "Connection: close"))[0] == 503
    assert await line.end() == b""
    for each in (line, *lines):
        each.close()


@pytest.mark.asyncio
async def test_who_is_refused_again_and_again_is_answered_each_time(server: RunningServer) -> None:
    """The connection rests in between, so that work has its time."""
    lines = await occupy(server, SOFT)
    line = await Line.to(server)
    count = 3 * int(MOST_SAVED / COST)
    statuses = [(await line.ask(WORK))[0] for _ in range(count)]
    assert statuses == [503] * count
    for each in (line, *lines):
        each.close()


def test_refusals_take_a_fifth_of_the_work_or_a_fiftieth_of_the_time() -> None:
    allowance = Allowance()
    first = allowance.room(worked=100.0, passed=100.0)
    assert first == int(MOST_SAVED / COST)
    for n in range(first - 1):
        assert allowance.spend(100.0, 100.0), n
    assert not [allowance.spend(100.0, 100.0) for _ in range(2)][-1]
    assert allowance.room(100.0, 100.0) == 0
    assert allowance.room(100.0 + 3.01 * COST / SHARE_OF_WORK, 100.0) == 2, "the one that was too many is paid"
    assert allowance.room(100.0 + 3.01 * COST / SHARE_OF_WORK, 100.0 + 2.01 * COST / SHARE_OF_TIME) == 4
    assert allowance.room(200.0, 200.0) == first, "what is saved has an end"


@pytest.mark.asyncio
async def test_body_that_does_not_arrive_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "YOUNG", inf)
    async with running(overload_soft=1, overload_hard=1, body_timeout=0.1) as server:
        lines = await occupy(server, 1)
        line = await Line.to(server)
        line.write(f"POST / HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\n{{".encode())
        assert await line.end() == b""
        for each in (line, *lines):
            each.close()
