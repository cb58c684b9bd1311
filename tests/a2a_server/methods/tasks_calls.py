"""What the tests of the `tasks.*` methods have in common."""

from typing import Any

import pytest

from tests.a2a_server.conftest import Caller, Frame, RpcError

PAIR = (
    {"id": "root", "name": "folder"},
    {"id": "a", "name": "steps", "parent_id": "root"},
    {"id": "b", "name": "echo", "parent_id": "root", "dependencies": [{"id": "a", "required": True}]},
)


async def refused(call: Caller, method: str, params: Any = None, **context: Any) -> RpcError:
    with pytest.raises(RpcError) as error:
        await call(method, params, **context)
    return error.value


def types(frames: list[Frame]) -> list[str]:
    return [frame.data["type"] for frame in frames if "type" in frame.data]


async def run(call: Caller, *tasks: dict[str, Any]) -> dict[str, Any]:
    """The finished tree."""
    return dict(await call("tasks.execute", {"tasks": list(tasks), "wait": True}))


def alternatives(primary: str) -> tuple[dict[str, Any], ...]:
    """A primary, its fallback, and what takes the result of the one that ran."""
    merge = {"dependencies": [{"id": "first", "on": "any"}, {"id": "second", "on": "any"}]}
    return (
        {"id": "root", "name": "folder"},
        {"id": "first", "name": primary, "parent_id": "root", "inputs": {"from": "primary"}},
        {
            "id": "second", "name": "echo", "parent_id": "root", "inputs": {"from": "fallback"},
            "dependencies": [{"id": "first", "on": "failure"}],
        },
        {"id": "merge", "name": "echo", "parent_id": "root"} | merge,
    )  # fmt: skip
