"""Which calls are taken while the server has too much to do: as decided, and in raw bytes from a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from math import inf
from typing import Any

import pytest
import pytest_asyncio

from a2a_server.edge import overload
from a2a_server.edge.admission import HELD, Admission, Rejected, Unread, Verdict
from a2a_server.edge.overload import CallKind, Classifier, Load, Thresholds
from a2a_server.protocol.errors import RETRY_AFTER
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
    """One that stays as busy as it once was."""
    for name in ("CALL", "WANTED"):
        monkeypatch.setattr(overload, name, inf)
    monkeypatch.setattr(overload, "RUN", 0.0)
    monkeypatch.setattr(overload, "LATELY", 0.0)
    async with running(overload_soft=SOFT, overload_hard=HARD) as it:
        yield it


def occupy(server: RunningServer, count: int) -> list[object]:
    """So many calls that are not answered."""
    calls = [object() for _ in range(count)]
    for each in calls:
        server.application.load.begin(each)
    return calls


def press(server: RunningServer) -> list[object]:
    """As many calls as the soft threshold, while others want something."""
    for _ in range(HARD - SOFT):
        server.application.load.reject(object())
    return occupy(server, SOFT)


# Without a connection: what is decided


NOW = 500.0
KINDS = Classifier(
    {"work": CallKind.WORK, "cancel": CallKind.EXEMPT}, {":send": CallKind.WORK, ":cancel": CallKind.EXEMPT}
)
PRESSED = {"calls": SOFT, "rejected": HARD - SOFT}  # new work is refused
FULL = {"calls": HARD}  # all but what is exempt


class Desk:
    """The admission of one connection, and the load that others make."""

    def __init__(self, calls: int = 0, rejected: int = 0) -> None:
        self.load = Load(Thresholds(soft=SOFT, hard=HARD), KINDS, lambda: NOW)
        for _ in range(calls):
            self.load.begin(object())
        for _ in range(rejected):
            self.load.reject(object())
        self.admission = Admission(self.load)

    def head(self, method: bytes = b"POST", target: bytes = b"/", *, is_plain: bool = True) -> Verdict:
        return self.admission.judge_head(NOW, method, target, is_plain=is_plain)

    def body(self, body: str, *, now: float = NOW, is_from_page: bool = False) -> Verdict:
        assert self.admission.judge_piece(body.encode()) is Verdict.HOLD
        return self.admission.judge_body(now, is_from_page=is_from_page)


@pytest.mark.parametrize(
    ("busy", "method", "target", "is_plain", "verdict"),
    [
        ({}, b"POST", b"/", True, Verdict.ACCEPT),
        ({}, b"POST", b"/", False, Verdict.ACCEPT),
        ({"calls": HARD - 1}, b"POST", b"/", True, Verdict.ACCEPT),
        (PRESSED, b"POST", b"/", True, Verdict.HOLD),
        (PRESSED, b"POST", b"/", False, Verdict.REFUSE),
        (PRESSED, b"POST", b"/m:send?x=:cancel", True, Verdict.HOLD),
        (PRESSED, b"POST", b"/m:send", False, Verdict.REFUSE),
        (PRESSED, b"POST", b"/t:cancel", False, Verdict.ACCEPT),
        (PRESSED, b"GET", b"/tasks", True, Verdict.ACCEPT),
        (FULL, b"GET", b"/tasks", True, Verdict.HOLD),
        (FULL, b"GET", b"/healthz", False, Verdict.ACCEPT),
        (FULL, b"POST", b"/t:cancel", True, Verdict.ACCEPT),
        (FULL, b"POST", b"/\xff", True, Verdict.HOLD),
    ],
)
def test_head_is_judged_by_its_path_or_its_body_is_held(
    busy: dict[str, int], method: bytes, target: bytes, is_plain: bool, verdict: Verdict
) -> None:
    desk = Desk(**busy)
    assert desk.head(method, target, is_plain=is_plain) is verdict
    assert (desk.admission.held is not None) is (verdict is not Verdict.ACCEPT)


@pytest.mark.parametrize(
    ("busy", "body", "is_from_page", "verdict"),
    [
        (PRESSED, call("work"), False, Verdict.REJECT),
        (PRESSED, call("work"), True, Verdict.REFUSE),
        (PRESSED, call("cancel"), True, Verdict.ACCEPT),
        (PRESSED, call("read"), False, Verdict.ACCEPT),
        (PRESSED, "no JSON", False, Verdict.REJECT),
        (FULL, call("read"), False, Verdict.REJECT),
        (FULL, call("cancel"), False, Verdict.ACCEPT),
    ],
)
def test_body_is_judged_by_its_method(busy: dict[str, int], body: str, is_from_page: bool, verdict: Verdict) -> None:
    desk = Desk(**busy)
    assert desk.head() is Verdict.HOLD
    assert desk.body(body, is_from_page=is_from_page) is verdict
    if verdict is Verdict.REJECT:
        assert desk.admission.rejected == Rejected(None, None if body == "no JSON" else 7)
        assert desk.admission.held is None
    else:
        assert desk.admission.release(is_refused=verdict is Verdict.REFUSE) == body.encode()


def test_path_tells_of_a_call_without_a_look_at_its_body() -> None:
    desk = Desk(**PRESSED)
    assert desk.head(target=b"/m:send") is Verdict.HOLD
    assert desk.body(call("cancel")) is Verdict.REJECT
    assert desk.admission.rejected == Rejected(CallKind.WORK, None)


@pytest.mark.parametrize(("size", "verdict"), [(HELD, Verdict.HOLD), (HELD + 1, Verdict.REFUSE)])
def test_so_much_of_a_body_is_held_and_no_more(size: int, verdict: Verdict) -> None:
    desk = Desk(**PRESSED)
    desk.head()
    desk.admission.judge_piece(b"x" * 10)
    assert desk.admission.judge_piece(b"x" * (size - 10)) is verdict
    assert len(desk.admission.release(is_refused=True)) == size


def test_call_that_is_refused_in_full_is_wanted_and_one_that_is_let_in_is_not() -> None:
    desk = Desk(calls=SOFT, rejected=HARD - SOFT - 1)
    desk.admission.release(is_refused=False)
    assert desk.head() is Verdict.ACCEPT
    desk.admission.release(is_refused=True)
    assert desk.head() is Verdict.HOLD


def test_call_is_load_until_it_is_answered_or_waits_for_others_or_its_connection_ends() -> None:
    desk = Desk()
    for end in (desk.admission.begin(), desk.admission.end, desk.admission.close):
        desk.admission.begin()
        assert desk.load.busy == 1
        end()
        assert desk.load.busy == 0


def test_pause_is_the_longer_the_more_were_refused_and_until_then_it_asks_early() -> None:
    """Early: it gets what others leave. A call that is accepted makes it one like others."""
    desk = Desk(rejected=HARD)
    assert desk.admission.pause(NOW) == pytest.approx(overload.REST * (HARD + 1))
    desk.admission.resume()
    desk.load.begin(object())
    assert desk.head() is Verdict.HOLD
    assert desk.body(call("work"), now=NOW + RETRY_AFTER - 0.01) is Verdict.REJECT
    assert desk.head() is Verdict.HOLD
    assert desk.body(call("work"), now=NOW + RETRY_AFTER) is Verdict.ACCEPT
    desk.admission.begin()
    assert desk.head() is Verdict.HOLD, "as many calls as the soft threshold"
    desk.admission.end()
    assert desk.head() is Verdict.ACCEPT


def test_what_comes_in_a_pause_is_kept_in_its_order_and_bounded() -> None:
    admission = Desk().admission
    assert not admission.is_paused and admission.resume() is None
    admission.pause(NOW)
    assert admission.is_paused
    assert not admission.keep(b"a")
    assert not admission.keep(b"b" * (HELD - 1))
    assert admission.keep(b"c")
    assert admission.resume() == Unread(b"a" + b"b" * (HELD - 1) + b"c", has_ended=False)
    assert not admission.is_paused
    admission.pause(NOW)
    admission.keep_end()
    assert admission.resume() == Unread(b"", has_ended=True)


def test_connection_that_ends_in_a_pause_is_not_resumed() -> None:
    admission = Desk().admission
    admission.pause(NOW)
    admission.close()
    assert admission.resume() is None


# Over a real server's connections


@pytest.mark.asyncio
async def test_work_is_taken_until_the_hard_threshold_and_again_when_there_is_room_below_the_soft_one(
    server: RunningServer,
) -> None:
    calls = occupy(server, HARD - 1)
    line = await Line.to(server)
    assert (await line.ask(WORK))[0] == 200
    calls += occupy(server, 1)

    status, fields, body = await line.ask(WORK)

    assert (status, body["id"], body["error"]["code"]) == (503, 7, -32051)
    assert fields["retry-after"] == body["error"]["data"][0]["metadata"]["retryAfter"] == "1"
    assert (fields["cache-control"], fields["x-content-type-options"]) == ("no-store", "nosniff")
    server.application.load.end(calls.pop())
    assert (await line.ask(WORK))[0] == 503
    assert (await line.ask(call("ListTasks")))[0] == 200, "reads go on, on the same connection"
    while server.application.load.busy >= SOFT:
        server.application.load.end(calls.pop())
    assert (await line.ask(WORK))[0] == 200
    line.close()


@pytest.mark.asyncio
async def test_who_asks_again_before_it_is_time_gets_a_place_when_next_to_nothing_is_in_hand(
    server: RunningServer,
) -> None:
    for _ in range(HARD):
        server.application.load.reject(object())
    calls = occupy(server, SOFT)
    line, other = await Line.to(server), await Line.to(server)
    assert (await line.ask(WORK))[0] == 503
    server.application.load.end(calls.pop())
    assert (await line.ask(WORK))[0] == 503
    assert (await other.ask(WORK))[0] == 200, "who was not refused of late"
    while calls:
        server.application.load.end(calls.pop())
    assert (await line.ask(WORK))[0] == 200
    calls = occupy(server, SOFT - 1)
    assert (await line.ask(WORK))[0] == 200, "who was let in is like everybody"
    line.close()
    other.close()


@pytest.mark.asyncio
async def test_call_that_waits_for_an_executor_is_no_load_and_so_is_one_that_has_not_arrived(
    server: RunningServer,
) -> None:
    """Neither blocking calls, with another one sent ahead or not, nor a stream; nor a body that is still on its way."""
    load, lines = server.application.load, []
    execute = {"tasks": [{"name": "hold", "inputs": {"key": "2"}}], "wait": True}
    for key, body in (
        ("0", call("SendMessage", message("hold", {"data": {"key": "0"}}))),
        ("1", call("SendStreamingMessage", message("hold", {"data": {"key": "1"}}))),
        ("2", call("tasks.execute", execute)),
    ):
        line = await Line.to(server)
        line.send(body)
        lines.append(line)
        await server.lab.started[key].wait()
        await until(lambda: load.busy == 0)
    lines[0].send(WORK)  # ahead of the first answer
    slow = await Line.to(server)
    slow.write(f"POST / HTTP/1.1\r\n{HEAD}Content-Length: {len(WORK)}\r\n\r\n{WORK[:-1]}".encode())
    line = await Line.to(server)
    assert (await line.ask(WORK))[0] == 200
    assert load.busy == 0
    slow.write(WORK[-1:].encode())
    assert (await slow.answer())[0] == 200
    for each in (line, slow, *lines):
        each.close()


@pytest.mark.asyncio
async def test_what_is_refused_in_each_way_in(server: RunningServer) -> None:
    press(server)
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
    line.close()


@pytest.mark.asyncio
async def test_at_the_hard_threshold_only_cancels_and_health_are_taken(server: RunningServer) -> None:
    line = await Line.to(server)
    held = call("SendMessage", message("hold", {"data": {"key": "0"}}) | {"configuration": {"returnImmediately": True}})
    task_id = (await line.ask(held))[2]["result"]["task"]["id"]
    occupy(server, HARD)
    for body in (call("GetTask", {"id": task_id}), call("ListTasks"), call("rpc.discover")):
        assert (await line.ask(body))[0] == 503, body
    assert (await line.ask("", f"/tasks/{task_id}", verb="GET"))[0] == 503
    for path in ("/healthz", "/readyz"):
        assert (await line.ask("", path, verb="GET"))[0] == 200
    assert (await line.ask(call("system.health")))[0] == 200
    canceled = (await line.ask(call("CancelTask", {"id": task_id})))[2]
    assert canceled["result"]["status"]["state"] == "TASK_STATE_CANCELED"
    line.close()


@pytest.mark.asyncio
async def test_what_is_not_simple_is_refused_in_full(server: RunningServer) -> None:
    """A page's call, a long body, one in pieces without a length, and one that waits to be asked for its body."""
    press(server)
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
    line.close()


@pytest.mark.asyncio
async def test_calls_sent_ahead_are_answered_in_their_order(server: RunningServer) -> None:
    ahead = await Line.to(server)
    ahead.send(call("SendMessage", message("hold", {"data": {"key": "ahead"}}), 1))
    await server.lab.started["ahead"].wait()
    press(server)
    ahead.send(call("SendMessage", message("echo"), 2))
    server.lab.released["ahead"].set()
    assert (await ahead.answer())[2]["id"] == 1
    assert (await ahead.answer())[0] == 503
    line = await Line.to(server)
    for n in range(3):
        line.send(call("SendMessage", message("echo"), n))
    assert [(await line.answer())[2]["id"] for _ in range(3)] == [0, 1, 2]
    for each in (ahead, line):
        each.close()


@pytest.mark.asyncio
async def test_refused_call_that_closes_is_closed(server: RunningServer) -> None:
    press(server)
    line = await Line.to(server)
    assert (await line.ask(WORK, "/", "Connection: close"))[0] == 503
    assert await line.end() == b""
    line.close()


@pytest.mark.asyncio
async def test_who_is_refused_again_and_again_is_answered_each_time(server: RunningServer) -> None:
    """The connection rests in between, so that work has its time."""
    press(server)
    line = await Line.to(server)
    for text in (WORK, WORK, call("CancelTask", {"id": "x"}), WORK, WORK.ljust(HELD + 1)):
        assert (await line.ask(text))[0] == (200 if "CancelTask" in text else 503), text[:200]
    line.close()


@pytest.mark.asyncio
async def test_body_that_does_not_arrive_is_not_held_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overload, "CALL", inf)
    async with running(overload_soft=1, overload_hard=1, body_timeout=0.1) as server:
        occupy(server, 1)
        line = await Line.to(server)
        line.write(f"POST / HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\n{{".encode())
        assert await line.end() == b""
        line.close()
