"""`tasks.answer`, `cancel`, `update`, `delete` and `copy`, through the endpoint."""

import asyncio
from typing import Any

import pytest

from core.executors.base import ExecutorSpec, TaskContext
from core.session import has_ended, needs_caller
from tests.a2a_server.conftest import Caller, RpcError, _Executor
from tests.a2a_server.methods.tasks_calls import PAIR, alternatives, refused, run


@pytest.mark.asyncio
async def test_question_of_a_tree_is_answered_through_its_root(call: Caller) -> None:
    made = await call("tasks.execute", {"tasks": [{"name": "ask"}], "wait": True})
    assert made["question"] == [{"text": "first?"}]
    answered = await call("tasks.answer", {"task_id": made["id"], "answer": {"n": 1}})
    assert answered["question"] is None
    await call.session.wait(made["id"], needs_caller)
    await call("tasks.answer", {"task_id": made["id"], "answer": "two"})
    await call.session.wait(made["id"], has_ended)
    with pytest.raises(RpcError) as refused:
        await call("tasks.answer", {"task_id": made["id"], "answer": "again"})
    assert refused.value.code == -32004
    with pytest.raises(RpcError) as missing:
        await call("tasks.answer", {"task_id": made["id"]})
    assert missing.value.fields == {"answer"}


async def ask_both(inputs: dict[str, Any], context: TaskContext) -> Any:
    return list(await asyncio.gather(context.ask("size?"), context.ask("colour?")))


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({}, {"answer"}),
        ({"answer": 1, "answers": [1, 2]}, {"answer"}),
        ({"answers": []}, {"answers"}),
        ({"answers": ["L"]}, {"answers"}),
        ({"answers": ["L", "red", 3]}, {"answers"}),
        ({"answers": "L"}, {"answers"}),
    ],
)
@pytest.mark.asyncio
async def test_answers_that_do_not_fit_the_questions_are_refused_and_those_that_do_are_each_ones_own(
    call: Caller, given: dict[str, Any], fields: set[str]
) -> None:
    call.session.registry.register(ExecutorSpec(id="both", make=lambda: _Executor(ask_both)))
    made = await call("tasks.execute", {"tasks": [{"name": "both"}], "wait": True})
    with pytest.raises(RpcError) as refused:
        await call("tasks.answer", {"task_id": made["id"]} | given)
    assert (refused.value.code, refused.value.fields) == (-32602, fields)
    await call("tasks.answer", {"task_id": made["id"], "answers": ["L", None]})
    await call.session.wait(made["id"], has_ended)
    assert (await call("tasks.get", {"task_id": made["id"]}))["result"] == ["L", None]


@pytest.mark.asyncio
async def test_one_question_takes_a_list_of_one_answer_too(call: Caller) -> None:
    made = await call("tasks.execute", {"tasks": [{"name": "ask"}], "wait": True})
    with pytest.raises(RpcError) as refused:
        await call("tasks.answer", {"task_id": made["id"], "answers": [1, 2]})
    assert refused.value.fields == {"answers"}
    await call("tasks.answer", {"task_id": made["id"], "answers": [["a"]]})
    await call.session.wait(made["id"], needs_caller)
    task = await call.session.storage.task(made["id"])
    assert task is not None and task.answers == (["a"],)


@pytest.mark.asyncio
async def test_cancel_answers_for_each_id(call: Caller) -> None:
    done = (await run(call, {"name": "nothing"}))["id"]
    pending = await call.tree({"name": "echo"})
    answers = await call("tasks.cancel", {"task_ids": f"{done}, {pending},unheard", "error_message": "enough"})
    assert [(a["task_id"], a["status"]) for a in answers] == [
        (done, "failed"),
        (pending, "cancelled"),
        ("unheard", "failed"),
    ]
    assert answers[0]["message"] == f"Task {done} is already completed, cannot cancel"
    assert (await call("tasks.get", {"task_id": pending}))["error"] == "enough"
    (again,) = await call("tasks.cancel", {"task_ids": [pending]})
    assert again["status"] == "cancelled"


@pytest.mark.asyncio
async def test_task_that_cannot_be_interrupted_fails_to_cancel_unless_forced(call: Caller) -> None:
    answer = await call("tasks.execute", {"tasks": [{"name": "stubborn", "inputs": {"key": "s"}}]})
    await call.lab.started["s"].wait()
    (left,) = await call("tasks.cancel", {"task_ids": [answer["task_id"]]})
    assert (left["status"], left["not_cancelable"]) == ("failed", [answer["task_id"]])
    (forced,) = await call("tasks.cancel", {"task_ids": [answer["task_id"]], "force": True})
    assert forced["status"] == "cancelled"
    call.lab.released["s"].set()


@pytest.mark.asyncio
async def test_update_changes_a_pending_task_and_names_every_wrong_field(call: Caller) -> None:
    task_id = await call.tree({"name": "echo"})
    changed = await call("tasks.update", {"task_id": task_id, "priority": 0, "inputs": {"x": 1}})
    assert (changed["priority"], changed["inputs"]) == (0, {"x": 1})
    error = await refused(call, "tasks.update", {"task_id": task_id, "priority": "x", "status": "completed"})
    assert (error.code, error.fields) == (-32602, {"priority", "status"})
    assert (await refused(call, "tasks.update", {"task_id": task_id})).code == -32602


@pytest.mark.asyncio
async def test_delete_removes_a_tree_at_rest_only(call: Caller) -> None:
    running = (await call("tasks.execute", {"tasks": [{"name": "hold"}]}))["task_id"]
    assert (await refused(call, "tasks.delete", {"task_id": running})).code == -32004
    await call("tasks.cancel", {"task_ids": running})
    assert (await call("tasks.delete", {"task_id": running}))["success"] is True
    assert (await refused(call, "tasks.get", {"task_id": running})).code == -32001


@pytest.mark.asyncio
async def test_copy_is_a_new_pending_tree(call: Caller) -> None:
    tree = await run(call, *PAIR)
    copy = await call("tasks.copy", {"task_id": tree["id"]})
    assert (copy["tree_status"], copy["original_task_id"]) == ("pending", tree["id"])
    assert [child["original_task_id"] for child in copy["children"]] == [child["id"] for child in tree["children"]]
    alone = await call("tasks.copy", {"task_id": tree["children"][0]["id"], "children": False})
    assert (alone["name"], alone["children"]) == ("steps", [])


@pytest.mark.asyncio
async def test_batch_of_cancels_runs_side_by_side(call: Caller) -> None:
    ids = [(await call("tasks.execute", {"tasks": [{"name": "hold"}]}))["task_id"] for _ in range(20)]
    async with asyncio.timeout(5):
        answers = await call("tasks.cancel", {"task_ids": ids})
    assert {answer["status"] for answer in answers} == {"cancelled"}


@pytest.mark.asyncio
async def test_what_a_tree_says_of_its_dependencies_can_be_given_again(call: Caller) -> None:
    first, second, merge = (await run(call, *alternatives("echo")))["children"]
    wanted = ("name", "parent_id", "id", "dependencies")
    items = [{"id": first["parent_id"], "name": "folder"}]
    items += [{name: each[name] for name in wanted} for each in (first, second, merge)]
    again = await call("tasks.create", items)
    assert [[d["on"] for d in each["dependencies"]] for each in again["children"]] == [[], ["failure"], ["any", "any"]]
