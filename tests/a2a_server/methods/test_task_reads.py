"""`tasks.get`, `tree`, `children`, `list`, `running.*` and `events`, through the endpoint."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from tests.a2a_server.conftest import Caller, RpcError, tree_message
from tests.a2a_server.methods.tasks_calls import PAIR, alternatives, refused, run


@pytest.mark.asyncio
async def test_tasks_are_listed_since_a_moment_and_its_time_zone_counts(call: Caller) -> None:
    made = await call("tasks.create", {"tasks": [{"name": "echo"}]})
    at = datetime.fromisoformat(made["created_at"])
    for since, is_listed in (
        (made["created_at"], True),
        ((at + timedelta(seconds=1)).astimezone(timezone(timedelta(hours=5))).isoformat(), False),
        ((at - timedelta(seconds=1)).astimezone(timezone(timedelta(hours=-5))).isoformat(), True),
        ("0001-01-01T00:00:00+14:00", True),
        ("9999-12-31T23:59:59-14:00", False),
    ):
        listed = await call("tasks.list", {"since": since})
        assert (made["id"] in [task["id"] for task in listed]) is is_listed, since
    for wrong in ("yesterday", "2026-01-31", "2026-01-31T12:00:00", 7, ""):
        with pytest.raises(RpcError) as refused:
            await call("tasks.list", {"since": wrong})
        assert refused.value.fields == {"since"}, wrong


@pytest.mark.asyncio
async def test_get_shows_the_tasks_own_status_and_the_trees(call: Caller) -> None:
    answer = await call(
        "tasks.execute", {"tasks": [{"id": "r", "name": "nothing"}, {"name": "hold", "parent_id": "r"}]}
    )
    await call.lab.started["hold"].wait()
    await call.session.wait(answer["task_id"], lambda head: head.progress > 0)
    root = await call("tasks.get", {"task_id": answer["task_id"]})
    assert (root["status"], root["tree_status"]) == ("completed", "in_progress")
    assert root == await call("tasks.detail", {"task_id": answer["task_id"]})


@pytest.mark.asyncio
async def test_tree_is_found_by_any_node_and_children_by_their_parent(call: Caller) -> None:
    tree = await call("tasks.create", list(PAIR))
    children = await call("tasks.children", {"parent_id": tree["id"]})
    assert [child["name"] for child in children] == ["steps", "echo"]
    assert await call("tasks.tree", {"task_id": children[1]["id"]}) == tree
    assert await call("tasks.tree", {"root_id": tree["id"]}) == tree


@pytest.mark.parametrize("method", ["tasks.list", "tasks.running.list"])
@pytest.mark.asyncio
async def test_an_offset_is_refused_with_the_way_to_go(call: Caller, method: str) -> None:
    """Found from outside: a page by offset showed a row twice when one was added."""
    error = await refused(call, method, {"offset": 100})
    way = "unknown field; for the next page send page_token, from the last task of the page before"
    assert error.fields == {"offset"} and way in json.dumps(error.data)


@pytest.mark.asyncio
async def test_list_filters_and_pages_newest_first(call: Caller) -> None:
    first = await call.tree({"name": "echo", "user_id": "u1"})
    second = (await run(call, *PAIR))["id"]

    async def ids(**given: Any) -> list[str]:
        return [task["id"] for task in await call("tasks.list", given)]

    assert await ids() == [second, first]
    (newest,) = await call("tasks.list", {"limit": 1})
    assert await ids(limit=1, page_token=newest["page_token"]) == [first]
    assert await ids(user_id="u1") == [first]
    assert await ids(status="completed") == [second]
    assert await ids(name="folder") == [second]
    assert len(await ids(root_only=False)) == 4
    assert [task["tree_status"] for task in await call("tasks.list", {})] == ["completed", "pending"]


@pytest.mark.asyncio
async def test_results_that_are_parts_are_a_plain_list(call: Caller) -> None:
    tree = await run(call, {"name": "parts"})
    assert tree["result"] == [{"raw": "aGk=", "filename": "output.txt", "mediaType": "text/plain"}]


@pytest.mark.asyncio
async def test_events_are_the_frames_of_the_stream(call: Caller) -> None:
    live = await call.frames("tasks.execute", {"tasks": list(PAIR), "use_streaming": True})
    told = [frame.data for frame in live[1:-2]]
    root_id = live[0].result["root_task_id"]
    assert (await call("tasks.events", {"task_id": root_id}))[:-1] == told
    assert (await call("tasks.events", {"task_id": root_id, "after": told[2]["seq"]}))[:-1] == told[3:]
    assert await call("tasks.events", {"task_id": root_id, "limit": 2}) == told[:2]
    child = told[1]["task_id"]
    assert await call("tasks.events", {"task_id": child}) == [frame for frame in told if frame["task_id"] == child]


@pytest.mark.asyncio
async def test_running_tasks_are_listed_counted_and_told(call: Caller) -> None:
    task_id = (await call("tasks.execute", {"tasks": [{"name": "hold", "user_id": "u1"}]}))["task_id"]
    await call.lab.started["hold"].wait()
    assert [task["id"] for task in await call("tasks.running.list", {"user_id": "u1"})] == [task_id]
    assert await call("tasks.running.count", {}) == {"count": 1}
    assert await call("tasks.running.count", {"user_id": "u2"}) == {"count": 0}
    told = await call("tasks.running.status", {"task_ids": f"{task_id},unheard"})
    assert [(each["status"], each["is_running"]) for each in told] == [("in_progress", True), ("not_found", False)]
    assert (await call("system.health"))["running_tasks"] == 1


@pytest.mark.asyncio
async def test_a_skip_is_told_by_streams_events_and_a2a(call: Caller) -> None:
    root_id = (await call("SendMessage", tree_message(*alternatives("echo"))))["task"]["id"]
    events = await call("tasks.events", {"task_id": root_id})
    (skipped,) = [each for each in events if each.get("cause") == "skipped"]
    assert (skipped["type"], skipped["status"], skipped["result"]) == ("task_completed", "completed", None)
    assert skipped["message"].startswith("skipped, because 'echo' (first) completed")
    task = await call("GetTask", {"id": skipped["task_id"]})
    assert task["status"]["state"] == "TASK_STATE_COMPLETED" and not task.get("artifacts")
    whole = await call("GetTask", {"id": root_id})
    assert [each["name"] for each in whole["artifacts"]] == ["echo", "echo"], "what was skipped made nothing"
