"""R8: hostile requests by the thousand, from another process, to a real server that serves a good client meanwhile.

FUZZ_REQUESTS says how many, FUZZ_SEED which.
"""

import faulthandler
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from a2a_server.bindings.jsonrpc import parse
from a2a_server.protocol.errors import A2AError
from tests.a2a_server.conftest import calling
from tests.acceptance.process import ROOT
from tests.faults import census
from tests.faults.fuzz import GIANTS, Fuzzer
from tests.faults.fuzz_client import KNOWN
from tests.faults.report import report
from tests.faults.test_failpoints import Sabotaged

REQUESTS = int(os.environ.get("FUZZ_REQUESTS", "20000"))
PARSES = int(os.environ.get("FUZZ_PARSES", "20000"))
PART = 50_000  # after which the server is looked at
CONTROL = min(REQUESTS, 3_000)
SLOWEST_RATE = 20  # requests a second, of a machine that is busy with other things
LONG = 50_000  # requests, after which every cache that has a bound is full
WARM_UP = min(REQUESTS // 2, LONG)
LOOKS = 20  # of 0.1 s each, so more than the second that lies between two sweeps of the server's connections
MIB = 1024 * 1024
# What may be held after all of it and was not after the warm-up: statements that SQLite and SQLAlchemy have compiled,
# and the few trees that wait for an answer. `rss` also has the holes that bodies of all sizes leave between them.
GROWTH = {"bytes": 8 * MIB, "blocks": 100_000, "rss": (128 if WARM_UP == LONG else 64) * MIB}
ENV = {
    # Garbage makes open tasks without end, and webhooks of hosts that are not there: neither is what is tested.
    "A2A_SERVER_MAX_OPEN_TASKS": "100000000",
    "A2A_SERVER_PUSH_MAX_AGE": "2",
    # Nor is the load: a machine that is busy with something else would have us refuse work with 503.
    "A2A_SERVER_OVERLOAD_SOFT": "1000000",
    "A2A_SERVER_OVERLOAD_HARD": "1000000",
    "A2A_SERVER_MAX_BODY": str(2**20),
    "A2A_SERVER_MAX_VALUES": "100000",
}


class Target(Sabotaged):
    """A server that can be looked at, from outside and from inside."""

    def __init__(self, folder: Path, *arguments: str, env: dict[str, str] | None = None) -> None:
        super().__init__(folder, census.__file__, *arguments, env=env)

    def fuzz(self, seed: int, first: int, count: int) -> dict[str, Any]:
        """What the client process says of so many requests."""
        numbers = map(str, (self.port, self.pid, seed, first, count))
        command = [sys.executable, "-m", "tests.faults.fuzz_client", *numbers]
        faulthandler.cancel_dump_traceback_later()  # pytest's limit on a test; there is one of our own
        limit = 120 + count / SLOWEST_RATE
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=limit)
        assert ended.returncode == 0, ended.stderr
        told: dict[str, Any] = json.loads(ended.stdout)
        print(f"{count} in {told['seconds']:.0f} s; slowest: #{told['slowest_number']}, {told['slowest']:.2f} s")
        return told

    def at_rest(self) -> dict[str, int]:
        """What it holds when nobody asks any more."""
        process = psutil.Process(self.pid)
        until(lambda: len(process.net_connections()) <= 2)  # the listener and, it may be, our own client
        said = {"messageId": "c", "role": "ROLE_USER", "parts": [{"data": {}}]}

        def counted() -> dict[str, int]:
            sent = self.call("SendMessage", {"message": said, "metadata": {"skillId": "census"}})
            return dict(sent["task"]["artifacts"][0]["parts"][0]["data"])

        self.client.headers["A2A-Version"] = "1.0"
        found, looks = counted(), 0

        def is_still() -> bool:
            """Whether no asyncio task ended for a while: a connection that its client left half-closed is ended by
            the sweep that comes once a second, and its tasks with it."""
            nonlocal found, looks
            earlier, found = found, counted()
            looks = 0 if found["asyncio_tasks"] < earlier["asyncio_tasks"] else looks + 1
            return looks >= LOOKS

        until(is_still)
        return {**found, "fds": process.num_fds(), "rss": process.memory_info().rss}


def until(is_so: Callable[[], bool]) -> None:
    """Poll what is outside of this process, and tells nobody when it changes."""
    ends_at = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < ends_at, "it never came"
        time.sleep(0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Target]:
    process = Target(tmp_path, env=ENV)
    yield process
    process.close()


def alarming(log: Iterable[str]) -> list[str]:
    """The lines of the server's failures. An executor's own is none: its traceback belongs to the record above it."""
    found: list[str] = []
    of_an_executor = False
    for line in log:
        if not line.startswith(" "):  # a record; the lines of its traceback are indented
            of_an_executor = " core.run.attempt: " in line
        if " ERROR " in line or " CRITICAL " in line or ("Traceback" in line and not of_an_executor):
            found.append(line)
    return found


def the_seed() -> int:
    seed = int(os.environ.get("FUZZ_SEED") or random.randrange(2**32))
    print(f"seed={seed}")
    return seed


def test_hostile_requests_find_nothing_and_leave_nothing(server: Target) -> None:
    seed = the_seed()
    server.start()
    giants = 2 * len(GIANTS)
    parts = [(-giants, WARM_UP + giants)]
    parts += [(first, min(PART, REQUESTS - first)) for first in range(WARM_UP, REQUESTS, PART)]
    told: list[dict[str, Any]] = []
    held: list[dict[str, int]] = []
    for first, count in parts:
        told.append(server.fuzz(seed, first, count))
        assert not told[-1]["failed"], "\n".join(told[-1]["failures"])
        assert told[-1]["probes"] > 0 and told[-1]["probes_failed"] == 0
        held.append(server.at_rest())
        print(held[-1])
    said = alarming(server.log)
    assert not said, said[:5]
    before, after = held[0], held[-1]
    assert abs(after["fds"] - before["fds"]) <= 2, held
    assert abs(after["asyncio_tasks"] - before["asyncio_tasks"]) <= 2, held
    assert after["threads"] <= before["threads"] + 1, held
    grown = _grown(before, after)
    assert all(grown[name] <= most for name, most in GROWTH.items()), held
    assert server.process is not None and server.process.poll() is None
    assert server.terminate() == 0
    _tell(told, before, after, seed)


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in GROWTH}


def _tell(told: list[dict[str, Any]], before: dict[str, int], after: dict[str, int], seed: int) -> None:
    kinds, statuses = (sum((Counter(each[name]) for each in told), Counter[str]()) for name in ("kinds", "statuses"))
    probes = sum(each["probes"] for each in told)
    slowest = max(each["slowest"] for each in told)
    grown = _grown(before, after)
    report(
        "R8",
        "hostile requests",
        f"{kinds.total()} ({', '.join(f'{count} {kind}' for kind, count in sorted(kinds.items()))}): "
        f"{', '.join(f'{count} x {status}' for status, count in sorted(statuses.items()))}; "
        f"0 of -32603, 0 hangs (the slowest {slowest:.1f} s), 0 exception texts, good client {probes} of {probes}, "
        f"in use since request {WARM_UP}: {grown['bytes'] / MIB:+.1f} MiB and {grown['blocks']:+d} blocks of Python's "
        f"({grown['rss'] / MIB:+.1f} MiB with the holes between them), "
        f"files {after['fds'] - before['fds']:+d}, asyncio tasks {after['asyncio_tasks'] - before['asyncio_tasks']:+d}",
        seed=seed,
    )


def test_only_the_servers_own_failures_are_alarming() -> None:
    executors = [
        "... WARNING core.run.attempt: attempt 1 of task 1 failed: ValueError\n",
        "  Traceback (most recent call last):\n",
    ]
    own = ["... WARNING a2a_server.push: not sent\n", "  Traceback (most recent call last):\n"]
    errors = ["... ERROR core.run.attempt: what cannot be\n"]

    assert alarming(executors) == []
    assert alarming([*executors, *own]) == own[1:]
    assert alarming([*executors, *errors]) == errors


def test_a_method_that_raises_on_some_input_is_found(server: Target) -> None:
    seed = the_seed()
    server.start_with("believe deadlines")
    for first in range(0, REQUESTS, CONTROL):  # one in a thousand meets it
        told = server.fuzz(seed, first, CONTROL)
        if told["failed"]:
            break
    assert any("internal error" in failure for failure in told["failures"]), told
    report(
        "R8", "control: a deadline that is no timestamp raises", f"found within {first + CONTROL} requests", seed=seed
    )


def test_a_seed_and_a_number_give_the_same_request() -> None:
    """Each failure can be sent again."""
    document = {
        "methods": [{"name": "x", "params": []}],
        "components": {"schemas": {"SendMessageRequest": {}, "TaskInput": {}}},
    }
    once, again, other = (Fuzzer(seed, document, ["t"]) for seed in (1, 1, 2))
    numbers = range(200)
    assert [once.shot(n) for n in numbers] == [again.shot(n) for n in reversed(numbers)][::-1]
    assert [once.shot(n) for n in numbers] != [other.shot(n) for n in numbers]


@pytest.mark.asyncio
async def test_parsing_and_validating_raise_errors_of_ours_only() -> None:
    """In this process and so much faster: each body is parsed, and its params are read as those of two methods."""
    seed = the_seed()
    chance = random.Random(seed)
    async with calling() as call:
        fuzzer = Fuzzer(seed, await call("rpc.discover"), ["t"] * KNOWN)
        methods = call.application.json_rpc.methods
    readable = [method for method in methods.values() if not method.is_raw]
    counted = Counter[str]()
    for number in range(PARSES):
        counted["executions"] += 1
        try:
            value = parse(fuzzer.shot(number).data.partition(b"\r\n\r\n")[2])
        except A2AError:
            counted["not parsed"] += 1
            continue
        for item in value if isinstance(value, list) else [value]:
            if not isinstance(item, dict):
                continue
            name = item.get("method")
            own = [methods[name]] if isinstance(name, str) and name in methods else []
            for method in [*own, chance.choice(readable)]:
                with suppress(A2AError):
                    method.dialect.decode(item.get("params"), method.params_type)
                    counted["taken"] += 1
    report("R8", "parsing and validating in process", f"{dict(counted)}, 0 errors that are not ours", seed=seed)
