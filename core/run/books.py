"""What the attempts of a process have taken and how far each has come: plain data, shared by the parts of the runner.

Each part changes it within one step of the event loop; between two steps all of it agrees, which `check` looks at.
"""

from collections.abc import Callable

from core.model.queue import ReadyQueue, check_queue
from core.model.room import Claim, Room
from core.run.attempt import Attempt
from core.run.leftovers import Leftovers
from core.run.orchestrator import Orchestrator

Key = tuple[str, str]  # tree and task


class Books:
    """The books of one process."""

    def __init__(self, room: Room, queue: ReadyQueue) -> None:
        self.room = room
        self.queue = queue
        self.starting: dict[Key, Claim] = {}  # whose TaskStarted is not durable
        self.attempts: dict[Key, Attempt] = {}  # until their report is stored, in the order of their beginning
        self.ahead: set[tuple[str, str, int]] = set()  # (tree, task, attempt) begun before the start was durable
        self.careful: set[str] = set()  # trees taken from storage in the middle of a run: there none begins so
        self.never_begun: dict[Key, int] = {}  # whose stored attempt has not run anything
        self.leftovers = Leftovers(room)
        self.is_closing = False  # nothing starts any more

    @property
    def running(self) -> int:
        """How many attempts run."""
        return self.room.slots.used - len(self.starting)

    def running_of(self, counts: Callable[[str], bool]) -> int:
        """How many attempts run of the owners that count."""
        return sum(counts(each.task.owner) for each in self.attempts.values() if not each.is_over)

    @property
    def is_changing(self) -> bool:
        """Whether a start or a report is on its way, so that what is taken is about to change."""
        return bool(self.starting) or any(each.is_over or each.context.stopping for each in self.attempts.values())

    def release(self, claim: Claim) -> None:
        """Give everything back that a start took which came to nothing."""
        self.room.give(claim)
        self.queue.released(claim.caller, claim.tree_id)

    def void_start(self, key: Key, attempt: int) -> None:
        """The start could not be stored: give back what was taken for it, and stop what went ahead of it."""
        if key in self.starting:
            self.release(self.starting.pop(key))
        elif (ahead := (*key, attempt)) in self.ahead:
            self.ahead.remove(ahead)
            if key in self.attempts:
                self.attempts[key].stop()

    def release_attempt(self, attempt: Attempt) -> None:
        """Give everything back that the attempt holds."""
        attempt.holds = False
        self.room.give(attempt.claim)
        self.queue.released(attempt.claim.caller, attempt.claim.tree_id)

    def check(self, orchestrator: Orchestrator) -> None:
        """Raise AssertionError when the books disagree. For tests and simulations."""
        both = self.starting.keys() & self.attempts.keys()
        assert not both, f"{both} are starting and have attempts"
        held = [*self.starting.values(), *(each.claim for each in self.attempts.values() if each.holds)]
        self.room.check(held, self.leftovers.claims)
        check_queue(self.queue)
        for key, attempt in self.attempts.items():
            assert attempt.job is not None and not attempt.job.done(), (
                f"the attempt of {key} has ended and is still held"
            )
            assert not (attempt.lends and attempt.holds), f"the attempt of {key} lends what it holds"
        for tree_id, task_id in self.starting:
            assert orchestrator.latest(tree_id) is not None, f"the start of {task_id} was answered and is still awaited"
        for tree_id, task_id, _ in self.ahead:
            assert orchestrator.latest(tree_id) is not None, f"{task_id} is still ahead of a start that was answered"
        for tree_id, task_id in () if self.is_closing else self.never_begun:
            is_on_its_way = orchestrator.latest(tree_id) is not None or tree_id not in orchestrator.trees.by_id
            assert is_on_its_way, f"the end of {task_id}, which has never begun, is stored and was not noticed"
        for tree_id in self.careful | self.queue.trees:
            assert tree_id in orchestrator.trees.by_id, f"tree {tree_id} is gone and is still known"
