"""How long an event is on its way to a follower on another member of the same database (PostgreSQL).

One process writes a tree, another one follows it: from the append to the event in the follower's hands, beside a bare
NOTIFY from the one process to the other in the same run. The database is one of its own, on this machine. Run it as
`python -m benchmarks.followers`; it ends with 1 where a bar is missed.
"""

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from benchmarks.rows import Row, median, spread
from core.cluster.postgres.bus import PostgresBus
from core.model.events import Recorded, TaskProgressed
from core.model.task import Task, TaskStatus, TreeHead
from core.run.feed import Feed
from core.storage.base import Append
from core.storage.postgres.connect import Connection, Place
from core.storage.postgres.reader import Reader
from core.storage.postgres.storage import PostgresStorage
from tests.postgres_cluster import ABSENT, Cluster, programs

RATES = (100, 500)  # events a second
SECONDS = 10  # of each
ROUNDS = 3
P50, P99 = 8.0, 20.0  # milliseconds, at the lower rate
TREE = "tree"
FLOOR = "floor"  # the channel of bare notices
DURABLE = ("shared_buffers=64MB", "max_connections=50")


class Following(PostgresStorage):
    """A member that only reads: a second server is refused so far."""

    async def open(self) -> None:
        self._reader = Reader(self.place, lambda: float("inf"))


@asynccontextmanager
async def member(storage: PostgresStorage, *, is_local: bool) -> AsyncIterator[Feed]:
    """Its feed, with all that belongs to it."""
    bus = PostgresBus(storage.address)
    feed = Feed(storage, bus, is_local=lambda tree_id: is_local)
    await storage.open()
    await bus.open()
    yield feed
    feed.close()
    await feed.end_reads()
    await bus.close()
    await storage.close()


def append_of(version: int) -> Append:
    """One event more, which says when it was made."""
    event = TaskProgressed(TREE, 1, 0.5, str(time.monotonic_ns()))
    recorded = Recorded(
        tree_id=TREE, seq=version, at=time.time(), name=TREE, tree_status=TaskStatus.IN_PROGRESS, event=event
    )
    head = TreeHead(id=TREE, version=version, created_at=0.0, updated_at=0.0)
    tasks = (Task(id=TREE, tree_id=TREE, name=TREE, created_at=0.0),) if version == 1 else ()
    return Append(head=head, events=(recorded,), tasks=tasks, is_new=version == 1)


async def follow(url: str, count: int) -> None:
    """In the other process: print the milliseconds of each event, and of each bare notice."""
    events: list[float] = []
    notices: list[float] = []

    def hear(connection: Connection, pid: int, channel: str, payload: str) -> None:
        notices.append((time.monotonic_ns() - int(payload)) / 1e6)

    listener = await Place(url).connect()
    await listener.add_listener(FLOOR, hear)
    async with member(Following(url), is_local=False) as feed:
        async for recorded in feed.follow(TREE):
            if recorded.seq == 1:
                print("ready", flush=True)
                continue
            assert isinstance(recorded.event, TaskProgressed) and recorded.seq == len(events) + 2
            events.append((time.monotonic_ns() - int(recorded.event.message or 0)) / 1e6)
            if len(events) == count:
                break
    await listener.close()
    print(json.dumps({"events": events, "notices": notices}))


async def write(url: str, rate: int, count: int) -> dict[str, list[float]]:
    """Write so many events while the other process follows; what it saw."""
    async with member(PostgresStorage(url), is_local=True) as feed:
        notifier = await Place(url).connect()
        await put(feed, append_of(1))
        command = [sys.executable, "-m", "benchmarks.followers", "--follow", url, "--count", str(count)]
        other = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert other.stdout is not None
        await other.stdout.readline()
        begin = time.monotonic()
        for number in range(count):
            await asyncio.sleep(begin + number / rate - time.monotonic())
            await put(feed, append_of(number + 2))
            await asyncio.sleep(begin + (number + 0.5) / rate - time.monotonic())
            await notifier.execute("SELECT pg_notify($1, $2)", FLOOR, str(time.monotonic_ns()))
        seen: dict[str, list[float]] = json.loads(await other.stdout.read())
        await other.wait()
        await notifier.close()
    return seen


async def put(feed: Feed, append: Append) -> None:
    """As the orchestrator does."""
    await feed._storage.append(append)
    feed.publish(append.head, append.events)


def measured(rounds: list[list[float]]) -> tuple[str, float, float]:
    """p50 and p99 of each round, and the medians of both."""
    halves, ends = ([sorted(each)[int(part * len(each))] for each in rounds] for part in (0.5, 0.99))
    return f"p50 {spread(halves, ' ms', 2)}, p99 {spread(ends, ' ms', 2)}", median(halves), median(ends)


def row(cluster: Cluster, rate: int, seconds: int) -> Row:
    count = rate * seconds
    rounds = []
    for _ in range(ROUNDS):
        rounds.append(asyncio.run(write(cluster.url(name := cluster.database()), rate, count)))
        cluster.drop(name)
    events, p50, p99 = measured([each["events"] for each in rounds])
    notices, *_ = measured([each["notices"] for each in rounds])
    bar = f"append to a follower of another member at {rate} events/s"
    if rate != RATES[0]:
        return Row(bar, events, f"a bare NOTIFY: {notices}", None)
    return Row(
        f"{bar}: p50 ≤ {P50:.0f} ms, p99 ≤ {P99:.0f} ms", events, f"a bare NOTIFY: {notices}", p50 <= P50 and p99 <= P99
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="of each rate in one round")
    parser.add_argument("--follow", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.follow:
        asyncio.run(follow(given.follow, given.count))
        return
    if programs() is None:
        sys.exit(ABSENT)
    cluster = Cluster(DURABLE)
    try:
        rows = [row(cluster, rate, given.seconds) for rate in RATES]
    finally:
        cluster.remove()
    for each in rows:
        print(f"{each.bar}\n    {each.measured}; {each.beside}: {each.verdict}", flush=True)
    sys.exit(any(each.holds is False for each in rows))


if __name__ == "__main__":
    main()
