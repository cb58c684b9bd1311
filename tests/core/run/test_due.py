"""Tests of core.run.due: the times of groups and of those that wait for a slot, in whole cores."""

from typing import Any

import pytest

from core.model import events as e
from core.model.task import Cause, TaskStatus
from core.model.timestamps import from_timestamp, to_timestamp
from core.run.runner_limits import RunnerLimits
from core.session import has_ended
from tests.core.cores import EPOCH, Bench, begin, finish, item, kill, tasks_of, until_event, virtual_time
from tests.core.run.test_runner import elapsed

FAILED = TaskStatus.FAILED


def grouped(key: str, **fields: Any) -> dict[str, Any]:
    return {"id": key, "name": f"the {key}", **fields}


@pytest.mark.parametrize(
    ("times", "cause"),
    [({"deadline": to_timestamp(EPOCH + 60)}, Cause.DEADLINE), ({"timeout": 60}, Cause.TIMEOUT)],
)
@virtual_time
async def test_the_time_of_a_group_stops_what_runs_below_it(times: dict[str, Any], cause: Cause) -> None:
    bench = Bench()
    async with bench.session() as session:
        tasks = await finish(
            session, grouped("g", **times), item("a", "slow", parent_id="g"), item("b", "work", "a", parent_id="g")
        )
    assert elapsed() == pytest.approx(60)
    assert [(tasks[i].status, tasks[i].cause) for i in "ab"] == [(FAILED, cause)] * 2
    assert (tasks["g"].status, bench.ended) == (FAILED, ["a: CancelledError"])


@virtual_time
async def test_the_timeout_of_a_group_goes_on_after_a_crash() -> None:
    """It counts from the stored start of the group, not from that of the process."""
    bench = Bench()
    session = bench.session()
    await session.start()
    head = await begin(session, grouped("g", timeout=60), item("a", "slow", parent_id="g"))
    await until_event(session, head.id, e.TaskStarted)
    kill(session)
    async with bench.session() as again:
        await again.resume()
        await again.wait(head.id, has_ended)
        tasks = await tasks_of(again, head.id)
    assert elapsed() == pytest.approx(60)
    assert tasks["a"].cause is Cause.TIMEOUT


@virtual_time
async def test_an_executor_sees_the_earliest_deadline() -> None:
    bench = Bench()
    late, early = to_timestamp(EPOCH + 500), to_timestamp(EPOCH + 100)
    async with bench.session() as session:
        await finish(
            session, grouped("g", deadline=early), item("a", parent_id="g", deadline=late), item("b", parent_id="g"),
            item("c"), item("d", deadline=late),
        )  # fmt: skip
    seen = {context.task.key: context.deadline for context in bench.contexts}
    assert {key: when and when.timestamp() for key, when in seen.items()} == {
        "a": from_timestamp(early), "b": from_timestamp(early), "c": None, "d": from_timestamp(late),
    }  # fmt: skip


@virtual_time
async def test_a_task_that_gets_no_slot_in_its_time_fails_and_others_go_on() -> None:
    bench = Bench(limits=RunnerLimits(tasks=1))
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"), item("b", queue_timeout=30), item("c", queue_timeout=300))
        failed = await until_event(session, head.id, e.TaskFailed)
        assert elapsed() == pytest.approx(30)
        assert isinstance(failed.event, e.TaskFailed) and failed.event.cause is Cause.QUEUE_TIMEOUT
        bench.gate("a").set()
        await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
    assert [tasks[i].status for i in "abc"] == ["completed", "failed", "completed"]
    assert "b" not in bench.started


@virtual_time
async def test_a_tree_whose_group_was_in_time_is_not_ended_later() -> None:
    bench = Bench()
    async with bench.session() as session:
        tasks = await finish(session, grouped("g", timeout=60), item("a", parent_id="g"), item("b", "slow", timeout=90))
    assert (tasks["a"].status, tasks["g"].status) == ("completed", "completed")
    assert tasks["b"].cause is Cause.TIMEOUT
