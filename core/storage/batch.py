"""Several appends as one set of rows: every event, each task and each head once, as the last append left them."""

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from core.model.errors import StorageError, VersionConflict
from core.model.events import Recorded, TaskUpdated
from core.model.task import Task, TreeHead
from core.storage import codec
from core.storage.base import Append
from core.storage.codec import Row


class RowsMissed(StorageError):
    """Fewer rows were changed than should have been: an append of the batch met another version."""


class RowMaker(Protocol):
    """Makes rows as `codec` does."""

    def event_row(self, recorded: Recorded, /) -> Row: ...

    def task_row(self, task: Task, /) -> Row: ...

    def task_state_row(self, task: Task, /) -> Row: ...


class Batch:
    """The rows of appends that go into one transaction.

    `stored` are heads that the database is known to have, `rows` makes the rows or has them.
    """

    def __init__(self, appends: Iterable[Append], stored: dict[str, TreeHead], rows: RowMaker = codec) -> None:
        self._stored = stored
        self._rows = rows
        self.heads: dict[str, TreeHead] = {}
        self._expected: dict[str, int] = {}  # first version of each tree that exists already
        self._tasks: dict[str, Task] = {}
        self._new_tasks: set[str] = set()
        self._respecified: set[str] = set()
        self._events: list[Row] = []
        self.size = 0  # bytes of the events
        self.sizes: defaultdict[str, int] = defaultdict(int)  # owner -> bytes of its events and new tasks
        self._documents: list[Row] = []
        for append in appends:
            self._add(append)

    def _add(self, append: Append) -> None:
        head = append.head
        expected = head.version - len(append.events)
        before = self.heads.get(head.id)
        if append.is_new:
            if before is not None or expected != 0:
                raise VersionConflict(head.id)
            self._new_tasks.update([task.id for task in append.tasks])
        elif before is None:
            self._expected[head.id] = expected
        elif before.version != expected:
            raise VersionConflict(head.id)
        self.heads[head.id] = head
        before_size = self.size
        for recorded in append.events:
            row = self._rows.event_row(recorded)
            self.size += len(row[codec.EVENT_BODY])
            self._events.append(row)
            if type(recorded.event) is TaskUpdated:
                self._respecified.add(recorded.event.task_id)
        for task in append.tasks:
            self._tasks[task.id] = task
        self.sizes[head.owner] += self.size - before_size
        self._documents += [codec.document_row(document) for document in append.documents]

    @property
    def is_new(self) -> bool:
        """Whether it makes a tree."""
        return bool(self._new_tasks)

    def steps(self) -> "Steps":
        """Its rows, by what is to be done with them."""
        created: list[Row] = []
        changed: list[Row] = []
        counted: list[Row] = []
        bulks: list[Row] = []
        for tree_id, head in self.heads.items():
            expected = self._expected.get(tree_id)
            if expected is None:
                created.append(codec.head_row(head))
                continue
            stored = self._stored.get(tree_id)
            if stored is not None and codec.same_keys(stored, head):
                counted.append(codec.head_version_row(head, expected))
            else:
                changed.append(codec.head_change_row(head, expected))
            if stored is None or not codec.same_bulk(stored, head):
                bulks.append(codec.head_bulk_row(head))
        new = [self._rows.task_row(task) for task in self._tasks.values() if task.id in self._new_tasks]
        for row in new:
            self.sizes[row[codec.TASK_OWNER]] += len(row[codec.TASK_SPEC])
        updated = [task for task in self._tasks.values() if task.id not in self._new_tasks]
        return Steps(
            changed,
            counted,
            created,
            bulks,
            self._events,
            new,
            [self._rows.task_state_row(task) for task in updated],
            [codec.task_spec_row(task) for task in updated if task.id in self._respecified],
            self._documents,
        )


class Steps(NamedTuple):
    """Rows of a batch, in the order in which they are written. Each of them must change, or make, one row."""

    changed: list[Row]  # heads, as `codec.head_change_row` has them
    counted: list[Row]  # heads whose version alone changes
    created: list[Row]  # heads of new trees
    bulks: list[Row]
    events: list[Row]
    new: list[Row]  # tasks of new trees, in the place of drafts with their ids
    states: list[Row]
    specs: list[Row]
    documents: list[Row]
