"""Attempts of executors without effects, which begin before their start is durable (decision 0002)."""

import asyncio
from typing import Any

import pytest

from core.executors.base import ExecutorSpec, TaskContext
from core.model import events as e
from core.model.errors import ConfigurationError, StorageUnavailable
from core.model.task import Cause, TaskStatus
from core.model.tree import TaskTree
from core.run.dispatcher import MAX_UNSTORED
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from core.storage.base import EventQuery
from tests.core.cores import Bench, FaultyStorage, item, kill, rooted, settle, tasks_of, virtual_time

COMPLETED = TaskStatus.COMPLETED


def bench() -> tuple[Bench, FaultyStorage]:
    """With `pure` and `patient`, which have no effects, beside `work`, `nap` and `slow`, which may have."""
    storage = FaultyStorage()
    made = Bench(storage=storage)
    made.add("pure", made.work, has_effects=False)
    made.add("patient", made.slow, has_effects=False)
    return made, storage


def chain(n: int, executor: str = "pure") -> list[dict[str, Any]]:
    return rooted(item("t0", executor), *(item(f"t{i}", executor, f"t{i - 1}") for i in range(1, n)))


def nothing_is_held(session: Session) -> bool:
    books = session.runner.books
    return not (books.ahead or books.careful or books.attempts or books.starting or books.room.slots.used)


@virtual_time
async def test_what_has_no_effects_runs_on_and_nobody_is_told_before_it_is_stored() -> None:
    made, storage = bench()
    async with made.session() as session:
        head = (await session.create(session.plan([*chain(5), item("paid", "work", "t4", parent_id="root")]))).head
        storage.held = []
        executing = asyncio.create_task(session.execute(head.id))
        told: list[int] = []
        session.feed.watch(lambda head, events: told.extend(recorded.seq for recorded in events))
        await settle(50)

        assert made.started == [f"t{i}" for i in range(5)]  # what may have effects waits
        assert not told and not executing.done()
        assert (await tasks_of(session, head.id))["t0"].status is TaskStatus.PENDING

        storage.release()
        await session.wait(head.id, has_ended)
        assert told == sorted(told) and made.started[5:] == ["paid"]
        log = [recorded.event for recorded in await session.storage.events(EventQuery(tree_id=head.id))]
        ended = [event.task_id for event in log if isinstance(event, e.TaskCompleted)]
        assert [event.task_id for event in log if isinstance(event, e.TaskStarted)] == ended
        await settle()
        assert nothing_is_held(session)


@virtual_time
async def test_what_went_ahead_of_a_start_that_cannot_be_stored_is_forgotten() -> None:
    """What it worked on never happened either: its dependency runs again, and may return something else."""
    made, storage = bench()
    draws, seen = iter(["first", "second"]), []

    async def draw(inputs: dict[str, Any], context: TaskContext) -> Any:
        return next(draws)

    async def keep(inputs: dict[str, Any], context: TaskContext) -> Any:
        (drawn,) = context.dependencies.values()
        seen.append(drawn)
        await made.gate(drawn).wait()
        return drawn

    made.add("draw", draw, has_effects=False)
    made.add("keep", keep, has_effects=False)
    async with made.session() as session:
        head = (await session.create(session.plan(rooted(item("a", "draw"), item("b", "keep", "a"))))).head
        storage.held = []
        executing = asyncio.create_task(session.execute(head.id))
        await settle()
        assert seen == ["first"]

        storage.fail_held(*[StorageUnavailable("disk full")] * len(storage.held))
        with pytest.raises(StorageUnavailable):
            await executing
        await settle()
        assert made.ended == ["a", "b: CancelledError"]

        made.gate("second").set()
        await session.execute(head.id)
        await session.wait(head.id, has_ended)
        task = (await tasks_of(session, head.id))["b"]
        assert (task.result, task.attempt, task.crashes) == ("second", 1, 0)
        await settle()
        assert nothing_is_held(session)


@virtual_time
async def test_an_attempt_that_is_stopped_before_its_first_step_holds_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by the simulation: a coroutine that is cancelled before it has begun does not run at all."""
    made, _ = bench()
    async with made.session() as session:
        runner, begin = session.runner, session.runner.attempts.begin

        def begin_and_stop(tree: TaskTree, task_id: str, number: int) -> None:
            begin(tree, task_id, number)
            runner.books.attempts[tree.id, task_id].stop()

        monkeypatch.setattr(runner._dispatcher, "begin", begin_and_stop)
        await session.create(session.plan([item("a", "pure")]), execute=True)
        await settle()
        assert made.started == [] and nothing_is_held(session)


@virtual_time
async def test_where_functions_see_every_task_attempts_wait() -> None:
    """A hook is somebody else's code, and may well have effects."""
    made, storage = bench()
    made.registry.hooks.pre_task(lambda task, inputs: None)
    async with made.session() as session:
        head = (await session.create(session.plan(chain(2)))).head
        storage.held = []
        executing = asyncio.create_task(session.execute(head.id))
        await settle(50)
        assert made.started == []
        storage.release()
        await executing
        await session.wait(head.id, has_ended)


@virtual_time
async def test_a_task_that_takes_processes_down_is_poison_also_without_effects() -> None:
    """The first crash may beat its start to the disk; from then on starts wait, so that the others are counted."""
    made, storage = bench()
    session = made.session()
    await session.start()
    head = (await session.create(session.plan(rooted(item("a", "patient"))))).head
    storage.held = []
    executing = asyncio.create_task(session.execute(head.id))
    await settle(50)
    assert made.started == ["a"]
    run = next(append for append, _ in storage.held)
    executing.cancel()
    kill(session)
    storage.held = None
    await storage.append(run)  # as far as it came
    for _ in range(6):
        session = made.session()
        await session.start()
        await session.resume()
        await settle(50)
        kill(session)
    task = (await tasks_of(session, head.id))["a"]
    assert (task.status, task.cause) == (TaskStatus.FAILED, Cause.POISON)


@virtual_time
async def test_a_cancel_stops_what_went_ahead() -> None:
    made, storage = bench()
    async with made.session() as session:
        head = (await session.create(session.plan(rooted(item("a", "patient"))))).head
        storage.held = []
        asked = [asyncio.create_task(session.execute(head.id))]
        await settle()
        asked.append(asyncio.create_task(session.cancel(head.id)))
        await settle()
        assert made.started == ["a"] and made.ended == []
        storage.release()
        await asyncio.gather(*asked)
        assert made.ended == ["a: CancelledError"]
        await settle()
        assert nothing_is_held(session)


@virtual_time
async def test_a_close_hands_over_what_went_ahead() -> None:
    made, storage = bench()
    first = made.session()
    await first.start()
    head = (await first.create(first.plan(rooted(item("a", "patient", result="a"))))).head
    storage.held = []
    asked = [asyncio.create_task(first.execute(head.id))]
    await settle()
    asked.append(asyncio.create_task(first.close()))
    await settle()
    storage.release()
    await asyncio.gather(*asked)
    assert made.ended == ["a: CancelledError"]
    made.gate("a").set()
    async with made.session() as second:
        assert await second.resume() == 1
        await second.wait(head.id, has_ended)
        task = (await tasks_of(second, head.id))["a"]
        assert (task.status, task.result, task.crashes) == (COMPLETED, "a", 0)


@virtual_time
async def test_no_more_goes_ahead_than_the_disk_can_be_behind() -> None:
    made, storage = bench()
    made.limits = RunnerLimits(tasks=2)
    async with made.session() as session:
        head = (await session.create(session.plan(chain(MAX_UNSTORED + 50)))).head
        storage.held = []
        executing = asyncio.create_task(session.execute(head.id))
        await settle(10 * MAX_UNSTORED)
        assert len(made.started) == MAX_UNSTORED
        storage.release()
        await executing
        assert (await session.wait(head.id, has_ended)).status is COMPLETED
        assert len(made.started) == MAX_UNSTORED + 50


def test_what_must_not_be_repeated_has_effects() -> None:
    with pytest.raises(ConfigurationError, match="'pay': at_most_once is only for executors with effects"):
        ExecutorSpec(id="pay", make=lambda: None, at_most_once=True, has_effects=False)  # type: ignore[arg-type, return-value]
