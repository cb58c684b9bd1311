"""The core's values as the `tasks.*` methods tell them: flat task objects and nested trees. Pure."""

from collections.abc import Iterable, Mapping

from a2a_server.protocol.errors import UnsupportedOperation
from a2a_server.views.task_objects import DependencyObject, TaskObject, TreeObject
from core.model.jsonvalue import plain
from core.model.owners import principal_of, tenant_of
from core.model.task import Dependency, On, Task, TreeHead
from core.model.timestamps import to_timestamp

MAX_NESTED = 500  # levels of a tree that is told as nested objects; JSON readers give up soon after


def task_object(task: Task, head: TreeHead | None = None, *, for_operator: bool = False) -> TaskObject:
    """One task, flat. With its tree's head, `tree_status` and `tree_progress` too.

    `for_operator`: with whose it is (`tenant`, `principal`), and with the details of an error in `error_detail`.
    """
    fields: TaskObject = {
        "id": task.id,
        "root_task_id": task.tree_id or None,
        "parent_id": task.parent_id,
        "ref": task.ref,
        "name": task.name,
        "executor": task.executor,
        "user_id": task.user_id,
        "status": task.status,
        "progress": task.progress,
        "priority": task.priority,
        "dependencies": [_dependency(d) for d in task.dependencies],
        "inputs": task.inputs,
        "schemas": task.schemas,
        "params": task.params,
        "result": plain(task.result),
        "error": task.error,
        "cause": task.cause,
        "message": task.message,
        "question": list(task.question.parts) if task.question else None,
        "attempt": task.attempt,
        "timeout": task.timeout,
        "queue_timeout": task.queue_timeout,
        "deadline": _moment(task.deadline),
        "max_attempts": task.max_attempts,
        "retry": task.retry,
        "original_task_id": task.original_task_id,
        "created_at": _moment(task.created_at),
        "started_at": _moment(task.started_at),
        "completed_at": _moment(task.finished_at),
        "updated_at": _moment(task.updated_at),
    }
    if for_operator:
        fields |= {"tenant": tenant_of(task.owner), "principal": principal_of(task.owner)}
        if task.error_detail:
            fields["error_detail"] = task.error_detail
    if head is not None:
        fields |= {"tree_status": head.status, "tree_progress": head.progress, "context_id": head.context_id}
    return fields


def _dependency(dependency: Dependency) -> DependencyObject:
    """As `tasks.create` takes it again. `required` says the same as `on`, but has no word for `failure`."""
    if dependency.on is On.FAILURE:
        return {"id": dependency.id, "on": dependency.on}
    return {"id": dependency.id, "on": dependency.on, "required": dependency.required}


def tree_object(head: TreeHead, tasks: Iterable[Task]) -> TreeObject:
    """The root with its `children` and theirs. Raises UnsupportedOperation for a tree too deep to be nested."""
    return nested(head.id, [tree_node(task, head) for task in tasks])


def tree_node(task: Task, head: TreeHead, *, for_operator: bool = False) -> TreeObject:
    """One task of the tree, whose children are still to be put in."""
    return {**task_object(task, head if task.id == head.id else None, for_operator=for_operator), "children": []}


def nested(root_id: str, nodes: Iterable[TreeObject]) -> TreeObject:
    """The root with its children in it, and theirs. Raises UnsupportedOperation as `tree_object`."""
    objects: dict[str, TreeObject] = {node["id"]: node for node in nodes}
    parents: dict[str, str | None] = {task_id: node["parent_id"] for task_id, node in objects.items()}
    depths = {root_id: 1}
    for task_id in objects:
        _check_depth(task_id, parents, depths)
    for task_id, parent_id in parents.items():
        if parent_id is not None:
            objects[parent_id]["children"].append(objects[task_id])
    return objects[root_id]


def _check_depth(task_id: str, parents: Mapping[str, str | None], depths: dict[str, int]) -> None:
    path: list[str] = []
    node = task_id
    while node not in depths:
        path.append(node)
        parent = parents[node]
        assert parent is not None, "only the root has no parent, and its depth is known"
        node = parent
    for distance, each in enumerate(reversed(path), 1):
        depths[each] = depths[node] + distance
    if depths[task_id] > MAX_NESTED:
        raise UnsupportedOperation(
            f"The tree is more than {MAX_NESTED} levels deep and cannot be nested; read it with tasks.children"
        )


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else to_timestamp(seconds)
