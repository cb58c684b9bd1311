"""`tasks.cancel` of many tasks: so many of one caller at a time, and no longer than the caller is there."""

import asyncio
import json
from typing import Any

import pytest

from a2a_server.edge.limits import Callers, Permit
from a2a_server.methods.cancels import CANCELS, CANCELS_AT_A_TIME
from core.session import Session
from tests.a2a_server.conftest import Caller, message, running, somebody, tree_message, until
from tests.core.cores import settle


@pytest.mark.asyncio
async def test_many_ids_are_cancelled_so_many_at_a_time(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by an attack: 100 calls of 1,000 ids each had no answer in a minute, and held up the server's end."""
    at_work, busiest = 0, 0
    cancel_answer = Session.cancel_answer

    async def watched(self: Session, task_id: str, *arguments: Any, **named: Any) -> dict[str, Any]:
        nonlocal at_work, busiest
        at_work += 1
        busiest = max(busiest, at_work)
        await asyncio.sleep(0)
        try:
            return await cancel_answer(self, task_id, *arguments, **named)
        finally:
            at_work -= 1

    monkeypatch.setattr(Session, "cancel_answer", watched)
    ids: list[str] = []
    for _ in range(3):
        items = [{"id": "r", "name": "folder"}, *({"name": "echo", "parent_id": "r"},) * 40]
        tree = await call("tasks.create", items)
        ids += [each for child in tree["children"] for each in (child["id"], f"unheard{child['id']}")]
    answers = await call("tasks.cancel", {"task_ids": ids})
    assert [answer["task_id"] for answer in answers] == ids
    assert [answer["status"] for answer in answers] == ["cancelled", "failed"] * 120
    assert 1 < busiest <= CANCELS_AT_A_TIME


class Watch:
    """Cancels that wait until they may go on, and how many there are of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at_work, self.done = 0, 0
        self.may_go_on = asyncio.Event()
        monkeypatch.setattr(Session, "cancel_answer", self.cancel_answer)

    async def cancel_answer(self, task_id: str, *arguments: Any, **named: Any) -> dict[str, Any]:
        self.at_work += 1
        await self.may_go_on.wait()
        self.at_work -= 1
        self.done += 1
        return {"task_id": task_id, "status": "cancelled", "message": ""}


async def some_children(call: Caller, count: int, **context: Any) -> list[str]:
    ids: list[str] = []
    while len(ids) < count:
        items = [{"id": "r", "name": "folder"}, *({"name": "echo", "parent_id": "r"},) * min(40, count - len(ids))]
        ids += [child["id"] for child in (await call("tasks.create", items, **context))["children"]]
    return ids


async def busy(watch: Watch, count: int) -> None:
    """Wait until so many are at work, and see that no more of them are a while later."""
    await until(lambda: watch.at_work >= count)
    await settle()
    assert watch.at_work == count


@pytest.mark.asyncio
async def test_all_calls_of_one_caller_share_its_cancels_and_another_caller_has_its_own(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred calls of a thousand ids each were all under way at once, and nobody got an answer."""
    ann, ben = {"principal": somebody("ann")}, {"principal": somebody("ben")}
    ids, other = await some_children(call, 120, **ann), await some_children(call, 3, **ben)
    watch = Watch(monkeypatch)
    calls = [asyncio.create_task(call("tasks.cancel", {"task_ids": ids}, **ann)) for _ in range(5)]
    await busy(watch, CANCELS_AT_A_TIME)
    calls.append(asyncio.create_task(call("tasks.cancel", {"task_ids": other}, **ben)))
    await busy(watch, CANCELS_AT_A_TIME + len(other))
    watch.may_go_on.set()
    answers = await asyncio.gather(*calls)
    assert [[answer["task_id"] for answer in each] for each in answers] == [ids] * 5 + [other]
    assert CANCELS_AT_A_TIME < CANCELS


@pytest.mark.asyncio
@pytest.mark.parametrize("count", [1, CANCELS_AT_A_TIME, 3 * CANCELS_AT_A_TIME])
async def test_a_caller_that_leaves_stops_what_waits_for_its_turn(
    call: Caller, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    ids = await some_children(call, count)
    watch, permit = Watch(monkeypatch), Permit()
    answer = asyncio.create_task(call("tasks.cancel", {"task_ids": ids}, permit=permit))
    await busy(watch, min(count, CANCELS_AT_A_TIME))
    permit.has_left = True
    watch.may_go_on.set()
    told = await answer
    assert [each["status"] for each in told[:CANCELS_AT_A_TIME]] == ["cancelled"] * min(count, CANCELS_AT_A_TIME)
    assert {each["status"] for each in told[CANCELS_AT_A_TIME:]} <= {"failed"}
    assert all("before this task had its turn" in each["message"] for each in told[CANCELS_AT_A_TIME:])
    assert watch.done == min(count, CANCELS_AT_A_TIME)


@pytest.mark.asyncio
@pytest.mark.parametrize("method", ["tasks.cancel", "CancelTask"])
@pytest.mark.parametrize("skill", ["echo", "boom"])
async def test_of_an_ended_tree_only_what_is_asked_for_is_read(
    call: Caller, monkeypatch: pytest.MonkeyPatch, method: str, skill: str
) -> None:
    """Each id had the whole tree read: a thousand of them took six seconds."""
    root = (await call("SendMessage", tree_message({"id": "r", "name": "g"}, {"name": skill, "parent_id": "r"})))[
        "task"
    ]
    (child,) = (await call("tasks.tree", {"task_id": root["id"]}))["children"]

    def refuse(*_: Any) -> Any:
        raise AssertionError("the whole tree is read")

    monkeypatch.setattr(call.session.orchestrator.trees, "load", refuse)
    ended = "completed" if skill == "echo" else "failed"
    for task_id in (root["id"], child["id"]):
        if method == "tasks.cancel":
            (answer,) = await call(method, {"task_ids": [task_id]})
            assert answer["message"] == f"Task {task_id} is already {ended}, cannot cancel"
        else:
            with pytest.raises(Exception, match="-32002"):
                await call(method, {"id": task_id})


@pytest.mark.asyncio
async def test_a_second_cancel_of_a_cancelled_tree_is_told_the_same_without_the_tree(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = await call("tasks.execute", {"tasks": [{"name": "steps", "inputs": {"key": "s"}}]})
    first = await call("tasks.cancel", {"task_ids": [answer["task_id"]]})
    monkeypatch.setattr(call.session.orchestrator.trees, "load", None)
    assert await call("tasks.cancel", {"task_ids": [answer["task_id"]]}) == first
    assert first[0]["status"] == "cancelled"


def close_one_side(writer: asyncio.StreamWriter) -> None:
    writer.write_eof()


def break_off(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.asyncio
@pytest.mark.parametrize("leave", [close_one_side, break_off, None])
async def test_the_connection_tells_that_its_client_has_left(monkeypatch: pytest.MonkeyPatch, leave: Any) -> None:
    permits: list[Permit] = []
    make = Callers.permit

    def noted(self: Callers, *arguments: Any) -> Permit:
        permits.append(make(self, *arguments))
        return permits[-1]

    monkeypatch.setattr(Callers, "permit", noted)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("hold")}).encode()
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with running() as server:
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(head % len(body) + body)
        await server.lab.started["hold"].wait()
        assert not permits[0].has_left
        if leave is not None:
            leave(writer)
            await until(lambda: permits[0].has_left)
        server.lab.released["hold"].set()
        writer.close()
