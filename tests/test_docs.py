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
from tests.test_architecture import ROOMS

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "llms.txt", *(ROOT / "docs").rglob("*.md")])
# What a newcomer reads: each link to a module says in its words what to look at there.
TOURS = [ROOT / "docs" / "journey.md", ROOT / "CONTRIBUTING.md"]
# Read first, so held to the width that prose has; tables and code may be wider.
NEWCOMERS = [*TOURS, ROOT / "README.md", ROOT / "AGENTS.md", ROOT / "llms.txt", ROOT / "docs" / "README.md"]
NEWCOMERS += [ROOT / "docs" / "command-line.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
MAX_WIDTH = 120
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


def anchors(page: Path) -> set[str]:
    """What a link into that page may name, as GitHub makes it of the headings."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_lead_to_headings(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#]*)#([^)]+)\)", page.read_text("utf-8"))

    assert [
        f"{name}#{anchor}" for name, anchor in links if anchor not in anchors(page.parent / name if name else page)
    ] == []


def missing(page: Path, text: str) -> list[str]:
    """The links to modules whose words name a class, function or constant that the module does not define."""
    absent = []
    for words, target in re.findall(r"\[([\w.]+)\]\(([^)#]+\.py)\)", text):
        source = (page.parent / target).read_text("utf-8")
        if words.endswith(".py"):
            is_there = target.endswith(words)
        else:
            is_there = all(
                re.search(rf"^ *(?:async def|def|class) {name}\b|^{name}\b.* = ", source, re.MULTILINE)
                for name in words.split(".")
            )
        if not is_there:
            absent.append(f"{words} in {target}")
    return absent


@pytest.mark.parametrize("page", TOURS, ids=lambda page: page.name)
def test_what_a_tour_names_is_defined_where_it_points(page: Path) -> None:
    text = page.read_text("utf-8")

    assert missing(page, text) == []
    assert text.count(".py)") > 10


def test_a_name_that_is_gone_would_be_found() -> None:
    page = ROOT / "CONTRIBUTING.md"

    assert missing(page, "[Session.plan](core/session.py) [decide.py](core/model/decide.py)") == []
    assert missing(page, "[Session.gone](core/session.py)") == ["Session.gone in core/session.py"]
    assert missing(page, "[tree.py](core/model/decide.py)") == ["tree.py in core/model/decide.py"]


def test_the_journey_goes_through_every_room_from_the_top_down() -> None:
    """Its table promises that each room imports only rooms further down."""
    floor = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
    text = (ROOT / "docs" / "journey.md").read_text("utf-8")

    shown = [room.replace("/", ".") for room in re.findall(r"^\| \[([\w/]+)\]\(\.\./\1\)", text, re.MULTILINE)]

    assert set(floor) - set(shown) == {"core.executors.builtins", "core.storage.migrations"}  # below their rooms
    assert [floor[room] for room in shown] == sorted((floor[room] for room in shown), reverse=True)


def test_the_map_has_every_page() -> None:
    page = ROOT / "docs" / "README.md"
    linked = {(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#]+)\)", page.read_text("utf-8"))}

    assert [each.name for each in (ROOT / "docs").rglob("*.md") if each != page and each.resolve() not in linked] == []


@pytest.mark.parametrize("page", NEWCOMERS, ids=lambda page: page.name)
def test_prose_fits_the_width(page: Path) -> None:
    prose = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)

    wide = [line for line in prose.splitlines() if len(line) > MAX_WIDTH and not line.startswith("|")]
    assert wide == []


def test_modules_that_the_page_about_mutants_names_exist() -> None:
    """Found by a reader: rows of modules that had moved since."""
    text = (ROOT / "docs" / "mutation.md").read_text("utf-8")
    named = set(re.findall(r"`((?:core|a2a_server|tests|scripts|benchmarks)/[^`\s]+)`", text))
    assert len(named) > 20 and [path for path in sorted(named) if not (ROOT / path).exists()] == []
