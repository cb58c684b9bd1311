"""Tests of core.inputs (semantics §4; guide, "Dependency Resolution")."""

from msgspec.structs import replace

from core.inputs import resolve_inputs, results_of
from core.task import Dependency, On, Task, TaskStatus

OPEN = {"type": "object", "properties": {"x": {}, "y": {}}}
CLOSED = OPEN | {"additionalProperties": False}


def test_own_inputs_are_all_there_is_without_dependencies() -> None:
    assert resolve_inputs({"a": 1}, {}, None) == {"a": 1}


def test_fields_of_dict_results_are_merged_and_later_dependencies_win() -> None:
    found = resolve_inputs({}, {"one": {"x": 1, "y": 1}, "two": {"x": 2}}, None)
    assert (found["x"], found["y"]) == (2, 1)


def test_each_result_is_there_whole_under_its_dependency() -> None:
    found = resolve_inputs({}, {"one": {"x": 1}, "two": [1, 2], "three": None}, None)
    assert (found["one"], found["two"], found["three"]) == ({"x": 1}, [1, 2], None)


def test_own_inputs_win_over_everything() -> None:
    found = resolve_inputs({"x": "own", "one": "own too"}, {"one": {"x": 1}}, None)
    assert found == {"x": "own", "one": "own too"}


def test_a_whole_result_wins_over_a_field_of_the_same_name() -> None:
    assert resolve_inputs({}, {"one": {"two": "field"}, "two": "whole"}, None)["two"] == "whole"


def test_only_declared_properties_are_merged() -> None:
    found = resolve_inputs({}, {"one": {"x": 1, "z": 3}}, OPEN)
    assert found == {"x": 1, "one": {"x": 1, "z": 3}}


def test_a_closed_schema_gets_no_whole_results_but_declared_ones() -> None:
    found = resolve_inputs({}, {"one": {"y": 2, "z": 3}, "x": 7}, CLOSED)
    assert found == {"y": 2, "x": 7}


def test_a_closed_schema_without_properties_gets_only_own_inputs() -> None:
    assert resolve_inputs({}, {"one": 1}, {"additionalProperties": False}) == {}


def test_nothing_given_is_changed() -> None:
    own, results = {"a": 1}, {"one": {"x": 1}}
    resolve_inputs(own, results, None)["b"] = 2
    assert (own, results) == ({"a": 1}, {"one": {"x": 1}})


def test_results_come_by_key_in_the_order_of_dependencies_and_what_is_missing_is_named() -> None:
    done, failed = (Task(id=name, ref=f"ref-{name}", name=name, created_at=0.0) for name in ("done", "failed"))
    done = replace(done, status=TaskStatus.COMPLETED, result={"$parts": [{"text": "x"}]})
    failed = replace(failed, status=TaskStatus.FAILED)
    needs = (Dependency("failed", On.ANY), Dependency("done"))
    task = Task(id="t", name="t", dependencies=needs, created_at=0.0)
    found = results_of({"done": done, "failed": failed, "t": task}, task)
    assert found == ({"ref-done": [{"text": "x"}]}, ("ref-failed",))
