"""A message on its way to its task: where it may go, and what it may name."""

from typing import Any

import pytest

from tests.a2a_server.conftest import Caller, calling, message
from tests.a2a_server.methods.tasks_calls import refused

METHODS = ["SendMessage", "SendStreamingMessage"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.asyncio
async def test_a_message_is_the_user_s(call: Caller, method: str) -> None:
    given = message("echo")
    given["message"]["role"] = "ROLE_AGENT"
    error = await refused(call, method, given)
    assert (error.code, error.fields) == (-32602, {"message.role"})


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.asyncio
async def test_a_task_that_has_ended_takes_no_more_messages(call: Caller, method: str) -> None:
    task = (await call("SendMessage", message("echo")))["task"]
    error = await refused(call, method, message(task=task["id"]))
    assert error.code == -32004 and "TASK_STATE_COMPLETED" in str(error)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.asyncio
async def test_a_message_to_a_task_names_its_context_or_none(call: Caller, method: str) -> None:
    task = (await call("SendMessage", message("ask")))["task"]
    error = await refused(call, method, message(task=task["id"], context="another"))
    assert (error.code, error.fields) == (-32602, {"message.contextId"})
    answered = (await call("SendMessage", message(task=task["id"], context=task["contextId"])))["task"]
    assert answered["id"] == task["id"]


@pytest.mark.asyncio
async def test_an_unknown_task_is_not_found_and_none_is_made(call: Caller) -> None:
    assert (await refused(call, "SendMessage", message("echo", task="unknown"))).code == -32001
    assert (await call("ListTasks", {}))["totalSize"] == 0


@pytest.mark.asyncio
async def test_a_message_to_a_task_that_asks_nothing_joins_its_history(call: Caller) -> None:
    task_id = await call.begin("hold")
    params: dict[str, Any] = message(task=task_id, text="more") | {"configuration": {"returnImmediately": True}}
    await call("SendMessage", params)
    history = (await call("GetTask", {"id": task_id}))["history"]
    assert [part["text"] for each in history for part in each["parts"]] == ["hi", "more"]


@pytest.mark.parametrize(("takes_context_ids", "is_taken"), [(True, True), (False, False)])
@pytest.mark.asyncio
async def test_contexts_are_the_client_s_where_the_operator_lets_it(takes_context_ids: bool, is_taken: bool) -> None:
    async with calling(client_context_ids=takes_context_ids) as call:
        given = message("echo", context="mine")
        if is_taken:
            assert (await call("SendMessage", given))["task"]["contextId"] == "mine"
        else:
            assert (await refused(call, "SendMessage", given)).fields == {"message.contextId"}
            known = (await call("SendMessage", message("echo")))["task"]["contextId"]
            again = (await call("SendMessage", message("echo", context=known)))["task"]
            assert again["contextId"] == known
