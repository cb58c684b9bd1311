"""Readings of this machine."""

from typing import Any

import psutil
import pytest

from core.executors.builtins import system_info
from core.executors.builtins.system_info import INPUT_SCHEMA, OUTPUT_SCHEMA, SystemInfoExecutor
from core.executors.schema import check_schema, violation
from tests.core.executors.context import make_context


async def read(inputs: dict[str, Any]) -> dict[str, Any]:
    result = await SystemInfoExecutor().execute(inputs, make_context())
    assert violation(OUTPUT_SCHEMA, result, "result") is None
    return result


def test_schemas_are_usable() -> None:
    check_schema(INPUT_SCHEMA, "it")
    check_schema(OUTPUT_SCHEMA, "it")


@pytest.mark.asyncio
@pytest.mark.parametrize("resource", ["cpu", "memory", "disk"])
async def test_one_resource_gives_one_reading(resource: str) -> None:
    assert set(await read({"resource": resource})) == {resource}


@pytest.mark.asyncio
async def test_all_readings_are_the_default_and_are_true_of_this_machine() -> None:
    result = await read({})
    assert set(result) == {"cpu", "memory", "disk"}
    assert 0 <= result["cpu"]["percent"] <= 100
    assert result["cpu"]["cores"]["logical"] == psutil.cpu_count()
    assert len(result["cpu"]["load_average"]) == 3
    assert result["memory"]["total"] == psutil.virtual_memory().total
    assert result["disk"]["path"] == "/"
    assert 0 < result["disk"]["used"] <= result["disk"]["total"]


@pytest.mark.parametrize(("idle", "percent"), [(0.0, 100.0), (3.0, 25.0), (4.0, 0.0)])
def test_load_is_the_part_of_the_time_that_was_not_idle(
    monkeypatch: pytest.MonkeyPatch, idle: float, percent: float
) -> None:
    def times(user: float, idle: float) -> Any:
        return psutil.cpu_times()._replace(
            **dict.fromkeys(psutil.cpu_times()._fields, 0.0) | {"user": user, "idle": idle}
        )

    before, after = times(0.0, 0.0), times(4.0 - idle, idle)
    monkeypatch.setattr(system_info.psutil, "cpu_times", lambda: after)
    assert system_info.cpu(before)["percent"] == percent
    assert system_info.cpu(after)["percent"] == 0.0


def test_unknown_resource_is_refused() -> None:
    assert "inputs.resource" in str(violation(INPUT_SCHEMA, {"resource": "gpu"}, "inputs"))
