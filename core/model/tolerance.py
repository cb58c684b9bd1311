"""Without which tasks a tree can be completed (semantics §3, roll-up). Pure, iterative and in O(V + E)."""

from collections.abc import Mapping, Sequence

from core.model.task import On, Task


def tolerated(tasks: Mapping[str, Task], dependents: Mapping[str, Sequence[tuple[str, On]]]) -> dict[str, bool]:
    """Of each task, whether it is tolerated: `TaskTree.is_tolerated` says what that means."""
    tolerated: dict[str, bool] = {}
    for start in tasks:
        stack = [start]
        while stack:
            task_id = stack[-1]
            users = dependents.get(task_id, ())
            parent = tasks[task_id].parent_id
            needed = [d for d, on in users if on is On.SUCCESS]
            if not users and parent is not None and tasks[parent].is_group:
                needed = [parent]
            if task_id in tolerated or not (missing := [d for d in needed if d not in tolerated]):
                stack.pop()
                has_user = bool(users or needed)
                tolerated.setdefault(task_id, has_user and all(tolerated[d] for d in needed))
            else:
                stack.extend(missing)
    return tolerated
