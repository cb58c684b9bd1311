"""What a copy of a task keeps: what its caller wrote, and nothing of what happened to it. Pure."""

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from core.model.task import Dependency, Task, TaskStatus

_WRITTEN = (
    "id", "owner", "name", "ref", "executor", "user_id", "priority", "inputs", "schemas", "params", "timeout",
    "queue_timeout", "deadline", "max_attempts", "retry",
)  # fmt: skip


def as_written(task: Task, now: float) -> Task:
    """The task with nothing of what happened to it, made at `now` (seconds since 1970)."""
    written = {name: getattr(task, name) for name in _WRITTEN}
    return Task(**written, created_at=now, updated_at=now)


def copies(
    chosen: Sequence[Task], root_id: str, new_id: Callable[[], str], now: float, *, keep_results: bool
) -> list[Task]:
    """Tasks of a new tree like the chosen ones, in their order, made at `now` (seconds since 1970).

    `root_id`: the one that becomes the root. With `keep_results` completed tasks stay completed. Dependencies on tasks
    that are not chosen are left out.
    """
    new_ids = {task.id: new_id() for task in chosen}
    return [
        replace(
            task if keep_results and task.status is TaskStatus.COMPLETED else as_written(task, now),
            id=new_ids[task.id],
            tree_id=new_ids[root_id],
            parent_id=None if task.id == root_id else new_ids[task.parent_id or ""],
            position=position,
            dependencies=tuple(Dependency(new_ids[d.id], d.on) for d in task.dependencies if d.id in new_ids),
            original_task_id=task.id,
            created_at=now,
        )
        for position, task in enumerate(chosen)
    ]


def own_ids(dependencies: Sequence[Dependency], tasks: Sequence[Task]) -> tuple[Dependency, ...]:
    """Dependencies by id or by the caller's own reference, as ids."""
    by_ref = {task.ref: task.id for task in tasks if task.ref}
    return tuple(Dependency(by_ref.get(d.id, d.id), d.on) for d in dependencies)
