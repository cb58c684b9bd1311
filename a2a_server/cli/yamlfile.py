"""YAML as JSON: every value is one of JSON's, and errors name line and column.

Keys are texts, also those that YAML reads as something else (`on:`, `2026-01-31:`). A time is RFC 3339 text of the
moment that it is (UTC where it names no zone, as YAML has it), a date the text that was written.
"""

import math
import re
from collections.abc import Hashable, Iterable
from datetime import UTC, datetime
from typing import Any, NoReturn

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

_STEP = re.compile(r"\[(\d+)\]|\.?([^.\[\]]+)")
# YAML 1.1 reads 12:30 as 750, a number to the base of sixty; that is never meant.
_SEXAGESIMAL = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")

_MERGE = "tag:yaml.org,2002:merge"


class NotYaml(ValueError):
    """The text says nothing that JSON can say. Line and column count from one."""

    def __init__(self, message: str, line: int, column: int) -> None:
        self.line, self.column = line, column
        super().__init__(message)


class _Loader(yaml.SafeLoader):
    """Values of JSON."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        own = [key for key, _ in node.value if isinstance(key, ScalarNode)]  # those of `<<` may be overridden
        known: set[str] = set()
        for key in own:
            if key.value in known and key.tag != _MERGE:
                _refuse(key, f"the key {key.value} is given twice")
            known.add(key.value)
        self.flatten_mapping(node)
        values: dict[Hashable, Any] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                _refuse(key, "a key must be a string")
            values[key.value] = self.construct_object(value, deep=deep)
        return values

    def construct_scalar(self, node: Any) -> Any:
        if isinstance(node, ScalarNode):
            return node.value
        _refuse(node, "a single value is expected here")

    def whole_mapping(self, node: MappingNode) -> dict[Hashable, Any]:
        return self.construct_mapping(node, deep=True)

    def whole_sequence(self, node: SequenceNode) -> list[Any]:
        return self.construct_sequence(node, deep=True)

    def moment(self, node: ScalarNode) -> str:
        try:
            found = self.construct_yaml_timestamp(node)
        except ValueError as error:
            _refuse(node, f"{node.value} is not a date or time: {error}")
        if not isinstance(found, datetime):
            return str(node.value)
        aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return aware.isoformat().replace("+00:00", "Z")

    def whole(self, node: ScalarNode) -> int | str:
        if _SEXAGESIMAL.fullmatch(node.value):
            return str(node.value)
        return self.construct_yaml_int(node)

    def fraction(self, node: ScalarNode) -> float | str:
        if _SEXAGESIMAL.fullmatch(node.value):
            return str(node.value)
        number = self.construct_yaml_float(node)
        if not math.isfinite(number):
            _refuse(node, f"{node.value} is not a JSON number")
        return number

    def unknown(self, node: Node) -> NoReturn:
        _refuse(node, f"{node.tag.replace('tag:yaml.org,2002:', '!!')} is not a JSON type; write a string in quotes")


# At once, not in two steps as PyYAML has them: so a value that holds itself is an error with its place.
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.whole_mapping)
_Loader.add_constructor("tag:yaml.org,2002:seq", _Loader.whole_sequence)
_Loader.add_constructor("tag:yaml.org,2002:timestamp", _Loader.moment)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.whole)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.fraction)
for _tag in ("binary", "omap", "pairs", "set"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.unknown)
_Loader.add_constructor(None, _Loader.unknown)


def load(text: str) -> Any:
    """The text's value. Raises NotYaml."""
    try:
        return _Loader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        raise _told(error) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1
        raise NotYaml(f"the character U+{int(error.character):04X} is not allowed", line, column) from None


def places(text: str, fields: Iterable[str]) -> list[tuple[int, int] | None]:
    """Line and column of each field such as `tasks[3].inputs.x` in YAML or JSON, or of the nearest that holds it.

    Where the text is an array, or one task, `tasks` stands for it. None for all of them where it is neither.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError):
        node = None
    return [None if node is None else _place(node, field) for field in fields]


def _place(node: Node, field: str) -> tuple[int, int] | None:
    steps = [index or name for index, name in _STEP.findall(field)]
    if not steps:
        return None
    if steps[0] == "tasks" and _member(node, "tasks") is None:
        steps = steps[1:] if isinstance(node, SequenceNode) else steps[2:]
    mark = node.start_mark
    for step in steps:
        found = _member(node, step)
        if found is None:
            break
        key, node = found
        mark = key.start_mark
    return mark.line + 1, mark.column + 1


def _member(node: Node, step: str) -> tuple[Node, Node] | None:
    """What has the place in the text and what is below it: of an object's member the key and the value."""
    if isinstance(node, SequenceNode):
        if step.isdecimal() and int(step) < len(node.value):
            return node.value[int(step)], node.value[int(step)]
    elif isinstance(node, MappingNode):
        return next(((key, value) for key, value in node.value if key.value == step), None)
    return None


def _refuse(node: Node, message: str) -> NoReturn:
    raise NotYaml(message, node.start_mark.line + 1, node.start_mark.column + 1)


def _told(error: yaml.MarkedYAMLError) -> NotYaml:
    mark = error.problem_mark or error.context_mark
    words = " ".join(str(part) for part in (error.context, error.problem) if part)
    return NotYaml(words, *((mark.line + 1, mark.column + 1) if mark is not None else (1, 1)))
