"""Tests of core.run.runner with leftovers, time_limits and reports: shares, time, and what does not stop."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from core.executors.base import TaskContext
from core.executors.function import executor
from core.executors.registry import ExecutorRegistry
from core.loop.origin import ORIGIN
from core.model import events as e
from core.model.errors import StorageUnavailable
from core.model.task import Cause, TaskStatus
from core.run.attempts import ABANDON_AFTER
from core.run.reports import FIRST_DELAY
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from core.storage.memory import MemoryStorage
from tests.core.cores import (
    Bench,
    FaultyStorage,
    begin,
    finish,
    item,
    rooted,
    settle,
    tasks_of,
    until_event,
    virtual_time,
)

AT_ONCE = {"initial": 0.01, "maximum": 0.01, "jitter": 0}


async def begin_as(session: Session, owner: str, *items: dict[str, Any]) -> str:
    """Start a tree of this caller's; its id."""
    return (await session.create(session.plan(rooted(*items), owner=owner), execute=True)).head.id


# Shares


@virtual_time
async def test_one_caller_cannot_hold_every_slot_and_another_one_starts_at_once() -> None:
    """Found from outside: one caller's tasks held every slot, and others waited up to 78 s."""
    bench = Bench(limits=RunnerLimits(tasks=10, caller=5))
    async with bench.session() as session:
        await begin_as(session, "ada", *(item(f"a{n}", "slow") for n in range(20)))
        await settle(40)
        assert len(bench.started) == 5
        bobs = await begin_as(session, "bob", item("b"))
        ended = await asyncio.wait_for(session.wait(bobs, has_ended), 1)
        assert ended.status is TaskStatus.COMPLETED


@virtual_time
async def test_beside_a_caller_with_200_trees_another_one_starts_when_one_task_ends() -> None:
    """Found from outside: another caller's task waited 22 s behind 150 tasks."""
    bench = Bench(limits=RunnerLimits(tasks=10))
    async with bench.session() as session:
        for tree in range(200):
            await begin_as(session, "huge", *(item(f"h{tree}-{n}", "slow") for n in range(100)))
        await settle(40)
        first = bench.started[0]
        assert len(bench.started) == 10
        bobs = await begin_as(session, "bob", item("b"))
        await settle(40)
        assert "b" not in bench.started
        bench.gate(first).set()
        await session.wait(bobs, has_ended)
        assert bench.started[10] == "b"


@virtual_time
async def test_callers_share_by_their_weights() -> None:
    weigh: Callable[[str], float] = {"ada": 3.0, "bob": 1.0}.__getitem__
    bench = Bench(limits=RunnerLimits(tasks=1, weigh=weigh))
    async with bench.session() as session:
        trees = [await begin_as(session, who, *(item(f"{who}{n}", "nap") for n in range(40))) for who in ("ada", "bob")]
        await session.wait(trees[0], has_ended)
        begun = [name[:3] for name in bench.started[:40]]
        assert 29 <= begun.count("ada") <= 31


# Time


@pytest.mark.parametrize("fields", [{}, {"timeout": 5000.0}])
@virtual_time
async def test_an_attempt_takes_no_longer_than_the_process_allows(fields: dict[str, float]) -> None:
    bench = Bench(limits=RunnerLimits(seconds=3600))
    async with bench.session() as session:
        ended = (await finish(session, item("a", "slow", **fields)))["a"]
    assert (ended.status, ended.cause) == (TaskStatus.FAILED, Cause.TIMEOUT)
    assert ended.error == "timed out after 3600 s, the longest that one attempt may take (max_task_seconds)"
    assert asyncio.get_running_loop().time() == pytest.approx(3600)


@virtual_time
async def test_a_shorter_timeout_of_the_task_holds() -> None:
    bench = Bench(limits=RunnerLimits(seconds=3600))
    async with bench.session() as session:
        ended = (await finish(session, item("a", "slow", timeout=5)))["a"]
    assert ended.error == "timed out after 5 s"
    assert asyncio.get_running_loop().time() == pytest.approx(5)


@virtual_time
async def test_each_attempt_has_its_own_time_from_its_own_beginning() -> None:
    bench = Bench(limits=RunnerLimits(seconds=10, tasks=2))
    async with bench.session() as session:
        head = await begin(session, *(item(n, "slow") for n in "abcd"))
        await asyncio.sleep(4)
        bench.gate("a").set()
        await session.wait(head.id, has_ended)
        ended = await tasks_of(session, head.id)
        begun = {name: ended[name].started_at or 0.0 for name in "abcd"}
        took = {name: (ended[name].finished_at or 0.0) - begun[name] for name in "abcd"}
        assert took == pytest.approx({"a": 4, "b": 10, "c": 10, "d": 10})


@virtual_time
async def test_without_a_limit_an_attempt_may_take_for_ever() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"))
        await asyncio.sleep(10 * 86_400)
        bench.gate("a").set()
        assert (await session.wait(head.id, has_ended)).status is TaskStatus.COMPLETED


@virtual_time
async def test_an_executor_that_held_the_loop_beyond_its_timeout_has_failed() -> None:
    """No timer can ring while it does so; it is judged when it comes back."""
    bench = Bench()

    async def block(inputs: dict[str, Any], context: TaskContext) -> str:
        asyncio.get_running_loop()._jumping.now += 3.0  # type: ignore[attr-defined]
        return "done"

    bench.add("block", block)
    async with bench.session() as session:
        late = (await finish(session, item("a", "block", timeout=1)))["a"]
        right = (await finish(session, item("a", "block", timeout=4)))["a"]
    assert (late.status, late.error) == (TaskStatus.FAILED, "timed out after 1 s")
    assert right.result == "done"


# Cancelled from within


def _me() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def _watchdog() -> None:
    me, loop = _me(), asyncio.get_running_loop()
    loop.call_later(0.05, me.cancel, "too slow")
    await asyncio.sleep(2)


async def _at_once() -> None:
    _me().cancel()
    await asyncio.sleep(0)


async def _again_and_again() -> None:
    me = _me()

    async def bark() -> None:
        while not me.done():
            me.cancel()
            await asyncio.sleep(0)

    asyncio.create_task(bark()).add_done_callback(lambda _: None)
    await asyncio.sleep(2)


async def _raised() -> None:
    raise asyncio.CancelledError


async def _beside_its_result() -> None:
    _me().cancel()


@pytest.mark.parametrize("way", [_watchdog, _at_once, _again_and_again, _raised])
@pytest.mark.parametrize("attempts", [1, 3])
@virtual_time
async def test_an_executor_that_is_cancelled_from_within_fails_and_is_tried_again(way: Any, attempts: int) -> None:
    """Found from outside: its task stayed in_progress for ever."""
    bench = Bench()

    async def cancelled(inputs: dict[str, Any], context: TaskContext) -> None:
        await way()

    bench.add("cancelled", cancelled)
    async with bench.session() as session:
        ended = (await finish(session, item("a", "cancelled", max_attempts=attempts, retry=AT_ONCE)))["a"]
        assert (ended.status, ended.error) == (TaskStatus.FAILED, "the executor was cancelled from within")
        assert (ended.attempt, len(bench.started)) == (attempts, attempts)
        assert session.runner.books.running == 0


@virtual_time
async def test_a_cancel_of_its_own_job_behind_its_work_takes_nothing_away() -> None:
    bench = Bench()

    async def cancelled(inputs: dict[str, Any], context: TaskContext) -> str:
        await _beside_its_result()
        return "done"

    bench.add("cancelled", cancelled)
    async with bench.session() as session:
        ended = (await finish(session, item("a", "cancelled")))["a"]
        assert (ended.status, ended.result) == (TaskStatus.COMPLETED, "done")


@virtual_time
async def test_a_cancel_while_its_report_waits_for_the_storage_loses_nothing() -> None:
    storage = FaultyStorage()
    bench = Bench(storage=storage)

    async def cancelled(inputs: dict[str, Any], context: TaskContext) -> str:
        asyncio.get_running_loop().call_later(FIRST_DELAY / 2, _me().cancel)
        storage.faults.append(StorageUnavailable("the disk is away"))
        return "done"

    bench.add("cancelled", cancelled)
    async with bench.session() as session:
        ended = await asyncio.wait_for(finish(session, item("a", "cancelled")), 60)
        assert (ended["a"].status, ended["a"].result) == (TaskStatus.COMPLETED, "done")


def test_the_end_of_the_event_loop_is_no_failure_of_the_executor() -> None:
    """`asyncio.run` cancels every task that is left: the next process resumes them."""
    storage = MemoryStorage()
    bench = Bench(storage=storage)
    trees = []

    async def leave() -> None:
        session = bench.session()
        await session.start()
        trees.append((await begin(session, item("a", "slow"))).id)
        await until_event(session, trees[0], e.TaskStarted)
        await settle()

    async def look() -> None:
        stored = await storage.load(trees[0])
        assert stored is not None
        assert [task.status for task in stored[1] if task.executor] == [TaskStatus.IN_PROGRESS]

    asyncio.run(leave())
    asyncio.run(look())


# What does not stop


@virtual_time
async def test_a_coroutine_that_does_not_let_itself_be_stopped_holds_up_no_retry_for_ever() -> None:
    bench = Bench()
    gate = asyncio.Event()

    async def stubborn(inputs: dict[str, Any], context: TaskContext) -> str:
        while context.attempt == 1 and not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue
        return f"attempt {context.attempt}"

    bench.add("stubborn", stubborn)
    async with bench.session() as session:
        head = await begin(session, item("a", "stubborn", timeout=1, max_attempts=2, retry=AT_ONCE))
        await session.wait(head.id, has_ended)
        assert (await tasks_of(session, head.id))["a"].result == "attempt 2"
        assert asyncio.get_running_loop().time() == pytest.approx(1 + ABANDON_AFTER)
        assert session.runner.books.room.in_lane == {"stubborn": 1}, "the first one still goes on"
        gate.set()
        await settle()
        assert session.runner.books.room.in_lane == {}
        assert session.runner.books.room.slots.used == 0


class Hangs:
    """Plain functions that hang until a test lets them go, in real time."""

    def __init__(self, **limits: Any) -> None:
        self.registry = ExecutorRegistry()
        self.gate = threading.Event()
        self.lock = threading.Lock()
        self.now, self.most = 0, 0
        self.session = Session(MemoryStorage(), registry=self.registry, limits=RunnerLimits(**limits))
        executor("hang", registry=self.registry)(self.hang)
        executor("alone", registry=self.registry, concurrency=1)(self.hang)
        executor("quick", registry=self.registry)(self.quick)

    def hang(self) -> str:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.gate.wait(30)
        with self.lock:
            self.now -= 1
        return "let go"

    def quick(self) -> str:
        return "quick"

    async def __aenter__(self) -> "Hangs":
        await self.session.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.gate.set()
        await self.session.close()

    async def time_out(self, count: int, owner: str = "ada") -> None:
        """Leave so many threads behind."""
        items = [item(f"h{n}", "hang", timeout=0.2) for n in range(count)]
        head = (await self.session.create(self.session.plan(rooted(*items), owner=owner), execute=True)).head
        await self.session.wait(head.id, has_ended)
        await settle(100)  # the attempts' jobs end a few turns after their events


@pytest.mark.asyncio
async def test_threads_that_hang_are_counted_until_they_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Hangs(threads=4) as made:
        await made.time_out(3)
        assert made.session.runner.problem() is None
        assert (await finish(made.session, item("q", "quick")))["q"].result == "quick"
        await made.time_out(1)
        problem = made.session.runner.problem()
        assert problem == "no thread is free: 4 of 4 still run although their attempts are over (hang 4)"
        assert problem in caplog.text and "(executor hang) is over, but its thread is still running" in caplog.text
        head = await begin(made.session, item("q", "quick"), item("other", "alone"))
        await settle()
        assert made.session.runner.books.running == 0
        made.gate.set()
        assert (await made.session.wait(head.id, has_ended)).status is TaskStatus.COMPLETED
        assert made.session.runner.problem() is None
        assert "threads are free again" in caplog.text


@pytest.mark.asyncio
async def test_threads_of_one_caller_that_hang_stop_nobody_else() -> None:
    """Found from outside: one caller's hung functions took all threads from others."""
    async with Hangs(tasks=8, threads=8, caller=4) as made:
        await made.time_out(4, "ada")
        adas = await begin_as(made.session, "ada", item("q", "quick"))
        bobs = await begin_as(made.session, "bob", item("q", "quick"))
        assert (await made.session.wait(bobs, has_ended)).status is TaskStatus.COMPLETED
        assert not has_ended(await made.session.wait(adas, lambda head: True)), "its share of threads is used up"
        made.gate.set()
        assert (await made.session.wait(adas, has_ended)).status is TaskStatus.COMPLETED


@pytest.mark.asyncio
@pytest.mark.parametrize("ends_by", ["timeout", "force"])
async def test_a_thread_that_outlives_its_attempt_keeps_its_executor_s_place(ends_by: str) -> None:
    """Found from outside: after a timeout the old call ran on beside the new one."""
    async with Hangs() as made:
        fields = {"timeout": 0.01, "max_attempts": 2, "retry": AT_ONCE} if ends_by == "timeout" else {}
        head = await begin(made.session, item("a", "alone", **fields), item("b", "alone"))
        if ends_by == "timeout":
            await until_event(made.session, head.id, e.AttemptFailed)
        else:
            await until_event(made.session, head.id, e.TaskStarted)
            tasks = await tasks_of(made.session, head.id)
            await made.session.cancel(tasks["a"].id, force=True)
        await settle(100)
        assert made.most <= 1
        made.gate.set()
        await made.session.wait(head.id, has_ended)
        ended = await tasks_of(made.session, head.id)
        assert ended["b"].result == "let go"
        assert made.most == 1


# Broken off from outside


@virtual_time
async def test_an_attempt_is_broken_off_in_the_name_of_what_its_executor_started() -> None:
    bench = Bench()
    origins = []

    async def work(inputs: dict[str, Any], context: TaskContext) -> None:
        origins.append(ORIGIN.get())
        await bench.gate("never").wait()

    bench.add("starts", work)
    async with bench.session() as session:
        head = await begin(session, item("a", "starts", max_attempts=2, retry=AT_ONCE))
        await until_event(session, head.id, e.TaskStarted)
        await settle()
        (first,) = origins
        assert first is not None and (first.executor, first.attempt) == ("starts", 1)
        assert session.runner.attempts.break_off(first, SystemExit(3))
        failed = await until_event(session, head.id, e.AttemptFailed)
        assert isinstance(failed.event, e.AttemptFailed)
        assert failed.event.error == "the executor raised SystemExit: 3"
        await until_event(session, head.id, e.TaskStarted, after=failed.seq)
        await settle()
        assert not session.runner.attempts.break_off(first, SystemExit(3)), "it is over"
        assert session.runner.attempts.break_off(origins[1], KeyboardInterrupt())
        ended = await session.wait(head.id, has_ended)
        assert ended.status is TaskStatus.FAILED
