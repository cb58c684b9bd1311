"""Tests of core.session: create, copy, update, delete, and the answers of cancel."""

import threading
from typing import Any

import pytest

from core.model import events as e
from core.model.commands import ProvideInput
from core.model.copies import copies
from core.model.errors import IllegalCommand, InvalidPlan, NothingToRun, TaskNotCancelable, TaskNotFound, TreeIsRunning
from core.model.submission import Submission
from core.model.task import Dependency, Task, TaskStatus, TreeHead
from core.run.decisions import LARGE_TREE
from core.session import Session, has_ended, needs_caller
from core.storage.base import EventQuery
from tests.core.contents import said, text_of
from tests.core.cores import Bench, begin, item, rooted, settle, tasks_of, until_event, virtual_time


async def store(session: Session, *items: dict[str, Any], **fields: Any) -> TreeHead:
    """A tree at rest."""
    return (await session.create(session.plan(rooted(*items)), **fields)).head


async def run(session: Session, head: TreeHead) -> dict[str, Task]:
    await session.execute(head.id)
    await session.wait(head.id, has_ended)
    return await tasks_of(session, head.id)


# Create and execute


@virtual_time
async def test_a_tree_is_stored_at_rest_and_runs_when_it_is_executed() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(session, item("a"), submission=Submission(context_id="c", metadata={"k": 1}, origin="a2a"))
        await settle()
        assert (head.status, head.size, head.is_live, bench.started) == (TaskStatus.PENDING, 2, False, [])
        stored = await session.storage.load(head.id)
        assert stored is not None and stored[0] == head
        assert (head.context_id, head.metadata, head.origin) == ("c", {"k": 1}, "a2a")
        tasks = await run(session, head)
    assert {task.status for task in tasks.values()} == {TaskStatus.COMPLETED}


@virtual_time
async def test_a_broken_array_stores_nothing() -> None:
    async with Bench().session() as session:
        with pytest.raises(InvalidPlan):
            session.plan(rooted(item("a", "work", "missing")))
        assert await session.storage.live_trees() == []


@virtual_time
async def test_a_running_tree_is_not_started_twice() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"))
        await settle()
        with pytest.raises(TreeIsRunning):
            await session.execute(head.id)
        await session.cancel(head.id)
        with pytest.raises(TaskNotFound):
            await session.execute("nowhere")


@virtual_time
async def test_executing_again_runs_what_is_not_completed() -> None:
    bench = Bench()

    async def flaky(inputs: dict[str, Any], context: Any) -> Any:
        if context.run == 1:
            raise ValueError("first run")
        return context.idempotency_key

    bench.add("flaky", flaky)
    async with bench.session() as session:
        head = await store(session, item("a", result={"n": 1}), item("b", "flaky"), item("c", "work", "b", "a"))
        first = await run(session, head)
        assert [first[name].status for name in "abc"] == ["completed", "failed", "cancelled"]
        second = await run(session, head)
        assert [second[name].status for name in "abc"] == ["completed"] * 3
        assert bench.started == ["a", "b", "b", "c"]
        assert second["b"].result.endswith(":2")
        assert bench.inputs["c"]["a"] == {"n": 1}
        with pytest.raises(IllegalCommand, match="use force"):
            await session.execute(head.id)


@virtual_time
async def test_force_runs_everything_again() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(session, item("a"), item("b", "work", "a"))
        await run(session, head)
        await session.execute(head.id, force=True)
        await session.wait(head.id, lambda h: has_ended(h) and h.run == 2)
    assert bench.started == ["a", "b", "a", "b"]


@virtual_time
async def test_executing_one_task_runs_what_it_needs_and_what_needs_it() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(
            session,
            item("a"),
            item("b", "work", "a"),
            item("c", "work", "b"),
            item("other"),
            item("d", "work", "other"),
        )
        b = (await tasks_of(session, head.id))["b"]
        await session.execute(b.id)
        await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
    assert bench.started == ["a", "b", "c"]
    assert tasks["other"].status is TaskStatus.PENDING


# Update


@virtual_time
async def test_a_pending_task_can_be_changed() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(session, item("a"), item("b"))
        a = (await tasks_of(session, head.id))["a"]
        changes = {"priority": 7, "inputs": {"result": 3}, "dependencies": ["b"], "max_attempts": 2, "timeout": 5}
        changed = await session.update(a.id, changes | {"retry": {"initial": 9}})
        stored = (await tasks_of(session, head.id))["a"]
        assert changed == stored
        b = (await tasks_of(session, head.id))["b"]
        assert stored.dependencies == (Dependency(b.id),), "the caller's own reference is understood"
        assert (stored.priority, stored.inputs, stored.max_attempts, stored.timeout) == (7, {"result": 3}, 2, 5.0)
        assert stored.retry.initial == 9
        tasks = await run(session, head)
    assert (bench.started, tasks["a"].result) == (["b", "a"], 3)


@virtual_time
async def test_an_update_changes_the_executor_with_the_name() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(session, item("a"))
        a = (await tasks_of(session, head.id))["a"]
        assert (await session.update(a.id, {"name": "nap"})).executor == "nap"
        assert (await session.update(a.id, {"schemas": {"method": "work"}})).executor == "work"
        with pytest.raises(InvalidPlan, match=r"unknown executor 'gone'; known are: nap, slow, work"):
            await session.update(a.id, {"schemas": {"method": "gone"}})
        with pytest.raises(InvalidPlan, match="unknown executor 'gone'"):
            await session.update(head.id, {"schemas": {"method": "gone"}})


@virtual_time
async def test_an_update_that_breaks_the_graph_is_refused() -> None:
    async with Bench().session() as session:
        head = await store(session, item("a"), item("b", "work", "a"))
        tasks = await tasks_of(session, head.id)
        for dependencies, reason in (
            (["b"], "a -> b -> a|b -> a -> b"), (["a"], "itself"), (["x"], "no task 'x'"), (["root"], "cycle"),
        ):  # fmt: skip
            with pytest.raises(InvalidPlan, match=reason):
                await session.update(tasks["a"].id, {"dependencies": dependencies})
        with pytest.raises(InvalidPlan) as refusal:
            await session.update(tasks["a"].id, {"priority": "x", "status": "completed", "id": "new"})
        assert sorted(problem.field for problem in refusal.value.problems) == ["id", "priority", "status"]
        assert await tasks_of(session, head.id) == tasks


@virtual_time
async def test_an_empty_dependency_id_is_refused() -> None:
    async with Bench().session() as session:
        head = await store(session, item("a"))
        a = (await tasks_of(session, head.id))["a"]
        with pytest.raises(InvalidPlan, match="dependencies"):
            await session.update(a.id, {"dependencies": [{"id": ""}]})


@virtual_time
async def test_what_has_started_or_ended_is_not_changed() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"), item("b", "work", "a"))
        await settle()
        tasks = await tasks_of(session, head.id)
        with pytest.raises(TreeIsRunning):
            await session.update(tasks["b"].id, {"priority": 1})
        bench.gate("a").set()
        await session.wait(head.id, has_ended)
        with pytest.raises(TreeIsRunning, match="is completed; it can be changed only while pending"):
            await session.update(tasks["a"].id, {"priority": 1})
        with pytest.raises(TaskNotFound):
            await session.update("nowhere", {"priority": 1})


# Delete


@virtual_time
async def test_a_tree_at_rest_is_deleted_as_a_whole() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(session, item("a"))
        a = (await tasks_of(session, head.id))["a"]
        with pytest.raises(TreeIsRunning, match="delete that tree as a whole"):
            await session.delete(a.id)
        await session.delete(head.id)
        assert await session.storage.task(a.id) is None
        for call in (session.delete, session.execute, session.cancel):
            with pytest.raises(TaskNotFound):
                await call(head.id)


@virtual_time
async def test_a_running_tree_is_not_deleted() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"))
        await settle()
        with pytest.raises(TreeIsRunning, match="cancel it first"):
            await session.delete(head.id)
        await session.cancel(head.id)
        await session.delete(head.id)
        assert await session.storage.head(head.id) is None


# Copy


@virtual_time
async def test_a_copy_is_a_new_pending_tree_that_names_its_original() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(session, item("a", priority=7), item("b", "work", "a", inputs={"result": 1}))
        original = await run(session, head)
        copied = (await session.copy(head.id, Submission(context_id="other"))).head
        tasks = await tasks_of(session, copied.id)
        assert (copied.original_task_id, copied.context_id, copied.status) == (head.id, "other", TaskStatus.PENDING)
        assert {task.status for task in tasks.values()} == {TaskStatus.PENDING}
        for name in ("root", "a", "b"):
            assert tasks[name].original_task_id == original[name].id
            assert tasks[name].id != original[name].id
            assert (tasks[name].result, tasks[name].attempt, tasks[name].started_at) == (None, 0, None)
        assert tasks["b"].dependencies == (Dependency(tasks["a"].id),)
        assert (tasks["a"].priority, tasks["b"].inputs) == (7, {"result": 1})
        again = await run(session, copied)
    assert {task.status for task in again.values()} == {TaskStatus.COMPLETED}
    assert bench.started == ["a", "b"] * 2


@virtual_time
async def test_a_copy_may_keep_completed_results() -> None:
    """How a tree born of an A2A message is executed again: in a new tree (semantics §3)."""
    bench = Bench()

    async def flaky(inputs: dict[str, Any], context: Any) -> Any:
        if context.task.original_task_id is None:
            raise ValueError("first")
        return inputs["a"]

    bench.add("flaky", flaky)
    async with bench.session() as session:
        head = await store(session, item("a", result=[1]), item("b", "flaky", "a"))
        await run(session, head)
        copied = (await session.copy(head.id, keep_results=True, execute=True)).head
        await session.wait(copied.id, has_ended)
        tasks = await tasks_of(session, copied.id)
    assert (bench.started, tasks["b"].result) == (["a", "b", "b"], [1])
    assert tasks["root"].status is TaskStatus.COMPLETED


@virtual_time
async def test_a_part_of_a_tree_is_copied_without_what_lies_outside() -> None:
    bench = Bench()
    async with bench.session() as session:
        items = [
            *rooted(item("a"), {"id": "g", "name": "g"}),
            item("x", "work", "a", parent_id="g"), item("y", "work", "x", parent_id="g"),
        ]  # fmt: skip
        head = (await session.create(session.plan(items))).head
        stored = await tasks_of(session, head.id)
        part = await tasks_of(session, (await session.copy(stored["g"].id)).head.id)
        assert set(part) == {"g", "x", "y"}
        assert (part["x"].dependencies, part["y"].dependencies) == ((), (Dependency(part["x"].id),))
        alone = await tasks_of(session, (await session.copy(stored["y"].id, children=False)).head.id)
        assert list(alone) == ["y"]
        with pytest.raises(InvalidPlan, match="'g' cannot be copied without its children"):
            await session.copy(stored["g"].id, children=False)
        with pytest.raises(TaskNotFound):
            await session.copy("nowhere")


@virtual_time
async def test_what_a_run_would_be_refused_with_is_told_without_one() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"))
        with pytest.raises(TreeIsRunning):
            await session.would_execute(head.id)
        done = await begin(session, item("a"))
        done = await session.wait(done.id, has_ended)
        for task_id in (done.id, (await tasks_of(session, done.id))["a"].id):
            with pytest.raises(NothingToRun):
                await session.would_execute(task_id)
            await session.would_execute(task_id, force=True)
        stored = await store(session, item("a"))
        await session.would_execute(stored.id)
        assert await session.storage.head(done.id) == done, "nothing has changed"
        assert await session.storage.head(stored.id) == stored
        with pytest.raises(TaskNotFound):
            await session.would_execute("nowhere")


# Cancel


@virtual_time
async def test_cancel_answers_name_what_happened() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await begin(session, item("a", "slow"))
        await settle()
        answer = await session.cancel_answer(head.id, "stop")
        assert (answer["task_id"], answer["status"]) == (head.id, "cancelled")
        assert "still_running" not in answer
        assert await session.cancel_answer(head.id) == answer, "cancelling a cancelled task is idempotent"
        done = await begin(session, item("a"))
        await session.wait(done.id, has_ended)
        answer = await session.cancel_answer(done.id)
        assert answer["status"] == "failed"
        assert answer["message"] == f"Task {done.id} is already completed, cannot cancel"
        with pytest.raises(TaskNotCancelable):
            await session.cancel(done.id)
        assert await session.cancel_answer("nowhere") == {
            "task_id": "nowhere", "status": "failed", "message": "Task nowhere not found",
        }  # fmt: skip


@virtual_time
async def test_a_tree_at_rest_is_cancelled_at_once() -> None:
    bench = Bench()
    async with bench.session() as session:
        head = await store(session, item("a"))
        result = await session.cancel(head.id, "not needed")
        assert (result.head.status, result.task.status) == (TaskStatus.CANCELLED, TaskStatus.CANCELLED)
        tasks = await tasks_of(session, head.id)
    assert (tasks["a"].status, tasks["a"].error) == (TaskStatus.CANCELLED, "not needed")


# Messages and following


@virtual_time
async def test_messages_and_answers_are_kept_in_the_log() -> None:
    bench = Bench()

    async def curious(inputs: dict[str, Any], context: Any) -> Any:
        return await context.ask("who?", auth=True)

    bench.add("curious", curious)
    async with bench.session() as session:
        plan = session.plan([item("a", "curious")])
        head = (await session.create(plan, Submission(message=said("1")), execute=True)).head
        head = await session.wait(head.id, needs_caller)
        assert head.status is TaskStatus.AUTH_REQUIRED
        await session.receive_message(head.id, said("2"))
        await session.provide_input(ProvideInput(head.id, "me", said("3")))
        await session.wait(head.id, has_ended)
        messages = await session.storage.events(EventQuery(tree_id=head.id, kinds=["message_received"]))
        assert [text_of(r.event.message) for r in messages if isinstance(r.event, e.MessageReceived)] == ["1", "2", "3"]
        for refused in (
            session.receive_message(head.id, said("4")),
            session.provide_input(ProvideInput(head.id, "again")),
        ):
            with pytest.raises(IllegalCommand):
                await refused


@virtual_time
async def test_the_log_is_followed_from_any_place_also_after_a_restart() -> None:
    bench = Bench()
    async with bench.session() as first:
        head = await begin(first, item("a"), item("b", "work", "a"))
        finished = await until_event(first, head.id, e.TreeFinished)
        seen = [r.seq for r in await first.storage.events(EventQuery(tree_id=head.id))]
        assert seen == list(range(1, finished.seq + 1))
    async with bench.session() as second:
        assert await second.resume() == 0
        found = []
        async for recorded in second.follow(head.id, 4):
            found.append(recorded.seq)
            if isinstance(recorded.event, e.TreeFinished):
                break
    assert found == seen[4:]


@virtual_time
async def test_close_may_be_called_twice_and_ends_followers() -> None:
    bench = Bench()
    session = bench.session()
    await session.start()
    head = await store(session, item("a"))
    follower = session.follow(head.id)
    assert isinstance((await anext(follower)).event, e.TreeCreated)
    await session.close()
    await session.close()
    assert [recorded async for recorded in follower] == []
    assert session.is_closed


@virtual_time
async def test_every_broken_rule_of_an_update_is_told_by_the_callers_own_field() -> None:
    async with Bench().session() as session:
        head = await store(session, item("a"), item("b"))
        b = (await tasks_of(session, head.id))["b"]
        changes = {"priority": "x", "dependencies": ["a", "zz"], "schemas": {"method": "nope"}, "deadline": "soon"}
        with pytest.raises(InvalidPlan) as refusal:
            await session.update(b.id, changes)
        fields = sorted(problem.field for problem in refusal.value.problems)
        assert fields == ["deadline", "dependencies[1]", "priority", "schemas.method"]


@pytest.mark.asyncio  # no virtual time: the thread takes real time
@pytest.mark.parametrize("size", [LARGE_TREE - 1, LARGE_TREE + 50])
async def test_a_large_copy_is_put_together_beside_the_event_loop(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def watched(*arguments: Any, **named: Any) -> list[Task]:
        threads.append(threading.current_thread() is threading.main_thread())
        return copies(*arguments, **named)

    monkeypatch.setattr("core.session.copies", watched)
    async with Bench().session() as session:
        items = [item(f"t{n}", "work", *([f"t{n - 1}"] if n else [])) for n in range(size)]
        head = (await session.create(session.plan(rooted(*items)))).head
        copy = (await session.copy(head.id)).head
        before, after = await tasks_of(session, head.id), await tasks_of(session, copy.id)
    assert threads == [size < LARGE_TREE]
    assert (copy.size, copy.original_task_id) == (size + 1, head.id)
    assert [task.original_task_id for task in after.values()] == [task.id for task in before.values()]
    ids = {task.original_task_id: task.id for task in after.values()}
    for task in before.values():
        assert [d.id for d in after[task.key].dependencies] == [ids[d.id] for d in task.dependencies]
