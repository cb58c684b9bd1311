"""What the `tasks.*` methods have in common, and `system.*`, through the endpoint."""

from typing import Any

import pytest

from a2a_server.protocol.errors import UnsupportedOperation
from a2a_server.views.task_view import MAX_NESTED, tree_object
from core.model.task import Task, TreeHead
from tests.a2a_server.conftest import Caller
from tests.a2a_server.methods.tasks_calls import refused


@pytest.mark.parametrize(
    ("method", "params", "fields"),
    [
        ("tasks.execute", {}, {"task_id"}),
        ("tasks.execute", {"task_id": "a", "tasks": []}, {"task_id"}),
        ("tasks.execute", {"task_id": 5}, {"task_id"}),
        ("tasks.execute", {"task_id": "a", "use_streaming": 1}, {"use_streaming"}),
        ("tasks.execute", {"task_id": "a", "use_streaming": True, "wait": True}, {"wait"}),
        ("tasks.execute", {"tasks": [{"name": "unheard"}]}, {"tasks[0].name"}),
        ("tasks.execute", {"task_id": "a", "wait": "no", "force": 0}, {"wait", "force"}),
        ("tasks.execute", {"task_id": "a", "webhook_config": "x"}, {"webhook_config"}),
        ("tasks.execute", {"task_id": "a", "a2a": True}, {"a2a"}),
        ("tasks.execute", {"tasks": [], "a2a": 1}, {"a2a"}),
        ("tasks.cancel", {}, {"task_ids"}),
        ("tasks.cancel", {"task_ids": []}, {"task_ids"}),
        ("tasks.cancel", {"task_ids": "a,,b"}, {"task_ids"}),
        ("tasks.cancel", {"task_ids": ["a"], "error_message": 1}, {"error_message"}),
        ("tasks.get", {}, {"task_id"}),
        ("tasks.get", {"task_id": "a", "id": "b"}, {"id"}),
        ("tasks.get", ["x"], {"params"}),
        ("tasks.detail", {"task_id": ""}, {"task_id"}),
        ("tasks.tree", {}, {"task_id"}),
        ("tasks.tree", {"task_id": "a", "root_id": "a"}, {"task_id"}),
        ("tasks.children", {"parent_id": None}, {"parent_id"}),
        ("tasks.list", {"limit": 0, "offset": -1}, {"limit", "offset"}),
        ("tasks.list", {"page_token": "bm9uZQ"}, {"page_token"}),
        ("tasks.list", {"page_token": "é"}, {"page_token"}),
        ("tasks.running.list", {"page_token": "a"}, {"page_token"}),
        ("tasks.list", {"status": "dancing", "root_only": "x"}, {"status", "root_only"}),
        ("tasks.update", {"name": "x"}, {"task_id"}),
        ("tasks.update", [1], {"task_id"}),
        ("tasks.update", {"task_id": "a"}, {"params"}),
        ("tasks.delete", {"task_id": ["a"]}, {"task_id"}),
        ("tasks.copy", {"task_id": "a", "children": None}, {"children"}),
        ("tasks.running.list", {"limit": 1001}, {"limit"}),
        ("tasks.running.status", {}, {"task_ids"}),
        ("tasks.running.count", {"who": 1}, {"who"}),
        ("tasks.events", {"task_id": "a", "after": -1}, {"after"}),
        ("system.health", {"verbose": True}, {"verbose"}),
        ("system.executors", {"x": 1}, {"x"}),
    ],
)
@pytest.mark.asyncio
async def test_wrong_param_is_named(call: Caller, method: str, params: Any, fields: set[str]) -> None:
    error = await refused(call, method, params)
    assert (error.code, error.fields) == (-32602, fields)


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tasks.get", {"task_id": "x"}),
        ("tasks.tree", {"root_id": "x"}),
        ("tasks.children", {"parent_id": "x"}),
        ("tasks.execute", {"task_id": "x"}),
        ("tasks.update", {"task_id": "x", "priority": 1}),
        ("tasks.delete", {"task_id": "x"}),
        ("tasks.copy", {"task_id": "x"}),
        ("tasks.events", {"task_id": "x"}),
    ],
)
@pytest.mark.asyncio
async def test_unknown_task_is_not_found(call: Caller, method: str, params: Any) -> None:
    assert (await refused(call, method, params)).code == -32001


@pytest.mark.asyncio
async def test_health_and_executors(call: Caller) -> None:
    health = await call("system.health")
    assert health["status"] == "healthy"
    assert health["uptime"] >= 0
    told = {spec["id"]: spec for spec in await call("system.executors")}
    assert {"echo", "system_info_executor", "rest_executor", "aggregate_results_executor"} <= told.keys()
    assert "command_executor" not in told
    assert (told["stubborn"]["cancelable"], told["internal"]["is_skill"]) == (False, False)
    assert told["rest_executor"]["input_schema"]["properties"]


@pytest.mark.asyncio
async def test_discover_lists_every_method(call: Caller) -> None:
    names = {method["name"] for method in (await call("rpc.discover"))["methods"]}
    assert {"SendMessage", "tasks.create", "tasks.running.count", "system.health"} <= names


def test_tree_too_deep_to_be_nested_is_refused_without_recursion() -> None:
    """Trees made through the Python API may be any depth; JSON objects may not."""
    tasks = [Task(id="0", name="t", created_at=0.0)]
    tasks += [Task(id=str(n), name="t", parent_id=str(n - 1), created_at=0.0) for n in range(1, 20_000)]
    head = TreeHead(id="0", created_at=0.0, updated_at=0.0)
    with pytest.raises(UnsupportedOperation, match=f"more than {MAX_NESTED} levels"):
        tree_object(head, reversed(tasks))
    assert tree_object(head, tasks[:MAX_NESTED])["children"]
