"""How the lists are read (`core.storage.queries`): within an index, in its order, whatever they filter by."""

import sqlite3
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from core.model.task import TERMINAL, TaskStatus
from core.storage.base import DocumentQuery, TaskQuery, TreeQuery
from core.storage.queries import TENANTS, Bound, is_of_all
from core.storage.sqlite.dialect import QUERIES as queries
from core.storage.sqlite.migrate import migrate

BEFORE = (2.0, "x")
ONE, SOME, OPEN = {TaskStatus.FAILED}, {TaskStatus.FAILED, TaskStatus.COMPLETED}, set(TaskStatus) - TERMINAL


def combinations(**choices: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [dict(zip(choices, chosen, strict=True)) for chosen in product(*choices.values())]


def words(fields: dict[str, Any]) -> str:
    """A test's name, the same in each process: a set's order is not."""
    return ",".join(
        f"{name}={sorted(value) if isinstance(value, frozenset) else value}" for name, value in fields.items()
    )


TREES = combinations(
    origin=(None, "a2a"),
    statuses=(None, frozenset(ONE), frozenset(SOME)),
    context_id=(None, "c"),
    updated_since=(None, 1.0),
    before=(None, BEFORE),
)
TASKS = combinations(
    root_only=(True, False),
    statuses=(None, frozenset(ONE), frozenset({TaskStatus.IN_PROGRESS})),
    user_id=(None, "u"),
    name=(None, "n"),
    context_id=(None, "c"),
    before=(None, BEFORE),
)
DOCUMENTS = combinations(owner=(None, "o"), tree_id=(None, "t"), until=(None, 1.0), after=(None, (1.0, "x")))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = Path(tmp_path_factory.mktemp("plans")) / "tasks.db"
    migrate(path)
    connection = sqlite3.connect(path)
    yield connection
    connection.close()


def plan(database: sqlite3.Connection, bound: Bound) -> list[str]:
    """What SQLite does for the statement, step by step, without the counting of what another step has found."""
    rows = database.execute(f"EXPLAIN QUERY PLAN {bound[0]}", bound[1])
    return [row[3] for row in rows if row[3] not in ("SCAN anon_1", "CO-ROUTINE anon_1")]


def check_bounded(steps: list[str]) -> None:
    """Every step finds its rows by an index's key and in its order: no whole table, nothing sorted."""
    assert steps
    assert all(step.startswith("SEARCH ") and " INDEX " in step for step in steps), steps


@pytest.mark.parametrize("fields", TREES, ids=words)
def test_a_page_of_an_owners_trees_is_read_in_order_from_one_index(
    database: sqlite3.Connection, fields: dict[str, Any]
) -> None:
    steps = plan(database, queries.tree_list(TreeQuery(owner="o", **fields)))
    check_bounded(steps)
    assert ("trees_by_context" in steps[0]) is (fields["context_id"] is not None)


@pytest.mark.parametrize("fields", [each for each in TREES if each["before"] is None], ids=words)
def test_an_owners_trees_are_counted_within_an_index(database: sqlite3.Connection, fields: dict[str, Any]) -> None:
    steps = plan(database, queries.tree_count(TreeQuery(owner="o", **fields), 10))
    check_bounded(steps)
    assert "COVERING INDEX" in steps[0]


@pytest.mark.parametrize("fields", TASKS, ids=words)
def test_a_page_of_an_owners_tasks_is_read_in_order_from_one_index(
    database: sqlite3.Connection, fields: dict[str, Any]
) -> None:
    query = TaskQuery(owner="o", **fields)
    steps = plan(database, queries.task_list(query))
    check_bounded(steps)
    if query.statuses == {TaskStatus.IN_PROGRESS}:
        expected = "tasks_open"
    else:
        expected = "tasks_roots" if query.root_only else "tasks_by_tenant"
    assert f"INDEX {expected} (tenant=?{' AND owner=?' if expected == 'tasks_open' else ''}" in steps[0]
    check_bounded(plan(database, queries.task_count(query, 10)))


@pytest.mark.parametrize("fields", TASKS, ids=words)
def test_a_page_of_a_tenants_tasks_is_read_in_order_from_one_index(
    database: sqlite3.Connection, fields: dict[str, Any]
) -> None:
    """Of those that are open, all of the tenant's may be looked at and sorted: they are bounded by themselves."""
    query = TaskQuery(owner=None, tenant="t", **fields)
    steps = plan(database, queries.task_list(query))
    if query.statuses == {TaskStatus.IN_PROGRESS}:
        assert "INDEX tasks_open (tenant=?" in steps[0]
    else:
        check_bounded(steps)
        assert f"INDEX {'tasks_roots' if query.root_only else 'tasks_by_tenant'} (tenant=?" in steps[0]


@pytest.mark.parametrize("fields", TASKS, ids=words)
def test_a_page_of_everybodys_tasks_is_made_of_pages_of_tenants_or_of_those_that_are_open(
    database: sqlite3.Connection, fields: dict[str, Any]
) -> None:
    query = TaskQuery(owner=None, **fields)
    are_open = fields["statuses"] == {TaskStatus.IN_PROGRESS}
    assert is_of_all(query) is not are_open
    if are_open:
        assert "INDEX tasks_open" in plan(database, queries.task_list(query))[0]


def test_tenants_are_found_without_looking_at_their_tasks(database: sqlite3.Connection) -> None:
    steps = [step for step in plan(database, (TENANTS, ())) if " tasks " in step]
    assert all(step.startswith("SEARCH tasks USING COVERING INDEX") for step in steps) and len(steps) == 2


def test_an_owners_open_tasks_are_counted_within_an_index(database: sqlite3.Connection) -> None:
    """At most once a second for each caller who sends messages, beside the reads of single tasks."""
    query = TaskQuery(owner="o", root_only=False, statuses=frozenset(OPEN))
    (step,) = plan(database, queries.task_count(query, 10))
    assert step == "SEARCH tasks USING COVERING INDEX tasks_open (tenant=? AND owner=? AND status=?)"


@pytest.mark.parametrize("fields", DOCUMENTS, ids=words)
def test_a_page_of_documents_is_read_in_order_from_one_index(
    database: sqlite3.Connection, fields: dict[str, Any]
) -> None:
    steps = plan(database, queries.document_list(DocumentQuery(kind="k", **fields)))
    check_bounded(steps)
    if fields["owner"] is None:
        assert ("documents_by_tree" in steps[0]) is (fields["tree_id"] is not None)


@pytest.mark.parametrize("after", [None, (1.0, "x")])
def test_documents_of_a_prefix_are_found_by_their_key_and_only_they_are_sorted(
    database: sqlite3.Connection, after: tuple[float, str] | None
) -> None:
    steps = plan(database, queries.document_list(DocumentQuery(kind="k", prefix="t/", after=after)))
    assert steps == [
        "SEARCH documents USING INDEX sqlite_autoindex_documents_1 (kind=? AND id>? AND id<?)",
        "USE TEMP B-TREE FOR ORDER BY",
    ]


@pytest.mark.parametrize("after", [None, (1.0, "x")])
def test_documents_of_some_trees_are_found_by_their_trees_and_only_they_are_sorted(
    database: sqlite3.Connection, after: tuple[float, str] | None
) -> None:
    steps = plan(database, queries.document_list(DocumentQuery(kind="k", tree_ids=["t", "u"], after=after)))
    assert any("documents_by_tree (tree_id=? AND kind=?" in step for step in steps)
    assert "USE TEMP B-TREE FOR ORDER BY" in steps
    assert not any(step.startswith("SCAN documents") or "documents_by_time" in step for step in steps)


def test_documents_of_some_ids_are_found_by_their_key_and_only_they_are_sorted(database: sqlite3.Connection) -> None:
    steps = plan(database, queries.document_list(DocumentQuery(kind="k", ids=["a", "b"])))
    assert any("sqlite_autoindex_documents_1 (kind=? AND id=?)" in step for step in steps)
    assert "USE TEMP B-TREE FOR ORDER BY" in steps


def test_children_are_read_in_order_from_one_index(database: sqlite3.Connection) -> None:
    steps = plan(database, (queries.children.sql, ("t",)))
    assert "tasks_by_parent (parent_id=?)" in steps[0]


def test_what_is_not_bounded_is_noticed(database: sqlite3.Connection) -> None:
    with pytest.raises(AssertionError):
        check_bounded(plan(database, ("SELECT id FROM trees WHERE status = ? ORDER BY updated_at", ("failed",))))


@pytest.mark.parametrize(("owner", "tenant"), [(None, None), ("ann", None), (None, "te")])
def test_the_tree_of_a_task_is_read_without_what_may_be_large(owner: str | None, tenant: str | None) -> None:
    """Found by reading the code: a child's whole row, with its result, was read for the id of its tree."""
    sql, _ = queries.one_tree_of("t", owner, tenant)
    assert "tree_id" in sql
    assert not [column for column in ("spec", "state") if column in sql]
