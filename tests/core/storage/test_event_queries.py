"""How logs are read (`core.storage.event_queries`): by their key, and in its order."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from core.storage.base import EventQuery
from core.storage.queries import Bound
from core.storage.sqlite.dialect import EVENT_QUERIES
from core.storage.sqlite.migrate import migrate


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = Path(tmp_path_factory.mktemp("plans")) / "tasks.db"
    migrate(path)
    return path


def plan(database: Path, bound: Bound) -> list[str]:
    """What SQLite does for the statement, step by step."""
    with closing(sqlite3.connect(database)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {bound[0]}", bound[1])]


@pytest.mark.parametrize("until", [None, 9])
@pytest.mark.parametrize("task_id", [None, "t"])
@pytest.mark.parametrize("kinds", [None, ("a", "b")])
def test_a_page_of_a_log_is_read_in_order_by_its_key(
    database: Path, until: int | None, task_id: str | None, kinds: tuple[str, ...] | None
) -> None:
    query = EventQuery(tree_id="t", until=until, task_id=task_id, kinds=kinds, limit=10)
    steps = plan(database, EVENT_QUERIES.page(query))
    assert len(steps) == 1
    assert steps[0].startswith("SEARCH events USING PRIMARY KEY (tree_id=? AND seq>?"), steps


def test_numbered_events_are_found_by_their_key(database: Path) -> None:
    steps = plan(database, EVENT_QUERIES.at("t", [1, 2]))
    assert steps[0].startswith("SEARCH events USING PRIMARY KEY"), steps
    assert not any("TEMP B-TREE FOR ORDER BY" in step for step in steps)


@pytest.mark.parametrize("kinds", [None, ("a", "b")])
@pytest.mark.parametrize("read", ["places", "short"])
def test_parts_of_a_log_are_read_in_order_by_its_key(database: Path, read: str, kinds: tuple[str, ...] | None) -> None:
    query = EventQuery(tree_id="t", until=9, kinds=kinds, limit=10)
    steps = plan(database, EVENT_QUERIES.places(query) if read == "places" else EVENT_QUERIES.short(query, 100))
    assert len(steps) == 1
    assert steps[0].startswith("SEARCH events USING PRIMARY KEY"), steps
