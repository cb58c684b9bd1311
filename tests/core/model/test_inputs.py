"""Tests of core.model.inputs (semantics §4)."""

from typing import Any

import pytest
from msgspec.structs import replace

from core.executors.base import TaskContext
from core.model import events as e
from core.model.inputs import LONGEST_SOURCE, MOST_SOURCES, resolve_inputs, results_of, sources_of
from core.model.streaming import stream_event
from core.model.task import Dependency, On, Task, TaskStatus
from core.session import has_ended
from core.storage.base import EventQuery
from tests.core.cores import Bench, begin, finish, item, virtual_time

OPEN = {"type": "object", "properties": {"x": {}, "y": {}}}
CLOSED = OPEN | {"additionalProperties": False}


def merged(own: dict[str, Any], results: dict[str, Any], schema: dict[str, Any] | None) -> dict[str, Any]:
    return resolve_inputs(own, results, schema)[0]


def test_own_inputs_are_all_there_is_without_dependencies() -> None:
    assert merged({"a": 1}, {}, None) == {"a": 1}


def test_fields_of_dict_results_are_merged_and_later_dependencies_win() -> None:
    found = merged({}, {"one": {"x": 1, "y": 1}, "two": {"x": 2}}, None)
    assert (found["x"], found["y"]) == (2, 1)


def test_each_result_is_there_whole_under_its_dependency() -> None:
    found = merged({}, {"one": {"x": 1}, "two": [1, 2], "three": None}, None)
    assert (found["one"], found["two"], found["three"]) == ({"x": 1}, [1, 2], None)


def test_own_inputs_win_over_everything() -> None:
    found = merged({"x": "own", "one": "own too"}, {"one": {"x": 1}}, None)
    assert found == {"x": "own", "one": "own too"}


def test_a_whole_result_wins_over_a_field_of_the_same_name() -> None:
    assert merged({}, {"one": {"two": "field"}, "two": "whole"}, None)["two"] == "whole"


def test_only_declared_properties_are_merged() -> None:
    found = merged({}, {"one": {"x": 1, "z": 3}}, OPEN)
    assert found == {"x": 1, "one": {"x": 1, "z": 3}}


def test_a_closed_schema_gets_no_whole_results_but_declared_ones() -> None:
    found = merged({}, {"one": {"y": 2, "z": 3}, "x": 7}, CLOSED)
    assert found == {"y": 2, "x": 7}


def test_a_closed_schema_without_properties_gets_only_own_inputs() -> None:
    assert merged({}, {"one": 1, "two": {"x": 1}}, {"additionalProperties": False}) == {}


def test_nothing_given_is_changed() -> None:
    own, results = {"a": 1}, {"one": {"x": 1}}
    merged(own, results, None)["b"] = 2
    assert (own, results) == ({"a": 1}, {"one": {"x": 1}})


def test_results_come_by_key_in_the_order_of_dependencies_and_what_is_missing_is_named() -> None:
    done, failed = (Task(id=name, ref=f"ref-{name}", name=name, created_at=0.0) for name in ("done", "failed"))
    done = replace(done, status=TaskStatus.COMPLETED, result={"$parts": [{"text": "x"}]})
    failed = replace(failed, status=TaskStatus.FAILED)
    needs = (Dependency("failed", On.ANY), Dependency("done"))
    task = Task(id="t", name="t", dependencies=needs, created_at=0.0)
    found = results_of({"done": done, "failed": failed, "t": task}, task)
    assert found == ({"ref-done": [{"text": "x"}]}, ("ref-failed",))


@pytest.mark.parametrize(
    ("results", "schema", "told"),
    [
        ({"one": {"x": 1}, "two": {"y": 2}}, None, []),
        ({"one": {"x": 1}, "two": {"x": 2}}, None, ["the field 'x' of 'one' is replaced by the field 'x' of 'two'"]),
        ({"one": {"two": 1}, "two": 5}, None, ["the field 'two' of 'one' is replaced by the whole result of 'two'"]),
        ({"one": {"one": 1}}, None, ["the field 'one' of 'one' is replaced by the whole result of 'one'"]),
        (
            {"a": {"x": 1}, "b": {"x": 2}, "c": {"x": 3}},
            None,
            [
                "the field 'x' of 'a' is replaced by the field 'x' of 'b'",
                "the field 'x' of 'b' is replaced by the field 'x' of 'c'",
            ],
        ),
        ({"one": {"z": 1}, "two": {"z": 2}}, OPEN, []),
        ({"one": {"x": 1}, "two": [1]}, None, []),
        ({"one": {"two": 1}, "two": 5}, CLOSED, []),
    ],
)
def test_what_takes_the_place_of_something_with_its_name_is_told(
    results: dict[str, Any], schema: dict[str, Any] | None, told: list[str]
) -> None:
    _, replaced = resolve_inputs({}, results, schema)
    assert list(map(str, replaced)) == told


@virtual_time
async def test_inputs_with_one_name_are_a_warning_that_names_both_dependencies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Found from outside: one result's field silently replaced another's."""
    async with Bench().session() as session:
        one, two = item("one", result={"x": 1, "y": 1}), item("two", result={"x": 2, "y": 2})
        await finish(session, one, two, item("both", "work", "one", "two", inputs={"y": "own"}))
    (record,) = [each for each in caplog.records if each.name == "core.run.attempt" and each.levelname == "WARNING"]
    assert record.getMessage().endswith(
        "have the same name: the field 'x' of 'one' is replaced by the field 'x' of 'two'"
    )


@pytest.mark.parametrize("schema", [None, OPEN, CLOSED, {"additionalProperties": False}, {"properties": {"z": {}}}])
@pytest.mark.parametrize("own", [{}, {"x": "own"}, {"one": "own", "two": "own"}])
@pytest.mark.parametrize(
    "results",
    [
        {},
        {"one": {"x": "one"}},
        {"one": {"x": "one", "y": "one"}, "two": {"x": "two", "z": "two"}},
        {"one": {"two": "one", "z": "one"}, "two": ["whole"]},
        {"x": {"x": "field", "y": "x"}, "one": None},
        {"one": "text", "two": {"one": "two"}},
    ],
)
def test_the_source_of_each_input_is_the_dependency_that_gave_its_value(
    own: dict[str, Any], results: dict[str, Any], schema: dict[str, Any] | None
) -> None:
    found = merged(own, results, schema)
    sources = sources_of(own, results, schema)
    assert set(sources) == set(found) - set(own)
    for name, key in sources.items():
        assert found[name] == (results[key] if name == key else results[key][name])


def test_as_many_sources_are_recorded_as_are_worth_reading() -> None:
    wide = {f"n{n}": n for n in range(MOST_SOURCES - 1)}
    assert len(sources_of({}, {"one": wide}, None)) == MOST_SOURCES
    assert len(sources_of({}, {"one": wide, "two": {"x": 1, "y": 2}}, None)) == MOST_SOURCES
    assert sources_of({}, {f"d{n}": None for n in range(MOST_SOURCES + 1)}, None).keys() >= {
        "d0",
        f"d{MOST_SOURCES - 1}",
    }
    assert len(sources_of({}, {f"d{n}": None for n in range(MOST_SOURCES + 1)}, None)) == MOST_SOURCES
    long = "n" * LONGEST_SOURCE
    assert sources_of({}, {"one": {long: 1, long + "n": 2}}, None) == {long: "one", "one": "one"}


@virtual_time
async def test_the_record_of_each_attempt_tells_where_its_inputs_came_from() -> None:
    """Of each attempt, also of a repeated one, as the stored events tell it to a client."""
    bench = Bench()

    async def twice(inputs: dict[str, Any], context: TaskContext) -> None:
        if context.attempt == 1:
            raise RuntimeError("once more")

    bench.add("twice", twice)
    async with bench.session() as session:
        one, two = item("one", result={"x": 1, "y": 1}), item("two", result={"x": 2, "y": 2})
        both = item("both", "twice", "one", "two", inputs={"y": "own"}, max_attempts=2)
        head = await begin(session, one, two, both)
        await session.wait(head.id, has_ended)
        log = await session.storage.events(EventQuery(tree_id=head.id, after=0))
    starts = [each for each in log if isinstance(each.event, e.TaskStarted)]
    told = [(each.name, (stream_event(each) or {}).get("inputs_from")) for each in starts]
    given = {"x": "two", "one": "one", "two": "two"}
    assert told == [("work", None), ("work", None), ("twice", given), ("twice", given)]


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        (None, {"x": "one", "y": "one", "one": "one"}),
        (OPEN, {"x": "one", "y": "one", "one": "one"}),
        (CLOSED, {"x": "one", "y": "one"}),
    ],
)
@virtual_time
async def test_a_tasks_own_schema_decides_what_is_recorded_as_it_decides_what_it_gets(
    own: dict[str, Any] | None, expected: dict[str, str]
) -> None:
    bench = Bench()
    schemas = {} if own is None else {"schemas": {"input_schema": own}}
    async with bench.session() as session:
        head = await begin(session, item("one", result={"x": 1, "y": 2}), item("two", "work", "one", **schemas))
        await session.wait(head.id, has_ended)
        log = await session.storage.events(EventQuery(tree_id=head.id, after=0))
    starts = [each.event for each in log if isinstance(each.event, e.TaskStarted)]
    assert starts[-1].inputs_from == expected
    assert bench.inputs["two"].keys() == expected.keys()
