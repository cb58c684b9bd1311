"""The end of a process: attempts may come to their ends, and only what is left then is interrupted."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from core.executors.base import TaskContext
from core.model.task import Cause, TaskStatus
from core.model.timestamps import to_timestamp
from core.session import Session, has_ended
from tests.core.cores import EPOCH, Bench, begin, item, settle, tasks_of, virtual_time

GRACE = 10.0


def elapsed() -> float:
    return asyncio.get_running_loop().time()


def napping(seconds: float) -> Callable[[dict[str, Any], TaskContext], Any]:
    async def nap(inputs: dict[str, Any], context: TaskContext) -> Any:
        await asyncio.sleep(seconds)
        return f"slept {seconds:g} s"

    return nap


async def drained(bench: Bench, *items: dict[str, Any], **more: Any) -> tuple[Session, str]:
    """A session that was closed while these tasks were running."""
    session = bench.session()
    await session.start()
    head = await begin(session, *items)
    await settle()
    await session.close(GRACE)
    return session, head.id


@virtual_time
async def test_attempts_that_end_within_the_drain_run_once() -> None:
    """Found from outside: SIGTERM interrupted running work at once: 50 of 50 effects came twice."""
    bench = Bench()
    bench.add("nap", napping(4))
    _session, tree_id = await drained(bench, item("a", "nap"), item("b", "nap"))
    assert elapsed() == pytest.approx(4), "the drain is over with its last attempt"
    async with bench.session() as second:
        await second.resume()
        tasks = await tasks_of(second, tree_id)
    assert {task.result for task in (tasks["a"], tasks["b"])} == {"slept 4 s"}
    assert {task.attempt for task in (tasks["a"], tasks["b"])} == {1}


@virtual_time
async def test_what_does_not_end_within_the_drain_is_interrupted_and_handed_over() -> None:
    bench = Bench()
    bench.add("nap", napping(60))
    _session, tree_id = await drained(bench, item("a", "nap"))
    assert elapsed() == pytest.approx(GRACE)
    async with bench.session() as second:
        assert await second.resume() == 1
        await second.wait(tree_id, has_ended)
        task = (await tasks_of(second, tree_id))["a"]
    assert (task.status, task.attempt, task.crashes) == (TaskStatus.COMPLETED, 2, 0)


@virtual_time
async def test_nothing_starts_in_a_drain() -> None:
    """Neither what becomes ready, nor a retry, nor what waits in line; the next process does all of it."""
    bench = Bench()
    bench.add("nap", napping(4))
    tries: list[int] = []

    async def flaky(inputs: dict[str, Any], context: TaskContext) -> Any:
        tries.append(context.attempt)
        await asyncio.sleep(1)
        if context.attempt == 1:
            raise RuntimeError("once")

    bench.add("flaky", flaky)
    retried = item("b", "flaky", max_attempts=2, retry={"initial": 1, "jitter": 0})
    _session, tree_id = await drained(bench, item("a", "nap"), retried, item("c", "work", "a"))
    assert (tries, "c" in bench.started) == ([1], False)
    async with bench.session() as second:
        await second.resume()
        assert (await second.wait(tree_id, has_ended)).status is TaskStatus.COMPLETED
    assert (tries, bench.started.count("c")) == ([1, 2], 1)


@pytest.mark.parametrize(
    ("limits", "cause"),
    [({"timeout": 3}, Cause.TIMEOUT), ({"deadline": to_timestamp(EPOCH + 3)}, Cause.DEADLINE)],
    ids=["timeout", "deadline"],
)
def test_limits_of_time_hold_in_a_drain(limits: dict[str, Any], cause: Cause) -> None:
    @virtual_time
    async def drain() -> None:
        bench = Bench()
        bench.add("nap", napping(8))
        session, tree_id = await drained(bench, item("a", "nap", **limits))
        stored = await session.storage.load(tree_id)
        assert stored is not None
        (task,) = (each for each in stored[1] if each.key == "a")
        assert (task.status, task.cause) == (TaskStatus.FAILED, cause)
        assert elapsed() == pytest.approx(3)

    drain()


@virtual_time
async def test_a_cancel_in_a_drain_stops_its_task() -> None:
    bench = Bench()
    bench.add("nap", napping(8))
    session = bench.session()
    await session.start()
    head = await begin(session, item("a", "nap"))
    await settle()
    closing = asyncio.create_task(session.close(GRACE))
    await asyncio.sleep(1)
    await session.cancel(head.id)
    await closing
    assert elapsed() == pytest.approx(1)


@virtual_time
async def test_followers_see_the_end_of_what_runs_and_wait_for_nothing_else() -> None:
    """Streams of a tree of which nothing runs end at once; the others when their last attempt has ended."""
    bench = Bench()
    bench.add("nap", napping(4))
    bench.add("long", napping(8))
    session = bench.session()
    await session.start()
    idle = (await session.create(session.plan([item("idle")]))).head
    short = await begin(session, item("a", "nap"))
    longer = await begin(session, item("b", "long"), item("c", "work", "b"))
    ended: dict[str, tuple[float, int]] = {}

    async def follow(tree_id: str) -> None:
        seq = 0
        async for recorded in session.follow(tree_id):
            seq = recorded.seq
        ended[tree_id] = (round(elapsed(), 3), seq)

    async with asyncio.TaskGroup() as group:
        for tree_id in (idle.id, short.id, longer.id):
            group.create_task(follow(tree_id))
        waiting = group.create_task(session.wait(longer.id, has_ended))
        await settle()
        await session.stop(GRACE)
    heads = {tree_id: await session.storage.head(tree_id) for tree_id in ended}
    assert ended == {
        tree_id: (at, head.version)
        for (tree_id, head), at in zip(heads.items(), (0, 4, 8), strict=True)
        if head is not None
    }
    assert not has_ended(waiting.result()), "it answers with the tree as it is"
    await session.close()
