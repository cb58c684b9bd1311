"""What a caller may do who is no operator: which methods, which skills, and never with a task of somebody else."""

import json
from typing import Any

import pytest

from a2a_server.auth.principal import Principal
from a2a_server.auth.stored_keys import Grant
from core.model.owners import owner_of
from tests.a2a_server.conftest import Caller, RpcError, calling, message, running, tree_message

OPEN = {"system.health", "system.limits", "rpc.discover"}
USER = Principal(id="ann", owner=owner_of("", "ann"))


async def error_of(call: Caller, method: str, params: Any = None, **context: Any) -> RpcError:
    with pytest.raises(RpcError) as refused:
        await call(method, params, **context)
    return refused.value


# Methods


@pytest.mark.asyncio
async def test_every_method_but_a2as_and_three_is_for_operators() -> None:
    async with calling(auth=("keys",)) as call:
        discovered = [method["name"] for method in (await call("rpc.discover", principal=USER))["methods"]]
        assert {"keys.create", "tasks.create", "system.executors", *OPEN} <= set(discovered)
        for method in discovered:
            if "." not in method:  # A2A's
                continue
            if method in OPEN:
                await call(method, principal=USER)
                continue
            error = await error_of(call, method, {}, principal=USER)
            assert error.code == -32053 and "for operators" in error.message, method


@pytest.mark.asyncio
async def test_a_batch_is_judged_item_by_item() -> None:
    async with running(auth=("keys",)) as server, server.client() as client:
        _, key = await server.application.keys.create(Grant(principal="ann"))
        headers = {"X-API-Key": key}
        items = [
            {"jsonrpc": "2.0", "id": 1, "method": "tasks.list"},
            {"jsonrpc": "2.0", "id": 2, "method": "system.health"},
        ]
        denied, healthy = (await client.post("/", json=items, headers=headers)).json()
        assert (denied["error"]["code"], healthy["result"]["status"]) == (-32053, "healthy")
        alone = await client.post("/", json=items[0], headers=headers)
        assert (alone.status_code, alone.json()["error"]["code"]) == (403, -32053)


# Skills


@pytest.mark.asyncio
async def test_a_skill_that_is_not_the_callers_is_one_that_does_not_exist() -> None:
    async with calling(default_skill="hold") as call:
        limited = Principal(id="ann", skills=frozenset({"echo", "say", "internal"}), owner="o")
        assert await call("SendMessage", message("echo"), principal=limited)

        foreign = await error_of(call, "SendMessage", message("steps"), principal=limited)
        missing = await error_of(call, "SendMessage", message("nosuch"), principal=limited)
        assert "the skills are: echo, say" in foreign.message
        assert foreign.message.replace("steps", "nosuch") == missing.message
        internal = await error_of(call, "SendMessage", message("internal"), principal=limited)
        assert internal.message.replace("internal", "nosuch") == missing.message
        # The default skill is no way around it.
        assert "hold" in (await error_of(call, "SendMessage", message(), principal=limited)).message


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "tasks",
    [
        ({"name": "NAME"},),
        ({"name": "x", "schemas": {"method": "NAME"}},),
        ({"name": "x", "params": {"executor_id": "NAME"}},),
        ({"id": "a", "name": "echo"}, {"id": "b", "name": "NAME", "parent_id": "a"}),
    ],
)
@pytest.mark.parametrize("name", ["steps", "internal"])
async def test_a_tree_of_a_caller_has_its_skills_only(tasks: Any, name: str) -> None:
    async with calling() as call:
        limited = Principal(id="ann", skills=frozenset({"echo"}), owner="o")

        def tree(executor: str) -> Any:
            return tree_message(*json.loads(json.dumps(tasks).replace("NAME", executor)))

        foreign = await error_of(call, "SendMessage", tree(name), principal=limited)
        missing = await error_of(call, "SendMessage", tree("nosuch"), principal=limited)
        assert foreign.message.replace(name, "nosuch") == missing.message
        assert "known are: echo" in missing.message
        assert (await call("ListTasks", principal=limited))["totalSize"] == 0
        operator = Principal(id="root", is_operator=True, owner="o2")
        assert await call("SendMessage", tree(name), principal=operator)


@pytest.mark.asyncio
async def test_without_a_list_a_caller_may_use_every_skill_and_nothing_else() -> None:
    async with calling() as call:
        assert await call("SendMessage", message("steps"), principal=USER)
        assert await call("SendMessage", tree_message({"name": "steps"}), principal=USER)
        error = await error_of(call, "SendMessage", tree_message({"name": "internal"}), principal=USER)
        assert error.code == -32602


# Ownership


@pytest.mark.asyncio
@pytest.mark.parametrize("field", ["owner", "tenant", "status", "id", "createdAt", "is_operator"])
async def test_nobody_gives_a_task_another_owner(field: str) -> None:
    """Mass assignment (reliability T3): in the message, beside it, in its metadata and in a tree's tasks."""
    async with calling(auth=("keys",)) as call:
        sent = message("echo") | {field: "bob"}
        sent["message"] |= {field: "bob", "metadata": {field: "bob"}}
        with_task = message(None, {"data": {"tasks": [{"name": "echo", field: "bob"}]}})
        for params in (sent, with_task):
            try:
                await call("SendMessage", params, principal=USER)
            except RpcError as error:
                assert error.code in (-32602, -32001)
        listed = await call("ListTasks", principal=USER)
        heads = [await call.session.storage.head(task["id"]) for task in listed["tasks"]]
        assert {head.owner for head in heads if head} <= {USER.owner}
        bob = Principal(id="bob", owner=owner_of("", "bob"))
        assert (await call("ListTasks", principal=bob))["totalSize"] == 0
