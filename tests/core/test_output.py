"""An attempt's output on its way to the disk: many pieces share a write, and none is lost without a word."""

import asyncio
from typing import Any

import pytest

from core.executors import base
from core.executors.base import Rejected, TaskContext
from core.executors.builtins.aggregate import aggregate_results_spec
from core.model import events as e
from core.model.errors import StaleAttempt, StorageError, StorageUnavailable
from core.model.jsonvalue import measured
from core.model.task import TaskStatus
from core.run import attempt
from core.run.runner_limits import RunnerLimits
from core.session import Session, has_ended
from core.storage.base import EventQuery
from tests.core.contents import text_of
from tests.core.cores import Bench, FaultyStorage, begin, finish, item, settle, tasks_of, virtual_time


class Giver:
    """A core whose executor gives pieces of output when it runs, and how far it came."""

    def __init__(self, pieces: int, then: Any = None) -> None:
        self.storage = FaultyStorage()
        self.bench = Bench(storage=self.storage)
        self.given = 0
        self.pieces, self.then = pieces, then
        self.go = asyncio.Event()
        self.bench.add("give", self.give)

    async def give(self, inputs: dict[str, Any], context: TaskContext) -> Any:
        await self.go.wait()
        for n in range(self.pieces):
            await context.artifact(f"{n};")
            self.given += 1
        if isinstance(self.then, BaseException):
            raise self.then
        return await self.then(context) if self.then else None

    async def run_with_held_storage(self, session: Session) -> str:
        """The tree's id, as soon as the executor has come as far as it does while nothing is stored."""
        head = await begin(session, item("a", "give"))
        await settle()
        self.storage.held = []
        self.go.set()
        await settle(2 * self.pieces)
        return head.id


async def told(session: Session, tree_id: str) -> str:
    events = await session.storage.events(EventQuery(tree_id=tree_id, after=0, limit=1000))
    return "".join(text_of(x.event.artifact) for x in events if isinstance(x.event, e.ArtifactAdded))


@virtual_time
async def test_pieces_do_not_wait_for_each_other_and_the_task_waits_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_UNSTORED", 10)
    giver = Giver(8)
    async with giver.bench.session() as session:
        tree_id = await giver.run_with_held_storage(session)
        assert giver.given == 8
        assert giver.bench.ended == ["a"]
        assert await told(session, tree_id) == ""
        assert not any(isinstance(x.event, e.TaskCompleted) for append in giver.storage.appends for x in append.events)
        giver.storage.release()
        await session.wait(tree_id, has_ended)
        assert await told(session, tree_id) == "0;1;2;3;4;5;6;7;"


@pytest.mark.parametrize(("pieces", "size"), [(3, 1_000_000), (1_000, 2 * 61)])
@virtual_time
async def test_only_so_much_is_on_its_way(pieces: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By number, and by size: of pieces of some 60 bytes each."""
    monkeypatch.setattr(base, "MAX_UNSTORED", pieces)
    monkeypatch.setattr(base, "MAX_UNSTORED_SIZE", size)
    giver = Giver(8)
    async with giver.bench.session() as session:
        tree_id = await giver.run_with_held_storage(session)
        assert giver.given == min(pieces, 2 if size < 1_000 else pieces)
        giver.storage.release()
        assert (await session.wait(tree_id, has_ended)).status is TaskStatus.COMPLETED


@pytest.mark.parametrize("ending", [None, Rejected("no"), "ask", "caught"])
@virtual_time
async def test_a_lost_piece_fails_the_attempt_however_it_ends(ending: Any) -> None:
    """Else there would be a gap in what its caller reads, and a task that has ended well."""

    async def ask(context: TaskContext) -> Any:
        return await context.ask("more?")

    async def go_on(context: TaskContext) -> Any:
        """Nothing may follow the gap, whatever the executor makes of the error."""
        await settle(200)
        for _ in range(2):
            with pytest.raises(StorageError):
                await context.artifact("after;")

    giver = Giver(3, {"ask": ask, "caught": go_on}.get(ending, ending) if isinstance(ending, str) else ending)
    async with giver.bench.session() as session:
        tree_id = await giver.run_with_held_storage(session)
        giver.storage.fail_held(*(StorageUnavailable("disk full") for _ in giver.storage.held or ()))
        await session.wait(tree_id, has_ended)
        task = (await tasks_of(session, tree_id))["a"]
        assert (task.status, task.error) == (TaskStatus.FAILED, "disk full")
        assert "after" not in await told(session, tree_id)


@virtual_time
async def test_a_piece_of_an_attempt_that_does_not_own_its_task_any_more_is_refused() -> None:
    giver = Giver(1)
    async with giver.bench.session() as session:
        giver.go.set()
        head = await begin(session, item("a", "give"))
        await session.wait(head.id, has_ended)
        with pytest.raises(StaleAttempt):
            await giver.bench.contexts[0].artifact("late;")
        assert await told(session, head.id) == "0;"


async def _gather(inputs: dict[str, Any], context: TaskContext) -> Any:
    return {"gathered": list(context.dependencies.values())}


async def _echo(inputs: dict[str, Any], context: TaskContext) -> Any:
    return context.dependencies


@virtual_time
@pytest.mark.parametrize("executor", ["gather", "echo", "aggregate_results_executor"])
async def test_what_many_tasks_gave_is_refused_before_all_of_it_is_encoded(
    executor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(limits=RunnerLimits(artifact=1000))
    bench.add("gather", _gather)
    bench.add("echo", _echo)
    bench.registry.register(aggregate_results_spec)
    leaves = [f"l{n}" for n in range(100)]
    judged: list[int] = []

    def counted(value: Any, what: str, limit: int) -> tuple[Any, bytes]:
        found = measured(value, what, limit)
        judged.append(len(found[1]))
        return found

    monkeypatch.setattr(attempt, "measured", counted)
    async with bench.session() as session:
        tasks = await finish(
            session, *(item(leaf, result="x" * 600) for leaf in leaves), item("all", executor, *leaves)
        )
    assert tasks["all"].status is TaskStatus.FAILED
    assert "the result has at least 1" in (tasks["all"].error or "")
    assert "bytes of JSON; 1000 are allowed" in (tasks["all"].error or "")
    assert judged == [602] * 100, "only the leaves' results were encoded as a whole"
