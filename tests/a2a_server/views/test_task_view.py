"""Task objects and nested trees, as the `tasks.*` methods tell them."""

from typing import Any

import pytest

from a2a_server.protocol.errors import UnsupportedOperation
from a2a_server.views.task_view import MAX_NESTED, nested, task_object
from core.model.owners import owner_of
from core.model.task import ANONYMOUS, Dependency, On, Task

FOR_OPERATORS = {"tenant", "principal", "error_detail"}
FAILED = Task(
    id="t", name="work", created_at=0, error="failed", error_detail="KeyError: 'k'", owner=owner_of("acme", "ann")
)


def node(task_id: str, parent_id: str | None = None) -> dict[str, Any]:
    return {"id": task_id, "parent_id": parent_id, "children": []}


def chain(length: int) -> list[dict[str, Any]]:
    return [node(str(n), str(n - 1) if n else None) for n in range(length)]


def test_operators_read_whose_a_task_is() -> None:
    """Found by an operator: `tasks list` showed the tasks of all tenants, and not whose each was."""
    told = task_object(FAILED, for_operator=True)
    assert {name: told[name] for name in FOR_OPERATORS} == {
        "tenant": "acme", "principal": "ann", "error_detail": "KeyError: 'k'",
    }  # fmt: skip


def test_other_callers_do_not() -> None:
    assert not FOR_OPERATORS & task_object(FAILED).keys()


def test_task_of_an_unidentified_caller_is_of_no_tenant() -> None:
    told = task_object(Task(id="t", name="work", created_at=0), for_operator=True)
    assert (told["tenant"], told["principal"]) == ("", ANONYMOUS)
    assert "error_detail" not in told, "there is none"


@pytest.mark.parametrize(
    ("on", "told"),
    [
        (On.SUCCESS, {"id": "a", "on": "success", "required": True}),
        (On.FAILURE, {"id": "a", "on": "failure"}),
    ],
)
def test_dependency_is_told_as_it_may_be_given(on: On, told: dict[str, Any]) -> None:
    assert task_object(Task(id="t", name="n", created_at=0, dependencies=(Dependency("a", on),)))["dependencies"] == [
        told
    ]


def test_children_come_below_their_parents_whatever_their_order() -> None:
    tree = nested("r", [node("b", "a"), node("a", "r"), node("r")])
    assert tree["children"][0]["children"][0]["id"] == "b"


def test_tree_is_nested_as_deep_as_readers_of_json_go() -> None:
    assert nested("0", chain(MAX_NESTED))["id"] == "0"
    with pytest.raises(UnsupportedOperation, match="more than 500 levels deep"):
        nested("0", reversed(chain(MAX_NESTED + 1)))
