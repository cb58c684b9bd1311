"""Small trees for the tests of the pure core, and a way to play them without a runner."""

from collections.abc import Iterable
from itertools import count
from typing import Any

from msgspec.structs import replace

from core.model import commands as c
from core.model import events as e
from core.model.decide import decide
from core.model.plan import Plan, Rules, make_plan
from core.model.task import Dependency, On, Task, TaskStatus, TreeHead
from core.model.tree import TaskTree

NOW = 1_000.0


def task(
    name: str, needs: str = "", *, after: str = "", unless: str = "", parent: str | None = "root", **fields: object
) -> Task:
    """A task whose id is its name. Between spaces, those that it needs, that it runs after, and that it runs unless."""
    required = [Dependency(i) for i in needs.split()]
    optional = [Dependency(i, On.ANY) for i in after.split()]
    alternative = [Dependency(i, On.FAILURE) for i in unless.split()]
    given = {"executor": "work", "created_at": NOW, "updated_at": NOW} | fields
    return Task(id=name, name=name, parent_id=parent, dependencies=(*required, *optional, *alternative), **given)  # type: ignore[arg-type]


def group(name: str, parent: str | None = None, needs: str = "") -> Task:
    return task(name, needs, parent=parent, executor=None)


def tree_of(*tasks: Task) -> TaskTree:
    """A stored tree; a root group is added when no task is the root."""
    if all(t.parent_id is not None for t in tasks):
        tasks = (group("root"), *tasks)
    root = next(t for t in tasks if t.parent_id is None)
    placed = [replace(t, tree_id=root.id, position=n) for n, t in enumerate(tasks)]
    tree = TaskTree(TreeHead(id=root.id, size=len(placed), created_at=NOW, updated_at=NOW), placed)
    tree.apply(e.TreeCreated(len(placed), root.id), NOW)
    return tree


def do(tree: TaskTree, command: c.Command, now: float = NOW) -> list[e.Event]:
    """Decide and apply, checking the tree's own bookkeeping afterwards."""
    events = decide(command, tree, now)
    for event in events:
        tree.apply(event, now)
    tree.check()
    return events


def running(*tasks: Task) -> TaskTree:
    """A tree with a run begun."""
    tree = tree_of(*tasks)
    do(tree, c.Execute())
    return tree


def ready(tree: TaskTree, now: float = NOW) -> list[str]:
    """The names of the startable tasks in the order in which they are to start."""
    tasks = [t for t in tree.startable() if t.runnable_at <= now]
    return [t.name for t in sorted(tasks, key=lambda t: (t.priority, t.position))]


def start(tree: TaskTree, *names: str) -> None:
    for name in names:
        do(tree, c.StartTask(name))


def complete(tree: TaskTree, *names: str, result: object = None) -> list[e.Event]:
    """Start (unless they run) and complete these tasks; the last one's events."""
    events: list[e.Event] = []
    for name in names:
        if not tree.tasks[name].is_running:
            start(tree, name)
        events = do(tree, c.CompleteTask(name, tree.tasks[name].attempt, result))
    return events


def fail(tree: TaskTree, name: str, error: str = "boom", now: float = NOW) -> list[e.Event]:
    if not tree.tasks[name].is_running:
        do(tree, c.StartTask(name), now)
    return do(tree, c.FailAttempt(name, tree.tasks[name].attempt, error), now)


def statuses(tree: TaskTree, names: Iterable[str]) -> list[TaskStatus]:
    return [tree.tasks[name].status for name in names]


def plan_of(items: list[dict[str, Any]]) -> Plan:
    """The plan of what a caller wrote, where only the executor `work` is known."""
    ids = count()
    rules = Rules(lambda name, schemas, params: "work" if name == "work" else None, lambda: ["work"])
    return make_plan(items, rules, new_id=lambda: f"n{next(ids)}", now=NOW, owner="o")
