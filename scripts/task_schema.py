"""Writes docs/task.schema.json, the JSON Schema of a task, from core.model.plan.TaskInput. `--check` only compares."""

import json
import sys
from pathlib import Path
from typing import Any

from a2a_server.bindings.schemas import schema_components
from core.model.plan import TaskInput

DOCUMENT = Path(__file__).parent.parent / "docs" / "task.schema.json"

DESCRIPTIONS = {
    "id": "A reference for parent_id and dependencies, local to the array; the server makes the real id.",
    "name": "The task's name; also its executor, unless schemas.method or params.executor_id names one.",
    "user_id": "Whom the task is for; the server only keeps it.",
    "parent_id": "The id or unique name of the task above it. Organisation only; it delays nothing.",
    "priority": "Lower starts first among tasks that are ready.",
    "dependencies": "The tasks to wait for, by id or unique name; on says which end of each lets this one run.",
    "inputs": "The task's own inputs; they win over what its dependencies hand on.",
    "schemas": "method: the executor's id; input_schema: a JSON Schema of the inputs.",
    "params": "executor_id: the executor's id.",
    "timeout": "Seconds for one attempt; of a group, for all below it from its first start on.",
    "queue_timeout": "Seconds that the task, once it is ready, may wait for a free slot; then it fails.",
    "deadline": "RFC 3339 timestamp after which the task fails, with all below it if it is a group.",
    "max_attempts": "How often it may be tried in one run.",
    "retry": "The pauses between attempts, in seconds.",
}


def schema() -> dict[str, Any]:
    """The schema, with words for each field."""
    (_,), components = schema_components([TaskInput], ref_template="#/$defs/{name}")
    task = components.pop("TaskInput")
    for name, words in DESCRIPTIONS.items():
        task["properties"][name] = {"description": words} | task["properties"][name]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **task,
        "title": "Task",
        "description": "One task of a tree, as tasks.create, tasks.execute and an A2A data part take it.",
        "$defs": components,
    }


def document() -> str:
    """The whole file."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the file; with `--check` say whether it is current."""
    if "--check" in sys.argv[1:]:
        if DOCUMENT.exists() and DOCUMENT.read_text("utf-8") == document():
            return 0
        print(f"{DOCUMENT} is not what core/model/plan.py says: run scripts/task_schema.py", file=sys.stderr)
        return 1
    DOCUMENT.write_text(document(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
