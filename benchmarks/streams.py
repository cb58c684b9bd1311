"""Streams: many chunks to one follower, how long an event is on its way, and what followers and parked tasks cost."""

import json
import socket
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import OURS, SDK_MEMORY, SDK_SQLITE, Running, Subject, resident, running
from benchmarks.rows import Effort, Row, absent, median, spread
from benchmarks.wire import call, events, message, open_stream, task_of

CHUNKS, CHUNK = 400, "x" * 200  # as the agents have them
TICKS = 500
TICK = 0.01  # seconds between two of them
FOLLOWERS = 2_000
RETRY = 1.0  # seconds, as the server says to those that it refuses
PARKED = 100
SETTLED = 15.0  # seconds after which nothing that was busy with them may be left


def stream_chunks(subject: Subject) -> float:
    """Seconds from the request to the end of the stream in which the last chunk came."""
    with tempfile.TemporaryDirectory() as folder, running(subject, Path(folder)) as server:
        skill = "chunks" if subject is OURS else ""
        call(server.port, "SendMessage", message("noop"))  # connections and tables are made already
        begin = time.perf_counter()
        connection = open_stream(server.port, "SendStreamingMessage", message("chunks", skill))
        frames = list(events(connection))
        seconds = time.perf_counter() - begin
    told = sum(CHUNK.encode() in frame for frame in frames)
    if told < CHUNKS:
        raise SystemExit(f"{subject.name} told {told} of {CHUNKS} chunks; last: {frames[-1:]!r}")
    return seconds


def chunk_rows(effort: Effort) -> list[Row]:
    bar, peers = f"{CHUNKS} chunks of {len(CHUNK)} bytes to one follower: ≥ 20 ×", (SDK_SQLITE, SDK_MEMORY)
    present = [peer for peer in peers if peer.is_installed and not (effort.is_quick and peer is SDK_MEMORY)]
    seen: dict[str, list[float]] = {subject.name: [] for subject in (OURS, *present)}
    for _ in range(effort.rounds):
        for subject in (OURS, *present):
            seen[subject.name].append(stream_chunks(subject))
    ours = seen[OURS.name]
    rows = [] if present else [absent(f"{bar} {SDK_SQLITE.name}", SDK_SQLITE.name)]
    for peer in present:
        ratio = median(seen[peer.name]) / median(ours)
        is_bar = peer is SDK_SQLITE
        what = f"{bar} {peer.name}" if is_bar else f"the same beside {peer.name}"
        beside = f"{ratio:.1f} × faster than {spread(seen[peer.name], ' s', 2)}; stored: {peer.durability}"
        rows.append(Row(what, spread(ours, " s", 3), beside, ratio >= 20 if is_bar else None))
    return rows


def latencies() -> list[float]:
    """Milliseconds of each event, from the executor's call to our socket, at a hundred a second."""
    found: list[float] = []
    with tempfile.TemporaryDirectory() as folder, running(OURS, Path(folder)) as server:
        params = message("", "ticks", {"ticks": TICKS})
        for frame in events(open_stream(server.port, "SendStreamingMessage", params)):
            now = time.monotonic_ns()
            update = json.loads(frame)["result"].get("statusUpdate", {})
            if (said := update.get("status", {}).get("message")) and update["status"]["state"] == "TASK_STATE_WORKING":
                found.append((now - int(said["parts"][0]["text"])) / 1e6)
    if len(found) != TICKS:
        raise SystemExit(f"{len(found)} of {TICKS} events arrived")
    return sorted(found)


def latency_row(effort: Effort) -> Row:
    rounds = [latencies() for _ in range(min(effort.rounds, 3))]
    p50 = [each[len(each) // 2] for each in rounds]
    p99 = [each[int(0.99 * len(each))] for each in rounds]
    return Row(
        "executor to a follower's socket at 100 events/s: p50 ≤ 5 ms, p99 ≤ 25 ms",
        f"p50 {spread(p50, ' ms', 2)}, p99 {spread(p99, ' ms', 2)}",
        f"each event is synced first, which takes {commits()} with sqlite3 alone",
        median(p50) <= 5 and median(p99) <= 25,
    )


def commits() -> str:
    """Milliseconds of a commit of one row with nothing but sqlite3, at the same pace."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(f"{folder}/floor.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE event (body BLOB)")
        for _ in range(TICKS // 2):
            time.sleep(TICK)
            begin = time.perf_counter()
            connection.execute("INSERT INTO event VALUES (?)", (b"x" * 600,))
            times.append(1e3 * (time.perf_counter() - begin))
        connection.close()
    times.sort()
    return f"p50 {times[len(times) // 2]:.2f} ms, p99 {times[int(0.99 * len(times))]:.2f} ms"


def follower_row() -> Row:
    """What idle followers of one task cost the server's process."""
    with tempfile.TemporaryDirectory() as folder, running(OURS, Path(folder)) as server:
        params = message("", "waits", {}) | {"configuration": {"returnImmediately": True}}
        task_id = task_of(call(server.port, "SendMessage", params))["id"]
        open_and_hear(server, task_id, 50)  # what the first ones cost is no follower's
        before = resident(server.pid)
        followers = open_and_hear(server, task_id, FOLLOWERS)
        kib = (resident(server.pid) - before) / FOLLOWERS
        for each in followers:
            each.close()
    return Row(f"{FOLLOWERS:,} idle SSE followers: ≤ 60 KiB each", f"{kib:.1f} KiB", "resident memory", kib <= 60)


def open_and_hear(server: Running, task_id: str, count: int) -> list[socket.socket]:
    """Followers that have got their snapshot. One that is refused because this many come at once comes again."""
    made: list[socket.socket] = []
    while len(made) < count:
        follower = open_stream(server.port, "SubscribeToTask", {"id": task_id})
        heard = b""
        while b"data:" not in heard and (more := follower.recv(1 << 16)):
            heard += more
        if b"data:" in heard:
            made.append(follower)
        elif heard.startswith(b"HTTP/1.1 503"):
            follower.close()
            time.sleep(RETRY)
        else:
            raise SystemExit(f"no stream: {heard[:500]!r}")
    return made


def asyncio_tasks(server: Running) -> int:
    """How many the server has while it answers this."""
    skill = "census" if server.subject is OURS else ""
    task = task_of(call(server.port, "SendMessage", message("census", skill)))
    return int(_texts(task)[0])


def _texts(task: dict[str, Any]) -> list[str]:
    return [part["text"] for artifact in task.get("artifacts", ()) for part in artifact["parts"]]


def parked_row() -> Row:
    found = {}
    for subject in [each for each in (OURS, SDK_SQLITE) if each.is_installed]:
        with tempfile.TemporaryDirectory() as folder, running(subject, Path(folder)) as server:
            before = asyncio_tasks(server)
            for _ in range(PARKED):
                call(server.port, "SendMessage", message("ask", "ask" if subject is OURS else ""))
            ends_at = time.monotonic() + SETTLED
            while (left := asyncio_tasks(server) - before) > 0 and time.monotonic() < ends_at:
                time.sleep(1)
            found[subject.name] = left
    ours = found.pop(OURS.name)
    beside = "; ".join(f"{name} {count}" for name, count in found.items()) or "a2a-sdk is not installed in .peers"
    bar = f"{PARKED} parked input_required tasks hold no asyncio task"
    return Row(bar, f"{ours} asyncio tasks", beside, ours <= 0)


def measure(effort: Effort) -> list[Row]:
    rows = [*chunk_rows(effort), latency_row(effort)]
    return rows if effort.is_quick else [*rows, follower_row(), parked_row()]
