"""What follows from the ends of tasks: the events of a decision, and the tree as it is after them. Pure."""

from collections import deque

from core.model import events as e
from core.model.task import Cause, On, Task, TaskStatus, is_met
from core.model.tree import TaskTree

MAX_ERROR = 4_000  # characters of an error that are kept


def shortened(text: str) -> str:
    """The text, cut to what is kept of an error."""
    return text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 1] + "…"


class Overlay:
    """The tree as a decision's events leave it: what they change lies over the tree, which stays as it is."""

    def __init__(self, tree: TaskTree) -> None:
        self._tree = tree
        self.ended: dict[str, TaskStatus] = {}
        self.skipped: set[str] = set()
        self.waiting: dict[str, int] = {}
        self.open = tree.open
        self.is_cancelled = tree.cancelled is not None

    def status(self, task_id: str) -> TaskStatus:
        """The task's status."""
        return self.ended.get(task_id) or self._tree.tasks[task_id].status

    def is_skipped(self, task_id: str) -> bool:
        """Whether the task has completed without having run."""
        return task_id in self.skipped or (task_id not in self.ended and self._tree.tasks[task_id].is_skipped)

    def is_open(self, task_id: str) -> bool:
        """Whether the run covers the task and has not ended it."""
        return task_id not in self.ended and self._tree.is_open(task_id)

    def outcome(self) -> TaskStatus:
        """How the run ends, if nothing is left open."""
        if self.is_cancelled:
            return TaskStatus.CANCELLED
        if self._tree.scope is not None and not all(self.status(i).is_terminal for i in self._tree.tasks):
            return TaskStatus.PENDING  # the run covered a part of the tree, and the rest has not been run yet
        return self._tree.roll_up(self.status)


class Settling:
    """Collects the events of a decision that ends tasks."""

    def __init__(self, tree: TaskTree) -> None:
        self.tree = tree
        self.after = Overlay(tree)
        self.events: list[e.Event] = []
        self.errors: dict[str, str] = {}  # of each end that follows from nothing else
        self.origin: dict[str, str] = {}  # of the others the first cause, which stands with every end
        self._queue: deque[str] = deque()

    def cancel_tree(self, error: str, by: str | None) -> None:
        """The whole tree is cancelled, whatever becomes of its tasks."""
        self.after.is_cancelled = True
        self.events.append(e.TreeCancelled(self.tree.id, error, by))

    def end(self, event: e.Event, status: TaskStatus, error: str | None = None) -> None:
        """One task ends; what follows from it is worked out by `settle`."""
        self.events.append(event)
        self.after.ended[event.task_id] = status
        if error:
            self.errors[event.task_id] = error
        self._queue.append(event.task_id)

    def cancel(self, task_id: str, error: str, cause: Cause, by: str | None = None) -> None:
        """One task ends as cancelled."""
        self.end(e.TaskCancelled(task_id, error, cause, by), TaskStatus.CANCELLED, error)

    def settle(self) -> list[e.Event]:
        """Follow every consequence, and end the run when nothing is left open."""
        self.follow()
        if self.after.open == 0 and (self.tree.is_live or self.after.is_cancelled):
            self.events.append(e.TreeFinished(self.tree.id, self.after.outcome()))
        return self.events

    def follow(self) -> None:
        """Follow every consequence of the ends so far."""
        while self._queue:
            ended = self._queue.popleft()
            self.after.open -= self.tree.is_open(ended)
            completed = self.after.status(ended) is TaskStatus.COMPLETED
            for dependent, on in self.tree.dependents.get(ended, ()):
                if not self.after.is_open(dependent):
                    continue
                if on is On.SUCCESS and not completed:
                    self._give_up(dependent, ended)
                else:
                    self._wait_for_one_less(dependent)
            parent = self.tree.tasks[ended].parent_id
            if parent is not None and self.tree.tasks[parent].is_group and self.after.is_open(parent):
                self._wait_for_one_less(parent)

    def _wait_for_one_less(self, task_id: str) -> None:
        waiting = self.after.waiting.get(task_id, self.tree.waiting[task_id]) - 1
        self.after.waiting[task_id] = waiting
        if waiting == 0:
            self.go_on(task_id)

    def go_on(self, task_id: str) -> None:
        """Nothing that the task waits for is left: a group ends, and what must not run is skipped."""
        task = self.tree.tasks[task_id]
        if task.is_group:
            self.end_group(task_id)
        elif self.tree.has_alternatives:
            self._skip_unless_met(task)

    def _skip_unless_met(self, task: Task) -> None:
        for dependency in task.dependencies:
            is_skipped = self.after.is_skipped(dependency.id)
            if not is_met(dependency.on, self.after.status(dependency.id), is_skipped=is_skipped):
                end = "was skipped" if is_skipped else "completed"
                self.after.skipped.add(task.id)
                reason = shortened(f"skipped, because {_describe(self.tree.tasks[dependency.id])} {end}")
                self.end(e.TaskSkipped(task.id, reason), TaskStatus.COMPLETED)
                return

    def end_group(self, group_id: str) -> None:
        """Give the group the roll-up of its children."""
        status = self.tree.roll_up(self.after.status, group_id)
        if status is TaskStatus.COMPLETED:
            cause = None
            if self.tree.has_alternatives and all(
                map(self.after.is_skipped, self.tree.children.get(group_id, (group_id,)))
            ):
                self.after.skipped.add(group_id)
                cause = Cause.SKIPPED
            self.end(e.GroupEnded(group_id, status, None, cause), status)
            return
        culprit = next(i for i in self.tree.children[group_id] if self.after.status(i) is status)
        error = self._blame(culprit)
        cause = Cause.REQUESTED if status is TaskStatus.CANCELLED and self.after.is_cancelled else Cause.CHILD_FAILED
        self.origin[group_id] = _origin_of(self, culprit) or error
        self.end(e.GroupEnded(group_id, status, error, cause), status)

    def _give_up(self, task_id: str, dependency: str) -> None:
        """The task can never run: a dependency that it requires did not complete."""
        error = f"required dependency {self._blame(dependency)}"
        self.origin[task_id] = _origin_of(self, dependency) or error
        self.cancel(task_id, error, Cause.DEPENDENCY_FAILED)

    def _blame(self, task_id: str) -> str:
        """Who did not complete, and the first cause of it."""
        who, origin = _describe(self.tree.tasks[task_id]), _origin_of(self, task_id)
        if origin is None:
            task = self.tree.tasks[task_id]
            return shortened(f"{who} {self.after.status(task_id)}: {task.error}")
        return origin if origin.startswith(who) else shortened(f"{who} {self.after.status(task_id)}, because {origin}")


def _describe(task: Task) -> str:
    return f"{task.name!r} ({task.key})"


def _origin_of(settling: Settling, task_id: str) -> str | None:
    """The first cause of the task's end. Made where it is needed: a cancel ends thousands of tasks without it."""
    if (origin := settling.origin.get(task_id)) is not None:
        return origin
    error = settling.errors.get(task_id)
    return error and f"{_describe(settling.tree.tasks[task_id])} {settling.after.status(task_id)}: {error}"
