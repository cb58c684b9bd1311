"""How a process goes on with the trees that an earlier one, or a failed append, left in the middle of their runs.

Attempts of which this process has none are lost. What ran beside what when the process crashed is known only when all
trees are loaded, so a start decides on all of them together; the suspects among them go into quarantine.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from core.model.errors import CallerError, StorageError, StorageUnavailable
from core.model.quarantine import LONGEST_HOLD, Quarantine
from core.model.task import Task
from core.model.tree import TaskTree
from core.run.orchestrator import Orchestrator

logger = logging.getLogger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds between two tries to load a tree

Loss = tuple[TaskTree, Task, bool]  # the last: no other attempt was lost with it


class Recovery:
    """Collects what is loaded. `recover` goes on with trees; `fill` starts what may start."""

    def __init__(
        self, orchestrator: Orchestrator, recover: Callable[[Sequence[TaskTree]], None], fill: Callable[[], None]
    ) -> None:
        self._orchestrator = orchestrator
        self._recover = recover
        self._fill = fill
        self._found: list[TaskTree] | None = None  # what the start has loaded so far
        self.quarantine = Quarantine()

    def add(self, tree: TaskTree) -> None:
        """A live tree was loaded."""
        if self._found is None:
            self._recover([tree])
        else:
            self._found.append(tree)

    @contextmanager
    def starting(self) -> Iterator[None]:
        """What is loaded within is decided on at its end, together."""
        self._found = []
        try:
            yield
        finally:
            found, self._found = self._found, None
            loop = asyncio.get_running_loop()
            self.quarantine.hold(loop.time())
            self._recover([tree for tree in found if self._orchestrator.cached(tree.id) is tree])
            if self.quarantine.is_open:
                loop.call_later(LONGEST_HOLD, self._fill)

    def losses(self, trees: Sequence[TaskTree], busy: Iterable[tuple[str, str]]) -> list[Loss]:
        """The attempts that are stored as running, and are none of this process."""
        ours = set(busy)
        lost = [(tree, tree.tasks[i]) for tree in trees for i in sorted(tree.running) if (tree.id, i) not in ours]
        return [(tree, task, len(lost) == 1) for tree, task in lost]

    def next_suspect(self, has_room: Callable[[Task], bool]) -> tuple[str, str] | None:
        """The tree and task of the suspect that is to start now. When its watch is over, `fill` is called."""
        loop = asyncio.get_running_loop()
        if (found := self.quarantine.take(loop.time(), has_room)) is None:
            return None
        tree_id, task_id, seconds = found
        loop.call_later(seconds, self._fill)
        return tree_id, task_id

    def is_holding(self) -> bool:
        """Whether nothing but suspects may start."""
        return self.quarantine.is_holding(asyncio.get_running_loop().time())


async def load_again(orchestrator: Orchestrator, tree_id: str, is_closing: Callable[[], bool]) -> None:
    """Load the tree, as soon as the storage can, unless the process ends before."""
    delay = SHORTEST_PAUSE
    while not is_closing():
        try:
            await orchestrator.load(tree_id)
            return
        except CallerError:
            return
        except StorageUnavailable:
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_PAUSE)
        except StorageError:
            logger.exception("tree %s cannot be loaded again", tree_id)
            return
