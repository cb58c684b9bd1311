"""The assertions of ACTS (§5). Pure. What is not known here is an error of the case, never a pass.

The published cases use two things that the document does not have, and both are known here: `items` (a list for the
first elements of an array, a map for every one) and the combinators over nested maps.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
OPERATORS = frozenset(("type", "exists", "absent", "one_of", "all_of", "any_of", "not", "items"))
OPERATORS |= {"contains", "matches", "starts_with", "ends_with"}
OPERATORS |= {"gte", "lte", "gt", "lt", "count", "count_gte", "count_lte"}
TERMINAL = frozenset(f"TASK_STATE_{state}" for state in ("COMPLETED", "FAILED", "CANCELED", "REJECTED"))
STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\*)\]")


class Missing:
    """What stands for a field that is not there."""

    def __repr__(self) -> str:
        return "nothing"


MISSING = Missing()


class CaseError(Exception):
    """A case that is not ACTS, or that cannot be played: it says nothing about the server."""


def problems(expected: Any, value: Any, path: str = "") -> Iterator[str]:
    """Everything in which the value is not what is expected."""
    if isinstance(expected, list):
        yield from _elements(expected, value, path)
    elif not isinstance(expected, dict):
        if _kind(expected) != _kind(value) or expected != value:
            yield f"{path or 'the answer'} is {value!r}, not {expected!r}"
    elif _is_operators(expected):
        for operator, operand in expected.items():
            yield from _operator(operator, operand, value, path)
    else:
        for field, nested in expected.items():
            found = value.get(field, MISSING) if isinstance(value, dict) else MISSING
            yield from problems(nested, found, f"{path}.{field}" if path else field)


def fits(expected: Any, value: Any) -> bool:
    """Whether nothing is wrong with it."""
    return next(problems(expected, value), None) is None


def at(value: Any, path: str) -> list[Any]:
    """Every value at a path such as `task.artifacts[*].parts[0]` (§5.2)."""
    steps = list(STEP.finditer(path))
    if "".join(step[0] for step in steps) != path:
        raise CaseError(f"{path!r} is no path")
    found = [value]
    for step in steps:
        name, index = step.groups()
        if name is not None:
            found = [each[name] for each in found if isinstance(each, dict) and name in each]
        elif index == "*":
            found = [element for each in found if isinstance(each, list) for element in each]
        else:
            found = [each[int(index)] for each in found if isinstance(each, list) and int(index) < len(each)]
    return found


def is_true(condition: str, value: Any) -> bool:
    """A condition of `repeat.until` (§9.1)."""
    parsed = re.fullmatch(r"(\S+) (==|!=|in) (.+)", condition)
    if parsed is None:
        raise CaseError(f"{condition!r} is no condition")
    path, operator, operand = parsed.groups()
    found = at(value, path)
    wanted = [each.strip() for each in operand.strip("[]").split(",")] if operator == "in" else [operand]
    return (bool(found) and str(found[0]) in wanted) != (operator == "!=")


def state_problems(states: list[str]) -> Iterator[str]:
    """Where the states of a stream go back (§7.1)."""
    for before, after in pairwise(states):
        if before in TERMINAL or (after == "TASK_STATE_SUBMITTED" and before != after):
            yield f"the state went from {before} to {after}"


def _is_operators(expected: Mapping[str, Any]) -> bool:
    """Whether a map is made of operators. A field may be called like one (`type`): then its assertion is a map."""
    if not expected:
        return False
    if isinstance(expected.get("type"), dict):
        return False
    known = OPERATORS.intersection(expected)
    if known and len(known) < len(expected):
        raise CaseError(f"operators and fields in one map: {', '.join(expected)}")
    return bool(known)


def _kind(value: Any) -> str:
    """The JSON type of a value: true is no number, and 1 is 1.0."""
    if isinstance(value, bool):
        return "boolean"
    return next((name for name, types in TYPES.items() if isinstance(value, types)), "nothing")


def _elements(expected: list[Any], value: Any, path: str) -> Iterator[str]:
    """A list asserts the first elements, one by one (§5.2)."""
    if not isinstance(value, list) or len(value) < len(expected):
        yield f"{path} has fewer than {len(expected)} elements: {value!r}"
        return
    for index, nested in enumerate(expected):
        yield from problems(nested, value[index], f"{path}[{index}]")


def _operator(operator: str, operand: Any, value: Any, path: str) -> Iterator[str]:
    """What one operator finds wrong (§5.1)."""
    if operator == "items":
        if isinstance(operand, dict):
            operand = [operand] * len(value) if isinstance(value, list) else [operand]
        yield from _elements(operand, value, path)
    elif operator == "all_of":
        for each in operand:
            yield from problems(each, value, path)
    elif operator == "any_of" or (operator == "one_of" and any(isinstance(each, dict) for each in operand)):
        if not any(fits(each, value) for each in operand):
            yield f"{path or 'the answer'} fits none of {operand!r}: {value!r}"
    elif not _holds(operator, operand, value):
        yield f"{path or 'the answer'} is {value!r}: {operator} {operand!r} does not hold"


def _holds(operator: str, operand: Any, value: Any) -> bool:
    """The operators that look at the value alone. Those of strings, numbers and arrays hold for nothing else."""
    match operator:
        case "type":
            return operand == _kind(value) if operand in TYPES else _unknown(f"type {operand!r}")
        case "exists":
            return (value is not MISSING) == bool(operand)
        case "absent":
            return (value is MISSING) == bool(operand)
        case "one_of":
            return any(fits(each, value) for each in operand)
        case "not":
            return not fits(operand, value)
        case "contains" | "matches" | "starts_with" | "ends_with":
            return isinstance(value, str) and _of_string(operator, operand, value)
        case "gte" | "lte" | "gt" | "lt":
            return _kind(value) == "number" and _of_number(operator, operand, value)
        case "count" | "count_gte" | "count_lte":
            return isinstance(value, list) and _of_number(operator.removeprefix("count"), operand, len(value))
    return _unknown(f"operator {operator!r}")


def _of_string(operator: str, operand: str, value: str) -> bool:
    match operator:
        case "contains":
            return operand in value
        case "matches":
            return re.search(operand, value) is not None
        case "starts_with":
            return value.startswith(operand)
    return value.endswith(operand)


def _of_number(operator: str, operand: float, value: float) -> bool:
    match operator.removeprefix("_"):
        case "gte":
            return value >= operand
        case "lte":
            return value <= operand
        case "gt":
            return value > operand
        case "lt":
            return value < operand
    return value == operand


def _unknown(what: str) -> bool:
    raise CaseError(f"ACTS has no {what}")
