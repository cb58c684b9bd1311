"""What is wrong with the edges of a tree: parents, dependencies, cycles, depth. Pure, iterative and in O(V + E)."""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

from core.model.errors import Problem
from core.model.retry import RetryPolicy
from core.model.task import On, Task

MAX_STEPS = 20  # of a cycle that are named


def check_graph(tasks: Sequence[Task], max_depth: int | None = None) -> list[Problem]:
    """What is wrong with the edges of a tree whose ids are final: parents, dependencies, cycles, depth."""
    problems: list[Problem] = []
    index = {task.id: position for position, task in enumerate(tasks)}
    keys = called(tasks)
    inner = {task.parent_id for task in tasks}
    parents: dict[str, list[str]] = {}
    waits: dict[str, list[str]] = {}
    for position, task in enumerate(tasks):
        if task.is_group and task.id in inner:
            problems += [Problem(f"tasks[{position}].{field}", text) for field, text in _not_of_groups(task)]
        parents[task.id] = [task.parent_id] if task.parent_id else []  # empty: one that is not there, told already
        seen: set[str] = set()
        for n, dependency in enumerate(task.dependencies):
            path = f"tasks[{position}].dependencies[{n}]"
            if dependency.id == task.id:
                problems.append(Problem(path, f"task {keys[task.id]!r} depends on itself"))
            elif dependency.id not in index:
                text = f"there is no task {dependency.id!r} in this tree; a task depends on tasks of its own tree"
                problems.append(Problem(path, text))
            elif dependency.id in seen:
                problems.append(Problem(path, f"task {keys[task.id]!r} names this dependency twice"))
            elif dependency.on is On.FAILURE and task.is_group and task.id in inner:
                text = f"the group {keys[task.id]!r} does not run itself, so it cannot run on a failure; its tasks can"
                problems.append(Problem(f"{path}.on", text))
            seen.add(dependency.id)
        waits[task.id] = [d.id for d in task.dependencies if d.id in index and d.id != task.id]
    if cycle := find_cycle(parents):
        problems.append(Problem("tasks", "the parents form a cycle: " + _path([keys[i] for i in cycle])))
    else:
        if max_depth is not None and (depth := _depth(parents)) > max_depth:
            problems.append(Problem("tasks", f"the tree is {depth} levels deep; {max_depth} are allowed"))
        # A group ends after its children, so it waits for them too: a dependency on an own ancestor is a cycle.
        groups = {task.id for task in tasks if task.is_group}
        for task in tasks:
            if task.parent_id in groups and task.parent_id:
                waits[task.parent_id].append(task.id)
        if cycle := find_cycle(waits):
            problems.append(Problem("tasks", "the dependencies form a cycle: " + _path([keys[i] for i in cycle])))
    return problems


def _not_of_groups(group: Task) -> Iterator[tuple[str, str]]:
    """The fields of a group that only an attempt can keep. Its deadline and timeout are for all below it."""
    given = {
        "max_attempts": group.max_attempts != 1,
        "retry": group.retry != RetryPolicy(),
        "queue_timeout": group.queue_timeout is not None,
    }
    for field, is_given in given.items():
        if is_given:
            yield field, f"the group {group.ref or group.name!r} does not run itself; give it to the tasks below it"


def called(tasks: Sequence[Task]) -> dict[str, str]:
    """By id, what its author calls each task: its reference, else its name if no other has it, else its id."""
    names = Counter(task.name for task in tasks)
    return {task.id: task.ref or (task.name if names[task.name] == 1 else task.id) for task in tasks}


def _path(steps: Sequence[str]) -> str:
    if len(steps) > MAX_STEPS:
        steps = [*steps[: MAX_STEPS // 2], f"({len(steps) - MAX_STEPS} more)", *steps[-(MAX_STEPS // 2) :]]
    return " -> ".join(steps)


def find_cycle(edges: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle in the graph as a closed path (a, b, a), or an empty list."""
    waiting = {node: len(targets) for node, targets in edges.items()}
    sources: dict[str, list[str]] = {node: [] for node in edges}
    for node, targets in edges.items():
        for target in targets:
            sources[target].append(node)
    free = deque(node for node, count in waiting.items() if not count)
    while free:
        node = free.popleft()
        del waiting[node]
        for source in sources[node]:
            waiting[source] -= 1
            if not waiting[source]:
                free.append(source)
    if not waiting:
        return []
    # Each node that is left has an edge to another one that is left: walking them must meet itself.
    node = next(iter(waiting))
    path: dict[str, int] = {}
    while node not in path:
        path[node] = len(path)
        node = next(target for target in edges[node] if target in waiting)
    cycle = list(path)[path[node] :]
    return [*cycle, node]


def _depth(parents: Mapping[str, Sequence[str]]) -> int:
    depth: dict[str, int] = {}
    for start in parents:
        path = []
        node: str | None = start
        while node is not None and node not in depth:
            path.append(node)
            node = next(iter(parents[node]), None)
        base = depth[node] if node is not None else 0
        for distance, step in enumerate(reversed(path), 1):
            depth[step] = base + distance
    return max(depth.values(), default=0)
