"""The limits of one caller's requests, each at its figure and one past it, and `system.limits` (reliability, 3.3)."""

import ast
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from a2a_server.bindings.context import RequestContext
from a2a_server.config import Config, load
from a2a_server.limit_table import LIMITS, limits_in_force
from a2a_server.methods.push import MOST_RESENT
from a2a_server.methods.task_params import MOST_IDS
from core.model.errors import ConfigurationError
from core.model.jsonvalue import MAX_BYTES, json_size
from tests.a2a_server.conftest import Caller, calling, message, somebody
from tests.core.contents import artifact

TESTS = Path(__file__).parent.parent
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Of one caller or one machine: these are told as they come out, with what others set.
DERIVED = {"max_batch", "max_burst"}
SETTINGS = [limit.name for limit in LIMITS if limit.is_setting and limit.name not in DERIVED]


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
    reply = await call.application.json_rpc.handle(msgspec.json.encode([item] * size), RequestContext())
    answer = msgspec.json.decode(reply.body)
    return answer["error"]["code"] if isinstance(answer, dict) else None


async def nested(call: Caller, levels: int) -> int | None:
    """The request is the first, its array the second, the task the third, its inputs the fourth."""
    value: Any = {}
    for _ in range(levels - 4):
        value = {"a": value}
    return await outcome(call, "tasks.create", [{"name": "echo", "inputs": value}])


async def valued(call: Caller, count: int) -> int | None:
    """The request itself counts, and each of its fields."""
    item = {"jsonrpc": "2.0", "id": 1, "method": "system.health"} | {str(n): "[,{" for n in range(count - 4)}
    return await told_of(call, msgspec.json.encode(item))


async def outcome(call: Caller, method: str, params: Any) -> int | None:
    return await told_of(call, msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}))


async def told_of(call: Caller, body: bytes) -> int | None:
    reply = await call.application.json_rpc.handle(body, RequestContext())
    code: int | None = msgspec.json.decode(reply.body).get("error", {}).get("code")
    return code


Ask = Callable[[Caller, int], Awaitable[int | None]]
MET: dict[str, tuple[Ask, int]] = {  # how to come to the limit of 4, and the code of what is past it
    "max_batch": (batch, -32600),
    "max_nesting": (nested, -32700),
    "max_values": (valued, -32700),
    "max_tree_tasks": (lambda call, n: created(call, fan(n)), -32602),
    "max_depth": (lambda call, n: created(call, chain(n)), -32602),
    "max_open_tasks": (one_by_one, -32050),
    "max_file": (with_file, -32602),
}


PIECES = [artifact("x" * 36, text, name="chunks") for text in ("one ", "two")]
GIVEN: dict[str, tuple[dict[str, Any], int, str]] = {  # a task, the bytes of what it gives, and what is said of more
    "max_artifact": ({"name": "echo", "inputs": {"a": "x"}}, len('{"a": "x"}'), "the result has 10 bytes of JSON"),
    "max_output": ({"name": "chunks"}, sum(map(json_size, PIECES)), "the artifacts of this attempt have more than"),
}


HERE = "a2a_server/test_limit_table.py::"


def test_every_limit_has_a_name_of_its_own_and_a_test_that_exists() -> None:
    assert len({limit.name for limit in LIMITS}) == len(LIMITS)
    functions = {
        file: {node.name for node in ast.walk(ast.parse((TESTS / file).read_text())) if isinstance(node, FUNCTIONS)}
        for file in {limit.test.partition("::")[0] for limit in LIMITS}
    }
    missing = [limit.name for limit in LIMITS if (named := limit.test.partition("::"))[2] not in functions[named[0]]]
    assert not missing


def test_the_limits_that_are_tested_by_table_are_those_that_say_so() -> None:
    def said(test: Callable[..., Any]) -> set[str]:
        return {limit.name for limit in LIMITS if limit.test == HERE + test.__name__}

    assert said(test_what_is_at_the_limit_passes_and_one_more_does_not) == MET.keys()
    assert said(test_an_executor_may_give_so_much_and_a_byte_more_fails_its_task) == GIVEN.keys()


def test_every_setting_that_is_a_bound_is_in_the_table() -> None:
    bounds = {field.name for field in msgspec.structs.fields(Config) if field.name.startswith(("max_", "min_"))}
    assert bounds <= {limit.name for limit in LIMITS if limit.is_setting}


@pytest.mark.asyncio
async def test_one_call_names_so_many_tasks_and_no_more() -> None:
    async with calling() as call:
        for count, code in ((MOST_IDS, None), (MOST_IDS + 1, -32602)):
            for given in (["x"] * count, ",".join("x" * count)):
                assert await outcome(call, "tasks.running.status", {"task_ids": given}) == code


@pytest.mark.asyncio
async def test_one_call_sends_so_many_dead_letters_again_and_no_more() -> None:
    async with calling() as call:
        for count, code in ((MOST_RESENT, None), (MOST_RESENT + 1, -32602)):
            assert await outcome(call, "push.resend", {"delivery_ids": ["x"] * count}) == code


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.asyncio
async def test_an_executor_may_give_so_much_and_a_byte_more_fails_its_task(name: str) -> None:
    task, size, problem = GIVEN[name]
    for limit, status in ((size, "completed"), (size - 1, "failed")):
        async with calling(**{name: limit}) as call:
            ended = await call("tasks.execute", {"tasks": [task], "wait": True})
            assert ended["status"] == status
            assert (problem in (ended["error"] or "")) is (status == "failed")


@pytest.mark.asyncio
async def test_what_is_larger_than_usual_is_told_where_it_is_allowed() -> None:
    given = {"text": "x" * MAX_BYTES}
    async with calling(max_artifact=2 * MAX_BYTES) as call:
        task = (await call("SendMessage", message("echo", {"data": given})))["task"]
        assert task["artifacts"][0]["parts"][0]["data"] == given
        assert (await call("GetTask", {"id": task["id"]}))["artifacts"] == task["artifacts"]


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


def test_every_limit_of_a_setting_can_be_configured(tmp_path: Any) -> None:
    """By its own name, in the environment; and nonsense is refused."""
    given = {f"A2A_SERVER_{name.upper()}": "7" for name in SETTINGS}
    config = load({}, given | {"A2A_SERVER_MAX_BATCH": "7"}, tmp_path)
    shown = limits_in_force(config, is_identified=False)
    assert {shown[name] for name in SETTINGS} == {7}
    for variable in given:
        with pytest.raises(ConfigurationError):
            load({}, {variable: "-1"}, tmp_path)
    assert limits_in_force(Config(), is_identified=True)["max_rate"] == 100.0
