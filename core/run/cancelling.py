"""A cancel, from the log to the work: what is stopped, what can only be asked to stop, and what goes on anyway."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec.structs import replace

from core.model import events as e
from core.model.commands import Cancel
from core.model.tree import TaskTree
from core.run.attempt import Attempt
from core.run.orchestrator import Decision, Orchestrator

STOP_LIMIT = 5.0  # seconds that a cancel waits for the work to stop (semantics §9)


class Cancelling:
    """Cancels in the trees of one process, whose attempts are `attempts`, by (tree, task)."""

    def __init__(self, orchestrator: Orchestrator, attempts: Mapping[tuple[str, str], Attempt]) -> None:
        self._orchestrator = orchestrator
        self._attempts = attempts

    def _uninterruptible(self, tree: TaskTree) -> frozenset[str]:
        """The running tasks of the tree whose executors cannot be interrupted."""
        specs = ((task_id, self._attempts.get((tree.id, task_id))) for task_id in tree.running)
        return frozenset(task_id for task_id, found in specs if found and found.spec and not found.spec.cancelable)

    async def cancel(
        self, tree_id: str, command: Cancel, metadata: Mapping[str, Any]
    ) -> tuple[Decision, tuple[str, ...]]:
        """Cancel durably, and wait until the work has stopped: the decision, and what still runs after 5 seconds.

        What cannot be interrupted is asked to stop, and waited for as well. Executors see the `metadata`.
        Raises what `Orchestrator.handle` raises.
        """
        tree = await self._orchestrator.trees.load(tree_id)
        command = replace(command, uninterruptible=self._uninterruptible(tree))
        below = [(tree.id, each) for each in tree.subtree(command.task_id)] if command.task_id in tree.tasks else []
        affected = [self._attempts[key] for key in below if key in self._attempts]
        for attempt in affected if metadata else ():
            attempt.context.cancel_metadata = metadata
        decision = await self._orchestrator.handle(tree.id, command)
        ended = {recorded.event.task_id for recorded in decision.events if isinstance(recorded.event, e.TaskCancelled)}
        asked = [attempt for attempt in affected if attempt.task.id not in ended and not attempt.context.stopping]
        for attempt in asked:
            attempt.context.asked_to_stop = command.reason or ""
        # Those that it found have left since, or were found a moment ago.
        late = [self._attempts[key] for key in [(tree.id, i) for i in ended] if key in self._attempts]
        stopping = [attempt for attempt in affected if attempt.task.id in ended]
        left = await wait_until_stopped({*stopping, *late, *asked}, STOP_LIMIT)
        return decision, tuple(each for each in left if each in ended)


async def wait_until_stopped(attempts: Iterable[Attempt], limit: float) -> tuple[str, ...]:
    """Wait until they have ended, with the threads that outlive them, `limit` seconds at most.

    The ids of the tasks of which something still runs.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + limit
    waited = [attempt for attempt in attempts if attempt.job is not None]
    jobs = {attempt.job for attempt in waited if attempt.job is not None}
    if jobs:
        await asyncio.wait(jobs, timeout=limit)
    threads = {attempt.context.left for attempt in waited if attempt.context.left is not None}
    if threads:
        await asyncio.wait(threads, timeout=max(0.0, until - loop.time()))
    return tuple(attempt.task.id for attempt in waited if goes_on(attempt))


def goes_on(attempt: Attempt) -> bool:
    """Whether something of it still runs."""
    is_running = attempt.job is not None and not attempt.job.done()
    return is_running or (attempt.context.left is not None and not attempt.context.left.done())
