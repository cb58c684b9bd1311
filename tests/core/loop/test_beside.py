"""Tests of core.loop.beside: whose turn it is, and that its end waits for nothing."""

import asyncio
import threading
from typing import Any

import pytest

from core.loop.beside import PER_CALLER, THREADS, Beside


class Jobs:
    """Jobs that hang in their threads until a test lets them go."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.gate = threading.Event()

    def hang(self, name: str) -> str:
        self.begun.append(name)
        self.gate.wait(30)
        return name

    def quick(self, name: str) -> str:
        self.begun.append(name)
        return name


def started(beside: Beside, caller: str, function: Any, name: str) -> "asyncio.Task[str]":
    return asyncio.create_task(beside.run(caller, function, name))


@pytest.mark.asyncio
async def test_a_caller_with_many_jobs_has_one_thread_and_another_one_is_served() -> None:
    beside, jobs = Beside(), Jobs()
    many = [started(beside, "ada", jobs.hang, f"a{n}") for n in range(20)]
    assert await started(beside, "bob", jobs.quick, "b") == "b"
    assert len([name for name in jobs.begun if name != "b"]) <= PER_CALLER < THREADS
    jobs.gate.set()
    assert await asyncio.gather(*many) == [f"a{n}" for n in range(20)]
    beside.close()


@pytest.mark.asyncio
async def test_what_waits_may_be_cancelled_and_errors_are_told() -> None:
    beside, jobs = Beside(), Jobs()
    first, second, third = [started(beside, "ada", jobs.hang, name) for name in "abc"]
    await started(beside, "bob", jobs.quick, "-")
    second.cancel()
    jobs.gate.set()
    assert (await first, await third) == ("a", "c")
    assert second.cancelled() and "b" not in jobs.begun
    with pytest.raises(ZeroDivisionError):
        await beside.run("ada", lambda: 1 // 0)
    beside.close()


@pytest.mark.asyncio
async def test_its_end_waits_for_no_job_and_begins_none() -> None:
    beside, jobs = Beside(), Jobs()
    hanging = [started(beside, f"caller {n}", jobs.hang, str(n)) for n in range(THREADS)]
    waiting = started(beside, "ada", jobs.hang, "a")
    while len(jobs.begun) < THREADS:  # noqa: ASYNC110 - threads begin on their own
        await asyncio.sleep(0)
    beside.close()
    jobs.gate.set()
    assert await asyncio.gather(*hanging) == [str(n) for n in range(THREADS)]
    with pytest.raises(RuntimeError):
        await waiting
    assert "a" not in jobs.begun
