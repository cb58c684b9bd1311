"""The limits of one caller's requests, each at its figure and one past it, and `system.limits` (reliability, 3.3)."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from a2a_server.config import Config, load
from a2a_server.context import RequestContext
from a2a_server.limit_table import FIXED, SETTINGS, limits_in_force
from core.errors import ConfigurationError
from tests.a2a_server.conftest import Caller, calling, message, somebody


def chain(size: int) -> list[dict[str, Any]]:
    """A tree that is as deep as it has tasks."""
    return [{"id": f"t{n}", "name": "echo"} | ({"parent_id": f"t{n - 1}"} if n else {}) for n in range(size)]


def fan(size: int) -> list[dict[str, Any]]:
    return [{"id": f"t{n}", "name": "echo"} | ({"parent_id": "t0"} if n else {}) for n in range(size)]


async def created(call: Caller, tasks: list[dict[str, Any]]) -> int | None:
    """The error's code; None for success."""
    return await outcome(call, "tasks.create", tasks)


async def with_file(call: Caller, size: int) -> int | None:
    given = message("echo", {"raw": msgspec.json.encode(bytes(size)).decode().strip('"')})
    return await outcome(call, "SendMessage", given)


async def one_by_one(call: Caller, count: int) -> int | None:
    codes = [await outcome(call, "tasks.create", {"name": "echo"}) for _ in range(count)]
    assert codes[:-1] == [None] * (count - 1)
    return codes[-1]


async def batch(call: Caller, size: int) -> int | None:
    item = {"jsonrpc": "2.0", "id": 1, "method": "system.health"}
    reply = await call.application.door.handle(msgspec.json.encode([item] * size), RequestContext())
    answer = msgspec.json.decode(reply.body)
    return answer["error"]["code"] if isinstance(answer, dict) else None


async def outcome(call: Caller, method: str, params: Any) -> int | None:
    reply = await call.application.door.handle(
        msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}), RequestContext()
    )
    code: int | None = msgspec.json.decode(reply.body).get("error", {}).get("code")
    return code


Ask = Callable[[Caller, int], Awaitable[int | None]]
MET: dict[str, tuple[Ask, int]] = {  # how to come to the limit of 4, and the code of what is past it
    "max_batch": (batch, -32600),
    "max_tree_tasks": (lambda call, n: created(call, fan(n)), -32602),
    "max_depth": (lambda call, n: created(call, chain(n)), -32602),
    "max_open_tasks": (one_by_one, -32050),
    "max_file": (with_file, -32602),
}


@pytest.mark.parametrize("name", MET)
@pytest.mark.asyncio
async def test_what_is_at_the_limit_passes_and_one_more_does_not(name: str) -> None:
    ask, code = MET[name]
    for size, expected in ((4, None), (5, code)):
        async with calling(**{name: 4}) as call:
            assert await ask(call, size) == expected


@pytest.mark.asyncio
async def test_the_limits_in_force_are_told() -> None:
    async with calling(max_file=7, max_streams=3, max_rate=10.0) as call:
        told = await call("system.limits")
        assert (told["max_file"], told["max_streams"], told["max_rate"], told["max_burst"]) == (7, 3, 10.0, 20.0)
        assert told["max_calls"] is None, "who is not identified has none"
        assert (await call("system.limits", principal=somebody("ann")))["max_calls"] == 100
        assert told.keys() >= FIXED.keys()


def test_every_limit_of_a_setting_can_be_configured(tmp_path: Any) -> None:
    """By its own name, in the environment; and nonsense is refused."""
    given = {f"A2A_SERVER_{name.upper()}": "7" for name in SETTINGS if name != "max_batch"}
    config = load({}, given | {"A2A_SERVER_IDEMPOTENCY_KEEP": "7"}, tmp_path)
    shown = limits_in_force(config, is_identified=False)
    assert {shown[name] for name in SETTINGS if name != "max_batch"} == {7}
    for variable in given:
        with pytest.raises(ConfigurationError):
            load({}, {variable: "-1"}, tmp_path)
    assert limits_in_force(Config(), is_identified=True)["max_rate"] == 100.0
