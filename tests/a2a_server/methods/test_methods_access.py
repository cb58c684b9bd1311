"""Whose a task is, and how many an owner may have open (`a2a_server.methods.access`)."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from a2a_server.auth.principal import Principal, Scope
from a2a_server.bindings.context import RequestContext
from a2a_server.methods.access import OpenTasks, caller_of, check_tenant, owned_head, readable, seen_head, seen_task
from a2a_server.protocol import errors as wire_errors
from a2a_server.protocol.errors import RateLimited
from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from core.model.task import TERMINAL, Task
from core.run.stored import StoredBytes
from core.storage.base import COUNTED
from core.storage.memory import MemoryStorage
from tests.core.storage.samples import created, finished

ANN = Principal(id="ann", tenant="acme", owner="o-ann")


@pytest_asyncio.fixture
async def session() -> AsyncIterator[Any]:
    """Nothing of a session but its storage: a tree of ann's with two tasks that came by A2A, and a draft of hers."""
    storage = MemoryStorage()
    await storage.open()
    await storage.append(created("t", 2, owner="ann", origin="a2a"))
    await storage.put_draft(Task(id="draft", owner="ann", name="d", created_at=1.0))
    yield SimpleNamespace(storage=storage)
    await storage.close()


@pytest.mark.asyncio
async def test_a_task_and_a_draft_are_their_owners(session: Any) -> None:
    for task_id in ("t", "t.1", "draft"):
        assert (await seen_task(session, Scope(owner="ann"), task_id)).id == task_id
        with pytest.raises(TaskNotFound) as foreign:
            await seen_task(session, Scope(owner="bob"), task_id)
        assert foreign.value.task_id == task_id
    with pytest.raises(TaskNotFound):
        await seen_task(session, Scope(owner="ann"), "missing")


@pytest.mark.asyncio
async def test_the_head_is_found_by_every_task_of_its_tree(session: Any) -> None:
    for task_id in ("t", "t.1"):
        assert (await owned_head(session, "ann", task_id)).id == "t"
        assert (await seen_head(session, Scope(tenant=""), task_id)).id == "t"
        for scope in (Scope(owner="bob"), Scope(tenant="t")):
            with pytest.raises(TaskNotFound):
                await seen_head(session, scope, task_id)
        assert (await owned_head(session, "ann", task_id)).owner == "ann"
        assert (await owned_head(session, "ann", task_id, origin="a2a")).id == "t"


@pytest.mark.asyncio
async def test_no_task_is_read_for_the_head_of_its_tree(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row has its inputs and its result, which may be large."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a whole task was read")

    monkeypatch.setattr(session.storage, "task", refuse)
    assert (await owned_head(session, "ann", "t.1")).id == "t"
    assert (await seen_head(session, Scope(owner="ann"), "t.1")).id == "t"


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("owner", "task_id", "origin"),
    [
        ("bob", "t", None),
        ("bob", "t.1", None),
        ("ann", "missing", None),
        ("ann", "draft", None),
        ("ann", "t", "rpc"),
        ("ann", "t.1", "rpc"),
    ],
)
async def test_what_is_foreign_or_of_another_origin_or_no_tree_is_not_found(
    session: Any, owner: str, task_id: str, origin: str | None
) -> None:
    with pytest.raises(TaskNotFound) as missing:
        await owned_head(session, owner, task_id, origin=origin)
    assert missing.value.task_id == task_id


def test_a_webhook_is_its_callers_in_the_version_that_the_caller_speaks() -> None:
    context = RequestContext(principal=ANN)
    assert (caller_of(context).owner, caller_of(context).wire_version) == ("o-ann", context.dialect.version)


async def _fails(error: Exception) -> str:
    raise error


async def _reads() -> str:
    return "read"


@pytest.mark.asyncio
async def test_one_corrupt_item_is_left_out_of_a_list_and_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    reading: Awaitable[str] = _reads()
    assert await readable(reading) == "read"
    assert caplog.text == ""
    assert await readable(_fails(StorageError("The stored task t is corrupt"))) is None
    assert caplog.messages == ["The stored task t is corrupt; the list omits it"]


@pytest.mark.asyncio
async def test_a_list_that_cannot_be_read_now_is_no_shorter_list() -> None:
    with pytest.raises(StorageUnavailable):
        await readable(_fails(StorageUnavailable("busy")))


class _Params(SimpleNamespace):
    """Params of a method, with the fields that its type has."""


@pytest.mark.parametrize("tenant", ["", "acme"])
def test_the_callers_own_tenant_is_no_obstacle_and_need_not_be_named(tenant: str) -> None:
    check_tenant(ANN, _Params(tenant=tenant, id="t"))


@pytest.mark.parametrize(
    ("params", "told"),
    [
        (_Params(id="t1"), {"taskId": "t1"}),
        (_Params(task_id="t2", id="config"), {"taskId": "t2"}),
        (_Params(message=SimpleNamespace(task_id="t3"), id="x"), {"taskId": "t3"}),
        (_Params(message=SimpleNamespace(task_id=None)), None),
        (_Params(), None),
    ],
)
def test_in_another_tenant_there_is_nothing(params: Any, told: dict[str, str] | None) -> None:
    params.tenant = "other"
    with pytest.raises(wire_errors.TaskNotFound) as refused:
        check_tenant(ANN, params)
    assert (refused.value.metadata or None) == told


# How many


class Counting(MemoryStorage):
    """Counts how often it is asked for a number, and answers while its gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()

    async def count(self, query: Any, most: int = COUNTED) -> int:
        self.asked += 1
        if not self.gate.is_set():
            self.reached.set()
            await self.gate.wait()
        return await super().count(query, most)


class Room:
    """An owner's room for open tasks, under a clock that the test moves."""

    def __init__(self, limit: int) -> None:
        self.storage = Counting()
        self.now = 100.0
        session: Any = SimpleNamespace(storage=self.storage, stored=StoredBytes(self.storage, 0, lambda: self.now))
        self.open = OpenTasks(session, limit, lambda: self.now)


@pytest_asyncio.fixture
async def room() -> AsyncIterator[Room]:
    made = Room(5)
    await made.storage.open()
    yield made
    await made.storage.close()


@pytest.mark.asyncio
async def test_a_tree_is_admitted_up_to_the_limit_and_not_one_task_more(room: Room) -> None:
    await room.storage.append(created("t", 2, owner="ann"))
    await room.open.admit("ann", 3)
    with pytest.raises(RateLimited, match="5 of your tasks are unfinished, and 5 is the limit") as refused:
        await room.open.admit("ann", 1)
    assert refused.value.retry_after == 5
    await room.open.admit("bob", 5)  # others have room of their own


@pytest.mark.asyncio
async def test_what_was_refused_takes_no_room(room: Room) -> None:
    with pytest.raises(RateLimited):
        await room.open.admit("ann", 6)
    await room.open.admit("ann", 5)


@pytest.mark.asyncio
async def test_ended_tasks_and_those_of_others_do_not_count(room: Room) -> None:
    first = created("t", 5, owner="ann")
    await room.storage.append(first)
    await room.storage.append(created("u", 5, owner="bob"))
    with pytest.raises(RateLimited):
        await room.open.admit("ann", 1)
    ended = tuple(replace(task, status=status) for task, status in zip(first.tasks, TERMINAL, strict=False))
    await room.storage.append(replace(finished(first.head), tasks=ended))
    room.now += 1.1
    with pytest.raises(RateLimited, match="1 of your tasks"):
        await room.open.admit("ann", 5)
    await room.open.admit("ann", 4)


@pytest.mark.asyncio
async def test_callers_of_one_owner_wait_for_each_other_and_others_do_not(room: Room) -> None:
    """Of the calls of a batch none must count as if the others were not there."""
    answers = await asyncio.gather(*(room.open.admit("ann", 2) for _ in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), type(None), RateLimited, RateLimited]
    assert room.storage.asked == 1

    room.storage.gate.clear()
    blocked = asyncio.ensure_future(room.open.admit("bob", 1))
    await room.storage.reached.wait()
    await room.open.admit("ann", 1)
    room.storage.gate.set()
    await blocked


@pytest.mark.asyncio
async def test_the_count_is_read_again_after_a_second_and_not_before(room: Room) -> None:
    await room.open.admit("ann", 1)
    room.now += 1.0
    await room.open.admit("ann", 1)
    assert room.storage.asked == 1
    room.now += 0.1
    await room.open.admit("ann", 5)  # nothing of what was admitted came to be
    assert room.storage.asked == 2


@pytest.mark.asyncio
async def test_counts_of_owners_who_are_gone_are_not_kept(room: Room) -> None:
    await room.open.admit("ann", 1)
    room.now += 0.5
    await room.open.admit("bob", 1)
    room.now += 0.75
    await room.open.admit("cid", 1)
    assert set(room.open._counts) == {"bob", "cid"}
