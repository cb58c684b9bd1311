"""The documents that are made from the code are what the code says, and links between documents lead somewhere."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from core.model.plan import TaskInput

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SCHEMA = json.loads((ROOT / "docs" / "task.schema.json").read_text("utf-8"))


@pytest.mark.parametrize("script", ["state_diagram.py", "task_schema.py", "settings_page.py"])
def test_generated_document_is_current(script: str) -> None:
    checked = subprocess.run([sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True)

    assert (checked.returncode, checked.stderr) == (0, "")


def test_every_move_of_the_table_is_drawn() -> None:
    drawn = re.findall(r"^    (\w+) --> (\w+)$", (ROOT / "docs" / "states.md").read_text("utf-8"), re.MULTILINE)

    assert ("pending", "in_progress") in drawn
    assert ("completed", "in_progress") not in drawn


@pytest.mark.parametrize(
    "task",
    [
        {"name": "a"},
        {"name": "a", "id": "1", "priority": -5, "dependencies": ["x", {"id": "y", "required": False}]},
        {"name": "a", "retry": {"initial": 0.5}, "max_attempts": 3, "timeout": 1, "inputs": None},
    ],
)
def test_schema_accepts_what_the_server_accepts(task: dict[str, Any]) -> None:
    msgspec.convert(task, TaskInput)
    Draft202012Validator(SCHEMA).validate(task)


@pytest.mark.parametrize(
    "task",
    [
        {},
        {"name": ""},
        {"name": "a", "priority": 1.5},
        {"name": "a", "unknown": 1},
        {"name": "a", "dependencies": [{"required": True}]},
        {"name": "a", "retry": {"factor": 0}},
        {"name": "a", "max_attempts": 0},
    ],
)
def test_schema_refuses_what_the_server_refuses(task: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(task, TaskInput)
    assert not Draft202012Validator(SCHEMA).is_valid(task)


def test_schema_says_what_each_field_is_for() -> None:
    assert all(field["description"] for field in SCHEMA["properties"].values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", page.read_text("utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_module_that_the_journey_names_exists() -> None:
    text = (ROOT / "docs" / "journey.md").read_text("utf-8")
    named = set(re.findall(r"`((?:core/|a2a_server/)?[\w/]+\.py)`", text))
    places = (ROOT, ROOT / "a2a_server", ROOT / "core", ROOT / "core" / "storage")

    assert {name for name in named if not any((place / name).exists() for place in places)} == set()
    assert len(named) > 15
