"""Which of the tasks that ran when the process crashed may start, so that the one that crashes it is found. Pure.

A task that was running in `SUSPECTED_AFTER` crashes is a suspect. Suspects start one at a time, the one that was first
started last before the others, and each is watched alone for a while: what crashes the process then is guilty. The
watch is twice as long after each further crash, so that it outlasts what a task does before it crashes, in the end.

Other tasks wait meanwhile, but no longer than `LONGEST_HOLD` after the start of the process.
"""

from collections.abc import Callable

from core.model.task import Task

SUSPECTED_AFTER = 2  # crashes: most have a cause outside (a kill, a power cut), and happen once
FIRST_WATCH = 2.0  # seconds
LONGEST_HOLD = 60.0  # seconds that tasks wait which are under no suspicion

Key = tuple[str, str]  # tree and task


def is_suspect(task: Task) -> bool:
    """Whether the task ran in several crashes of this run."""
    return task.crashes >= SUSPECTED_AFTER


def watch_of(task: Task) -> float:
    """The seconds for which nothing else is started beside it."""
    return FIRST_WATCH * float(2 ** min(task.crashes - SUSPECTED_AFTER, 32))


class Quarantine:
    """The suspects of one process that have not started yet, and the one that is watched. Times are seconds."""

    def __init__(self) -> None:
        self.is_open = False  # whether there is anybody in it
        self._line: dict[Key, Task] = {}
        self._watched: Key | None = None
        self._watched_until = 0.0
        self._holds_until = 0.0

    def hold(self, now: float) -> None:
        """From now on, and for a limited time, others wait for the suspects."""
        self._holds_until = now + LONGEST_HOLD

    def offer(self, tree_id: str, task: Task) -> None:
        """Put a suspect that is ready in line, once."""
        self._line[tree_id, task.id] = task
        self.is_open = True

    def has(self, key: Key) -> bool:
        """Whether the task is in line and will have its turn."""
        return self.is_open and key in self._line

    def take(self, now: float, has_room: Callable[[Task], bool]) -> tuple[str, str, float] | None:
        """The tree and task of the suspect that is to start now, and for how long it is watched; None: none is."""
        if self._watched is not None and now < self._watched_until:
            return None
        self._watched = None
        able = [key for key, task in self._line.items() if has_room(task)]
        if not able:
            self.is_open = bool(self._line)
            return None
        key = max(able, key=lambda each: (self._line[each].started_at or 0.0, each))
        seconds = watch_of(self._line.pop(key))
        self._watched, self._watched_until = key, now + seconds
        return (*key, seconds)

    def is_holding(self, now: float) -> bool:
        """Whether nothing else may start."""
        return self.is_open and now < self._holds_until

    def release(self, key: Key) -> None:
        """The task has ended, or did not start after all."""
        if key == self._watched:
            self._watched = None
