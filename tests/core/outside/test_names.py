"""Look-ups of host names: bounded, timed, and shared fairly by caller (`core.outside.names`)."""

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from core.outside.egress import Egress, EgressError, EgressPolicy, Outgoing
from core.outside.names import NameLookups, system_resolver


class SlowNames:
    """A resolver whose answers come when the test lets them."""

    def __init__(self) -> None:
        self.began: asyncio.Queue[str] = asyncio.Queue()
        self.gate = asyncio.Event()
        self.fast: set[str] = set()
        self.now = 0

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.began.put_nowait(host)
        self.now += 1
        if host not in self.fast:
            await self.gate.wait()
        self.now -= 1
        return ["93.184.216.34"]


@pytest.mark.asyncio
async def test_slow_names_of_one_caller_delay_no_other_caller() -> None:
    """Found from outside: one caller's slow host names kept others from every look-up."""
    resolver = SlowNames()
    resolver.fast.add("fast.example")
    names = NameLookups(resolver, total=4, each=3, seconds=60.0)
    slow = [asyncio.ensure_future(names.find("ann", "slow.example", 80)) for _ in range(50)]
    for _ in range(3):
        await resolver.began.get()
    async with asyncio.timeout(5):
        for _ in range(10):
            assert await names.find("bob", "fast.example", 80) == ["93.184.216.34"]
    assert resolver.now == 3
    resolver.gate.set()
    assert len(await asyncio.gather(*slow)) == 50


@pytest.mark.asyncio
async def test_a_look_up_that_is_given_up_keeps_its_place_until_it_ends() -> None:
    resolver = SlowNames()
    names = NameLookups(resolver, total=1, each=1, seconds=0.01)
    with pytest.raises(TimeoutError):
        await names.find("ann", "slow.example", 80)
    waiting = asyncio.ensure_future(names.find("bob", "other.example", 80))
    await asyncio.sleep(0)
    assert resolver.began.qsize() == resolver.now == 1
    resolver.gate.set()
    async with asyncio.timeout(5):
        assert await waiting == ["93.184.216.34"]


@pytest.mark.asyncio
async def test_a_name_that_is_not_found_in_time_could_not_be_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    egress = Egress(EgressPolicy(), resolve=SlowNames())
    monkeypatch.setattr(egress._names, "_seconds", 0.01)
    with pytest.raises(EgressError, match=r"^could not connect$"):
        await egress.fetch(Outgoing(url="http://slow.example/", owner="ann"))


@pytest.mark.asyncio
async def test_the_system_is_asked_in_a_thread_that_keeps_nothing_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def answered(host: str, port: int, **options: Any) -> list[Any]:
        threads.append(threading.current_thread())
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("1.1.1.1", "1.1.1.1")]

    monkeypatch.setattr(socket, "getaddrinfo", answered)
    assert await system_resolver("a.example", 80) == ["1.1.1.1"]
    assert threads[0] is not threading.main_thread() and threads[0].daemon


@pytest.mark.parametrize("host", ["a\0b", "x" * 64 + ".example", "no.such.name.invalid"])
@pytest.mark.asyncio
async def test_what_is_no_name_is_told_as_any_other_that_is_not_known(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(host: str, port: int, **options: Any) -> list[Any]:
        raise {"a\0b": ValueError, "no.such.name.invalid": socket.gaierror}.get(host, UnicodeError)

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises((OSError, ValueError)):
        await NameLookups().find("ann", host, 80)


@pytest.mark.asyncio
async def test_without_a_thread_the_name_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none_left)
    with pytest.raises(OSError, match="no thread"):
        await system_resolver("a.example", 80)


def test_a_look_up_that_outlives_its_loop_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    began, gate, ended = threading.Event(), threading.Event(), threading.Event()
    failures: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)

    def slow(host: str, port: int, **options: Any) -> list[Any]:
        began.set()
        gate.wait(5)
        ended.set()
        return []

    async def given_up() -> None:
        lookup = asyncio.ensure_future(system_resolver("a.example", 80))
        await asyncio.to_thread(began.wait, 5)
        lookup.cancel()

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    asyncio.run(given_up())
    (thread,) = [each for each in threading.enumerate() if each.name == "name-lookup"]
    gate.set()
    thread.join(5)
    assert ended.is_set() and not failures
