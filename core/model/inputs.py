"""The inputs of a run: a task's own inputs over the results of its dependencies (semantics §4). Pure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from core.model.jsonvalue import plain
from core.model.task import Task

MOST_SOURCES = 100  # inputs of one attempt of which is recorded where they came from
LONGEST_SOURCE = 200  # characters of the name of such an input


class Replaced(NamedTuple):
    """An input of one dependency that another one's took the place of."""

    name: str
    by_first: str  # the key of the dependency that gave it
    by_second: str  # the key of the one whose value is used

    def __str__(self) -> str:
        what = "the whole result" if self.name == self.by_second else f"the field {self.name!r}"
        return f"the field {self.name!r} of {self.by_first!r} is replaced by {what} of {self.by_second!r}"


def resolve_inputs(
    own: Mapping[str, Any], results: Mapping[str, Any], schema: Mapping[str, Any] | None
) -> tuple[dict[str, Any], list[Replaced]]:
    """Merge the dependencies' results (key -> result, in dependency order) under the task's own inputs.

    The fields of each dict result come first, later dependencies winning, limited to the schema's declared properties;
    then each whole result under its dependency's key, unless the schema forbids additional properties; then the own
    inputs. Told beside: what of a dependency was replaced by something of another one, or by a whole result.
    """
    if not results:
        return dict(own), []
    declared, is_closed = (None, False) if schema is None else _rules(schema)
    merged: dict[str, Any] = {}
    fields_of: dict[str, dict[str, Any]] = {}
    replaced: list[Replaced] = []
    for key, result in results.items():
        if isinstance(result, dict):
            fields = result if declared is None else {k: v for k, v in result.items() if k in declared}
            if fields_of:
                replaced += [Replaced(name, _giver(fields_of, name), key) for name in fields if name in merged]
            fields_of[key] = fields
            merged.update(fields)
    for key, result in results.items():
        if not is_closed or (declared and key in declared):
            if key in merged:
                replaced.append(Replaced(key, _giver(fields_of, key), key))
            merged[key] = result
    merged.update(own)
    return merged, replaced


def sources_of(own: Mapping[str, Any], results: dict[str, Any], schema: Mapping[str, Any] | None) -> dict[str, str]:
    """Of each input that `resolve_inputs` takes from a dependency, the key of that dependency.

    Where name and key are the same it is the whole result, else a field of it. Fields come first, those of the last
    dependency before the others, MOST_SOURCES at most; names of more than LONGEST_SOURCE characters are left out.
    """
    declared, is_closed = (None, False) if schema is None else _rules(schema)
    whole = results if not is_closed else {key: None for key in results if declared and key in declared}
    found: dict[str, str] = {}
    for key in reversed(results):
        result = results[key]
        if not isinstance(result, dict):
            continue
        for name in result if declared is None else declared:
            if len(found) == MOST_SOURCES:
                return found
            if name in result and len(name) <= LONGEST_SOURCE and not (name in own or name in whole):
                found.setdefault(name, key)
    for key in whole:
        if len(found) == MOST_SOURCES:
            break
        if key not in own:
            found[key] = key
    return found


def _rules(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, bool]:
    """The declared properties (None: any will do), and whether there may be no others."""
    is_closed = schema.get("additionalProperties") is False
    return schema.get("properties", {} if is_closed else None), is_closed


def _giver(fields_of: dict[str, dict[str, Any]], name: str) -> str:
    """The last dependency that gave a field of this name."""
    return next(key for key in reversed(fields_of) if name in fields_of[key])


def results_of(tasks: Mapping[str, Task], task: Task) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The results of the task's completed dependencies by key, in dependency order, and the keys of the others."""
    results: dict[str, Any] = {}
    absent: list[str] = []
    for dependency in task.dependencies:
        each = tasks[dependency.id]
        if each.has_result:
            results[each.key] = plain(each.result)
        else:
            absent.append(each.key)
    return results, tuple(absent)
