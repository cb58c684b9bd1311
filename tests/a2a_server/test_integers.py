"""Every integer that a method of ours takes: `5.0` is one, as JSON Schema has it; all else is refused by its name."""

from typing import Any

import msgspec
import pytest

from tests.a2a_server.conftest import Caller, RpcError

BAD = [2.5, "5", True, [], {}, 1e300, -1e300]


def integers(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "integer" or any(map(integers, schema.get("anyOf", ())))


async def ours(call: Caller) -> list[tuple[str, str, dict[str, Any]]]:
    """Each integer param of a method: method, param, and the params that the method cannot do without."""
    document = await call("rpc.discover")
    return [
        (method["name"], param["name"], {p["name"]: "t" for p in method["params"] if p.get("required")})
        for method in document["methods"]
        if "." in method["name"]
        for param in method["params"]
        if integers(param["schema"])
    ]


async def refused(call: Caller, method: str, params: Any) -> RpcError | None:
    try:
        await call(method, params)
    except RpcError as error:
        return error
    return None


@pytest.mark.asyncio
async def test_every_integer_of_our_methods_may_have_a_point_and_no_fraction(call: Caller) -> None:
    found = await ours(call)
    assert {("tasks.list", "limit"), ("tasks.events", "after"), ("push.deliveries", "limit")} <= {f[:2] for f in found}
    for method, name, needed in found:
        error = await refused(call, method, needed | {name: 5.0})
        assert error is None or name not in error.fields, (method, name)
        for value in BAD:
            error = await refused(call, method, needed | {name: value})
            assert error is not None and (error.code, error.fields) == (-32602, {name}), (method, name, value)


@pytest.mark.parametrize("field", ["priority", "max_attempts"])
@pytest.mark.asyncio
async def test_so_may_those_of_a_task_wherever_it_is_brought(call: Caller, field: str) -> None:
    task = {"name": "echo", "inputs": {field: 3.0}}
    made = await call("tasks.create", [task | {field: 3.0}])
    assert msgspec.json.encode([made[field], made["inputs"]]) == b'[3,{"%s":3.0}]' % field.encode()
    assert repr((await call("tasks.update", {"task_id": made["id"], field: 5.0}))[field]) == "5"
    ran = await call("tasks.execute", {"tasks": [task | {field: 4.0}], "wait": True})
    assert repr(ran[field]) == "4"

    for value in BAD:
        for method, params in (
            ("tasks.create", [task | {field: value}]),
            ("tasks.execute", {"tasks": [task | {field: value}]}),
            ("tasks.update", {"task_id": made["id"], field: value}),
        ):
            error = await refused(call, method, params)
            name = field if method == "tasks.update" else f"tasks[0].{field}"
            assert error is not None and (error.code, error.fields) == (-32602, {name}), (method, value)
