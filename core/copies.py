"""What a copy of a task keeps: what its caller wrote, and nothing of what happened to it. Pure."""

from collections.abc import Sequence

from core.task import Dependency, Task

_WRITTEN = (
    "id", "owner", "name", "ref", "executor", "user_id", "priority", "inputs", "schemas", "params", "timeout",
    "deadline", "max_attempts", "retry",
)  # fmt: skip


def as_written(task: Task, now: float) -> Task:
    """The task with nothing of what happened to it, made at `now` (seconds since 1970)."""
    written = {name: getattr(task, name) for name in _WRITTEN}
    return Task(**written, created_at=now, updated_at=now)


def own_ids(dependencies: Sequence[Dependency], tasks: Sequence[Task]) -> tuple[Dependency, ...]:
    """Dependencies by id or by the caller's own reference, as ids."""
    by_ref = {task.ref: task.id for task in tasks if task.ref}
    return tuple(Dependency(by_ref.get(d.id, d.id), d.required) for d in dependencies)
