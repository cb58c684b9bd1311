"""The assertions of ACTS mean what the document says, and what they do not know is an error, never a pass."""

from typing import Any

import pytest

from tests.acceptance.acts.corpus import kind_of, resolved
from tests.acceptance.acts.matching import MISSING, CaseError, at, fits, is_true, state_problems

TASK = {"id": "t", "status": {"state": "WORKING"}, "artifacts": [{"parts": [{"text": "a"}, {"data": 1}]}]}


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ("a", "a"),
        (None, None),
        (1, 1.0),
        ({"type": "number"}, 1),
        ({"type": "array", "count": 1, "count_gte": 1, "count_lte": 1}, ["x"]),
        ({"exists": True}, None),
        ({"absent": True}, MISSING),
        ({"contains": "b", "matches": "^a.c$", "starts_with": "a", "ends_with": "c"}, "abc"),
        ({"gte": 1, "lte": 1, "gt": 0, "lt": 2}, 1),
        ({"one_of": ["a", "b"]}, "b"),
        ({"any_of": [{"absent": True}, {"type": "null"}]}, None),
        ({"all_of": [{"type": "string"}, {"not": "b"}]}, "a"),
        ({"status": {"state": "WORKING"}}, TASK),
        ({"artifacts": [{"parts": [{"text": {"type": "string"}}]}]}, TASK),
        ({"items": {"type": "string"}}, ["a", "b"]),
        ({"items": [{"id": "t"}]}, [TASK]),
        ({"type": {"type": "string"}, "title": {"type": "string"}}, {"type": "x", "title": "y"}),
    ],
)
def test_assertion_holds(expected: Any, value: Any) -> None:
    assert fits(expected, value)


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        ("a", "b"),
        (1, True),
        (True, 1),
        ("a", MISSING),
        ({"type": "number"}, True),
        ({"type": "string"}, MISSING),
        ({"exists": True}, MISSING),
        ({"absent": True}, None),
        ({"contains": "b"}, ["b"]),
        ({"gte": 1}, "1"),
        ({"count": 1}, "x"),
        ({"count_gte": 2}, ["x"]),
        ({"not": {"type": "string"}}, "a"),
        ({"any_of": ["a", "b"]}, "c"),
        ({"all_of": [{"type": "string"}, "b"]}, "a"),
        ({"status": {"state": "COMPLETED"}}, TASK),
        ({"artifacts": [{}, {}]}, TASK),
        ({"items": {"type": "string"}}, ["a", 1]),
        ({"items": {"type": "string"}}, "a"),
    ],
)
def test_assertion_does_not_hold(expected: Any, value: Any) -> None:
    assert not fits(expected, value)


@pytest.mark.parametrize("expected", [{"type": "text"}, {"type": "string", "lenght": 1}])
def test_unknown_operator_is_an_error(expected: Any) -> None:
    with pytest.raises(CaseError):
        fits(expected, "a")


def test_unknown_step_key_is_an_error() -> None:
    assert kind_of({"id": "a", "operation": "get_task", "params": {}}) == "operation"
    for wrong in (
        {"id": "a", "operation": "get_task", "expects": {}},
        {"id": "a"},
        {"id": "a", "raw": {}, "assertion": {}},
    ):
        with pytest.raises(CaseError):
            kind_of(wrong)


def test_path_finds_every_value() -> None:
    assert at(TASK, "artifacts[*].parts[*].text") == ["a"]
    assert at(TASK, "artifacts[0].parts[1].data") == [1]
    assert at(TASK, "artifacts[1].parts[*]") == []
    with pytest.raises(CaseError):
        at(TASK, "artifacts[x]")


def test_condition_of_a_repetition() -> None:
    assert is_true("status.state == WORKING", TASK)
    assert is_true("status.state != COMPLETED", TASK)
    assert is_true("status.state in [COMPLETED, WORKING]", TASK)
    assert not is_true("status.state in [COMPLETED, FAILED]", TASK)
    with pytest.raises(CaseError):
        is_true("status.state", TASK)


def test_states_of_a_stream_do_not_go_back() -> None:
    submitted, working, completed = (f"TASK_STATE_{state}" for state in ("SUBMITTED", "WORKING", "COMPLETED"))
    assert not list(state_problems([submitted, submitted, working, working, completed]))
    assert list(state_problems([working, submitted]))
    assert list(state_problems([completed, working]))


def test_variable_without_a_value_is_an_error() -> None:
    variables = {"a": "1", "step.response": {"x": 1}}
    assert resolved({"k": ["{{a}}2", "{{step.response}}"]}, variables) == {"k": ["12", {"x": 1}]}
    with pytest.raises(CaseError):
        resolved("{{b}}", variables)
