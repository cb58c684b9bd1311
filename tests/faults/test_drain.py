"""R10: SIGTERM at random moments: what was acknowledged stays, replies are whole, streams end so that they resume."""

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.acceptance.process import ServerProcess
from tests.acceptance.story import Story, plan
from tests.faults.report import report
from tests.faults.test_failpoints import Sabotaged, seeded

RUNS = int(os.environ.get("DRAINS", "10"))
SECOND_SIGNALS = max(2, RUNS // 5)
CALLERS, FOLLOWERS, HANGING = 8, 10, 20
TASKS = 200
EXIT_LIMIT = 32.0  # seconds
DELAY, DRAIN, LONGEST = 1, 10, 5.0  # seconds: before the listener closes, for attempts to end, of one
AT_A_TIME = 5  # servers
NAPS = 20
RESUMABLE = ": the server is stopping; resume with Last-Event-ID"
KILLED_BY_SIGTERM = 128 + 15


class Load:
    """Callers that send one message after the other, and followers of a tree, until the server is gone."""

    def __init__(self, server: ServerProcess, story: Story) -> None:
        self._server = server
        self.root = story.root
        self.changed = threading.Condition()
        self.acknowledged: list[str] = []
        self.refused = 0
        self.is_refused = False  # somebody was
        self.wrong: list[Any] = []  # replies that are broken off, or neither an answer nor a typed refusal
        self.told: list[list[int]] = [[] for _ in range(FOLLOWERS)]
        self.endings = [""] * FOLLOWERS  # the last line of each stream
        self._threads = [threading.Thread(target=self._call) for _ in range(CALLERS)]
        self._threads += [threading.Thread(target=self._follow, args=(n,)) for n in range(FOLLOWERS)]
        for thread in self._threads:
            thread.start()

    def wait_for(self, replies: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.acknowledged) >= replies and all(self.told), 60)

    def wait_for_a_drain(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.is_refused, 60)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()

    def _call(self) -> None:
        parts = [{"data": {"seconds": 0.01}}]
        message = {"messageId": "m", "role": "ROLE_USER", "parts": parts, "metadata": {"skillId": "work"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}}
        with httpx2.Client(base_url=self._server.url, trust_env=False, timeout=60) as client:
            try:
                while self._is_answered(client, body):
                    pass
            except httpx2.TransportError:
                pass  # not a byte of a reply: nothing was acknowledged
        with self.changed:
            self.is_refused = True
            self.changed.notify_all()

    def _is_answered(self, client: httpx2.Client, body: dict[str, Any]) -> bool:
        with client.stream("POST", "/", json=body) as response:
            try:
                response.read()
            except httpx2.TransportError as error:
                self.wrong.append(error)
                return False
        answer = response.json()
        with self.changed:
            if response.status_code == 200 and "result" in answer:
                self.acknowledged.append(answer["result"]["task"]["id"])
            elif (response.status_code, answer["error"]["code"]) == (503, -32051) and response.headers["Retry-After"]:
                self.refused += 1
            else:
                self.wrong.append(response.text)
            self.changed.notify_all()
        return response.status_code == 200

    def _follow(self, n: int) -> None:
        last = ""
        try:
            with (
                httpx2.Client(base_url=self._server.url, trust_env=False, timeout=60) as client,
                client.stream("GET", f"/tasks/{self.root}/events") as response,
            ):
                for line in response.iter_lines():
                    last = line or last
                    if line.startswith("id:"):
                        self.told[n].append(int(line[3:]))
        except httpx2.TransportError as error:
            last = repr(error)
        with self.changed:
            self.endings[n] = last
            self.changed.notify_all()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sabotaged]:
    process = Sabotaged(tmp_path)
    yield process
    process.close()


def begin(server: ServerProcess, chance: random.Random, *, busy: float = 0.5) -> Load:
    """A tree with followers, tasks that hang and one that cannot be interrupted, and calls; return in the middle."""
    for _ in range(HANGING):
        server.call("tasks.execute", {"tasks": [{"name": "hang"}]})
    server.call("tasks.execute", {"tasks": [{"name": "stubborn", "inputs": {"seconds": busy}}]})
    last = {"id": "last", "name": "hang", "parent_id": "root"}  # keeps the streams open
    load = Load(server, Story(server, [*plan(chance, TASKS), last]))
    load.wait_for(chance.randrange(1, 40))
    return load


def check_endings(load: Load) -> None:
    """Nothing was broken off."""
    assert load.wrong == []
    assert {ending for ending in load.endings if "stream_end" not in ending} <= {RESUMABLE}


def check_nothing_is_lost(server: ServerProcess, load: Load) -> None:
    """Every acknowledged task is there and completes; every stream resumes where it ended."""
    children = server.call("tasks.children", {"parent_id": load.root})
    hanging = next(task["id"] for task in children if task["name"] == "hang")
    server.call("tasks.cancel", {"task_ids": [hanging]})
    for task_id in load.acknowledged:
        while (state := server.call("GetTask", {"id": task_id})["status"]["state"]) != "TASK_STATE_COMPLETED":
            assert state in ("TASK_STATE_SUBMITTED", "TASK_STATE_WORKING"), state
            *_, (_, last) = server.events(task_id)
            assert last["type"] == "stream_end"
    for told, ending in zip(load.told, load.endings, strict=True):
        if "stream_end" not in ending:
            told += [seq for seq, event in server.events(load.root, told[-1]) if event["type"] != "stream_end"]
    log = [event["seq"] for event in server.log_of(load.root)]
    assert all(told == log for told in load.told), "what a follower saw is not the log"
    running = [task["id"] for task in server.call("tasks.running.list")]
    server.call("tasks.cancel", {"task_ids": running, "force": True})


def test_server_that_is_told_to_end_breaks_nothing_off_and_loses_nothing(server: Sabotaged) -> None:
    seed, chance = seeded()
    acknowledged = refused = 0
    seconds: list[float] = []
    server.start_with()
    for _ in range(RUNS):
        load = begin(server, chance)
        told_at = time.monotonic()
        assert server.terminate() == 0
        seconds.append(time.monotonic() - told_at)
        load.join()
        check_endings(load)
        server.start_with()
        check_nothing_is_lost(server, load)
        acknowledged += len(load.acknowledged)
        refused += load.refused
    assert max(seconds) < EXIT_LIMIT
    streams = f"{RUNS * FOLLOWERS} streams ended and resumed, 0 replies broken off"
    figures = f"{RUNS} of {RUNS}: {acknowledged} acknowledged, 0 lost, {refused} told 503, {streams}"
    report("R10", "SIGTERM at random moments", f"{figures}; exit 0 in {max(seconds):.1f} s at most", seed=seed)


class Napping:
    """A server that is told to end again and again while tasks of 0 to 5 seconds run, and a look at `/readyz`."""

    def __init__(self, folder: Path, seed: int) -> None:
        folder.mkdir()
        self.chance = random.Random(seed)
        settings = {"A2A_SERVER_DRAIN": str(DRAIN), "A2A_SERVER_DRAIN_DELAY": str(DELAY)}
        self.server = Sabotaged(folder, env=settings)
        self.tasks: list[str] = []
        self.seconds: list[float] = []

    def run(self, times: int) -> None:
        """Raises AssertionError for what went wrong."""
        try:
            for _ in range(times):
                self.server.start_with()
                self._end_at_some_moment()
            self.server.start_with()
            for task_id in self.tasks:
                *_, (_, last) = [*self.server.events(task_id)] or [(0, {"type": "stream_end"})]
                assert last["type"] == "stream_end"
                assert self.server.call("tasks.get", {"task_id": task_id})["status"] == "completed"
            assert self.server.terminate() == 0
        finally:
            self.server.close()

    def _end_at_some_moment(self) -> None:
        moment = self.chance.randrange(1, NAPS)
        for n in range(NAPS):
            naps = [
                {"name": "nap", "id": each, "inputs": {"seconds": self.chance.uniform(0, LONGEST)}} for each in "ab"
            ]
            chain = [{"name": "root", "id": "root"}, *({**nap, "parent_id": "root"} for nap in naps)]
            chain[2]["dependencies"] = ["a"]
            self.tasks.append(self.server.call("tasks.execute", {"tasks": chain})["task_id"])
            if n == moment:  # one of those that run will have ended by now, or has just begun
                first = self.tasks[-self.chance.randrange(1, n + 1)]
                next(iter(self.server.events(first, self.chance.randrange(1, 4))))
                break
        told: list[int] = []
        is_looking = threading.Event()
        looking = threading.Thread(target=self._look, args=(told, is_looking))
        looking.start()
        assert is_looking.wait(60)
        assert self.server.process is not None
        told_at = time.monotonic()
        self.server.process.terminate()
        assert self.server._end(EXIT_LIMIT) == 0
        self.seconds.append(time.monotonic() - told_at)
        looking.join()
        assert told[-1] == 503, "the listener closed before /readyz said so"

    def _look(self, told: list[int], is_looking: threading.Event) -> None:
        """What `/readyz` says to one new connection after the other, until there is no listener."""
        while True:
            connection = HTTPConnection("127.0.0.1", self.server.port, timeout=60)
            try:
                connection.request("GET", "/readyz")
                told.append(connection.getresponse().status)
            except OSError:
                return
            finally:
                connection.close()
                is_looking.set()


@pytest.mark.slow
def test_no_attempt_that_could_end_within_the_drain_runs_twice(tmp_path: Path) -> None:
    seed, chance = seeded()
    each = max(1, RUNS // 2 // AT_A_TIME) if RUNS < 100 else RUNS // AT_A_TIME
    napping = [Napping(tmp_path / f"{n}", chance.getrandbits(32)) for n in range(AT_A_TIME)]
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda one: one.run(each), napping))
    effects = Counter(line for one in napping for line in (one.server.folder / "ledger").read_text().splitlines())
    assert set(effects.values()) == {1}, effects.most_common(3)
    tasks, longest = sum(len(one.tasks) for one in napping), max(second for one in napping for second in one.seconds)
    assert longest < DELAY + DRAIN + 2
    runs = each * AT_A_TIME
    figures = f"{runs} of {runs}: {2 * tasks} attempts of 0 to {LONGEST:g} s, {len(effects)} effects, 0 twice"
    told = f"/readyz 503 before the listener closed {runs} times; exit 0 in {longest:.1f} s at most"
    report("R10", f"SIGTERM at random moments, drain = {DRAIN} s", f"{figures}; {told}", seed=seed)


def test_second_signal_in_the_middle_of_a_drain_loses_nothing(server: Sabotaged) -> None:
    seed, chance = seeded()
    codes: list[int] = []
    server.env["A2A_SERVER_DRAIN"] = "30"
    server.start_with()
    for _ in range(SECOND_SIGNALS):
        load = begin(server, chance, busy=10)
        assert server.process is not None
        server.process.terminate()
        load.wait_for_a_drain()  # it has begun, and the stubborn task holds it up
        codes.append(server.terminate())
        load.join()
        server.start_with()
        check_nothing_is_lost(server, load)
    assert set(codes) == {KILLED_BY_SIGTERM}
    report("R10", "a second SIGTERM in the middle of a drain", f"{len(codes)} of {len(codes)}: 0 lost", seed=seed)


def test_server_that_ends_at_once_is_found_out(server: Sabotaged) -> None:
    """The positive control."""
    _, chance = seeded()
    server.start_with("end at once")
    load = begin(server, chance)
    server.terminate()
    load.join()
    with pytest.raises(AssertionError):
        check_endings(load)
