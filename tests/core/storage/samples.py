"""Trees, tasks and appends for the storage tests, small and always the same."""

import sqlite3
from contextlib import closing
from pathlib import Path

from msgspec.structs import replace

from core.model.events import Event, Recorded, TaskStarted, TaskUpdated, TreeCreated, TreeFinished
from core.model.task import ANONYMOUS, Task, TaskStatus, TreeHead
from core.storage.base import Append


def make_tasks(tree_id: str, size: int, *, owner: str = ANONYMOUS, created_at: float = 1000.0) -> tuple[Task, ...]:
    """A root, whose id is the tree's, and its children."""
    return tuple(
        Task(
            id=tree_id if i == 0 else f"{tree_id}.{i}",
            tree_id=tree_id,
            owner=owner,
            name=f"work {i}",
            parent_id=None if i == 0 else tree_id,
            position=i,
            executor="work",
            inputs={"n": i},
            created_at=created_at,
        )
        for i in range(size)
    )


def recorded(head: TreeHead, seq: int, event: Event) -> Recorded:
    return Recorded(tree_id=head.id, seq=seq, at=1000.0 + seq, name="work", tree_status=head.status, event=event)


def created(tree_id: str, size: int = 1, **fields: object) -> Append:
    """The append that creates a tree; `fields` are those of its head."""
    owner = str(fields.get("owner", ANONYMOUS))
    at = float(str(fields.get("created_at", 1000.0)))
    tasks = make_tasks(tree_id, size, owner=owner, created_at=at)
    head = TreeHead(id=tree_id, version=1, size=size, created_at=at, updated_at=at)
    head = replace(head, **fields)
    event = recorded(head, 1, TreeCreated(size=size, task_id=tree_id))
    return Append(head=head, events=(event,), tasks=tasks, is_new=True)


def started(head: TreeHead, task: Task) -> Append:
    """The append after `head` that starts one task."""
    after = replace(head, version=head.version + 1, status=TaskStatus.IN_PROGRESS, is_live=True)
    changed = replace(task, status=TaskStatus.IN_PROGRESS, attempt=task.attempt + 1, is_running=True, started_at=1001.0)
    event = recorded(after, after.version, TaskStarted(task_id=task.id, attempt=changed.attempt))
    return Append(head=after, events=(event,), tasks=(changed,))


def updated(head: TreeHead, task: Task, **changes: object) -> Append:
    """The append after `head` that changes what the caller wrote."""
    after = replace(head, version=head.version + 1)
    event = recorded(after, after.version, TaskUpdated(task_id=task.id, changes=dict(changes)))
    return Append(head=after, events=(event,), tasks=(replace(task, **changes),))


def finished(head: TreeHead) -> Append:
    """The append after `head` that ends the run."""
    after = replace(head, version=head.version + 1, status=TaskStatus.COMPLETED, is_live=False)
    event = recorded(after, after.version, TreeFinished(task_id=head.id, status=TaskStatus.COMPLETED))
    return Append(head=after, events=(event,), tasks=())


def harm(path: Path, sql: str) -> None:
    """Change a file that nobody has open."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(sql)
