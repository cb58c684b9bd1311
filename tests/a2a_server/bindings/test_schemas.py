"""Generated schemas do not depend on how a version of msgspec writes them."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from a2a_server.bindings.schemas import schema_components

TIDY = {
    "type": "object",
    "title": "Thing",
    "description": "A thing.\n\nIts second paragraph,\nof two lines.",
    "properties": {
        "b": {"anyOf": [{"type": "null"}, {"type": "string"}], "default": None},
        "a": {"enum": ["x", "y"]},
        "description": {"type": "string", "description": "A field\nof that name."},
    },
    "required": ["a", "description"],
}
OTHERWISE = {
    "required": ["description", "a"],
    "properties": {
        "b": {"default": None, "anyOf": [{"type": "string"}, {"type": "null"}]},
        "a": {"enum": ["y", "x"]},
        "description": {"description": "A field\n        of that name.", "type": "string"},
    },
    "description": "A thing.\n\n    Its second paragraph,\n    of two lines.\n    ",
    "title": "Thing",
    "type": "object",
}


def made_by(monkeypatch: pytest.MonkeyPatch, component: dict[str, Any]) -> tuple[list[str], str]:
    """What becomes of a component that msgspec makes so."""

    def library(types: Sequence[Any], ref_template: str) -> Any:
        return [{"$ref": "#/Thing"}], {"Thing": component}

    monkeypatch.setattr(msgspec.json, "schema_components", library)
    schemas, components = schema_components([object], ref_template="#/{name}")
    return [repr(schema) for schema in schemas], repr(components)


def test_two_ways_of_writing_one_schema_give_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """msgspec 0.23 indents docstrings otherwise than 0.21 did: the committed schema was wrong on every new machine."""
    assert made_by(monkeypatch, OTHERWISE) == made_by(monkeypatch, TIDY)


def test_fields_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found on a fresh machine: msgspec 0.23 writes docstrings in another way, and generated pages differed."""
    _, components = made_by(monkeypatch, OTHERWISE)
    assert components.index("'b'") < components.index("'a'") < components.index("'description': {'description'")


def test_a_default_is_data_and_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _, components = made_by(monkeypatch, {"default": {"required": ["z", "a"]}})
    assert "['z', 'a']" in components
