"""The fan-in."""

import pytest

from core.executors.builtins.aggregate import INPUT_SCHEMA, OUTPUT_SCHEMA, AggregateExecutor
from core.executors.schema import check_schema, violation
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


def test_schemas_are_usable_and_closed() -> None:
    check_schema(INPUT_SCHEMA, "it")
    check_schema(OUTPUT_SCHEMA, "it")
    assert violation(INPUT_SCHEMA, {"a": 1}, "inputs") is not None
