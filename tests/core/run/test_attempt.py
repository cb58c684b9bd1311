"""Tests of core.run.attempt: executors get copies of what is stored, and keep nothing of what is stored of theirs."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from core.executors.base import Parts, TaskContext
from core.loop.large_values import VALUES, measured_in_pieces
from core.model.commands import ProvideInput
from core.model.events import ArtifactAdded, MessageSent
from core.model.in_flight import PER_VALUE
from core.model.submission import Submission
from core.model.task import Task, TaskStatus
from core.run import attempt
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended, needs_caller
from core.storage.base import TreeQuery
from tests.core.cores import Bench, Work, begin, finish, item, rooted, settle, tasks_of, until_event, virtual_time

Look = Callable[[dict[str, Any], TaskContext], Any]  # finds, in what an executor gets, something that can be changed

GIVEN: dict[str, Look] = {
    "its inputs": lambda inputs, context: inputs["list"],
    "the result of a dependency in its inputs": lambda inputs, context: inputs["first"]["items"],
    "a field of that result": lambda inputs, context: inputs["items"],
    "context.dependencies": lambda inputs, context: context.dependencies["first"]["items"],
    "context.task.inputs": lambda inputs, context: context.task.inputs["list"],
    "context.task.params": lambda inputs, context: context.task.params["list"],
    "context.task.schemas": lambda inputs, context: context.task.schemas["list"],
    "context.request": lambda inputs, context: context.request["metadata"]["list"],
    "context.task.answers": lambda inputs, context: context.task.answers[0]["list"],
}


@pytest.mark.parametrize("given", GIVEN)
@virtual_time
async def test_what_an_attempt_changes_is_its_own(given: str) -> None:
    """Found from outside: one task's change of its inputs was seen by its siblings and its retry.

    Neither the next attempt, nor a sibling, nor what is stored sees it.
    """
    bench, seen = Bench(), []

    async def change(inputs: dict[str, Any], context: TaskContext) -> None:
        if not context.task.answers:
            await context.ask("list?")
        found = GIVEN[given](inputs, context)
        seen.append(list(found))
        found.append("changed")
        if context.task.ref == "a" and context.attempt < 4:
            raise RuntimeError("again")

    bench.add("change", change)
    fields = {
        "inputs": {"list": [1, 2]}, "params": {"list": [1, 2]}, "schemas": {"method": "change", "list": [1, 2]},
        "max_attempts": 4, "retry": {"initial": 0.01},
    }  # fmt: skip
    async with bench.session() as session:
        items = [
            item("first", result={"items": [1, 2]}),
            *({"id": name, "name": name, "dependencies": ["first"], **fields} for name in "ab"),
        ]
        head = (
            await session.create(
                session.plan(rooted(*items)), Submission(metadata={"metadata": {"list": [1, 2]}}), execute=True
            )
        ).head
        await session.wait(head.id, needs_caller)
        await settle(100)
        for name in "ab":
            await session.provide_input(ProvideInput((await tasks_of(session, head.id))[name].id, {"list": [1, 2]}))
        ended = await session.wait(head.id, has_ended)
        assert ended.status is TaskStatus.COMPLETED
        assert seen and all(each == [1, 2] for each in seen)
        stored = await tasks_of(session, head.id)
        assert stored["first"].result == {"items": [1, 2]}
        for name in "ab":
            assert (stored[name].inputs, stored[name].params) == ({"list": [1, 2]}, {"list": [1, 2]})
            assert (stored[name].schemas or {})["list"] == [1, 2]
        assert ended.metadata == {"metadata": {"list": [1, 2]}}


@virtual_time
async def test_two_places_of_one_value_are_two_copies() -> None:
    """A field of a result, and the result itself under its dependency's name."""
    bench = Bench()

    async def change(inputs: dict[str, Any], context: TaskContext) -> Any:
        inputs["items"].append(3)
        return inputs["first"]["items"]

    bench.add("change", change)
    async with bench.session() as session:
        ended = await finish(session, item("first", result={"items": [1, 2]}), item("a", "change", "first"))
    assert ended["a"].result == [1, 2]


KEPT: dict[str, Callable[[], Any]] = {
    "a dict": lambda: {"list": [1]},
    "a list": lambda: [[1]],
    "Parts": lambda: Parts([{"data": {"list": [1]}}]),
}


def change(value: Any) -> None:
    """Change the innermost list."""
    while not (isinstance(value, list) and value[:1] == [1]):
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    value.append("changed")


@pytest.mark.parametrize("way", ["result", "artifact", "message", "metadata"])
@pytest.mark.parametrize("kind", KEPT)
@virtual_time
async def test_what_an_executor_gave_is_stored_as_it_was(way: str, kind: str) -> None:
    bench = Bench()
    given = KEPT[kind]()

    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        match way:
            case "artifact":
                await context.artifact(given)
            case "message":
                await context.message(given)
            case "metadata":
                await context.artifact("x", metadata={"given": list(given) if kind == "Parts" else given})
            case "result":
                return given
        change(given)

    bench.add("give", give)
    bench.add("later", bench.slow)
    async with bench.session() as session:
        head = await begin(session, item("a", "give"), item("b", "later", "a"))
        await settle(60)
        if way == "result":
            change(given)
        bench.gate("b").set()
        await session.wait(head.id, has_ended)
        found: Any = (await tasks_of(session, head.id))["a"].result
        if way == "message":
            found = (await until_event(session, head.id, MessageSent)).event
        elif way != "result":
            found = (await until_event(session, head.id, ArtifactAdded)).event
        assert "changed" not in repr(found)
        assert "[1]" in repr(found)


@virtual_time
async def test_a_hook_changes_neither_what_is_stored_nor_the_result() -> None:
    bench = Bench()

    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        return {"list": [1]}

    def before(task: Task, inputs: dict[str, Any]) -> None:
        task.inputs["list"].append("changed")

    def after(task: Task, inputs: dict[str, Any], result: Any) -> None:
        result["list"].append("changed")
        task.inputs["list"].append("changed")

    bench.add("give", give)
    bench.registry.hooks.pre_task(before)
    bench.registry.hooks.post_task(after)
    async with bench.session() as session:
        ended = (await finish(session, item("a", "give", inputs={"list": [1]})))["a"]
    assert (ended.inputs, ended.result) == ({"list": [1]}, {"list": [1]})


# Memory of what is large

MANY = [[n] for n in range(VALUES)]  # more values than are judged on the loop
COUNTED = 2 * PER_VALUE * VALUES  # bytes, at least, that a copy of them takes
OUTPUT = {"type": "array", "uniqueItems": True}  # judged in a process, as its items are compared


class Gated:
    """Judges that answer when a test says so, and note how much memory was counted when they were asked."""

    def __init__(self, session: Session) -> None:
        self.gate = asyncio.Event()
        self.asked = asyncio.Event()
        self.taken: list[int] = []
        self._budget = session.holdings._budget
        session.judges.violation = self.violation  # type: ignore[method-assign]

    async def violation(self, *_: Any) -> None:
        self.taken.append(self._budget.taken)
        self.asked.set()
        await self.gate.wait()


def gives(value: Any) -> Work:
    async def give(inputs: dict[str, Any], context: TaskContext) -> Any:
        return value

    return give


@pytest.mark.parametrize("what", ["its result", "its inputs"])
@pytest.mark.asyncio
async def test_what_is_large_is_counted_before_it_waits_to_be_judged(what: str) -> None:
    """Fifty decoded results of one caller waited for two processes, and no bound knew of them: 5.9 GB."""
    bench = Bench()
    if what == "its result":
        bench.add("tried", gives(MANY), output_schema=OUTPUT)
    else:
        bench.add("tried", gives(None), input_schema={"properties": {"first": OUTPUT}})
    async with bench.session() as session:
        judges, budget = Gated(session), session.holdings._budget
        needs = () if what == "its result" else ("first",)
        first = [] if what == "its result" else [item("first", result=MANY)]
        head = await begin(session, *first, *(item(name, "tried", *needs) for name in "abc"))
        held = budget.taken
        await asyncio.wait_for(judges.asked.wait(), 30)
        while len(judges.taken) < 3:  # noqa: ASYNC110 - threads come in between
            await asyncio.sleep(0)
        assert judges.taken[-1] >= held + 3 * COUNTED
        judges.gate.set()
        await session.wait(head.id, has_ended)
        tasks = await tasks_of(session, head.id)
        assert {tasks[name].status for name in "abc"} == {TaskStatus.COMPLETED}
        await settle()
        assert budget.taken == 0


@pytest.mark.asyncio
async def test_large_results_beyond_the_share_wait_before_there_is_a_copy_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(limits=RunnerLimits(in_flight_per_owner=6 * COUNTED))
    bench.add("tried", gives(MANY))
    copies: list[int] = []

    def watched(*given: Any) -> Any:
        copies.append(session.holdings._budget.taken)
        return measured_in_pieces(*given)

    monkeypatch.setattr(attempt, "measured_in_pieces", watched)
    async with bench.session() as session:
        for _ in range(20):
            await begin(session, item("a", "tried"))
        heads = [each.id for each in (await session.storage.trees(TreeQuery(owner=None))).heads]
        for tree_id in heads:
            assert (await session.wait(tree_id, has_ended)).status is TaskStatus.COMPLETED
    assert len(copies) == 20 and min(copies) >= COUNTED and max(copies) <= 6 * COUNTED


@pytest.mark.parametrize("way", ["its task is cancelled", "the process ends"])
@pytest.mark.asyncio
async def test_an_attempt_whose_result_waits_to_be_judged_can_be_stopped(way: str) -> None:
    """It held its process's end for half a minute; and a result that nobody can judge any more failed its task."""
    bench = Bench()
    bench.add("tried", gives(MANY), output_schema=OUTPUT)
    async with bench.session() as session:
        judges = Gated(session)
        head = await begin(session, item("a", "tried"))
        await asyncio.wait_for(judges.asked.wait(), 30)
        if way == "its task is cancelled":
            await session.cancel(head.id)
            assert (await session.wait(head.id, has_ended)).status is TaskStatus.CANCELLED
        else:
            await session.stop(0.0)
        assert not session.runner.books.attempts
        assert session.holdings._budget.taken == 0 or way == "the process ends"
    if way == "the process ends":
        async with bench.session() as session:
            Gated(session).gate.set()
            await session.resume()
            assert (await session.wait(head.id, has_ended)).status is TaskStatus.COMPLETED
