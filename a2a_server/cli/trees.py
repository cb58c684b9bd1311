"""What a user hands over: a text, or a file with a tree of tasks, with data, or with text."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from a2a_server.cli import yamlfile
from a2a_server.cli.output import Failure
from core.model.errors import Problem
from core.model.jsonvalue import NotJson, to_json_value

USAGE = 2
STDIN = "-"
YAML = (".yaml", ".yml")
_BYTE = re.compile(r" \(byte (\d+)\)$")


def read_tree(name: str) -> list[Any]:
    """The array of tasks in a JSON or YAML file, or JSON on standard input: an array, `{"tasks": […]}` or one task."""
    value = _parsed(name, _read(name))
    if isinstance(value, dict):
        value = value.get("tasks", [value])
    if not isinstance(value, list):
        raise Failure(f"{name} has no tasks; it must be an array of tasks, or an object with `tasks`", USAGE)
    return value


def located(name: str, problems: Sequence[Problem]) -> str:
    """What is wrong with a tree, each with the line and column in its file where that can be read again."""
    try:
        text = "" if name == STDIN else _read(name)
    except Failure:
        text = ""
    told = []
    for problem, place in zip(problems, yamlfile.places(text, [problem.field for problem in problems]), strict=True):
        where = f"{name}:{place[0]}:{place[1]}: " if place is not None else ""
        told.append(f"{where}{problem.field}: {problem.message}" if problem.field else f"{where}{problem.message}")
    return "; ".join(told)


def read_part(given: str) -> dict[str, Any]:
    """An A2A part of the command's argument: a file's content where there is such a file, else the text itself."""
    if given != STDIN and not _is_file(given):
        if Path(given).suffix in (".json", *YAML) and not set(given) & set(" \n"):
            raise Failure(f"{given} is not a file; to send it as a text, pass it on standard input: send -", 2)
        return {"text": given}
    text = _read(given)
    if Path(given).suffix not in (".json", *YAML):
        return {"text": text}
    value = _parsed(given, text)
    return {"data": {"tasks": value} if isinstance(value, list) else value}


def read_data(given: str) -> dict[str, Any]:
    """An A2A data part of JSON on the command line, or of what a JSON or YAML file has (`@file`, `@-`)."""
    if given.startswith("@"):
        return {"data": _parsed(given[1:], _read(given[1:]))}
    return {"data": _parsed("--data", given)}


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):  # too long for a name: then it is a text
        return False


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == STDIN else Path(name).read_text("utf-8")
    except OSError as error:
        raise Failure(f"{name} cannot be read: {error.strerror}", USAGE) from None
    except UnicodeDecodeError:
        raise Failure(f"{name} is not UTF-8 text", USAGE) from None


def _parsed(name: str, text: str) -> Any:
    try:
        value = yamlfile.load(text) if Path(name).suffix in YAML else msgspec.json.decode(text)
        return to_json_value(value, name)
    except yamlfile.NotYaml as error:
        raise Failure(f"{name}:{error.line}:{error.column}: {error}", USAGE) from None
    except msgspec.DecodeError as error:
        raise Failure(_malformed(name, text, str(error)), USAGE) from None
    except (NotJson, RecursionError) as error:
        raise Failure(f"{name} cannot be parsed: {' '.join(str(error).split())}", USAGE) from None


def _malformed(name: str, text: str, told: str) -> str:
    """A decoder's words, with line and column in place of the byte."""
    reason = _BYTE.sub("", told)
    if "truncated" in told:
        before = text.encode().rstrip()
    elif (byte := _BYTE.search(told)) is not None:
        before = text.encode()[: int(byte[1])]
    else:
        return f"{name}: {reason}"
    line = before.count(b"\n") + 1
    column = len(before.rpartition(b"\n")[2].decode(errors="replace")) + 1
    return f"{name}:{line}:{column}: {reason}"
