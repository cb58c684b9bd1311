"""Methods that read lists take turns by caller (`a2a_server.methods.turns`)."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method
from a2a_server.edge.overload import CallKind
from a2a_server.methods.turns import LISTS, MOST_LISTS, in_turns
from core.loop.turns import Turns
from core.storage.sqlite.read_pool import CONNECTIONS, LIST_CONNECTIONS
from tests.a2a_server.conftest import calling, somebody


def context(name: str) -> RequestContext:
    return RequestContext(principal=somebody(name))


class Held:
    """A method whose calls last until they are let go."""

    def __init__(self) -> None:
        self.began: asyncio.Queue[str] = asyncio.Queue()
        self.gate = asyncio.Event()

    async def __call__(self, context: RequestContext, params: Any) -> Any:
        self.began.put_nowait(context.owner)
        await self.gate.wait()
        return context.owner


@pytest.mark.asyncio
async def test_a_caller_with_many_lists_reads_one_at_a_time_and_another_caller_is_served() -> None:
    """Found from outside: one caller's lists made another's GetTask wait up to 4 s."""
    held = Held()
    (method,) = in_turns([Method(name="ListTasks", kind=CallKind.OTHER, handler=held)], Turns(2, 1))
    calls = [asyncio.ensure_future(method.handler(context("ann"), None)) for _ in range(30)]
    assert await held.began.get() == somebody("ann").owner
    other = asyncio.ensure_future(method.handler(context("bob"), None))
    async with asyncio.timeout(5):
        assert await held.began.get() == somebody("bob").owner
    assert held.began.empty()
    held.gate.set()
    assert await other == somebody("bob").owner
    assert len(await asyncio.gather(*calls)) == 30


@pytest.mark.asyncio
async def test_what_reads_no_list_waits_for_nobody() -> None:
    method = Method(name="GetTask", kind=CallKind.OTHER, handler=Held())
    assert in_turns([method], Turns(1, 1)) == [method]
    assert in_turns([replace(method, name="ListTasks")], Turns(1, 1)) != [method]


@pytest.mark.asyncio
async def test_every_method_that_reads_a_list_is_there_and_takes_turns() -> None:
    async with calling(auth=("keys",)) as call:
        methods = call.application.json_rpc.methods
        assert methods.keys() >= LISTS
        for name in LISTS:
            assert methods[name].handler.__qualname__.endswith("in_turn"), name


def test_lists_leave_connections_to_others() -> None:
    assert MOST_LISTS < CONNECTIONS
    assert MOST_LISTS <= LIST_CONNECTIONS
