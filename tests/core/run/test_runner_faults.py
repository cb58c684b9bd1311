"""What breakers found in the runner: storage that fails at the wrong moment, and executors that do odd things."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from core.executors.base import TaskContext
from core.loop.alarms import MANY_ALARMS
from core.model import events as e
from core.model.commands import Cancel, Execute, ProvideInput
from core.model.errors import StorageUnavailable, TaskNotFound, TreeIsRunning
from core.model.task import Cause, TaskStatus
from core.model.timestamps import to_timestamp
from core.run.dispatcher import MAX_VOID
from core.run.runner_limits import RunnerLimits
from core.session import has_ended
from core.storage.base import Append
from tests.core.cores import (
    EPOCH,
    Bench,
    FaultyStorage,
    begin,
    finish,
    item,
    kill,
    rooted,
    settle,
    tasks_of,
    until_event,
    virtual_time,
)

COMPLETED, FAILED, WORKING = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.IN_PROGRESS


class Once(FaultyStorage):
    """Refuses the first append that holds an event of this kind."""

    def __init__(self, kind: type) -> None:
        super().__init__()
        self.kind: type | None = kind

    def append(self, append: Append) -> asyncio.Future[None]:
        if self.kind is not None and any(isinstance(recorded.event, self.kind) for recorded in append.events):
            self.kind = None
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(StorageUnavailable("disk full"))
            return refused
        return super().append(append)


@virtual_time
@pytest.mark.parametrize("kind", [e.TaskCompleted, e.TaskStarted, e.RunStarted])
async def test_one_failed_write_costs_no_attempt_and_no_result(kind: type) -> None:
    """The result is in memory while its report is tried again: nobody may take its attempt for lost."""
    bench = Bench(storage=Once(kind))
    bench.add("pay", bench.work, at_most_once=True)
    async with bench.session() as session:
        head = (await session.create(session.plan(rooted(item("a", "pay", result="paid"), item("b", result=1))))).head
        try:
            await session.execute(head.id)
        except StorageUnavailable:
            await session.execute(head.id)
        await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
    assert (tasks["a"].status, tasks["a"].result, tasks["b"].result) == (COMPLETED, "paid", 1)
    assert Counter(bench.started) == {"a": 1, "b": 1}
    assert (tasks["a"].crashes, tasks["b"].crashes) == (0, 0)


@virtual_time
async def test_a_refusal_that_overtakes_earlier_appends_voids_only_itself() -> None:
    """A full queue refuses at once, while the appends before it are still on their way to the disk."""
    storage = FaultyStorage()
    bench = Bench(storage=storage, limits=RunnerLimits(tasks=4))
    async with bench.session() as session:
        head = (await session.create(session.plan(rooted(*(item(f"t{n}", "nap") for n in range(6)))))).head
        storage.held = []
        running = asyncio.create_task(session.execute(head.id))
        await settle()
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(StorageUnavailable("behind"))
        original, storage.append = storage.append, lambda append: refused  # type: ignore[method-assign]
        with pytest.raises(StorageUnavailable):
            await session.runner.cancel(head.id, Cancel(head.id), {})
        storage.append = original  # type: ignore[method-assign]
        storage.release()
        await running
        ended = await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
    assert ended.status is COMPLETED
    assert Counter(bench.started) == {f"t{n}": 1 for n in range(6)}
    assert {task.crashes for task in tasks.values()} == {0}
    assert session.runner.books.running == 0


class Odd(BaseException):
    """Not an Exception, as no executor should raise it."""


async def _ask_in_a_group(inputs: dict[str, Any], context: TaskContext) -> Any:
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(context.ask("who?"))
    return asked.result()


@virtual_time
@pytest.mark.parametrize("kind", [Odd, GeneratorExit, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_whatever_an_executor_raises_fails_its_task(kind: type[BaseException]) -> None:
    bench = Bench()

    async def throw(inputs: dict[str, Any], context: TaskContext) -> Any:
        raise kind

    bench.add("throw", throw)
    async with bench.session() as session:
        tasks = await finish(session, item("a", "throw"))
    assert (tasks["a"].status, tasks["a"].cause) == (FAILED, Cause.EXECUTOR_ERROR)


@virtual_time
async def test_a_question_from_within_a_task_group_is_a_question() -> None:
    bench = Bench()
    bench.add("ask", _ask_in_a_group)
    async with bench.session() as session:
        head = await begin(session, item("a", "ask"))
        await session.wait(head.id, lambda head: head.status.is_interrupted)
        await session.provide_input(ProvideInput(head.id, "Ada"))
        await session.wait(head.id, has_ended)
        assert (await tasks_of(session, head.id))["a"].result == "Ada"


@virtual_time
@pytest.mark.parametrize(
    "said",
    [{"message": 5}, {"message": "\ud800"}, {"name": 7}, {"artifact_id": 9}, {"metadata": 5}, {"description": []}],
)
async def test_what_cannot_be_told_is_refused_to_the_executor_alone(said: dict[str, Any]) -> None:
    """It must neither be stored nor cost the tree or its neighbours anything."""
    bench = Bench()
    caught: list[str] = []

    async def speak(inputs: dict[str, Any], context: TaskContext) -> Any:
        try:
            await (context.progress(0.5, **said) if "message" in said else context.artifact("x", **said))
        except (TypeError, ValueError) as error:
            caught.append(str(error))
        return "done"

    bench.add("speak", speak)
    async with bench.session() as session:
        tasks = await finish(session, item("a", "speak"), item("b"))
        assert {task.status for task in tasks.values()} == {COMPLETED}
        assert (tasks["a"].attempt, len(caught)) == (1, 1)


@virtual_time
async def test_a_timeout_holds_for_an_executor_that_swallows_its_interruption() -> None:
    bench = Bench()

    async def swallow(inputs: dict[str, Any], context: TaskContext) -> Any:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)
        return "late"

    bench.add("swallow", swallow)
    async with bench.session() as session:
        head = await begin(session, item("a", "swallow", timeout=1), item("b", "work", "a"))
        await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
        assert (tasks["a"].status, tasks["a"].cause, tasks["a"].result) == (FAILED, Cause.TIMEOUT, None)
        assert tasks["a"].finished_at == EPOCH + 1


@virtual_time
async def test_a_run_that_begins_while_an_attempt_cleans_up_waits_for_it() -> None:
    """The cancelled attempt still occupies its task; its end lets the new run go on."""
    bench = Bench()
    rounds: list[int] = []

    async def tidy(inputs: dict[str, Any], context: TaskContext) -> Any:
        rounds.append(context.attempt)
        if context.attempt > 1:
            return "again"
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            raise RuntimeError("late")

    bench.add("tidy", tidy)
    async with bench.session() as session:
        head = await begin(session, item("a", "tidy"))
        await until_event(session, head.id, e.TaskStarted)
        cancelling = asyncio.create_task(session.cancel(head.id))
        await session.wait(head.id, has_ended)
        await session.execute(head.id)
        await cancelling
        await session.wait(head.id, lambda head: has_ended(head) and head.run == 2)
        assert (await tasks_of(session, head.id))["a"].result == "again"
    assert rounds == [1, 2]


@virtual_time
async def test_a_caller_that_goes_away_does_not_take_the_tree_with_it() -> None:
    storage = FaultyStorage()
    bench = Bench(storage=storage)
    async with bench.session() as session:
        plan = session.plan(rooted(item("a")))
        storage.held = []
        creating = asyncio.create_task(session.create(plan, execute=True))
        await settle()
        creating.cancel()
        await settle()
        storage.release()
        await settle()
        assert (await session.wait(plan.root_id, has_ended)).status is COMPLETED


@virtual_time
async def test_a_tree_is_not_created_twice_at_once() -> None:
    bench = Bench()
    bench.add("one", bench.nap, concurrency=1)
    async with bench.session() as session:
        plan = session.plan(rooted(item("a", "one"), item("b", "one")))
        made = await asyncio.gather(*(session.create(plan, execute=True) for _ in range(3)), return_exceptions=True)
        assert [type(each) for each in made[1:]] == [TreeIsRunning, TreeIsRunning]
        assert (await session.wait(plan.root_id, has_ended)).status is COMPLETED
        # No slot is left behind: the executor with one slot starts again.
        await session.orchestrator.handle(plan.root_id, Execute(None, True))
        assert (await session.wait(plan.root_id, lambda head: has_ended(head) and head.run == 2)).status is COMPLETED


@virtual_time
async def test_whatever_touches_an_orphaned_tree_first_resumes_it() -> None:
    bench = Bench()

    async def ask(inputs: dict[str, Any], context: TaskContext) -> Any:
        return await context.ask("who?")

    bench.add("ask", ask)
    first = bench.session()
    await first.start()
    head = await begin(first, item("a", "ask"), item("b", "nap"))
    await until_event(first, head.id, e.InputRequested)
    kill(first)
    async with bench.session() as session:
        await session.provide_input(ProvideInput(head.id, "Ada"))
        assert (await session.wait(head.id, has_ended)).status is COMPLETED
        tasks = await tasks_of(session, head.id)
    assert (tasks["a"].result, tasks["b"].crashes) == ("Ada", 1)


@virtual_time
async def test_one_tree_that_cannot_be_read_does_not_keep_the_others_from_going_on() -> None:
    storage = FaultyStorage()
    bench = Bench(storage=storage)
    first = bench.session()
    await first.start()
    broken, sound = await begin(first, item("a", "nap")), await begin(first, item("b", "nap"))
    kill(first)
    load = storage.load

    async def fail_for_one(tree_id: str) -> Any:
        if tree_id == broken.id:
            raise StorageUnavailable("a row is corrupt")
        return await load(tree_id)

    storage.load = fail_for_one  # type: ignore[method-assign]
    async with bench.session() as session:
        assert await session.resume() == 1
        assert (await session.wait(sound.id, has_ended)).status is COMPLETED


@virtual_time
async def test_timers_of_tasks_that_have_ended_are_thrown_away() -> None:
    bench = Bench()
    later = to_timestamp(EPOCH + 1e6)
    async with bench.session() as session:
        for _ in range(3):
            await finish(session, *(item(f"t{n}", deadline=later) for n in range(MANY_ALARMS // 2)))
        assert len(session.runner._dispatcher.due.timers) <= 2 * MANY_ALARMS


@virtual_time
async def test_tasks_that_ended_in_line_are_passed_over_in_steps() -> None:
    """However many wait for a slot when their deadline passes, the event loop goes on, and others start."""
    bench = Bench(limits=RunnerLimits(tasks=1))
    async with bench.session() as session:
        deadline = to_timestamp(bench.clock.now() + 10)
        late = await begin(session, *(item(f"late{n}", "nap", deadline=deadline) for n in range(5 * MAX_VOID)))
        after = await begin(session, item("after"))
        popped = Counter[int]()  # by turn of the event loop in which anything is taken out of the line
        turn, pop = 0, session.runner.books.queue.pop

        def next_turn() -> None:
            nonlocal turn
            turn += 1

        def counted() -> tuple[str, str] | None:
            if not popped[turn]:
                asyncio.get_running_loop().call_soon(next_turn)
            popped[turn] += 1
            return pop()

        session.runner.books.queue.pop = counted  # type: ignore[method-assign]
        await session.wait(late.id, has_ended)
        assert (await session.wait(after.id, has_ended)).status is COMPLETED
        assert popped.total() > 4 * MAX_VOID
        assert max(popped.values()) <= MAX_VOID + 2
        assert session.runner.books.queue.waiting == 0


@virtual_time
async def test_trees_at_rest_are_not_kept_in_memory() -> None:
    bench = Bench()
    async with bench.session() as session:
        for _ in range(5):
            head = await begin(session, item("a"))
            await session.wait(head.id, has_ended)
            copy = (await session.copy(head.id)).head
            await session.cancel(copy.id)
            await session.cancel(copy.id)
        assert session.orchestrator.trees.by_id == {}


@virtual_time
async def test_followers_of_a_deleted_tree_end() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = (await session.create(session.plan([item("a")]))).head
        seen: list[str] = []

        async def follow() -> None:
            seen.extend([type(recorded.event).__name__ async for recorded in session.follow(head.id)])

        following = asyncio.create_task(follow())
        waiting = asyncio.create_task(session.wait(head.id, has_ended))
        await settle()
        await session.delete(head.id)
        await following
        with pytest.raises(TaskNotFound):
            await waiting
    assert seen == ["TreeCreated"]


@virtual_time
async def test_the_status_of_a_tree_carries_the_time_of_its_change() -> None:
    """A2A's status timestamp, and the order of ListTasks, hang on it (spec §3.1.4)."""
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "nap"))
        assert head.updated_at == EPOCH
        await asyncio.sleep(0)
        head = await session.wait(head.id, has_ended)
        assert head.updated_at == EPOCH + 1


# The second round: what happens between a start and its commit


@virtual_time
async def test_a_cancel_and_a_new_run_before_a_start_is_durable_leak_no_slot() -> None:
    """Two starts of one task must not be on their way at once."""
    storage = FaultyStorage()
    bench = Bench(storage=storage, limits=RunnerLimits(tasks=1))
    async with bench.session() as session:
        head = (await session.create(session.plan(rooted(item("a"))))).head
        storage.held = []
        asked = [asyncio.create_task(session.execute(head.id))]
        await settle()
        asked.append(asyncio.create_task(session.cancel(head.id)))
        await settle()
        asked.append(asyncio.create_task(session.execute(head.id)))
        await settle()
        storage.release()
        await asyncio.gather(*asked)
        ended = await session.wait(head.id, lambda head: has_ended(head) and head.run == 2)
        tasks = await tasks_of(session, head.id)
        await settle()
        assert (ended.status, tasks["a"].status) == (COMPLETED, COMPLETED)
        assert (session.runner.books.running, session.runner.books.room.slots.used, bench.started) == (0, 0, ["a"])
        assert (
            not session.runner.books.room.in_lane
            and not session.runner.books.room.in_tree
            and not session.runner.books.never_begun
        )


@virtual_time
async def test_a_start_that_was_never_begun_leaves_nothing_unknown() -> None:
    """The session closes while the starts are on their way: nothing came of them, and the next process runs them."""
    storage = FaultyStorage()
    bench = Bench(storage=storage)
    bench.add("pay", bench.work, at_most_once=True)
    first = bench.session()
    await first.start()
    head = (await first.create(first.plan(rooted(*(item(f"t{n}", "pay") for n in range(5)))))).head
    storage.held = []
    executing = asyncio.create_task(first.execute(head.id))
    await settle()
    closing = asyncio.create_task(first.close())
    await settle()
    storage.release()
    await asyncio.gather(executing, closing)
    assert bench.started == []
    async with bench.session() as second:
        assert await second.resume() == 1
        assert (await second.wait(head.id, has_ended)).status is COMPLETED
        assert {task.crashes for task in (await tasks_of(second, head.id)).values()} == {0}


@virtual_time
async def test_what_an_executor_makes_of_a_shutdown_is_not_its_failure() -> None:
    bench = Bench()
    calls: list[int] = []

    async def touchy(inputs: dict[str, Any], context: TaskContext) -> Any:
        calls.append(context.attempt)
        if len(calls) > 1:
            return "done"
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise RuntimeError("connection lost") from None

    bench.add("touchy", touchy)
    first = bench.session()
    await first.start()
    head = await begin(first, item("a", "touchy"))
    await until_event(first, head.id, e.TaskStarted)
    await settle()
    await first.close()
    async with bench.session() as second:
        await second.resume()
        await second.wait(head.id, has_ended)
        task = (await tasks_of(second, head.id))["a"]
    assert (task.result, task.crashes, calls) == ("done", 0, [1, 2])


@virtual_time
async def test_a_hook_that_hangs_is_cut_off_and_the_result_kept() -> None:
    bench = Bench()

    async def hang(task: Any, inputs: Any, result: Any) -> None:
        await asyncio.Event().wait()

    bench.registry.hooks.post_task(hang)
    async with bench.session() as session:
        tasks = await finish(session, item("a", result=1, timeout=5))
    assert (tasks["a"].status, tasks["a"].result) == (COMPLETED, 1)
