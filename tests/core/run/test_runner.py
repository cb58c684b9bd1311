"""Tests of core.run.runner and core.run.attempt: whole cores in virtual time, in which timers cost nothing."""

import asyncio
from typing import Any

import pytest

from core.executors.base import ExecutorSpec, Parts, Rejected, TaskContext
from core.model import events as e
from core.model.commands import ProvideInput
from core.model.errors import InvalidPlan, StaleAttempt, TaskNotCancelable
from core.model.quarantine import FIRST_WATCH, LONGEST_HOLD
from core.model.task import Cause, Task, TaskStatus
from core.model.timestamps import to_timestamp
from core.run.attempt import STOP_GRACE
from core.run.cancelling import STOP_LIMIT
from core.run.runner_limits import RunnerLimits
from core.session import has_ended
from core.storage.base import EventQuery
from tests.core.cores import EPOCH, Bench, begin, finish, item, kill, settle, tasks_of, until_event, virtual_time

RETRY_IN_AN_HOUR = {"initial": 3600, "maximum": 3600, "jitter": 0}


async def run_one(bench: Bench, executor: str = "work", **fields: Any) -> Task:
    """Run one task in a core of its own."""
    async with bench.session() as session:
        return (await finish(session, item("a", executor, **fields)))["a"]


def told(error: str | None) -> str:
    """The error without the line at which it was raised."""
    assert error is not None and error.endswith(")"), error
    return error.rpartition(" (test_runner.py:")[0]


def elapsed() -> float:
    """Virtual seconds since the loop began."""
    return asyncio.get_running_loop().time()


# Order and limits


@virtual_time
async def test_under_a_limit_of_one_priority_then_creation_decides() -> None:
    bench = Bench(limits=RunnerLimits(tasks=1))
    async with bench.session() as session:
        await finish(
            session,
            item("normal1"), item("low", priority=9), item("urgent", priority=0), item("normal2"),
            item("minus", priority=-1),
        )  # fmt: skip
    assert bench.started == ["minus", "urgent", "normal1", "normal2", "low"]
    assert bench.most == 1


@virtual_time
async def test_priority_is_no_barrier_where_slots_are_free() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("urgent", "slow", priority=0), item("normal", "slow"))
        await settle()
        assert sorted(bench.started) == ["normal", "urgent"]
        await session.cancel(head.id)


@virtual_time
async def test_dependencies_win_over_priority() -> None:
    bench = Bench(limits=RunnerLimits(tasks=1))
    async with bench.session() as session:
        await finish(session, item("a", priority=5), item("b", "work", "a", priority=-5))
    assert bench.started == ["a", "b"]


@virtual_time
async def test_tasks_that_become_ready_together_run_together() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("first"), *(item(f"p{i}", "slow", "first") for i in range(20)))
        await settle(40)
        assert bench.most == 20
        for i in range(20):
            bench.gate(f"p{i}").set()
        ended = await session.wait(head.id, has_ended)
    assert ended.status is TaskStatus.COMPLETED


@virtual_time
async def test_a_process_runs_no_more_tasks_than_its_limit() -> None:
    bench = Bench(limits=RunnerLimits(tasks=3))
    async with bench.session() as session:
        heads = [await begin(session, *(item(f"t{t}-{i}", "nap") for i in range(5))) for t in range(3)]
        for head in heads:
            await session.wait(head.id, has_ended)
    assert bench.most == 3
    assert len(bench.started) == 15


@virtual_time
async def test_a_tree_runs_no_more_tasks_than_its_limit() -> None:
    """And what it leaves free goes to others."""
    bench = Bench(limits=RunnerLimits(tree=2))
    async with bench.session() as session:
        a = await begin(session, *(item(f"a{i}", "slow") for i in range(4)))
        b = await begin(session, item("b", "slow"))
        await settle(40)
        assert bench.started == ["a0", "a1", "b"]
        for name in ("a0", "a1", "a2", "a3", "b"):
            bench.gate(name).set()
        for head in (a, b):
            await session.wait(head.id, has_ended)
    assert bench.most == 3


@virtual_time
async def test_an_executor_runs_no_more_tasks_than_its_limit() -> None:
    bench = Bench()
    bench.add("single", bench.slow, concurrency=1)
    async with bench.session() as session:
        head = await begin(session, item("s1", "single"), item("s2", "single"), item("w"))
        await settle(40)
        assert bench.started == ["s1", "w"]
        bench.gate("s1").set()
        bench.gate("s2").set()
        await session.wait(head.id, has_ended)
    assert bench.started == ["s1", "w", "s2"]


@virtual_time
async def test_child_processes_are_limited_over_all_executors() -> None:
    bench = Bench(limits=RunnerLimits(processes=1))
    bench.add("p", bench.slow, uses_process=True)
    bench.add("q", bench.slow, uses_process=True)
    async with bench.session() as session:
        head = await begin(session, item("p1", "p"), item("q1", "q"), item("w"))
        await settle(40)
        assert bench.started == ["p1", "w"]
        bench.gate("p1").set()
        bench.gate("q1").set()
        await session.wait(head.id, has_ended)
    assert bench.started[-1] == "q1"


@virtual_time
async def test_trees_take_turns_under_a_limit() -> None:
    bench = Bench(limits=RunnerLimits(tasks=1))
    async with bench.session() as session:
        huge = await begin(session, *(item(f"h{i:02}") for i in range(50)))
        small = await begin(session, item("small"))
        await session.wait(small.id, has_ended)
        assert len(bench.started) < 40
        await session.wait(huge.id, has_ended)


# Inputs and results


@virtual_time
async def test_results_of_dependencies_are_merged_into_the_inputs() -> None:
    bench = Bench()
    async with bench.session() as session:
        tasks = await finish(
            session,
            item("a", result={"x": 1, "y": 1}), item("b", result=[2]),
            item("c", "work", "a", "b", inputs={"y": "own"}),
        )  # fmt: skip
    assert bench.inputs["c"] == {"x": 1, "y": "own", "a": {"x": 1, "y": 1}, "b": [2]}
    assert bench.contexts[-1].dependencies == {"a": {"x": 1, "y": 1}, "b": [2]}
    assert tasks["c"].inputs == {"y": "own"}, "the stored inputs stay as the caller wrote them"


@virtual_time
async def test_an_optional_dependency_that_failed_is_waited_for_and_absent() -> None:
    bench = Bench()
    bench.add("fail", _fail)
    async with bench.session() as session:
        tasks = await finish(session, item("a", "fail"), item("b") | {"dependencies": [{"id": "a", "required": False}]})
    assert bench.started == ["a", "b"]
    assert bench.inputs["b"] == {}
    assert (tasks["a"].status, tasks["b"].status, tasks["root"].status) == ("failed", "completed", "completed")


async def _fail(inputs: dict[str, Any], context: TaskContext) -> Any:
    raise ValueError("boom")


@virtual_time
async def test_what_requires_a_failed_task_never_runs_and_says_why() -> None:
    bench = Bench()
    bench.add("fail", _fail)
    async with bench.session() as session:
        tasks = await finish(session, item("a", "fail"), item("b", "work", "a"), item("c", "work", "b"))
    assert bench.started == ["a"]
    assert told(tasks["a"].error) == "ValueError: boom" and tasks["a"].cause is Cause.EXECUTOR_ERROR
    for name in "bc":
        assert (tasks[name].status, tasks[name].cause) == (TaskStatus.CANCELLED, Cause.DEPENDENCY_FAILED)
        assert "(a) failed: ValueError: boom" in (tasks[name].error or "")
    assert tasks["root"].status is TaskStatus.FAILED


@pytest.mark.parametrize(
    ("result", "error"),
    [
        ({"success": False}, "success: false"),
        ({"success": False, "error": "disk full"}, "disk full"),
        ({"success": False, "message": "no luck"}, "no luck"),
        ({"error": "went wrong"}, "went wrong"),
        ({"error": {"code": 5}}, "{'code': 5}"),
    ],
)
def test_a_result_that_reports_failure_fails_the_task(result: dict[str, Any], error: str) -> None:
    @virtual_time
    async def check() -> None:
        task = await run_one(Bench(), inputs={"result": result})
        assert (task.status, task.cause) == (TaskStatus.FAILED, Cause.EXECUTOR_ERROR)
        assert error in (task.error or "")

    check()


@pytest.mark.parametrize("result", [{"success": True}, {"error": None}, {"error": ""}, {"error": False}, None, 0, []])
def test_any_other_json_value_completes_the_task(result: Any) -> None:
    @virtual_time
    async def check() -> None:
        bench = Bench()

        async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
            return result

        bench.add("give", give)
        task = await run_one(bench, "give")
        assert (task.status, task.result, task.progress) == (TaskStatus.COMPLETED, result, 1.0)

    check()


@virtual_time
async def test_a_result_that_is_not_json_fails_the_task_without_a_retry() -> None:
    bench = Bench()

    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        return {"when": {1, 2}}

    bench.add("give", give)
    task = await run_one(bench, "give", max_attempts=3)
    assert (task.status, task.cause, task.attempt) == (TaskStatus.FAILED, Cause.INVALID_RESULT, 1)
    assert task.error == "the result is not JSON: a set is not a JSON value"


@virtual_time
async def test_parts_as_a_result_reach_dependents_as_a_list() -> None:
    bench = Bench()

    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        return Parts([{"text": "hello"}])

    bench.add("give", give)
    async with bench.session() as session:
        await finish(session, item("a", "give"), item("b", "work", "a"))
    assert bench.inputs["b"] == {"a": [{"text": "hello"}]}


@virtual_time
async def test_inputs_that_break_the_schema_fail_the_task_and_name_the_field() -> None:
    bench = Bench()
    schema = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}
    bench.add("strict", bench.work, input_schema=schema)
    async with bench.session() as session:
        tasks = await finish(
            session,
            item("a", "strict", inputs={"url": 5}, max_attempts=3), item("b", "strict"),
            item("c", inputs={"n": "x"}, schemas={"input_schema": {"properties": {"n": {"type": "integer"}}}}),
        )  # fmt: skip
    assert bench.started == []
    assert {tasks[name].cause for name in "abc"} == {Cause.INVALID_INPUT}
    assert "inputs.url" in (tasks["a"].error or "")
    assert "'url' is a required property" in (tasks["b"].error or "")
    assert "inputs.n" in (tasks["c"].error or "")


@virtual_time
async def test_a_result_that_breaks_the_output_schema_fails_the_task() -> None:
    bench = Bench()
    bench.add("strict", bench.work, output_schema={"type": "object", "required": ["n"]})
    task = await run_one(bench, "strict", inputs={"result": {"m": 1}})
    assert (task.status, task.cause) == (TaskStatus.FAILED, Cause.INVALID_RESULT)
    assert "'n' is a required property" in (task.error or "")


@virtual_time
async def test_a_schema_of_the_task_that_is_unusable_is_refused_before_anything_is_stored() -> None:
    """It comes from a caller: it must neither hang the task nor be called a bug of ours."""
    with pytest.raises(InvalidPlan, match=r"tasks\[1\].schemas.input_schema: is not a usable JSON Schema"):
        await run_one(Bench(), schemas={"input_schema": {"type": "no such type"}})


@virtual_time
async def test_an_executor_may_decline() -> None:
    bench = Bench()

    async def decline(inputs: dict[str, Any], context: TaskContext) -> Any:
        raise Rejected("not my department")

    bench.add("decline", decline)
    async with bench.session() as session:
        tasks = await finish(session, item("a", "decline", max_attempts=3))
    assert (tasks["a"].status, tasks["a"].error) == (TaskStatus.REJECTED, "not my department")
    assert tasks["root"].status is TaskStatus.REJECTED


@pytest.mark.parametrize("error", [SystemExit(3), ValueError(), asyncio.CancelledError(), RecursionError("deep")])
def test_whatever_an_executor_raises_ends_its_attempt_only(error: BaseException) -> None:
    @virtual_time
    async def check() -> None:
        bench = Bench()

        async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
            raise error

        bench.add("give", give)
        async with bench.session() as session:
            tasks = await finish(session, item("a", "give"), item("b"))
        assert (tasks["a"].status, tasks["a"].cause) == (TaskStatus.FAILED, Cause.EXECUTOR_ERROR)
        assert tasks["a"].error
        assert tasks["b"].status is TaskStatus.COMPLETED

    check()


@virtual_time
async def test_an_executor_that_cannot_be_made_fails_its_task() -> None:
    def make() -> Any:
        raise RuntimeError("no licence")

    bench = Bench()
    bench.registry.register(ExecutorSpec(id="broken", make=make))
    task = await run_one(bench, "broken")
    assert (task.status, told(task.error)) == (TaskStatus.FAILED, "RuntimeError: no licence")


@virtual_time
async def test_an_error_that_is_not_valid_unicode_is_still_told() -> None:
    bench = Bench()

    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        raise ValueError("bad \ud800 text")

    bench.add("give", give)
    assert told((await run_one(bench, "give")).error) == "ValueError: bad ? text"


# Time


@virtual_time
async def test_an_attempt_that_takes_too_long_is_stopped() -> None:
    bench = Bench()
    task = await run_one(bench, "slow", timeout=90)
    assert elapsed() == pytest.approx(90)
    assert (task.status, task.cause, task.error) == (TaskStatus.FAILED, Cause.TIMEOUT, "timed out after 90 s")
    assert bench.ended == ["a: CancelledError"]


@virtual_time
async def test_a_timeout_error_of_the_executors_own_is_its_own() -> None:
    bench = Bench()

    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        raise TimeoutError("upstream")

    bench.add("give", give)
    task = await run_one(bench, "give", timeout=90)
    assert (told(task.error), task.cause) == ("TimeoutError: upstream", Cause.EXECUTOR_ERROR)


@virtual_time
async def test_the_deadline_ends_a_running_attempt_for_good() -> None:
    bench = Bench()
    task = await run_one(bench, "slow", deadline=to_timestamp(EPOCH + 60), timeout=500, max_attempts=5)
    assert elapsed() == pytest.approx(60)
    assert (task.status, task.cause, task.attempt) == (TaskStatus.FAILED, Cause.DEADLINE, 1)
    assert bench.ended == ["a: CancelledError"]


@virtual_time
async def test_the_deadline_ends_a_task_that_still_waits() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"), item("b", "work", "a", deadline=to_timestamp(EPOCH + 60)))
        await until_event(session, head.id, e.TaskFailed)
        assert elapsed() == pytest.approx(60)
        bench.gate("a").set()
        await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
    assert (tasks["a"].status, tasks["b"].status, tasks["b"].cause) == ("completed", "failed", Cause.DEADLINE)


@virtual_time
async def test_a_deadline_far_away_is_met_too() -> None:
    """Longer than the longest single wait of the timer."""
    task = await run_one(Bench(), "slow", deadline=to_timestamp(EPOCH + 86_400))
    assert elapsed() == pytest.approx(86_400)
    assert task.cause is Cause.DEADLINE


def _flaky(failures: int) -> Any:
    async def flaky(inputs: dict[str, Any], context: TaskContext) -> Any:
        if context.attempt <= failures:
            raise ValueError(f"failure {context.attempt}")
        return context.idempotency_key

    return flaky


@virtual_time
async def test_failed_attempts_are_repeated_with_growing_delays() -> None:
    bench = Bench()
    bench.add("flaky", _flaky(2))
    task = await run_one(bench, "flaky", max_attempts=3, retry={"initial": 10, "factor": 3, "jitter": 0})
    assert elapsed() == pytest.approx(40)
    assert (task.status, task.attempt) == (TaskStatus.COMPLETED, 3)
    assert len({context.idempotency_key for context in bench.contexts}) == 1


@virtual_time
async def test_the_last_failed_attempt_fails_the_task() -> None:
    bench = Bench()
    bench.add("flaky", _flaky(9))
    task = await run_one(bench, "flaky", max_attempts=2)
    assert (task.status, told(task.error), task.attempt) == (TaskStatus.FAILED, "ValueError: failure 2", 2)


@virtual_time
async def test_a_retry_is_stored_not_slept() -> None:
    """Between attempts nothing runs and no slot is taken; the next process keeps the appointment."""
    bench = Bench(limits=RunnerLimits(tasks=1))
    bench.add("flaky", _flaky(1))
    first = bench.session()
    await first.start()
    head = await begin(first, item("a", "flaky", max_attempts=2, retry=RETRY_IN_AN_HOUR), item("b"))
    await until_event(first, head.id, e.TaskCompleted, "work")
    task = (await tasks_of(first, head.id))["a"]
    assert (task.status, task.is_running, task.runnable_at) == (TaskStatus.IN_PROGRESS, False, EPOCH + 3600)
    assert first.runner.books.running == 0
    await first.close()
    async with bench.session() as second:
        assert await second.resume() == 1
        await second.wait(head.id, has_ended)
    assert elapsed() == pytest.approx(3600)
    assert bench.started == ["a", "b", "a"]


@virtual_time
async def test_no_retry_begins_after_the_deadline() -> None:
    bench = Bench()
    bench.add("flaky", _flaky(5))
    retry = {"initial": 100, "jitter": 0}
    task = await run_one(bench, "flaky", max_attempts=5, retry=retry, deadline=to_timestamp(EPOCH + 50))
    assert (task.status, told(task.error), elapsed()) == (TaskStatus.FAILED, "ValueError: failure 1", 0)


# Cancellation


@virtual_time
async def test_cancel_stops_coroutines_for_real() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, *(item(f"s{i}", "slow") for i in range(100)), item("later", "work", "s0"))
        await settle(10)
        result = await session.cancel(head.id, "enough")
        assert len(bench.ended) == 100
        assert session.runner.books.running == 0
        assert result.head.status is TaskStatus.CANCELLED
        assert result.still_running == ()
        tasks = await tasks_of(session, head.id)
    assert {task.status for task in tasks.values()} == {TaskStatus.CANCELLED}
    assert tasks["s0"].error == "enough"
    assert "later" not in bench.started
    assert elapsed() == 0


@virtual_time
async def test_cancelling_a_task_spares_what_does_not_need_it() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"), item("b", "slow"), item("c", "work", "a"))
        await settle()
        tasks = await tasks_of(session, head.id)
        await session.cancel(tasks["a"].id)
        bench.gate("b").set()
        await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
    assert [tasks[name].status for name in "abc"] == ["cancelled", "completed", "cancelled"]


@virtual_time
async def test_attempts_that_a_cancel_stops_see_its_metadata_and_others_do_not() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"), item("b", "slow"))
        await settle()
        tasks = await tasks_of(session, head.id)
        await session.cancel(tasks["a"].id, metadata={"why": "enough"})
        bench.gate("b").set()
        await session.wait(head.id, has_ended)
        with pytest.raises(TaskNotCancelable):
            await session.cancel(tasks["b"].id, metadata={"why": "too late"})
    assert {c.task.ref: dict(c.cancel_metadata) for c in bench.contexts} == {"a": {"why": "enough"}, "b": {}}


def _with_cancel(bench: Bench, cancel: Any) -> None:
    class WithCancel:
        async def execute(self, inputs: dict[str, Any], context: TaskContext) -> Any:
            try:
                await asyncio.Event().wait()
            finally:
                bench.ended.append("interrupted")

        async def cancel(self) -> None:
            bench.ended.append("cancel called")
            await cancel()

    bench.registry.register(ExecutorSpec(id="with_cancel", make=WithCancel))


async def _nothing() -> None:
    """A cancel() that has nothing to do."""


async def _break_down() -> None:
    raise RuntimeError("cannot cancel")


async def _hang() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(("cancel", "seconds"), [(_nothing, 0), (_break_down, 0), (_hang, STOP_GRACE)])
def test_the_executors_own_cancel_is_called_before_it_is_interrupted(cancel: Any, seconds: float) -> None:
    """Whatever becomes of it, the attempt is interrupted."""

    @virtual_time
    async def check() -> None:
        bench = Bench()
        _with_cancel(bench, cancel)
        async with bench.session() as session:
            head = await begin(session, item("a", "with_cancel"))
            await settle()
            result = await session.cancel(head.id)
        assert bench.ended == ["cancel called", "interrupted"]
        assert result.still_running == ()
        assert elapsed() == seconds

    check()


@virtual_time
async def test_an_executor_that_ignores_its_interruption_is_named_after_the_limit() -> None:
    bench = Bench()

    async def stubborn(inputs: dict[str, Any], context: TaskContext) -> Any:
        while not bench.gate("enough").is_set():
            try:
                await bench.gate("enough").wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    bench.add("stubborn", stubborn)
    async with bench.session() as session:
        head = await begin(session, item("a", "stubborn"))
        await settle()
        task_id = (await tasks_of(session, head.id))["a"].id
        answer = await session.cancel_answer(head.id)
        assert elapsed() == STOP_LIMIT
        assert (answer["status"], answer["still_running"]) == ("cancelled", [task_id])
        assert "not stopped yet" in answer["message"]
        bench.gate("enough").set()
        await settle()
        task = (await tasks_of(session, head.id))["a"]
    assert (task.status, task.result) == (TaskStatus.CANCELLED, None), "a late result is dropped"


@virtual_time
async def test_what_cannot_be_interrupted_runs_to_its_end() -> None:
    bench = Bench()
    bench.add("solid", bench.slow, cancelable=False)
    async with bench.session() as session:
        head = await begin(session, item("a", "solid", result="kept"), item("b", "slow"))
        await settle()
        task_id = (await tasks_of(session, head.id))["a"].id
        alone = await session.cancel_answer(task_id)
        assert alone["status"] == "failed"
        assert "cannot be interrupted" in alone["message"]
        whole = await session.cancel(head.id)
        assert whole.not_cancelable == (task_id,)
        assert whole.head.status is TaskStatus.IN_PROGRESS
        bench.gate("a").set()
        ended = await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
    assert ended.status is TaskStatus.CANCELLED
    assert (tasks["a"].status, tasks["a"].result, tasks["b"].status) == ("completed", "kept", "cancelled")


@virtual_time
async def test_force_interrupts_everything() -> None:
    bench = Bench()
    bench.add("solid", bench.slow, cancelable=False)
    async with bench.session() as session:
        head = await begin(session, item("a", "solid"))
        await settle()
        result = await session.cancel(head.id, force=True)
    assert (result.head.status, result.not_cancelable) == (TaskStatus.CANCELLED, ())
    assert bench.ended == ["a: CancelledError"]


@virtual_time
async def test_a_cancelled_task_that_is_run_again_starts_after_its_old_attempt_has_left() -> None:
    bench = Bench()

    async def careful(inputs: dict[str, Any], context: TaskContext) -> Any:
        if context.attempt > 1:
            return "second"
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)

    bench.add("careful", careful)
    async with bench.session() as session:
        head = await begin(session, item("a", "careful"))
        await settle()
        cancelling = asyncio.create_task(session.cancel(head.id))
        await until_event(session, head.id, e.TreeFinished)
        await session.execute(head.id)
        await session.wait(head.id, has_ended)
        await cancelling
        assert (await tasks_of(session, head.id))["a"].result == "second"
    assert bench.most == 1
    assert bench.ended == ["a: CancelledError", "a"]


@virtual_time
async def test_cancel_and_completion_have_one_winner_and_the_answer_names_it() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow", result=1))
        await settle()
        bench.gate("a").set()
        answer = await session.cancel_answer(head.id)
        ended = await session.wait(head.id, has_ended)
        events = [type(r.event) for r in await session.storage.events(EventQuery(tree_id=head.id))]
    assert events.count(e.TaskCompleted) + events.count(e.TaskCancelled) == 1
    assert (answer["status"] == "cancelled") == (ended.status is TaskStatus.CANCELLED)


@virtual_time
async def test_a_report_of_a_cancelled_attempt_is_dropped() -> None:
    bench = Bench()
    refused: list[str] = []

    async def late(inputs: dict[str, Any], context: TaskContext) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            try:
                await context.progress(0.9)
            except StaleAttempt as error:
                refused.append(type(error).__name__)

    bench.add("late", late)
    async with bench.session() as session:
        head = await begin(session, item("a", "late"))
        await settle()
        await session.cancel(head.id)
        assert (await tasks_of(session, head.id))["a"].progress == 0
    assert refused == ["StaleAttempt"]


# What executors say


@virtual_time
async def test_progress_messages_and_artifacts_reach_the_log_in_order() -> None:
    bench = Bench()

    async def talk(inputs: dict[str, Any], context: TaskContext) -> Any:
        await context.message("hello")
        await context.progress(0.25, "a quarter")
        await context.artifact("one")
        await context.artifact("two", last_chunk=True)
        await context.progress(7)

    bench.add("talk", talk)
    async with bench.session() as session:
        head = await begin(session, item("a", "talk"))
        await session.wait(head.id, has_ended)
        said = [r.event for r in await session.storage.events(EventQuery(tree_id=head.id))]
    kinds = [type(event).__name__ for event in said]
    assert kinds[4:9] == ["MessageSent", "TaskProgressed", "ArtifactAdded", "ArtifactAdded", "TaskProgressed"]
    assert [event.append for event in said if isinstance(event, e.ArtifactAdded)] == [False, True]
    assert [event.fraction for event in said if isinstance(event, e.TaskProgressed)] == [0.25, 1.0]


async def _converse(inputs: dict[str, Any], context: TaskContext) -> Any:
    name = await context.ask("who?")
    return [name, await context.ask("and why?")]


@virtual_time
async def test_a_question_ends_the_attempt_and_its_answer_starts_another() -> None:
    bench = Bench(limits=RunnerLimits(tasks=1))
    bench.add("converse", _converse)
    async with bench.session() as session:
        head = await begin(session, item("a", "converse"))
        head = await session.wait(head.id, lambda h: h.status.is_interrupted)
        assert head.status is TaskStatus.INPUT_REQUIRED
        assert session.runner.books.running == 0
        await session.provide_input(ProvideInput(head.id, "me"))
        await session.wait(head.id, lambda h: h.status.is_interrupted)
        await session.provide_input(ProvideInput(head.id, "because"))
        await session.wait(head.id, has_ended)
        task = (await tasks_of(session, head.id))["a"]
    assert (task.result, task.attempt) == (["me", "because"], 3)


@virtual_time
async def test_a_question_survives_a_restart() -> None:
    bench = Bench()
    bench.add("converse", _converse)
    async with bench.session() as first:
        head = await begin(first, item("a", "converse"))
        await first.wait(head.id, lambda h: h.status.is_interrupted)
        await first.provide_input(ProvideInput(head.id, "me"))
        await first.wait(head.id, lambda h: h.status.is_interrupted and h.version > 7)
    async with bench.session() as second:
        assert await second.resume() == 1
        await second.provide_input(ProvideInput(head.id, "because"))
        await second.wait(head.id, has_ended)
        assert (await tasks_of(second, head.id))["a"].result == ["me", "because"]


@virtual_time
async def test_an_at_most_once_executor_may_not_ask() -> None:
    bench = Bench()
    bench.add("once", _converse, at_most_once=True)
    task = await run_one(bench, "once")
    assert task.status is TaskStatus.FAILED
    assert "at_most_once" in (task.error or "")


# Crash, shutdown, resume


@virtual_time
async def test_after_a_crash_running_tasks_run_again_with_the_same_key() -> None:
    """The next process finds the tree without its owner: a new attempt number, the same idempotency key."""
    bench = Bench()
    first = bench.session()
    await first.start()
    head = await begin(first, item("done", result=1), item("a", "slow", "done"), item("b", "work", "a"))
    await until_event(first, head.id, e.TaskStarted, "slow")
    await settle()
    kill(first)
    second = bench.session()
    await second.start()
    assert await second.resume() == 1
    await settle()
    bench.gate("a").set()
    await second.wait(head.id, has_ended)
    tasks = await tasks_of(second, head.id)
    assert bench.started.count("done") == 1
    assert (tasks["a"].attempt, tasks["a"].crashes, tasks["a"].failures) == (2, 1, 0)
    assert {c.idempotency_key for c in bench.contexts if c.task.key == "a"} == {f"{tasks['a'].id}:1"}
    assert tasks["b"].status is TaskStatus.COMPLETED
    await settle()
    assert (await tasks_of(second, head.id))["a"] == tasks["a"]
    await second.close()


@virtual_time
async def test_an_at_most_once_task_is_not_run_again_after_a_crash() -> None:
    bench = Bench()
    bench.add("once", bench.slow, at_most_once=True)
    first = bench.session()
    await first.start()
    head = await begin(first, item("a", "once", max_attempts=3))
    await settle()
    kill(first)
    async with bench.session() as second:
        await second.resume()
        await second.wait(head.id, has_ended)
        task = (await tasks_of(second, head.id))["a"]
    assert (task.status, task.cause, bench.started) == (TaskStatus.FAILED, Cause.OUTCOME_UNKNOWN, ["a"])


@virtual_time
async def test_a_task_that_takes_five_processes_down_is_poison() -> None:
    bench = Bench()
    session = bench.session()
    await session.start()
    head = await begin(session, item("a", "slow"))
    await settle()
    for _ in range(5):
        kill(session)
        session = bench.session()
        await session.start()
        await session.resume()
        await settle()
    task = (await tasks_of(session, head.id))["a"]
    assert (task.status, task.cause, len(bench.started)) == (TaskStatus.FAILED, Cause.POISON, 5)


@virtual_time
async def test_neighbours_of_a_poisonous_task_are_not_taken_for_poison() -> None:
    """Two crashes of all, then the suspects run one at a time: only the one that crashes the process again ends."""
    bench = Bench()
    session = bench.session()
    await session.start()
    innocent = await begin(session, item("innocent", "slow", result=1))
    await asyncio.sleep(1)
    guilty = await begin(session, item("guilty", "slow"))
    await settle()
    for crash in range(7):
        kill(session)
        session = bench.session()
        await session.start()
        await session.resume()
        await settle()
        started = bench.started[2 * crash :] if crash == 0 else bench.started[-1:]
        assert "guilty" in started or crash == 6
    assert bench.started[:4].count("innocent") == 2
    task = (await tasks_of(session, guilty.id))["guilty"]
    assert (task.status, task.cause, task.lone_crashes) == (TaskStatus.FAILED, Cause.POISON, 4)
    bench.gate("innocent").set()
    await session.wait(innocent.id, has_ended)
    task = (await tasks_of(session, innocent.id))["innocent"]
    assert (task.status, task.lone_crashes) == (TaskStatus.COMPLETED, 0)
    await session.close()


@virtual_time
async def test_no_suspect_starts_while_the_process_ends_around_another_one() -> None:
    """As at the end of `asyncio.run`: it cancels all that runs, and the loop turns on for a while."""
    bench = Bench()
    session = bench.session()
    await session.start()
    for name in ("innocent", "guilty"):
        await begin(session, item(name, "slow"))
        await asyncio.sleep(1)
    for _ in range(2):
        kill(session)
        session = bench.session()
        await session.start()
        await session.resume()
        await settle()
    assert bench.started[4:] == ["guilty"]
    (attempt,) = session.runner.books.attempts.values()
    assert attempt.job is not None
    attempt.job.is_loop_ending = True  # what the job finds when it is cancelled while its loop stands still
    attempt.job.cancel()
    await settle()
    assert bench.started[4:] == ["guilty"]
    kill(session)


@virtual_time
async def test_a_suspect_that_is_cancelled_makes_way_for_the_next_one() -> None:
    bench = Bench()
    session = bench.session()
    await session.start()
    heads = {}
    for name in ("first", "second"):
        heads[name] = await begin(session, item(name, "slow"))
        await asyncio.sleep(1)
    for _ in range(2):
        kill(session)
        session = bench.session()
        await session.start()
        await session.resume()
        await settle()
    assert bench.started[4:] == ["second"]
    await session.cancel(heads["second"].id)
    await settle()
    assert bench.started[4:] == ["second", "first"]
    await session.close()


@virtual_time
async def test_fresh_tasks_wait_for_suspects_only_for_a_time() -> None:
    bench = Bench()
    session = bench.session()
    await session.start()
    for n in range(40):
        await begin(session, item(f"s{n}", "slow"))
    await settle()
    for _ in range(2):
        kill(session)
        session = bench.session()
        await session.start()
        await session.resume()
        await settle()
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert len(bench.started) == 40 + 40 + 1
    fresh = await begin(session, item("fresh", "work"))
    await session.wait(fresh.id, has_ended)
    assert LONGEST_HOLD <= loop.time() - began < LONGEST_HOLD + 1
    assert len(bench.started) >= 80 + LONGEST_HOLD / FIRST_WATCH
    await session.close()


@virtual_time
async def test_a_graceful_close_hands_the_work_over() -> None:
    """Attempts that were stopped by the shutdown count as no crash."""
    bench = Bench()
    async with bench.session() as first:
        head = await begin(first, item("a", "slow", result=1))
        await settle()
    assert bench.ended == ["a: CancelledError"]
    bench.gate("a").set()
    async with bench.session() as second:
        assert await second.resume() == 1
        await second.wait(head.id, has_ended)
        task = (await tasks_of(second, head.id))["a"]
    assert (task.status, task.attempt, task.crashes) == (TaskStatus.COMPLETED, 2, 0)


@virtual_time
async def test_a_graceful_close_waits_for_what_must_not_be_repeated() -> None:
    bench = Bench()

    async def pay(inputs: dict[str, Any], context: TaskContext) -> Any:
        await asyncio.sleep(4)
        return "paid"

    bench.add("pay", pay, at_most_once=True)
    session = bench.session()
    await session.start()
    head = await begin(session, item("a", "pay"))
    await settle()
    await session.close(grace=10)
    assert elapsed() == pytest.approx(4)
    stored = await session.storage.load(head.id)
    assert stored is not None
    assert stored[1][1].result == "paid"


@virtual_time
async def test_nothing_starts_while_closing() -> None:
    bench = Bench(limits=RunnerLimits(tasks=1))
    async with bench.session() as session:
        await begin(session, item("a", "slow"), item("b"))
        await settle()
    assert bench.started == ["a"]


@virtual_time
async def test_an_executor_that_has_gone_fails_its_task_with_what_is_known() -> None:
    bench = Bench()
    async with bench.session() as first:
        head = await begin(first, item("a", "slow"))
        await settle()
    bench.registry.unregister("slow")
    async with bench.session() as second:
        await second.resume()
        await second.wait(head.id, has_ended)
        task = (await tasks_of(second, head.id))["a"]
    assert (task.status, task.cause) == (TaskStatus.FAILED, Cause.UNKNOWN_EXECUTOR)
    assert "'slow'; known are: nap, work" in (task.error or "")


@virtual_time
async def test_an_at_most_once_task_is_not_repeated_after_a_failure_either() -> None:
    """Whether a failed attempt had an effect is not known; the same after a timeout."""
    bench = Bench()
    bench.add("once", _flaky(9), at_most_once=True)
    bench.add("slow_once", bench.slow, at_most_once=True)
    async with bench.session() as session:
        tasks = await finish(
            session, item("a", "once", max_attempts=3), item("b", "slow_once", max_attempts=3, timeout=5)
        )
    assert [(tasks[name].status, tasks[name].attempt) for name in "ab"] == [("failed", 1), ("failed", 1)]
