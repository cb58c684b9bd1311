"""The fan-in."""

import pytest

from core.executors.builtins.aggregate import INPUT_SCHEMA, OUTPUT_SCHEMA, AggregateExecutor
from core.executors.schema import check_schema, violation
from core.model.inputs import resolve_inputs
from tests.core.executors.context import make_context

RESULTS = {"a": {"x": 1, "y": 1}, "b": None, "c": {"y": 2}, "d": "text"}


@pytest.mark.asyncio
async def test_results_are_collected_under_their_keys_and_missing_ones_named() -> None:
    context = make_context(dependencies=RESULTS, depends_on=("a", "b", "c", "d", "e"))
    result = await AggregateExecutor().execute({}, context)
    assert result == {"results": RESULTS, "count": 4, "missing": ["e"]}
    assert violation(OUTPUT_SCHEMA, result, "result") is None


@pytest.mark.asyncio
async def test_merge_joins_the_fields_of_dict_results_and_later_ones_win() -> None:
    context = make_context(dependencies=RESULTS, depends_on=("a", "b", "c", "d"))
    result = await AggregateExecutor().execute({"mode": "merge"}, context)
    assert result["merged"] == {"x": 1, "y": 2}
    assert result["results"]["a"] == {"x": 1, "y": 1}


@pytest.mark.asyncio
async def test_without_dependencies_there_is_nothing() -> None:
    assert await AggregateExecutor().execute({}, make_context()) == {"results": {}, "count": 0, "missing": []}


@pytest.mark.asyncio
async def test_further_inputs_are_labels_of_the_result() -> None:
    """A date among its inputs failed the task: `a2a-server run` of a file with it ended with 1."""
    result = await AggregateExecutor().execute({"day": "2026-01-31"}, make_context(dependencies={"a": 1}))
    assert result == {"results": {"a": 1}, "count": 1, "missing": [], "labels": {"day": "2026-01-31"}}
    assert violation(OUTPUT_SCHEMA, result, "result") is None


def test_results_of_dependencies_are_not_among_the_inputs() -> None:
    assert resolve_inputs({"day": 1}, {"a": {"x": 1}}, INPUT_SCHEMA) == ({"day": 1}, [])


def test_schemas_are_usable_and_name_what_a_mode_is() -> None:
    check_schema(INPUT_SCHEMA, "it")
    check_schema(OUTPUT_SCHEMA, "it")
    assert violation(INPUT_SCHEMA, {"mode": "sum"}, "inputs") is not None
    assert violation(INPUT_SCHEMA, {"a": 1}, "inputs") is None
