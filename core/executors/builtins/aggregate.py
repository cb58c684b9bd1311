"""`aggregate_results_executor`: gathers the results of the tasks it depends on. The fan-in of a tree."""

from typing import Any

from core.executors.base import ExecutorSpec, TaskContext

INPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "mode": {
            "enum": ["collect", "merge"],
            "default": "collect",
            "description": "collect: each result under its task's key; merge: also all their fields in one object",
        }
    },
    # Any further input is a label. Closed all the same: the dependencies' results are not put among the inputs.
    "patternProperties": {".*": {"description": "a label of this fan-in, repeated in its result"}},
    "additionalProperties": False,
}
OUTPUT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "results": {"type": "object", "description": "task key -> its result"},
        "count": {"type": "integer", "description": "how many results there are"},
        "missing": {
            "type": "array",
            "items": {"type": "string"},
            "description": "the keys of the optional dependencies that did not complete",
        },
        "labels": {"type": "object", "description": "the further inputs, if there are any"},
        "merged": {"type": "object", "description": "in mode merge; of two fields with one name the later task's"},
    },
    "required": ["results", "count", "missing"],
}


class AggregateExecutor:
    """Gathers the results for one attempt."""

    async def execute(self, inputs: dict[str, Any], context: TaskContext) -> dict[str, Any]:
        """Return what the completed dependencies gave, in the order the task names them."""
        results = dict(context.stored_results)
        gathered: dict[str, Any] = {
            "results": results,
            "count": len(results),
            "missing": list(context.absent),
        }
        if inputs.get("mode") == "merge":
            merged: dict[str, Any] = {}
            for found in results.values():
                merged |= found if isinstance(found, dict) else {}
            gathered["merged"] = merged
        if labels := {name: value for name, value in inputs.items() if name != "mode"}:
            gathered["labels"] = labels
        return gathered


aggregate_results_spec = ExecutorSpec(
    id="aggregate_results_executor",
    make=AggregateExecutor,
    name="Aggregate results",
    description="Collects the results of the tasks it depends on.",
    tags=("aggregate", "fan-in"),
    has_effects=False,
    examples=('{"mode": "collect"}',),
    input_schema=INPUT_SCHEMA,
    output_schema=OUTPUT_SCHEMA,
    is_skill=False,  # without dependencies it has nothing to do
)
