"""The input schemas that tasks bring: bounded, and judged where that holds up nobody."""

import asyncio
import dataclasses
from typing import Any

import pytest

from core.executors.judges import Judges
from core.executors.schema import judge_schema
from core.model.errors import InvalidPlan
from core.model.task import Cause, TaskStatus
from core.run import brought_schemas
from core.run.brought_schemas import BroughtSchemas
from core.session import Session, has_ended
from core.storage.memory import MemoryStorage
from tests.core.cores import Bench, begin, finish, item, tasks_of

LARGE = {"properties": {f"p{n}": {"type": "integer"} for n in range(100)}}
LARGE_AND_WRONG = LARGE | {"type": "no such type"}


def schema(parts: int) -> dict[str, Any]:
    """With so many parts, different for each number."""
    return {"enum": list(range(parts - 2))}


def bring(key: str, own: Any, executor: str = "work", **fields: Any) -> dict[str, Any]:
    return item(key, executor, schemas={"input_schema": own}, **fields)


def test_small_schemas_are_judged_on_the_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[Any] = []
    monkeypatch.setattr(brought_schemas, "judge_schema", lambda each: judged.append(each) or judge_schema(each))
    brought = BroughtSchemas()
    for _ in range(3):
        assert brought.judge({"type": "string"}) is None
        assert str(brought.judge({"type": 5})).startswith("is not a usable JSON Schema")
    assert judged == [{"type": "string"}, {"type": 5}], "each is judged once"


def test_only_so_much_is_judged_on_the_spot(monkeypatch: pytest.MonkeyPatch) -> None:
    """One large schema, or many small ones: both wait for another process."""
    judged: list[Any] = []
    monkeypatch.setattr(brought_schemas, "judge_schema", judged.append)
    for parts in (65, 20):
        judged.clear()
        brought = BroughtSchemas()
        for n in range(100):
            assert brought.judge(schema(parts) | {"title": str(n)}) is None
        assert len(judged) == (0 if parts == 65 else 6)


def test_schemas_of_one_request_are_bounded() -> None:
    """Found from outside: 3 MiB of small schemas in one request blocked the event loop for 38 s."""
    brought = BroughtSchemas()
    assert brought.judge({"enum": ["x" * 65_000]}) is None
    assert brought.judge({"enum": ["x" * 66_000]}) == "has more than 65536 bytes"
    told = [brought.judge(schema(1000) | {"title": str(n)}) for n in range(12)]
    assert told[:9] == [None] * 9
    assert set(told[9:]) == {"is one too many: the different schemas of one request may have 10000 parts"}


def test_what_is_no_json_is_told() -> None:
    assert str(BroughtSchemas().judge({"enum": [object()]})).startswith("is not a usable JSON Schema")


@pytest.mark.asyncio
async def test_large_schema_is_judged_before_the_tree_is_stored() -> None:
    bench = Bench()
    async with Session(MemoryStorage(), registry=bench.registry) as session:
        assert (await finish(session, bring("a", LARGE, result=1)))["a"].status is TaskStatus.COMPLETED
        with pytest.raises(InvalidPlan) as caught:
            await begin(session, item("a"), bring("b", LARGE_AND_WRONG), bring("c", LARGE), bring("d", LARGE_AND_WRONG))
        assert [each.field for each in caught.value.problems] == [f"tasks[{n}].schemas.input_schema" for n in (2, 4)]
        assert "is not a usable JSON Schema" in str(caught.value)
        assert await session.storage.live_trees() == []


@pytest.mark.asyncio
async def test_large_schema_of_a_change_is_judged_too() -> None:
    bench = Bench()
    async with Session(MemoryStorage(), registry=bench.registry) as session:
        head = (await session.create(session.plan([item("a")]))).head
        with pytest.raises(InvalidPlan, match=r"^schemas\.input_schema: is not a usable JSON Schema"):
            await session.update(head.id, {"schemas": {"input_schema": LARGE_AND_WRONG}})
        assert (await session.update(head.id, {"schemas": {"input_schema": LARGE}})).schemas is not None


@pytest.mark.asyncio
async def test_schema_that_cannot_be_judged_in_time_is_refused_by_its_field() -> None:
    bench = Bench()
    async with Session(MemoryStorage(), registry=bench.registry) as session:
        session.judges = Judges(seconds=1e-9)
        with pytest.raises(InvalidPlan, match=r"^tasks\[1\]\.schemas\.input_schema: cannot be validated: "):
            await begin(session, bring("a", LARGE))
        await session.judges.close()


async def ended(session: Session, *items: dict[str, Any]) -> dict[str, Any]:
    head = await begin(session, *items)
    await session.wait(head.id, has_ended)
    return await tasks_of(session, head.id)


# The value or the schema is large, the schema is the task's or the executor's, of its inputs or its result.
VALUES = list(range(5000))
JUDGED = {
    "own schema": bring("a", {"properties": {"n": {"items": {"type": "string"}}}}, inputs={"n": VALUES}),
    "own large schema": bring(
        "a", {"properties": LARGE["properties"] | {"n": {"items": {"type": "string"}}}}, inputs={"n": [0]}
    ),
    "executor's schema": item("a", "strict", inputs={"n": VALUES}),
    "output schema": item("a", "strict result", result=VALUES),
}


@pytest.mark.asyncio
@pytest.mark.parametrize("what", JUDGED)
async def test_costly_judgement_is_made_in_another_process(what: str) -> None:
    bench = Bench()
    bench.add("strict", bench.work, input_schema={"properties": {"n": {"items": {"type": "string"}}}})
    bench.add("strict result", bench.work, output_schema={"items": {"type": "string"}})
    async with Session(MemoryStorage(), registry=bench.registry) as session:
        task = (await ended(session, JUDGED[what]))["a"]
        cause = Cause.INVALID_RESULT if what == "output schema" else Cause.INVALID_INPUT
        assert (task.status, task.cause) == (TaskStatus.FAILED, cause)
        assert "0 is not of type 'string'" in str(task.error)


@pytest.mark.asyncio
@pytest.mark.parametrize("what", JUDGED)
async def test_endless_judgement_fails_its_task(what: str) -> None:
    bench = Bench()
    bench.add("strict", bench.work, input_schema={"properties": {"n": {"items": {"type": "string"}}}})
    bench.add("strict result", bench.work, output_schema={"items": {"type": "string"}})
    async with Session(MemoryStorage(), registry=bench.registry) as session:
        head = (
            await session.create(session.plan([{"id": "root", "name": "root"}, {"parent_id": "root", **JUDGED[what]}]))
        ).head
        await session.judges.close()
        hurried = Judges(seconds=1e-9)
        session.runner.attempts._means = dataclasses.replace(session.runner.attempts._means, judges=hurried)
        await session.execute(head.id)
        await session.wait(head.id, has_ended)
        task = (await tasks_of(session, head.id))["a"]
        root = "result" if what == "output schema" else "inputs"
        assert task.error == f"{root}: cannot be validated by the schema: validating it takes more than 1e-09 s"
        await hurried.close()


@pytest.mark.asyncio
async def test_others_go_on_while_a_value_is_judged() -> None:
    """Found from outside: a caller's schema of 49 kB blocked the event loop for 19 s."""
    bench = Bench()
    async with Session(MemoryStorage(), registry=bench.registry) as session:
        own = {"properties": {"n": {"items": {"enum": [*range(1, 100), 0]}}}}
        head = await begin(session, bring("a", own, inputs={"n": [0] * 5_000}))
        waiting = asyncio.ensure_future(session.wait(head.id, has_ended))
        others = 0
        while not waiting.done():
            await finish(session, item("b"))
            others += 1
        assert others > 1
        assert (await tasks_of(session, head.id))["a"].status is TaskStatus.COMPLETED
