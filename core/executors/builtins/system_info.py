"""`system_info_executor`: readings of this machine: processor, memory, disk."""

import asyncio
import os
from typing import Any

import psutil

from core.executors.base import ExecutorSpec, TaskContext

SAMPLE = 0.1  # seconds over which the load of the processor is measured
DISK = "/"

NUMBER = {"type": "number"}
INTEGER = {"type": "integer"}
COUNT = {"type": ["integer", "null"]}

INPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"resource": {"enum": ["cpu", "memory", "disk", "all"], "default": "all"}},
    "additionalProperties": False,
}
CPU_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "percent": NUMBER,
        "cores": {"type": "object", "properties": {"physical": COUNT, "logical": COUNT}},
        "load_average": {"type": "array", "items": NUMBER, "description": "over 1, 5 and 15 minutes"},
        "frequency_mhz": {"type": ["number", "null"]},
    },
    "required": ["percent", "cores", "load_average", "frequency_mhz"],
}
MEMORY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "sizes in bytes",
    "properties": {"total": INTEGER, "available": INTEGER, "used": INTEGER, "percent": NUMBER},
    "required": ["total", "available", "used", "percent"],
}
DISK_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "sizes in bytes",
    "properties": {"path": {"type": "string"}, "total": INTEGER, "used": INTEGER, "free": INTEGER, "percent": NUMBER},
    "required": ["path", "total", "used", "free", "percent"],
}
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"cpu": CPU_SCHEMA, "memory": MEMORY_SCHEMA, "disk": DISK_SCHEMA},
    "minProperties": 1,
    "additionalProperties": False,
}


class SystemInfoExecutor:
    """Takes the readings for one attempt."""

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        """Read what `resource` names. The result has one key for each reading: `cpu`, `memory`, `disk`."""
        resource = inputs.get("resource", "all")
        readings: dict[str, Any] = {}
        if resource in ("cpu", "all"):
            before = psutil.cpu_times()
            await asyncio.sleep(SAMPLE)  # psutil's own interval would hold a thread
            readings["cpu"] = cpu(before)
        if resource in ("memory", "all"):
            readings["memory"] = memory()
        if resource in ("disk", "all"):
            # A disk that does not answer (a network file system) holds a thread, not the server.
            readings["disk"] = await asyncio.to_thread(disk, DISK)
        return readings


def cpu(before: Any) -> dict[str, Any]:
    """The processor's load since the `before` times were taken, and what it is."""
    after = psutil.cpu_times()
    spent = sum(after) - sum(before)
    idle = (after.idle - before.idle) + (getattr(after, "iowait", 0.0) - getattr(before, "iowait", 0.0))
    frequency = psutil.cpu_freq()
    return {
        "percent": round(min(100.0, max(0.0, 100.0 * (1 - idle / spent))), 1) if spent > 0 else 0.0,
        "cores": {"physical": psutil.cpu_count(logical=False), "logical": psutil.cpu_count()},
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "frequency_mhz": round(frequency.current, 1) if frequency else None,
    }


def memory() -> dict[str, Any]:
    """The main memory, in bytes."""
    found = psutil.virtual_memory()
    return {"total": found.total, "available": found.available, "used": found.used, "percent": found.percent}


def disk(path: str) -> dict[str, Any]:
    """The file system that holds the path, in bytes."""
    found = psutil.disk_usage(path)
    return {"path": path, "total": found.total, "used": found.used, "free": found.free, "percent": found.percent}


system_info_spec = ExecutorSpec(
    id="system_info_executor",
    make=SystemInfoExecutor,
    name="System information",
    description="Reads the load and size of this machine's processor, memory and disk.",
    tags=("system", "monitoring"),
    has_effects=False,
    examples=('{"resource": "cpu"}', '{"resource": "all"}'),
    input_schema=INPUT_SCHEMA,
    output_schema=OUTPUT_SCHEMA,
)
