"""What happens to tasks when a moment comes: they become runnable, or their time is over."""

from collections.abc import Callable, Sequence

from core.loop.alarms import Alarms
from core.model.commands import ExpireTask
from core.model.task import Task
from core.model.times import limits_of, passed, ready_at
from core.model.tree import TaskTree
from core.outside.clock import Clock
from core.run.orchestrator import Orchestrator

Timer = tuple[float, str, str]  # (when, tree, task)


class Due:
    """The moments of the tasks of one process. `offer` takes a task that became runnable; `fill` is called after all.

    It keeps no state of its own: what a timer stands for is read from the tree when it rings.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        clock: Clock,
        offer: Callable[[TaskTree, Task], None],
        fill: Callable[[], None],
    ) -> None:
        self._orchestrator = orchestrator
        self._clock = clock
        self._offer = offer
        self._fill = fill
        self.timers: Alarms[Timer] = Alarms(clock.now, self._is_awaited, self._ring)

    def watch(self, tree: TaskTree) -> None:
        """A run of the tree goes on from here."""
        for task in tree.tasks.values():
            if task.deadline is not None and tree.is_open(task.id):
                self.timers.set((task.deadline, tree.id, task.id))
            if task.is_group and tree.is_open(task.id):
                self.group_began(tree, task)

    def group_began(self, tree: TaskTree, group: Task) -> None:
        """The first task below the group may have started."""
        if group.timeout is not None and group.started_at is not None:
            self.timers.set((group.started_at + group.timeout, tree.id, group.id))

    def ready(self, tree: TaskTree, task: Task) -> None:
        """The task waits for nothing but a slot."""
        if task.queue_timeout is not None:
            self.timers.set((ready_at(tree, task) + task.queue_timeout, tree.id, task.id))

    def is_later(self, tree: TaskTree, task: Task) -> bool:
        """Whether the task may start only later; then it is offered again at that time."""
        if task.runnable_at <= self._clock.now():
            return False
        self.timers.set((task.runnable_at, tree.id, task.id))
        return True

    def close(self) -> None:
        """Nothing is due any more."""
        self.timers.close()

    def check(self, tree: TaskTree) -> None:
        """Raise AssertionError when a moment of the tree's tasks will pass unnoticed. For tests and simulations."""
        self.timers.check()
        now, set_for = self._clock.now(), set(self.timers)
        for task in tree.tasks.values() if tree.is_live else ():
            awaited = [limit.at for limit in limits_of(tree, task)] if tree.is_open(task.id) else []
            awaited += [task.runnable_at] if tree.is_startable(task) else []
            for when in awaited:
                assert when <= now or (when, tree.id, task.id) in set_for, f"no timer of task {task.id} rings at {when}"

    def _is_awaited(self, timer: Timer) -> bool:
        """Whether the task may still become runnable, or pass its deadline, at that time."""
        when, tree_id, task_id = timer
        tree = self._orchestrator.trees.by_id.get(tree_id)
        task = tree.tasks.get(task_id) if tree is not None else None
        if tree is None or task is None or not tree.is_live or not tree.is_open(task_id):
            return False
        return when == task.runnable_at or any(when == limit.at for limit in limits_of(tree, task))

    def _ring(self, due: Sequence[Timer]) -> None:
        now = self._clock.now()
        for when, tree_id, task_id in due:
            tree = self._orchestrator.trees.by_id.get(tree_id)
            task = tree.tasks.get(task_id) if tree is not None else None
            if tree is None or task is None:
                continue
            if tree.is_live and tree.is_open(task_id) and passed(tree, task, now) is not None:
                self._orchestrator.decide_now(tree, ExpireTask(task_id))
            elif when == task.runnable_at and tree.is_startable(task):
                self._offer(tree, task)
        self._fill()
