"""Tests of core.model.plan: every error of an array (semantics §3, §9), all at once, in linear time."""

import math
import re
from collections.abc import Iterator
from itertools import count, pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.executors.registry import ExecutorRegistry, wanted_executor
from core.model.errors import InvalidPlan, Problem
from core.model.graph import called, check_graph, find_cycle
from core.model.plan import (
    MAX_SCHEMA_NODES,
    Limits,
    Plan,
    Rules,
    extras_problems,
    make_plan,
    parse_changes,
)
from core.model.problems import LONGEST_NAME, MAX_KEPT, MAX_PROBLEMS
from core.model.retry import RetryPolicy
from core.model.task import Dependency, On, Task

KNOWN = {"work", "fetch"}
NOW = 1_000.0


def plan(items: Any, limits: Limits | None = None, ids: Iterator[int] | None = None) -> Plan:
    numbers = ids or count()
    rules = Rules(
        resolve=lambda *named: found if (found := wanted_executor(*named)) in KNOWN else None,
        known=lambda: sorted(KNOWN),
        limits=limits,
    )
    return make_plan(items, rules, new_id=lambda: f"n{next(numbers)}", now=NOW, owner="alice")


def problems(items: Any, limits: Limits | None = None) -> list[tuple[str, str]]:
    with pytest.raises(InvalidPlan) as refusal:
        plan(items, limits)
    return [(problem.field, problem.message) for problem in refusal.value.problems]


def task(key: str, *needs: str, parent: str | None = "root", **fields: Any) -> dict[str, Any]:
    return {"id": key, "name": "work", "parent_id": parent, "dependencies": list(needs)} | fields


ROOT = {"id": "root", "name": "root"}


def test_a_single_task_is_a_tree() -> None:
    made = plan([{"name": "work"}])
    (only,) = made.tasks
    assert made.root_id == only.id == only.tree_id
    assert (only.name, only.executor, only.priority, only.owner) == ("work", "work", 2, "alice")
    assert (only.created_at, only.inputs, only.dependencies) == (NOW, {}, ())


def test_every_field_arrives() -> None:
    given_task = {
        "id": "a", "name": "anything", "user_id": "u", "priority": -5, "inputs": {"x": 2**70},
        "schemas": {"method": "work"}, "params": {"p": 1}, "timeout": 1.5, "deadline": "2027-01-15T08:00:00Z",
        "max_attempts": 3, "retry": {"initial": 2},
    }  # fmt: skip
    (made,) = plan([given_task]).tasks
    assert (made.ref, made.user_id, made.priority, made.inputs, made.executor) == ("a", "u", -5, {"x": 2**70}, "work")
    assert (made.schemas, made.params, made.timeout) == ({"method": "work"}, {"p": 1}, 1.5)
    assert (made.deadline, made.max_attempts, made.retry) == (1_800_000_000.0, 3, RetryPolicy(initial=2))


def test_references_are_by_id_or_by_unique_name() -> None:
    """An id wins over a name; a plain string is a required dependency."""
    made = plan([
        {"name": "root"},
        {"name": "work", "parent_id": "root"},
        {"id": "b", "name": "fetch", "parent_id": "root", "dependencies": ["work", {"id": "root2", "required": False}]},
        {"id": "root2", "name": "work2", "schemas": {"method": "work"}, "parent_id": "root"},
    ])  # fmt: skip
    root, work, b, root2 = made.tasks
    assert {work.parent_id, b.parent_id, root2.parent_id} == {root.id}
    assert b.dependencies == (Dependency(work.id), Dependency(root2.id, On.ANY))


def test_an_id_wins_over_another_tasks_name() -> None:
    made = plan([ROOT, task("fetch"), {"name": "fetch", "parent_id": "root"}, task("c", "fetch")])
    assert made.tasks[3].dependencies == (Dependency(made.tasks[1].id),)


def test_ids_are_local_to_the_array() -> None:
    """The same file can be submitted again: the server's ids are new, the caller's are kept as references."""
    ids = count()
    first, second = (plan([ROOT, task("a"), task("b", "a")], ids=ids) for _ in range(2))
    assert not {t.id for t in first.tasks} & {t.id for t in second.tasks}
    assert [t.ref for t in first.tasks] == [t.ref for t in second.tasks] == ["root", "a", "b"]


def test_the_order_of_the_array_is_free() -> None:
    """A task may come before its parent and its dependencies; positions follow the array."""
    made = plan([task("b", "a"), task("a"), ROOT])
    assert made.root_id == made.tasks[2].id
    assert [t.position for t in made.tasks] == [0, 1, 2]


def test_a_dependency_on_a_parent_that_runs_something_is_fine() -> None:
    """The guide's basic example: process is below fetch and depends on it."""
    made = plan([{"id": "root", "name": "fetch"}, task("process", "root")])
    assert made.tasks[1].dependencies == (Dependency(made.root_id),)


@pytest.mark.parametrize("items", [[], {}, None, "text", 5, {"name": "work"}])
def test_no_array_is_refused(items: Any) -> None:
    assert problems(items) == [("tasks", "must be an array of at least one task")]


ERRORS: dict[str, tuple[list[Any], list[tuple[str, str]]]] = {
    "missing parent": (
        [ROOT, task("a", parent="nowhere")],
        [("tasks[1].parent_id", "there is no task 'nowhere' in this array")],
    ),
    "missing dependency": (
        [ROOT, task("a", "b", "c")],
        [
            ("tasks[1].dependencies[0]", "there is no task 'b' in this array"),
            ("tasks[1].dependencies[1]", "there is no task 'c' in this array"),
        ],
    ),
    "two roots": (
        [task("a", parent=None), task("b", parent=None)],
        [("tasks", "2 tasks have no parent_id ('a', 'b'); a tree has one root")],
    ),
    "parent cycle": (
        [task("a", parent="b"), task("b", parent="a")],
        [("tasks", "the parents form a cycle: a -> b -> a")],
    ),
    "own parent": ([task("a", parent="a")], [("tasks", "the parents form a cycle: a -> a")]),
    "self dependency": ([ROOT, task("a", "a")], [("tasks[1].dependencies[0]", "task 'a' depends on itself")]),
    "dependency twice": (
        [ROOT, task("a"), task("b", "a", "a")],
        [("tasks[2].dependencies[1]", "task 'b' names this dependency twice")],
    ),
    "duplicate id": ([ROOT, task("a"), task("a")], [("tasks[2].id", "'a' is already the id of tasks[1]")]),
    "ambiguous name": (
        [ROOT, task("a"), task("b"), task("c", "work", name="fetch")],
        [("tasks[3].dependencies[0]", "2 tasks are named 'work'; give them ids and refer to one by id")],
    ),
    "dependency cycle": (
        [ROOT, task("a", "b"), task("b", "a")],
        [("tasks", "the dependencies form a cycle: a -> b -> a")],
    ),
    "own group": (
        [ROOT, task("a", "root")],
        [("tasks", "the dependencies form a cycle: root -> a -> root")],
    ),
    "own group's group": (
        [ROOT, {"id": "g", "name": "g", "parent_id": "root"}, task("a", "root", parent="g")],
        [("tasks", "the dependencies form a cycle: root -> g -> a -> root")],
    ),
    "unknown executor": (
        [{"name": "wrok"}],
        [("tasks[0].name", "unknown executor 'wrok'; known are: fetch, work")],
    ),
    "unknown method": (
        [{"name": "work", "schemas": {"method": "wrok"}}],
        [("tasks[0].schemas.method", "unknown executor 'wrok'; known are: fetch, work")],
    ),
    "unknown method with children": (
        [{"id": "root", "name": "work", "schemas": {"method": "folder"}}, task("a")],
        [("tasks[0].schemas.method", "unknown executor 'folder'; known are: fetch, work")],
    ),
    "unknown executor_id": (
        [{"name": "work", "params": {"executor_id": "wrok"}}],
        [("tasks[0].params.executor_id", "unknown executor 'wrok'; known are: fetch, work")],
    ),
    "childless group": (
        [ROOT, task("a"), {"name": "empty", "parent_id": "root"}],
        [("tasks[2].name", "unknown executor 'empty'; known are: fetch, work")],
    ),
    "no object": ([ROOT, task("a"), 5], [("tasks[2]", "expected `object`, got `integer`")]),
    "unknown field": (
        [{"name": "work", "prio": 1}],
        [("tasks[0].prio", "unknown field; the known ones are: id, name, user_id, parent_id")],
    ),
    "no name": ([{"id": "a"}], [("tasks[0].name", "is required")]),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_told_once_with_its_place(case: str) -> None:
    items, expected = ERRORS[case]
    found = problems(items)
    assert [field for field, _ in found] == [field for field, _ in expected]
    for (_, message), (_, start) in zip(found, expected, strict=True):
        assert message.startswith(start)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 5), ("id", ""), ("id", "x" * 1025), ("name", None), ("name", ""), ("user_id", 1), ("parent_id", []),
        ("priority", "1"), ("priority", 1.5), ("priority", True), ("priority", 2**63), ("priority", -(2**63) - 1),
        ("priority", 2**70), ("dependencies", "a"), ("dependencies", {}), ("inputs", []), ("schemas", "work"),
        ("params", 0), ("timeout", "1"), ("timeout", 0), ("timeout", -1), ("timeout", math.nan), ("timeout", math.inf),
        ("deadline", 5), ("deadline", "2027-01-15T08:00:00"), ("deadline", "soon"), ("max_attempts", 0),
        ("max_attempts", 1001), ("retry", 3),
    ],
)  # fmt: skip
def test_a_wrong_value_names_its_field(field: str, value: Any) -> None:
    found = problems([{"name": "work", field: value}])
    assert [where for where, _ in found] == [f"tasks[0].{field}"]
    assert found[0][1]


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"dependencies": [{"id": 5}]}, "tasks[0].dependencies"),
        ({"dependencies": ["", 3]}, "tasks[0].dependencies"),
        ({"dependencies": [{"required": True}]}, "tasks[0].dependencies"),
        ({"retry": {"factor": 0.1}}, "tasks[0].retry.factor"),
        ({"retry": {"tries": 1}}, "tasks[0].retry.tries"),
    ],
)
def test_a_wrong_value_further_down_names_its_path(value: dict[str, Any], where: str) -> None:
    assert problems([{"name": "work"} | value])[0][0].startswith(where)


@pytest.mark.parametrize("priority", [0, -1, 2**63 - 1, -(2**63)])
def test_any_priority_of_64_bits_is_legal(priority: int) -> None:
    assert plan([{"name": "work", "priority": priority}]).tasks[0].priority == priority


def test_all_errors_of_an_array_come_in_one_answer() -> None:
    """Wrong fields, wrong references, a wrong shape and an unknown executor, together."""
    found = problems([
        {"id": "root", "name": "root", "priority": "high", "colour": "red"},
        task("a", "gone", timeout=-1),
        task("b", "c", parent=None),
        task("c", "b"),
        task("c", parent="lost"),
        {"id": "d", "name": "wrok", "parent_id": "root"},
        7,
    ])  # fmt: skip
    assert sorted(field for field, _ in found) == [
        "tasks", "tasks", "tasks[0].colour", "tasks[0].priority", "tasks[1].dependencies[0]", "tasks[1].timeout",
        "tasks[4].id", "tasks[4].parent_id", "tasks[5].name", "tasks[6]",
    ]  # fmt: skip
    texts = [message for field, message in found if field == "tasks"]
    assert any("c -> b -> c" in text for text in texts)
    assert any("2 tasks have no parent_id ('root', 'b')" in text for text in texts)


def test_a_task_with_wrong_fields_is_blamed_for_nothing_else() -> None:
    """What could not be read of it is neither a second root nor an unknown executor."""
    found = problems([ROOT, {"id": "a", "name": 5, "parent_id": 5}, task("b", "a")])
    assert [field for field, _ in found] == ["tasks[1].name", "tasks[1].parent_id"]


def test_very_many_problems_are_counted_after_the_first_hundred() -> None:
    found = problems([{"name": "work", "x": 1}] * 250)
    assert len(found) == MAX_PROBLEMS + 1
    assert found[-1][1].startswith("and ")


def test_the_limits_on_tasks_and_levels_are_judged() -> None:
    assert problems([ROOT, task("a"), task("b")], Limits(max_tasks=2)) == [
        ("tasks", "3 tasks are more than the 2 allowed")
    ]
    deep = [ROOT, task("a"), task("b", parent="a"), task("c", parent="b")]
    assert problems(deep, Limits(max_depth=3)) == [("tasks", "the tree is 4 levels deep; 3 are allowed")]
    assert len(plan(deep, Limits(max_depth=4, max_tasks=4)).tasks) == 4


@pytest.mark.slow
def test_a_hundred_thousand_tasks_in_a_chain_of_parents() -> None:
    """Nothing recurses."""
    n = 100_000
    items = [{"id": str(i), "name": "work"} | ({"parent_id": str(i - 1)} if i else {}) for i in range(n)]
    assert len(plan(items).tasks) == n
    assert problems(items, Limits(max_tasks=n)) == [("tasks", f"the tree is {n} levels deep; 200 are allowed")]


@pytest.mark.slow
def test_a_hundred_thousand_tasks_in_a_chain_of_dependencies() -> None:
    n = 100_000
    items = [ROOT, *(task(str(i), *([str(i - 1)] if i else [])) for i in range(n))]
    assert len(plan(items).tasks) == n + 1
    items[1]["dependencies"] = [str(n - 1)]
    ((_, message),) = problems(items)
    assert message.count(" -> ") <= 20  # a cycle is named, but not all of a hundred thousand tasks


def test_a_long_cycle_is_told_by_its_beginning_and_its_end() -> None:
    def cycle(n: int) -> str:
        ((field, message),) = problems([ROOT, *(task(f"t{i}", f"t{(i + 1) % n}") for i in range(n))])
        assert field == "tasks"
        return message.removeprefix("the dependencies form a cycle: ")

    assert cycle(19).count(" -> ") == 19 and "more" not in cycle(19)
    steps = cycle(20).split(" -> ")
    assert (len(steps), steps[10]) == (21, "(1 more)")
    assert steps[0] == steps[-1]


def test_changes_are_parsed_like_a_task() -> None:
    given = {"priority": 0, "inputs": None, "retry": None, "deadline": "1970-01-01T00:00:05Z"}
    assert parse_changes(given) == ({"priority": 0, "inputs": {}, "retry": RetryPolicy(), "deadline": 5.0}, [])
    parsed, _ = parse_changes({"dependencies": ["a", {"id": "b", "required": False}]})
    assert parsed == {"dependencies": (Dependency("a"), Dependency("b", On.ANY))}
    assert parse_changes({"deadline": None, "user_id": None}) == ({"deadline": None, "user_id": None}, [])


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"priority": "x", "id": "new", "status": "completed"}, ["id", "priority", "status"]),
        ({"deadline": "soon"}, ["deadline"]),
        ({"name": None}, ["name"]),
        ({"parent_id": "a"}, ["parent_id"]),
    ],
)
def test_every_broken_rule_of_a_change_is_told(changes: dict[str, Any], fields: list[str]) -> None:
    _, problems = parse_changes(changes)
    assert sorted(problem.field for problem in problems) == fields


def test_what_is_right_among_wrong_changes_is_kept_to_be_judged() -> None:
    parsed, problems = parse_changes({"priority": "x", "dependencies": ["a", 5, {"id": 6}], "name": "new"})
    assert parsed == {"name": "new"}
    assert [problem.field for problem in problems] == ["priority", "dependencies[1]", "dependencies[2].id"]


def test_the_registry_resolves_method_then_executor_id_then_name() -> None:
    registry = ExecutorRegistry()
    assert registry.resolve("work") is None
    assert wanted_executor("n", {"method": "m"}, {"executor_id": "e"}) == "m"
    assert wanted_executor("n", {"method": ""}, {"executor_id": "e"}) == "e"
    assert wanted_executor("n", {}, None) == "n"


# Against a reference: what a tree is, said once more and simply.


def is_tree(parents: list[int | None], needs: list[list[int]], is_group: list[bool]) -> bool:
    n = len(parents)
    if sum(parent is None for parent in parents) != 1:
        return False
    if any(p is not None and p >= n for p in parents) or any(d >= n for ds in needs for d in ds):
        return False
    if any(len(set(ds)) < len(ds) or i in ds for i, ds in enumerate(needs)):
        return False
    children = [[c for c in range(n) if parents[c] == i] for i in range(n)]
    if any(is_group[i] and not children[i] for i in range(n)):
        return False
    up = [[p] if p is not None else [] for p in parents]
    waits = [needs[i] + (children[i] if is_group[i] else []) for i in range(n)]
    return not any(reaches(edges, i, i) for edges in (up, waits) for i in range(n))


def reaches(edges: list[list[int]], start: int, goal: int) -> bool:
    seen: set[int] = set()

    def visit(node: int) -> bool:
        return any(t == goal or (t not in seen and not seen.add(t) and visit(t)) for t in edges[node])  # type: ignore[func-returns-value]

    return visit(start)


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int | None], list[list[int]], list[bool]]:
    n = draw(st.integers(1, 6))
    # Mostly trees, so that both answers are common.
    parents = [None] + [
        draw(st.integers(0, i - 1) | st.integers(0, i - 1) | st.none() | st.integers(0, n)) for i in range(1, n)
    ]
    needs = [draw(st.lists(st.integers(0, max(i - 1, 0)) | st.integers(0, n), max_size=2)) for i in range(n)]
    groups = [draw(st.booleans()) if i in parents else draw(st.sampled_from([False] * 9 + [True])) for i in range(n)]
    return parents, needs, groups


@given(graphs())
@example(([None], [[]], [False]))
def test_exactly_the_trees_are_accepted(graph: tuple[list[int | None], list[list[int]], list[bool]]) -> None:
    """And a cycle that is named is one."""
    parents, needs, is_group = graph
    items = [
        {
            "id": str(i),
            "name": "folder" if is_group[i] else "work",
            "parent_id": None if parents[i] is None else str(parents[i]),
            "dependencies": [str(d) for d in needs[i]],
        }
        for i in range(len(parents))
    ]
    try:
        made = plan(items)
    except InvalidPlan as refusal:
        assert not is_tree(parents, needs, is_group)
        for named in re.findall(r"dependencies form a cycle: ([\d >-]+)", str(refusal)):
            steps = [int(step) for step in named.split(" -> ")]
            assert steps[0] == steps[-1]
            for a, b in pairwise(steps):
                assert b in needs[a] or (parents[b] == a and is_group[a])
    else:
        assert is_tree(parents, needs, is_group)
        ids = [t.id for t in made.tasks]
        assert [[ids.index(d.id) for d in t.dependencies] for t in made.tasks] == needs
        assert [t.parent_id and ids.index(t.parent_id) for t in made.tasks] == parents


@given(st.dictionaries(st.integers(0, 8), st.lists(st.integers(0, 8), max_size=3), max_size=9))
def test_a_found_cycle_is_one_and_none_is_missed(edges: dict[int, list[int]]) -> None:
    graph = {str(a): [str(b) for b in targets if b in edges] for a, targets in edges.items()}
    cycle = find_cycle(graph)
    full = [[b for b in edges.get(a, []) if b in edges] for a in range(9)]
    assert bool(cycle) == any(reaches(full, a, a) for a in edges)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert all(b in graph[a] for a, b in pairwise(cycle))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schemas": {"method": 5}}, "tasks[0].schemas.method"),
        ({"schemas": {"method": ["x"]}}, "tasks[0].schemas.method"),
        ({"params": {"executor_id": {}}}, "tasks[0].params.executor_id"),
        ({"schemas": {"input_schema": 5}}, "tasks[0].schemas.input_schema"),
        ({"schemas": {"input_schema": {"$ref": "#/$defs/a"}}}, "tasks[0].schemas.input_schema"),
        ({"schemas": {"input_schema": {"properties": {"x": {"pattern": "(a+)+$"}}}}}, "tasks[0].schemas.input_schema"),
        ({"schemas": {"input_schema": {"uniqueItems": True}}}, "tasks[0].schemas.input_schema"),
        ({"schemas": {"input_schema": {"enum": list(range(5000))}}}, "tasks[0].schemas.input_schema"),
        ({"deadline": "9999-12-31T23:59:59-14:00"}, "tasks[0].deadline"),
        ({"deadline": "0001-01-01T00:00:00+14:00"}, "tasks[0].deadline"),
    ],
)
def test_what_means_something_to_the_core_is_judged(fields: dict[str, Any], field: str) -> None:
    """A caller's schema must not be able to keep the whole process busy, nor a deadline be one that cannot be told."""
    with pytest.raises(InvalidPlan) as refusal:
        plan([{"name": "work", **fields}])
    assert [problem.field for problem in refusal.value.problems] == [field]


def test_a_property_may_be_called_like_a_costly_keyword() -> None:
    schema = {"properties": {"pattern": {"type": "string"}, "uniqueItems": {"type": "boolean"}}}
    assert plan([{"name": "work", "schemas": {"input_schema": schema}}]).tasks[0].schemas == {"input_schema": schema}


def test_each_wrong_dependency_is_told() -> None:
    with pytest.raises(InvalidPlan) as refusal:
        plan([{"id": "a", "name": "work", "dependencies": [{"id": 5}, 5, None]}])
    assert [p.field for p in refusal.value.problems] == [
        "tasks[0].dependencies[0].id",
        "tasks[0].dependencies[1]",
        "tasks[0].dependencies[2]",
    ]


def test_the_words_of_what_is_wrong_with_a_tasks_extras() -> None:
    """They come with the field they are about; what the judge of schemas says comes as it says it."""

    def judged(**fields: Any) -> list[tuple[str, str]]:
        schemas, params = fields.get("schemas"), fields.get("params")
        found = extras_problems(schemas, params, lambda schema: f"judged {schema}")
        return [(problem.field, problem.message) for problem in found]

    assert judged(schemas={"method": ""}) == [("schemas.method", "must be the id of an executor")]
    assert judged(params={"executor_id": 5}) == [("params.executor_id", "must be the id of an executor")]
    assert judged(schemas={"input_schema": 5}) == [("schemas.input_schema", "must be a JSON Schema object")]
    assert judged(schemas={"input_schema": {"a": 1}}) == [("schemas.input_schema", "judged {'a': 1}")]
    full = {"enum": [0] * (MAX_SCHEMA_NODES - 2)}
    assert judged(schemas={"input_schema": full}) == [("schemas.input_schema", f"judged {full}")]
    full["enum"].append(0)
    assert judged(schemas={"input_schema": full}) == [("schemas.input_schema", "has more than 2000 parts")]
    given = [ROOT, task("a", schemas={"input_schema": 5}, deadline="soon")]
    assert problems(given) == [
        ("tasks[1].schemas.input_schema", "must be a JSON Schema object"),
        ("tasks[1].deadline", "must be a timestamp such as 2026-01-31T12:00:00Z"),
    ]


def test_a_dependency_outside_the_tree_is_told_with_its_rule() -> None:
    """Found where ids are final: when a task is changed."""
    lone = Task(id="a", name="n", created_at=NOW, dependencies=(Dependency("x"),))
    text = "there is no task 'x' in this tree; a task depends on tasks of its own tree"
    assert check_graph([lone]) == [Problem("tasks[0].dependencies[0]", text)]


def test_a_task_is_called_by_its_reference_else_its_unique_name_else_its_id() -> None:
    def made(task_id: str, name: str, ref: str | None = None) -> Task:
        return Task(id=task_id, name=name, ref=ref, created_at=NOW)

    tasks = [made("1", "x", "first"), made("2", "y"), made("3", "z"), made("4", "z")]
    assert called(tasks) == {"1": "first", "2": "y", "3": "3", "4": "4"}


def test_no_more_than_a_hundred_problems_are_told_and_the_others_are_counted() -> None:
    exactly = [ROOT, *(task(f"t{n}", "none") for n in range(MAX_PROBLEMS))]
    assert len(problems(exactly)) == MAX_PROBLEMS
    more = [ROOT, *(task(f"t{n}", "none") for n in range(MAX_PROBLEMS + 3))]
    assert problems(more)[MAX_PROBLEMS:] == [("", "and 3 more problems")]


def test_of_many_roots_five_are_named() -> None:
    text = "6 tasks have no parent_id ('a', 'b', 'c', 'd', 'e'); a tree has one root"
    assert problems([task(name, parent=None) for name in "abcdef"]) == [("tasks", text)]


def test_where_no_executor_is_known_that_is_said() -> None:
    with pytest.raises(InvalidPlan, match=r"unknown executor 'work'; known are: none$"):
        make_plan([{"name": "work"}], Rules(lambda *named: None, list), new_id=lambda: "1", now=NOW, owner="alice")


def test_a_plan_was_changed_when_it_was_made() -> None:
    (made,) = plan([{"name": "work"}]).tasks
    assert (made.created_at, made.updated_at) == (NOW, NOW)


def test_problems_beyond_those_that_are_kept_are_counted_too() -> None:
    found = problems([ROOT, *(task(f"t{n}", "none") for n in range(MAX_KEPT + 500))])
    assert found[MAX_PROBLEMS:] == [("", f"and {MAX_KEPT + 500 - MAX_PROBLEMS} more problems")]


def test_of_the_name_of_an_unknown_field_so_much_is_told() -> None:
    assert problems([{"name": "work", "x" * 10_000: 1}])[0][0] == f"tasks[0].{'x' * LONGEST_NAME}"
