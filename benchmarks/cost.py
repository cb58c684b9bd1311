"""What each kind of work costs, counted and not timed: function calls in the server, and commits.

A count is the same on a busy machine as on an idle one. The accepted figures are in benchmarks/cost.json. Without an
option this program counts again and shows the differences; `--check` exits with 1 where a figure differs, and `--write`
accepts the new figures.
"""

import argparse
import asyncio
import gc
import platform
import random
import socket
import sqlite3
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from sqlalchemy import Connection

from a2a_server.app import build
from a2a_server.config import Config
from a2a_server.extensions import load_executors
from a2a_server.server import Server, listen
from benchmarks.cost_page import Cost, held, keep
from benchmarks.load import http_request
from benchmarks.wire import call, events, message, open_stream, rpc, task_of
from core.storage.sqlite.sql import SqlStorage

AGENTS = Path(__file__).parent / "agents.py"
OWN = tuple(str(Path(__file__).parent.parent / room) + "/" for room in ("core", "a2a_server"))
STREAM = "streamed event, one follower"
PAGE = "ListTasks, a page of 20"
ROUNDS = 9  # the lowest counts: what disturbs a round only adds to it
REQUESTS = 100
CHUNKS = 400  # of benchmarks/agents.py
TASKS = 400  # of a fan or chain


class Meter:
    """Counts the calls of all threads that were started since `start`, and the commits of the storage."""

    def __init__(self) -> None:
        self._calls: Counter[int] = Counter()  # by thread: adding to one number from two threads loses some
        self._own: Counter[int] = Counter()
        self._is_own: dict[CodeType, bool] = {}
        self._commits = 0

    def start(self) -> None:
        threading.setprofile(self._count)
        sys.setprofile(self._count)

    def _count(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" or event == "c_call":
            thread = threading.get_ident()
            self._calls[thread] += 1
            if (is_own := self._is_own.get(frame.f_code)) is None:
                is_own = self._is_own[frame.f_code] = frame.f_code.co_filename.startswith(OWN)
            if is_own:
                self._own[thread] += 1

    def watch(self, connection: Connection) -> None:
        """Count the commits of this connection from now on; runs in the writer's thread."""
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(self._trace)

    def _trace(self, sql: str) -> None:
        self._commits += sql == "COMMIT"

    def read(self) -> tuple[int, int, int]:
        """How many there were until now: calls of our own functions and from them, all calls, commits."""
        return sum(self._own.values()), sum(self._calls.values()), self._commits


class Client:
    """The work that is counted, from a thread whose own calls are not."""

    def __init__(self, port: int, meter: Meter) -> None:
        self._port = port
        self._meter = meter

    def costs(self) -> dict[str, Cost]:
        """Every figure."""
        task_id = task_of(call(self._port, "SendMessage", message("x", "noop")))["id"]
        return {
            "SendMessage, blocking, one task": self._requests("SendMessage", message("x", "noop")),
            "GetTask": self._requests("GetTask", {"id": task_id}),
            PAGE: self._requests("ListTasks", {"pageSize": 20}),
            STREAM: self._least(self._stream, CHUNKS),
            "task of a fan": self._least(lambda: self._tree(is_chain=False), TASKS),
            "link of a chain": self._least(lambda: self._tree(is_chain=True), TASKS),
        }

    def _requests(self, method: str, params: Any) -> Cost:
        """Of one request of many on a connection that stays open."""
        request = http_request(rpc(method, params))

        def ask() -> None:
            for _ in range(REQUESTS):
                connection.sendall(request)
                head = iter(answers.readline, b"\r\n")
                size = max(int(line.split()[1]) for line in head if line.lower().startswith(b"content-length:"))
                if b'"error"' in (body := answers.read(size))[:200]:
                    raise SystemExit(f"{method}: {body!r}")

        with socket.create_connection(("127.0.0.1", self._port)) as connection, connection.makefile("rb") as answers:
            return self._least(ask, REQUESTS)

    def _stream(self) -> None:
        for _ in events(open_stream(self._port, "SendStreamingMessage", message("x", "chunks"))):
            pass

    def _tree(self, *, is_chain: bool) -> None:
        tasks: list[dict[str, Any]] = [{"id": "root", "name": "root"}]
        for n in range(TASKS):
            needs = [f"t{n - 1}"] if is_chain and n else []
            tasks.append({"id": f"t{n}", "name": "noop", "parent_id": "root", "dependencies": needs})
        call(self._port, "tasks.execute", {"tasks": tasks, "wait": True})

    def _least(self, work: Callable[[], None], units: int) -> Cost:
        """The lowest of some rounds, for one unit; in the first round much is done for once, so it does not count."""
        work()
        rounds = []
        for _ in range(ROUNDS):
            before = self._meter.read()
            work()
            rounds.append([after - was for was, after in zip(before, self._meter.read(), strict=True)])
        own, calls, commits = (min(numbers) / units for numbers in zip(*rounds, strict=True))
        return Cost(own=round(own, 2), calls=round(calls), commits=round(commits, 2))


async def serve(folder: Path, meter: Meter) -> dict[str, Cost]:
    """Count with a server of its own, whose database lies in `folder`."""
    config = Config(port=0, database=f"sqlite:///{folder}/cost.db", log_level="error", overload_soft=10_000)
    with listen(config.host, config.port, config.send_buffer) as listener:
        port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        application = build(config, port=port)
        server = Server(application, lambda url, address: ready.set())
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        await ready.wait()
        storage = application.session.storage
        assert isinstance(storage, SqlStorage) and storage._writer is not None
        await storage._writer.submit(meter.watch)
        costs = loop.create_future()

        def count() -> None:
            sys.setprofile(None)  # of this thread; those that the server starts later are counted, too
            found = Client(port, meter).costs()
            loop.call_soon_threadsafe(costs.set_result, found)

        threading.Thread(target=count, daemon=True).start()
        await asyncio.wait([costs, serving], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        return costs.result()


def count() -> dict[str, Cost]:
    """The figures of this checkout."""
    random.seed(0)
    meter = Meter()
    gc.disable()  # its finalizers are calls, too, at moments of their own
    with tempfile.TemporaryDirectory() as folder:
        meter.start()
        return asyncio.run(serve(Path(folder), meter))


def differences(costs: dict[str, Cost], holding: dict[str, Cost]) -> list[str]:
    """What is not as accepted, a line each.

    One more call of our own code is seen in all work but the stream's, whose events share a varying number of turns of
    the loop, and a page's, where the threads' turns vary and one more call for each of its tasks is seen. Calls in
    libraries vary with the threads' turns.
    """
    told = [f"{name}: stands on one side only" for name in costs.keys() ^ holding.keys()]
    for name in costs.keys() & holding.keys():
        cost, held_cost = costs[name], holding[name]
        least = {STREAM: 0.02 * held_cost.own, PAGE: 15}.get(name, 0.8)
        for unit, limit in (("own", least), ("calls", 0.04 * held_cost.calls), ("commits", 0.05)):
            found, wanted = getattr(cost, unit), getattr(held_cost, unit)
            if abs(found - wanted) > limit:
                told.append(f"{name}: {unit} {found:g}, accepted are {wanted:g} ({found - wanted:+g})")
    return sorted(told)


def check() -> int:
    """The exit code. What differs is counted again: a thread may have had one turn more."""
    python, holding = held()
    if platform.python_version_tuple()[:2] != tuple(python.split(".")):
        print(f"the accepted figures were counted with Python {python}: not compared", file=sys.stderr)
        return 0
    told = differences(count(), holding)
    if told:
        print("counting again:", *told, sep="\n    ", file=sys.stderr)
        told = differences(count(), holding)
    for line in told:
        print(line, file=sys.stderr)
    if told:
        print("Where it is meant, run scripts/cost --write, and say in the commit what needs it.", file=sys.stderr)
    return min(len(told), 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="end with 1 where a figure is not the one that holds")
    parser.add_argument("--write", action="store_true", help="make the new figures those that hold")
    given = parser.parse_args()
    load_executors([str(AGENTS)])
    if given.check:
        return check()
    costs = count()
    holding = {} if given.write else held()[1]
    print(f"{'':34}{'own':>16}{'calls':>16}{'commits':>16}")
    for name, cost in costs.items():
        then = holding.get(name, cost)
        units = (f"{found:>8g} ({found - was:+g})".rjust(16) for found, was in zip(cost, then, strict=True))
        print(f"{name:34}{''.join(units)}")
    if given.write:
        keep(".".join(platform.python_version_tuple()[:2]), costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
