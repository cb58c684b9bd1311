"""The inputs of a run: a task's own inputs over the results of its dependencies (semantics §4). Pure."""

from collections.abc import Mapping
from typing import Any

from core.jsonvalue import plain
from core.task import Task


def resolve_inputs(
    own: Mapping[str, Any], results: Mapping[str, Any], schema: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Merge the dependencies' results (key -> result, in dependency order) under the task's own inputs.

    The fields of each dict result come first, later dependencies winning, limited to the schema's declared properties;
    then each whole result under its dependency's key, unless the schema forbids additional properties; then the own
    inputs.
    """
    declared = schema.get("properties") if schema is not None else None
    is_closed = schema is not None and schema.get("additionalProperties") is False
    merged: dict[str, Any] = {}
    for result in results.values():
        if isinstance(result, dict):
            merged.update(result if declared is None else {k: v for k, v in result.items() if k in declared})
    for key, result in results.items():
        if not is_closed or (declared is not None and key in declared):
            merged[key] = result
    merged.update(own)
    return merged


def results_of(tasks: Mapping[str, Task], task: Task) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The results of the task's completed dependencies by key, in dependency order, and the keys of the others."""
    found = [tasks[dependency.id] for dependency in task.dependencies]
    results = {each.key: plain(each.result) for each in found if each.has_result}
    return results, tuple(each.key for each in found if each.key not in results)
