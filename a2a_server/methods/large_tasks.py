"""Which results of the `tasks.*` methods are large: those are encoded beside the event loop."""

from collections.abc import Sequence
from typing import Any

from a2a_server.bindings.aside import MANY
from a2a_server.bindings.jsonrpc import Large
from core.loop.large_values import is_small
from core.model.task import Task


def as_told(told: Any, tasks: Sequence[Task]) -> Any:
    """These tasks as they are shown; marked as large where it has much of what callers and executors gave."""
    return Large(told) if len(tasks) >= MANY or not is_small(list(map(_given, tasks))) else told


def _given(task: Task) -> tuple[Any, ...]:
    """What of it may be large."""
    asked = task.question.parts if task.question else ()
    return task.inputs, task.result, task.schemas, task.params, asked
