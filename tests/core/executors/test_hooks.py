"""Tests of core.executors.hooks, in whole cores."""

import asyncio
import logging
from typing import Any

import pytest

from core.model.errors import CallerError
from core.model.task import Cause, Task, TaskStatus, TreeHead
from core.session import has_ended
from tests.core.cores import Bench, begin, finish, item, settle, virtual_time


@virtual_time
async def test_hooks_run_before_and_after_each_task_and_tree() -> None:
    bench = Bench()
    seen: list[Any] = []
    hooks = bench.registry.hooks

    @hooks.pre_tree
    def pre_tree(head: TreeHead) -> None:
        seen.append(("pre tree", head.status))

    @hooks.pre_task
    def pre_task(task: Task, inputs: dict[str, Any]) -> None:
        seen.append(("pre", task.key, inputs))

    @hooks.post_task
    async def post_task(task: Task, inputs: dict[str, Any], result: Any) -> None:
        await asyncio.sleep(0)
        seen.append(("post", task.key, result))

    ended = asyncio.Event()

    @hooks.post_tree
    async def post_tree(head: TreeHead) -> None:
        seen.append(("post tree", head.status))
        ended.set()

    async with bench.session() as session:
        await finish(session, item("a", result=5))
        await ended.wait()
    assert seen == [
        ("pre tree", TaskStatus.PENDING),
        ("pre", "a", {"result": 5}),
        ("post", "a", 5),
        ("post tree", TaskStatus.COMPLETED),
    ]


@virtual_time
async def test_a_pre_hook_may_give_other_inputs() -> None:
    bench = Bench()

    @bench.registry.hooks.pre_task
    async def add_user(task: Task, inputs: dict[str, Any]) -> dict[str, Any]:
        return inputs | {"result": "other"}

    async with bench.session() as session:
        tasks = await finish(session, item("a", result=1))
    assert tasks["a"].result == "other"


@virtual_time
async def test_a_pre_hook_that_raises_fails_the_task() -> None:
    bench = Bench()

    @bench.registry.hooks.pre_task
    def refuse(task: Task, inputs: dict[str, Any]) -> None:
        raise PermissionError("not today")

    async with bench.session() as session:
        tasks = await finish(session, item("a"))
    assert (tasks["a"].error or "").startswith("PermissionError: not today (test_hooks.py:")
    assert (tasks["a"].cause, bench.started) == (Cause.EXECUTOR_ERROR, [])


@virtual_time
async def test_a_pre_tree_hook_that_raises_refuses_the_run() -> None:
    bench = Bench()

    @bench.registry.hooks.pre_tree
    async def refuse(head: TreeHead) -> None:
        raise CallerError("closed on Sundays")

    async with bench.session() as session:
        with pytest.raises(CallerError, match="Sundays"):
            await begin(session, item("a"))
        head = (await session.create(session.plan([item("a")]))).head
        with pytest.raises(CallerError, match="Sundays"):
            await session.execute(head.id)
    assert bench.started == []


@virtual_time
async def test_a_post_hook_that_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    @bench.registry.hooks.post_task
    def break_task(task: Task, inputs: dict[str, Any], result: Any) -> None:
        raise RuntimeError("hook")

    @bench.registry.hooks.post_tree
    def break_tree(head: TreeHead) -> None:
        raise RuntimeError("hook")

    with caplog.at_level(logging.ERROR):
        async with bench.session() as session:
            tasks = await finish(session, item("a"))
            await settle()
    assert tasks["root"].status is TaskStatus.COMPLETED
    assert [record.message for record in caplog.records] == ["a post hook failed"] * 2


@virtual_time
async def test_cleared_hooks_are_forgotten() -> None:
    bench = Bench()
    bench.registry.hooks.pre_task(lambda task, inputs: {"result": "hooked"})
    bench.registry.hooks.clear()
    async with bench.session() as session:
        head = await begin(session, item("a", result=1))
        assert (await session.wait(head.id, has_ended)).status is TaskStatus.COMPLETED
    assert bench.inputs["a"] == {"result": 1}
