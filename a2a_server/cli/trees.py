"""What a user hands over: a text, or a file with a tree of tasks, with data, or with text."""

import sys
from pathlib import Path
from typing import Any

import msgspec
import yaml

from a2a_server.cli.output import Failure
from core.jsonvalue import NotJson, to_json_value

USAGE = 2
STDIN = "-"
YAML = (".yaml", ".yml")


class _Loader(yaml.SafeLoader):
    """YAML whose keys are words: `on: failure` has the key "on", which YAML 1.1 takes for true."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """See yaml.SafeLoader."""
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:bool":
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def read_tree(name: str) -> list[Any]:
    """The array of tasks in a JSON or YAML file, or JSON on standard input: an array, `{"tasks": […]}` or one task."""
    value = _parsed(name, _read(name))
    if isinstance(value, dict):
        value = value.get("tasks", [value])
    if not isinstance(value, list):
        raise Failure(f"{name} holds no tasks: an array of them, or an object with `tasks`", USAGE)
    return value


def read_part(given: str) -> dict[str, Any]:
    """An A2A part of the command's argument: a file's content where there is such a file, else the text itself."""
    if given != STDIN and not _is_file(given):
        return {"text": given}
    text = _read(given)
    if Path(given).suffix not in (".json", *YAML):
        return {"text": text}
    value = _parsed(given, text)
    return {"data": {"tasks": value} if isinstance(value, list) else value}


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
        return to_json_value(_yaml(text) if Path(name).suffix in YAML else msgspec.json.decode(text), name)
    except (msgspec.DecodeError, yaml.YAMLError, NotJson, RecursionError) as error:
        raise Failure(f"{name} cannot be understood: {' '.join(str(error).split())}", USAGE) from None


def _yaml(text: str) -> Any:
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()
