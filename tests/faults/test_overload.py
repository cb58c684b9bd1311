"""R16: ten times the load that the server can bear, from a process of its own, beside a tree that runs."""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import psutil
import pytest

from tests.acceptance.process import ServerProcess
from tests.faults.load import Load, finish, quantile, start
from tests.faults.report import report

SECONDS = float(os.environ.get("STORM_SECONDS", "3"))
TIMES = 10
USUAL, MANY = 64, 640  # connections at which the server does most, and ten times as many
CALM = 8  # connections that ask for less than it can do
BURST = 500
FOLLOWERS, PARKED = 2000, 90  # max_running, 100, leaves the burst some room
MOST_MEMORY = 64 * 1024 * 1024  # bytes that a storm may take

PARAMS = {"message": {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}
CALL = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": PARAMS}).encode()
HANGING = {**PARAMS, "metadata": {"skillId": "hang"}}
UNLIMITED = {"A2A_SERVER_OVERLOAD_SOFT": "1000000", "A2A_SERVER_OVERLOAD_HARD": "1000000"}


def times(seconds: list[float]) -> str:
    return f"(median {1000 * quantile(seconds, 0.5):.0f} ms, p99 {1000 * quantile(seconds, 0.99):.0f} ms)"


def ask(server: ServerProcess, request: bytes) -> int:
    """The status of the answer, over a connection of its own."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as line:
        line.sendall(request)
        return int(line.recv(4096).split(b" ", 2)[1])


def post(body: bytes) -> bytes:
    head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nA2A-Version: 1.0\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Phase:
    """A load, and what it cost the server."""

    load: Load
    worked: float  # seconds of processor time

    @property
    def per_second_of_work(self) -> float:
        """Calls served for each second that the server worked: the machine's other guests do not count in it."""
        return len(self.load.served) / self.worked

    def __str__(self) -> str:
        load = self.load
        served = f"{load.goodput:.0f}/s served ({self.per_second_of_work:.0f} per second of its processor time)"
        text = f"{served} {times(load.served)}"
        if load.refused:
            text += f", {len(load.refused) / load.seconds:.0f}/s refused {times(load.refused)}"
        return text


@dataclass
class Beside:
    """Who goes on while there is a storm: health is asked, strangers send a call each, and memory is looked at."""

    server: ServerProcess
    health: list[float] = field(default_factory=list)
    failures: int = 0
    served: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    memory: int = 0

    def __post_init__(self) -> None:
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        process = psutil.Process(self.server.pid)
        while not self._is_over.wait(0.02):
            begin = time.monotonic()
            self.failures += ask(self.server, HEALTH) != 200
            answered = time.monotonic()
            self.health.append(answered - begin)
            status = ask(self.server, post(CALL))
            (self.served if status == 200 else self.refused).append(time.monotonic() - answered)
            self.memory = max(self.memory, process.memory_info().rss)

    def __enter__(self) -> "Beside":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


@dataclass
class Follower:
    """Follows a tree from its beginning to its end."""

    server: ServerProcess
    task_id: str
    told: list[int] = field(default_factory=list)
    last: str = ""

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._follow)
        self._thread.start()

    def _follow(self) -> None:
        for seq, data in self.server.events(self.task_id, after=0):
            self.told.append(seq)
            self.last = str(data.get("type", ""))

    def end(self) -> None:
        self._thread.join()


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[list[ServerProcess]]:
    """One as it is, and one that refuses nothing: the positive control."""
    made = []
    for name, env in (("limited", {}), ("unlimited", UNLIMITED)):
        (tmp_path / name).mkdir()
        made.append(ServerProcess(tmp_path / name, "--default-skill", "noop", env=env).start())
    yield made
    for server in made:
        server.close()


def put(server: ServerProcess, connections: int, rate: float | None = None, seconds: float = SECONDS) -> Phase:
    process = psutil.Process(server.pid)
    before = process.cpu_times()
    load = finish(start(server.port, CALL, seconds, connections, rate))
    after = process.cpu_times()
    return Phase(load, after.user + after.system - before.user - before.system)


def test_ten_times_the_load_is_refused_quickly_and_what_is_accepted_is_served(servers: list[ServerProcess]) -> None:
    server, control = servers
    put(server, USUAL, seconds=1)
    peaks = [put(server, USUAL)]
    memory = psutil.Process(server.pid).memory_info().rss
    rate = TIMES * peaks[0].load.goodput
    pieces = {"count": int(20 * SECONDS), "pause": 0.05}
    tree = server.call("tasks.execute", {"tasks": [{"name": "chunks", "inputs": pieces}]})["root_task_id"]
    hanging = server.call("tasks.execute", {"tasks": [{"name": "hang"}]})["root_task_id"]
    follower = Follower(server, tree)

    with Beside(server) as beside:
        storm_of_calls = start(server.port, CALL, SECONDS, MANY, rate)
        before = psutil.Process(server.pid).cpu_times()
        canceled = server.call("tasks.cancel", {"task_ids": [hanging]})
        load = finish(storm_of_calls)
        after = psutil.Process(server.pid).cpu_times()
    storm = Phase(load, after.user + after.system - before.user - before.system)
    calm = put(server, CALM, seconds=min(SECONDS, 5.0))
    peaks.append(put(server, USUAL))  # the machine is not the same for minutes
    follower.end()
    open_storm = put(control, MANY, rate)

    log = server.log_of(tree)
    assert follower.told[-1] == log[-1]["seq"] and server.call("tasks.get", {"task_id": tree})["status"] == "completed"
    assert canceled[0]["status"] == "cancelled", canceled
    assert load.statuses.keys() == {200, 503} and load.untold == load.lost == load.unanswered == 0, load.statuses
    assert calm.load.statuses.keys() == {200}, "all is as before"
    assert beside.failures == 0
    assert beside.memory - memory < MOST_MEMORY
    assert [line for line in server.log if "Traceback" in line] == []
    kept = storm.per_second_of_work / fmean(peak.per_second_of_work for peak in peaks)
    of_peak = load.goodput / fmean(peak.load.goodput for peak in peaks)
    control_median = quantile(open_storm.load.served, 0.5)
    steady = load.served[MANY:-MANY]  # the first wave is served as a burst, the last ones are heard when it is over
    share = f"{100 * of_peak:.0f} % of the two peaks' mean ({100 * kept:.0f} % by processor time)"
    strangers = f"others, who do not ask again: served {times(beside.served)}, refused {times(beside.refused)}"
    memory_taken = f"{(beside.memory - memory) / 2**20:.0f} MiB more"
    figures = (
        f"{SECONDS:.0f} s; peak before {peaks[0]}, and after {peaks[1]}; at {TIMES} x {storm}: {share}; without the "
        f"first and the last {MANY} {times(steady)}; {strangers}; health {times(beside.health)}, "
        f"{memory_taken}; a running tree and its follower went on; afterwards {calm}"
    )
    report("R16", "ten times the load", figures)
    report("R16", "ten times the load, control: nothing is refused", f"{open_storm}")
    assert kept > 0.3
    assert quantile(beside.refused, 0.5) < 0.5 * control_median, "the control, where all wait, must be found out"
    assert open_storm.load.statuses.keys() == {200}


def test_burst_is_served_whole_beside_thousands_who_only_wait(servers: list[ServerProcess]) -> None:
    server, _ = servers
    hanging = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": HANGING}).encode()
    with ExitStack() as lines:
        parked = [lines.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(PARKED)]
        for line in parked:
            line.sendall(post(hanging))
        followed = server.call("tasks.execute", {"tasks": [{"name": "hang"}]})["root_task_id"]
        params = {"jsonrpc": "2.0", "id": 1, "method": "SubscribeToTask", "params": {"id": followed}}
        for _ in range(FOLLOWERS):
            line = lines.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            line.sendall(post(json.dumps(params).encode()))
            assert line.recv(4096).startswith(b"HTTP/1.1 200 ")
        burst = finish(start(server.port, CALL, 0.001, BURST))
        assert select.select(parked, [], [], 0)[0] == [], "they wait on"
    assert burst.statuses.keys() == {200} and burst.sent >= BURST, burst.statuses
    claim = f"{BURST} blocking calls at once, beside {FOLLOWERS} followers and {PARKED} calls that wait"
    report("R16", claim, f"all served {times(burst.served)}")
