"""R5, R6, R7: many followers, followers that do not read, streams that are cut: each sees the log, once, in order."""

import asyncio
import os
import random
import re
import select
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from a2a_server.views.frames import CACHE_BYTES
from tests.acceptance.process import ServerProcess
from tests.faults.proxy import FaultProxy
from tests.faults.report import report
from tests.faults.test_failpoints import Sabotaged, seeded

SUBSCRIBERS = int(os.environ.get("SUBSCRIBERS", "200"))
TASKS, CHUNKS = 10, 50  # the tasks that they follow, and pieces of each
POOLED = 200  # connections of one client: it looks at all of them for each request

CUTS = int(os.environ.get("CUTS", "100"))
PATIENCE = 0.7  # seconds in which a client hears nothing, not even a ping, before it connects again

STALLED = 100
EVENTS, SIZE = int(os.environ.get("STREAMED", "1000")), 1024
PAUSE = 0.0005  # seconds after each
TAKING = 2.0  # seconds
LATEST = 20.0  # seconds until the last one is cut, with room for a busy machine
CONTROL = 4.0
MOST_MEMORY = 256 * 1024  # bytes for each of those who do not read


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sabotaged]:
    settings = {
        "A2A_SERVER_SEND_TIMEOUT": str(TAKING),
        "A2A_SERVER_SSE_PING": "0.2",
        "A2A_SERVER_MAX_CONNECTIONS": str(10_000 + SUBSCRIBERS),
    }
    process = Sabotaged(tmp_path, env=settings)
    yield process
    process.close()


def start_chunks(server: ServerProcess, **inputs: Any) -> str:
    return str(server.call("tasks.execute", {"tasks": [{"name": "chunks", "inputs": inputs}]})["root_task_id"])


async def follow(client: httpx2.AsyncClient, task_id: str, told: list[int], news: asyncio.Event | None = None) -> bool:
    """One stream, from behind the last event that was told; whether the end of the task was told.

    As an EventSource has it, an event counts when the empty line behind it has come.
    """
    headers = {"Last-Event-ID": str(told[-1])} if told else {}
    seq, data = 0, ""
    try:
        async with client.stream("GET", f"/tasks/{task_id}/events", headers=headers) as response:
            if response.status_code == 204:
                return True
            if response.status_code == 503:  # thousands come at once, and these are to come again when it says
                await asyncio.sleep(float(response.headers["Retry-After"]))
                return await follow(client, task_id, told, news)
            assert response.status_code == 200, await response.aread()
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    seq = int(value)
                elif name == "data":
                    data = value
                elif not line and data:
                    if '"stream_end"' in data:
                        return True
                    told.append(seq)
                    data = ""
                    if news is not None:
                        news.set()
    except httpx2.TransportError:
        pass
    return False


# Many (R5)


async def subscribe(server: ServerProcess, tasks: list[str], count: int) -> list[list[int]]:
    """All follow their tasks; the server is killed when half has been told, and all resume with the next one."""
    told: list[list[int]] = [[] for _ in range(count)]
    half = count * CHUNKS // 2
    news, is_up = asyncio.Event(), asyncio.Event()
    is_up.set()
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        made = [
            httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=60, limits=limits)
            for _ in range(0, count, POOLED)
        ]
        clients = [await stack.enter_async_context(each) for each in made]

        async def subscriber(n: int) -> None:
            while not await follow(clients[n // POOLED], tasks[n % TASKS], told[n], news):
                await is_up.wait()

        for n in range(count):
            group.create_task(subscriber(n))
        while sum(map(len, told)) < half:
            news.clear()
            await news.wait()
        is_up.clear()
        server.kill()
        await asyncio.to_thread(server.start)
        is_up.set()
    return told


def subscribed(server: ServerProcess, count: int) -> tuple[int, int]:
    """How many of so many subscribers saw the log of their task, and the events that all of them saw."""
    tasks = [start_chunks(server, count=CHUNKS, pause=0.05) for _ in range(TASKS)]
    told = asyncio.run(subscribe(server, tasks, count))
    logs = [[event["seq"] for event in server.log_of(task_id)] for task_id in tasks]
    return sum(each == logs[n % TASKS] for n, each in enumerate(told)), sum(map(len, told))


def test_all_subscribers_resume_after_a_restart_without_a_gap(server: Sabotaged) -> None:
    complete, events = subscribed(server.start_with(), SUBSCRIBERS)
    assert complete == SUBSCRIBERS
    figures = f"{complete} of {SUBSCRIBERS} saw every event once and in order, {events} in all"
    report("R5", "subscribers of which all resume after a kill", figures)


def test_subscribers_who_miss_an_event_on_resuming_are_counted(server: Sabotaged) -> None:
    """The positive control."""
    complete, _ = subscribed(server.start_with("skip an event"), TASKS)
    assert complete < TASKS


# Those who do not read (R6)


def seconds_of(server: ServerProcess, task_id: str) -> float:
    """How long a task ran that has a follower who reads."""
    for _ in server.events(task_id):
        pass
    task = server.call("tasks.get", {"task_id": task_id})
    begin, end = (datetime.fromisoformat(task[name]) for name in ("started_at", "completed_at"))
    return (end - begin).total_seconds()


def stalled_followers(server: ServerProcess, task_id: str) -> list[socket.socket]:
    """They have asked, into buffers as small as they get."""
    followers = []
    for _ in range(STALLED):
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(request(task_id, 0))
        followers.append(client)
    return followers


def request(task_id: str, after: int) -> bytes:
    path = f"/tasks/{task_id}/events?after={after}"
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()


def read_some(client: socket.socket) -> int:
    """What a follower reads before it stalls: the number of the last whole event in that."""
    text = b""
    while not (found := re.findall(rb"id: (\d+)\r?\n.*\r?\n\r?\n", text)):
        text += client.recv(1024)
    return int(found[-1])


def read_rest(server: ServerProcess, task_id: str, after: int) -> list[int]:
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(request(task_id, after))
        text = b"".join(iter(lambda: client.recv(65536), b""))
    return [int(seq) for seq in re.findall(rb"^id: (\d+)", text, re.MULTILINE)]


def count_cut(followers: list[socket.socket], limit: float) -> int:
    """How many the server resets within that time, although they read nothing."""
    waiting = select.poll()
    left = {client.fileno() for client in followers}
    for number in left:
        waiting.register(number, 0)
    ends_at = time.monotonic() + limit
    while left and (remaining := ends_at - time.monotonic()) > 0:
        for number, _ in waiting.poll(1000 * remaining):
            waiting.unregister(number)
            left.discard(number)
    return len(followers) - len(left)


def test_followers_that_do_not_read_are_cut_and_cost_the_others_nothing(server: Sabotaged) -> None:
    server.start_with()
    alone = seconds_of(server, start_chunks(server, count=EVENTS, size=SIZE, pause=PAUSE))
    memory = psutil.Process(server.pid).memory_info().rss
    task_id = start_chunks(server, count=EVENTS, size=SIZE, pause=PAUSE)
    followers = stalled_followers(server, task_id)
    last_read = [read_some(client) for client in followers]

    told = [seq for seq, event in server.events(task_id) if event["type"] != "stream_end"]
    grown = psutil.Process(server.pid).memory_info().rss - memory
    cut = count_cut(followers, LATEST)

    log = [event["seq"] for event in server.log_of(task_id)]
    assert told == log, "the good one missed something"
    assert cut == STALLED
    assert grown < STALLED * MOST_MEMORY + CACHE_BYTES
    for client, after in zip(followers, last_read, strict=True):
        assert read_rest(server, task_id, after) == [seq for seq in log if seq > after]
        client.close()
    figures = f"{cut} of {STALLED} cut and resumed without a gap, the good one saw {len(told)} of {len(log)} events; "
    figures += f"{grown / STALLED / 1024:.0f} KiB of memory each at most; the task took "
    figures += f"{seconds_of(server, task_id) / alone:.2f} times what it takes without them"
    report("R6", "followers that do not read", figures)


def test_without_deadlines_followers_that_do_not_read_stay(server: Sabotaged) -> None:
    """The positive control."""
    server.start_with("forget deadlines")
    task_id = start_chunks(server, count=EVENTS, size=SIZE)
    followers = stalled_followers(server, task_id)
    for _ in server.events(task_id):
        pass
    assert count_cut(followers, CONTROL) == 0
    for client in followers:
        client.close()


# Cut streams (R7)


async def follow_over_cuts(server: ServerProcess, chance: random.Random, cuts: int) -> tuple[int, int, str]:
    """Trees are followed through the proxy until there were so many cuts: cuts, events, and in which ways."""
    proxy = FaultProxy(server.port, chance, least=150, most=8_000)
    events = 0
    async with proxy.running():
        timeout = httpx2.Timeout(10, read=PATIENCE)
        url = f"http://127.0.0.1:{proxy.port}"
        while proxy.cuts.total() < cuts:
            task_id = start_chunks(server, count=150, size=chance.choice([0, 500, 1500]), pause=0.002)
            told: list[int] = []
            kill_at = chance.randrange(150)
            async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=timeout) as client:
                while not await follow(client, task_id, told):
                    if told and told[-1] > kill_at:
                        server.kill()
                        await asyncio.to_thread(server.start)
                        kill_at = 10**9
            log = [event["seq"] for event in await asyncio.to_thread(server.log_of, task_id)]
            assert told == log, "what came through the cuts is not the log"
            events += len(log)
    return proxy.cuts.total(), events, ", ".join(f"{count} {way}" for way, count in sorted(proxy.cuts.items()))


def test_what_comes_through_cuts_is_the_log(server: Sabotaged) -> None:
    seed, chance = seeded()
    server.start_with()
    cuts, events, ways = asyncio.run(follow_over_cuts(server, chance, CUTS))
    report("R7", "streams cut anywhere", f"{cuts} cuts ({ways}), {events} events, 0 gaps, 0 duplicates", seed=seed)


def test_server_that_skips_an_event_on_resuming_is_found_out(server: Sabotaged) -> None:
    """The positive control."""
    _, chance = seeded()
    server.start_with("skip an event")
    with pytest.raises(ExceptionGroup) as found:
        asyncio.run(follow_over_cuts(server, chance, 100))  # ends at the first gap
    assert found.group_contains(AssertionError, match="is not the log")
