"""The server's answers are what `rpc.discover` says they are."""

from collections.abc import AsyncIterator
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from tests.a2a_server.conftest import Caller, calling, message

URL = "https://example.com/hook"
PLAIN = {"system.limits"}  # a mapping of names
EMPTY = {"DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete"}  # null


class Described:
    """Calls methods, and compares each result with its schema."""

    def __init__(self, call: Caller, document: dict[str, Any]) -> None:
        self._call = call
        self.schemas = {each["name"]: each["result"]["schema"] for each in document["methods"]}
        self._components = document["components"]
        self.called: set[str] = set()

    async def __call__(self, method: str, params: Any = None) -> Any:
        result = await self._call(method, params)
        self.check(method, result)
        return result

    def check(self, method: str, result: Any) -> None:
        self.called.add(method)
        schema = self.schemas[method] | {"components": self._components}
        jsonschema.Draft202012Validator(schema).validate(result)
        for each in result if isinstance(result, list) else [result]:
            if isinstance(each, dict) and method not in PLAIN:
                assert each.keys() <= self.properties(method), method

    def properties(self, method: str) -> set[str]:
        """Every field that the result, or each item of it, may have."""
        found: set[str] = set()
        waiting = [self.schemas[method]]
        while waiting:
            schema = waiting.pop()
            found |= schema.get("properties", {}).keys()
            if "$ref" in schema:
                waiting.append(self._components["schemas"][schema["$ref"].rpartition("/")[2]])
            waiting += [*schema.get("anyOf", []), *([schema["items"]] if "items" in schema else [])]
        return found


@pytest_asyncio.fixture
async def described() -> AsyncIterator[Described]:
    """Without authentication, as A2A's methods are called; so `keys.*` are missing."""
    async with calling() as call:
        yield Described(call, await call("rpc.discover"))


@pytest.mark.asyncio
async def test_every_result_has_a_schema_with_properties(described: Described) -> None:
    """Found by a reader of the document: results of `tasks.*` and of `rpc.discover` were objects of no fields."""
    bare = {name for name in described.schemas if not described.properties(name)}
    assert bare == PLAIN | EMPTY


@pytest.mark.asyncio
async def test_answers_of_our_methods_fit_their_schemas(described: Described) -> None:
    call = described
    await call("rpc.discover")
    for name in ("system.health", "system.limits", "system.executors"):
        await call(name)
    tree = [{"id": "r", "name": "echo", "inputs": {"a": 1}}, {"name": "boom", "parent_id": "r"}]
    made = await call("tasks.create", tree)
    await call("tasks.update", {"task_id": made["id"], "name": "changed"})
    await call("tasks.execute", {"task_id": made["id"], "wait": True})
    await call("tasks.execute", {"tasks": [{"name": "ask"}], "wait": True})
    begun = await call("tasks.execute", {"tasks": [{"name": "hold"}]})
    for name in ("tasks.get", "tasks.detail", "tasks.tree"):
        await call(name, {"task_id": made["id"]})
    assert await call("tasks.children", {"parent_id": made["id"]})
    assert await call("tasks.list", {"root_only": False})
    await call("tasks.running.list")
    await call("tasks.running.count")
    await call("tasks.running.status", {"task_ids": [begun["task_id"], "unknown"]})
    assert await call("tasks.events", {"task_id": made["id"]})
    await call("tasks.copy", {"task_id": made["id"]})
    asking = await call("tasks.execute", {"tasks": [{"name": "ask"}], "wait": True})
    await call("tasks.answer", {"task_id": asking["id"], "answer": "yes"})
    await call("tasks.cancel", {"task_ids": [begun["task_id"], "unknown"]})
    await call("tasks.delete", {"task_id": made["id"]})
    await call("push.deliveries", {"status": "dead"})
    await call("push.resend", {"delivery_ids": ["unknown"]})
    assert described.called == {name for name in described.schemas if "." in name}


@pytest.mark.asyncio
async def test_answers_about_keys_fit_their_schemas() -> None:
    async with calling(auth=("keys",)) as caller:
        call = Described(caller, await caller("rpc.discover"))
        key = await call("keys.create", {"principal": "ann", "skills": ["echo"]})
        await call("keys.list")
        await call("keys.rotate", {"id": key["id"]})
        await call("keys.revoke", {"id": key["id"]})
        assert call.called == {name for name in call.schemas if name.startswith("keys.")}


@pytest.mark.asyncio
async def test_answers_of_a2a_fit_their_schemas(described: Described) -> None:
    call = described
    task = (await call("SendMessage", message("echo")))["task"]
    await call("GetTask", {"id": task["id"]})
    await call("ListTasks", {})
    held = (await call("SendMessage", message("hold") | {"configuration": {"returnImmediately": True}}))["task"]
    config = await call("CreateTaskPushNotificationConfig", {"taskId": held["id"], "url": URL})
    named = {"taskId": held["id"], "id": config["id"]}
    await call("GetTaskPushNotificationConfig", named)
    await call("ListTaskPushNotificationConfigs", {"taskId": held["id"]})
    await call("DeleteTaskPushNotificationConfig", named)
    await call("CancelTask", {"id": held["id"]})


@pytest.mark.asyncio
async def test_events_of_a_run_fit_what_is_said_of_them(described: Described) -> None:
    params = {"tasks": [{"name": "steps"}], "use_streaming": True}
    frames = await described._call.frames("tasks.execute", params)
    assert len(frames) > 2
    for frame in frames:
        described.check("tasks.execute", frame.result if "jsonrpc" in frame.data else frame.data)
