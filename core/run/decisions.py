"""From a command to what has happened to a tree; and which commands take too long for that on the event loop.

What those lead to is worked out in a thread, on a fork of the tree, so that nobody else waits for it.
"""

from collections.abc import Sequence

from core.model.commands import Cancel, Command, CompleteTask, Execute, FailAttempt, RejectTask
from core.model.decide import decide
from core.model.errors import RunElsewhere
from core.model.events import Event, Recorded
from core.model.tree import TaskTree

LARGE_TREE = 500  # tasks from which on a tree is put together, or changed as a whole, in a thread


def is_large(tree: TaskTree, command: Command) -> bool:
    """Whether the command may reach so many tasks of the tree."""
    if isinstance(command, Execute):
        return len(tree.tasks) > LARGE_TREE
    if isinstance(command, CompleteTask):
        return len(tree.dependents.get(command.task_id, ())) > LARGE_TREE
    return isinstance(command, Cancel | FailAttempt | RejectTask) and _reaches_many(tree, command.task_id)


def _reaches_many(tree: TaskTree, task_id: str) -> bool:
    """Whether so many tasks are below the task or depend on it, directly or not."""
    found, stack = {task_id}, [task_id]
    while stack and len(found) <= LARGE_TREE:
        each = stack.pop()
        new = {*tree.children.get(each, ()), *(i for i, _ in tree.dependents.get(each, ()))} - found
        found |= new
        stack += new
    return len(found) > LARGE_TREE


def worked_out(command: Command, tree: TaskTree, now: float) -> list[Recorded]:
    """Decide, and let it happen to this tree. Raises what `decide` raises."""
    return happened(tree, decide(command, tree, now), now)


def elsewhere(tree: TaskTree, command: Command, now: float) -> RunElsewhere:
    """Why the command cannot happen to a tree of another member. Raises what the tree refuses it with, whoever asks."""
    decide(command, tree, now)
    return RunElsewhere(tree.id)


def happened(tree: TaskTree, events: Sequence[Event], now: float) -> list[Recorded]:
    """Let the events happen to the tree. Its times never go back, although a process may begin with an earlier one."""
    if tree.changed_at > now:
        now = tree.changed_at
    recorded = []
    for event in events:
        tree.apply(event, now)
        recorded.append(
            Recorded(
                tree_id=tree.id,
                seq=tree.version,
                at=now,
                name=tree.name_of(event.task_id),
                tree_status=tree.status,
                event=event,
            )
        )
    return recorded
