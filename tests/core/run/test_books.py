"""Tests of core.run.books, and of all that Runner.check looks at: a fault planted in any book is found."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from core.executors.base import TaskContext
from core.model.room import Fit
from core.model.timestamps import to_timestamp
from core.run.attempt import Attempt
from core.run.runner import Runner
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from tests.core.cores import EPOCH, Bench, FaultyStorage, VirtualLoop, begin, item, settle

AT_ONCE = {"initial": 0.01, "maximum": 0.01, "jitter": 0}


async def busy() -> tuple[Session, asyncio.Future[Any]]:
    """A core with something in every book of its runner.

    One attempt goes on although it is over; `a`, `b` and `c` run; `d` and `e` wait as their tree has no more room;
    `starting` is being started, and `ahead` runs before its start is durable. `late` has a deadline.
    """
    storage = FaultyStorage()
    bench = Bench(storage=storage, limits=RunnerLimits(tasks=20, tree=3, seconds=3_600))

    async def stubborn(inputs: dict[str, Any], context: TaskContext) -> None:
        deaf_until = asyncio.get_running_loop().time() + 100
        while context.attempt == 1 and asyncio.get_running_loop().time() < deaf_until:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(100)

    bench.add("stubborn", stubborn)
    bench.add("pure", bench.slow, has_effects=False)
    session = bench.session()
    await session.start()
    left = await begin(session, item("left", "stubborn", timeout=1, max_attempts=2, retry=AT_ONCE))
    await session.wait(left.id, has_ended)
    waiting = [item("a", "slow", timeout=100), *(item(name, "slow") for name in "bcde")]
    await begin(session, *waiting, item("late", "work", "e", deadline=to_timestamp(EPOCH + 1_000)))
    await settle()
    storage.held = []
    more = ([item("starting", "slow")], [item("ahead", "pure"), item("paid", "slow")])
    creating = asyncio.gather(*(begin(session, *items) for items in more))
    await settle()
    return session, creating


def attempt_of(runner: Runner, name: str) -> Attempt:
    return next(each for each in runner.books.attempts.values() if each.task.ref == name)


def queue_of(runner: Runner) -> tuple[Any, Any]:
    """The queue's only caller with a lane, and that lane."""
    caller = next(each for each in runner.books.queue._callers.values() if each.lanes)
    return caller, caller.lanes["slow"]


def parked(runner: Runner) -> str:
    return next(iter(runner.books.queue._parked))


def tree_of(runner: Runner) -> str:
    return attempt_of(runner, "a").tree_id


def _forget_lane(runner: Runner) -> None:
    runner.books.queue._lines["slow"].entry["anonymous"] = (0.0, 0, "anonymous")


FAULTS: dict[str, tuple[Callable[[Runner], object], str]] = {
    "a slot leaks": (lambda r: r.books.room.slots.take("anonymous"), "slots are taken by"),
    "a slot is given twice": (lambda r: r.books.room.slots.give("anonymous"), "slots are taken by"),
    "slots are counted wrong": (lambda r: setattr(r.books.room.slots, "used", 1), "1 slots are taken"),
    "slots say that nobody fits": (lambda r: setattr(r.books.room.slots, "fit", Fit.NOBODY), "slots say"),
    "a thread leaks": (lambda r: r.books.room.threads.take("anonymous"), "threads are taken by"),
    "a process leaks": (lambda r: r.books.room.processes.take("anonymous"), "processes are taken by"),
    "a tree's count is wrong": (lambda r: r.books.room.in_tree.update(t=1), "counts of trees"),
    "an executor's count is wrong": (lambda r: r.books.room.in_lane.update(slow=1), "counts of executors"),
    "a caller's part of an executor is wrong": (lambda r: r.books.room.held_in_lane.clear(), "callers' executors"),
    "what goes on is forgotten": (lambda r: r.books.leftovers._kept.clear(), "counts of executors"),
    "a start is forgotten": (lambda r: r.books.starting.clear(), "slots are taken by"),
    "a start is awaited for ever": (
        lambda r: r.books.starting.update({(tree_of(r), "a"): r.books.starting.popitem()[1]}), "was answered"),
    "a task starts while it runs": (
        lambda r: r.books.attempts.update({next(iter(r.books.starting)): attempt_of(r, "a")}), "are starting and have"),
    "an attempt is forgotten": (lambda r: r.books.attempts.clear(), "slots are taken by"),
    "an attempt has no job": (lambda r: setattr(attempt_of(r, "a"), "job", None), "has ended and is still held"),
    "an attempt does not hold what it took": (lambda r: setattr(attempt_of(r, "a"), "holds", False), "are taken by"),
    "an attempt lends what it holds": (lambda r: setattr(attempt_of(r, "a"), "lends", 1), "lends what it holds"),
    "an attempt waits for what it holds": (
        lambda r: r.lending.waiting.append((attempt_of(r, "a"), asyncio.Future())), "waits for what it holds"),
    "an attempt stays ahead": (lambda r: r.books.ahead.add((tree_of(r), "a", 1)), "still ahead"),
    "what has never begun is not reported": (
        lambda r: r.books.never_begun.update({(tree_of(r), "a"): 1}), "was not noticed"),
    "a careful tree is never forgotten": (lambda r: r.books.careful.add("gone"), "tree gone is gone"),
    "a tree in line is never forgotten": (
        lambda r: r.books.queue._caller_of.update(gone="anonymous"), "tree gone is gone"),
    "tasks in line are counted wrong": (lambda r: setattr(r.books.queue, "waiting", 7), "7 tasks are counted"),
    "a tree steps aside from no line": (lambda r: r.books.queue._parked.clear(), "not once in the line"),
    "a tree steps aside although it has room": (lambda r: setattr(r.books.room, "_tree_limit", 9), "has room"),
    "a tree's caller is mixed up": (
        lambda r: r.books.queue._caller_of.update({parked(r): "bob"}), "another caller's lane"),
    "a lane is kept for nothing": (lambda r: queue_of(r)[1].tasks.clear(), "empty and was kept"),
    "a tree has no tasks in line": (lambda r: queue_of(r)[1].entry.update(t=(2, 0)), "trees without tasks"),
    "a caller stands in line for nothing": (_forget_lane, "nothing to start"),
    "ready tasks are in no line": (lambda r: r.books.queue.discard(tree_of(r)), "is in no line"),
    "starting is never over": (lambda r: setattr(r._dispatcher, "_filling", True), "not come to its end"),
    "timers are forgotten": (lambda r: r._dispatcher.due.timers._alarms.clear(), "no timer of task"),
    "the timer of the event loop is gone": (
        lambda r: setattr(r._dispatcher.due.timers, "_timer", None), "no timer of the event loop"),
    "the timer of an attempt is cancelled": (lambda r: attempt_of(r, "a").timer.cancel(), "nothing watches"),  # type: ignore[union-attr]
    "the limit of all attempts is not watched": (lambda r: r.attempts._times.close(), "nothing watches"),
    "a tree's own books are wrong": (
        lambda r: attempt_of(r, "a") and r._orchestrator.trees.by_id[tree_of(r)].running.clear(), "running differs"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_book_is_found(fault: str) -> None:
    """The checks after all other tests in virtual time, and in the simulation, can fail."""
    plant, text = FAULTS[fault]

    async def look() -> None:
        session, creating = await busy()
        session.runner.check()
        plant(session.runner)
        with pytest.raises(AssertionError, match=text):
            session.runner.check()
        creating.cancel()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.get_loop().set_exception_handler(lambda loop, context: None)  # what is broken stays so
        runner.run(look())
