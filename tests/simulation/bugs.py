"""Bugs to plant: each must be found by some seed, or the simulation would be a check that cannot fail."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from core import decide as decide_module
from core import events as e
from core import feed as feed_module
from core import fold as fold_module
from core import retention as retention_module
from core.attempt import Attempt
from core.commands import LoseAttempt
from core.executors.base import TaskContext
from core.feed import Feed, _Topic
from core.orchestrator import Decision, Orchestrator
from core.runner import Runner
from core.session import Session
from core.storage.memory import MemoryStorage
from core.tree import _APPLY, TaskTree

Plant = Callable[[pytest.MonkeyPatch], None]
Remake = Callable[[Any], Any]  # the function as it is -> the function with the bug


def _in(owner: Any, name: str, remake: Remake) -> Plant:
    return lambda patch: patch.setattr(owner, name, remake(getattr(owner, name)))


def _deciding(command: type, remake: Remake) -> Plant:
    table = decide_module._DECIDE
    return lambda patch: patch.setitem(table, command, remake(table[command]))


def _applying(event: type, remake: Remake) -> Plant:
    return lambda patch: patch.setitem(_APPLY, event, remake(_APPLY[event]))


def _without(*kinds: type) -> Remake:
    """The decision, without these events."""
    return lambda old: lambda command, tree, now: [x for x in old(command, tree, now) if not isinstance(x, kinds)]


def _nothing(old: Any) -> Any:
    return lambda *arguments, **named: None


def _nothing_later(old: Any) -> Any:
    async def method(self: Any) -> int:
        return 0

    return method


def _one_retry_more(old: Any) -> Any:
    def fail(command: Any, tree: TaskTree, now: float) -> Any:
        task = tree.tasks[command.task_id]
        tree.tasks[task.id] = replace(task, max_attempts=task.max_attempts + 1)
        try:
            return old(command, tree, now)
        finally:
            tree.tasks[task.id] = task

    return fail


def _forgetful(old: Any) -> Any:
    """The tree's method, and nobody learns what became ready by it."""

    def method(tree: TaskTree, *arguments: Any) -> None:
        old(tree, *arguments)
        tree._ready.clear()

    return method


def _at_least_once(old: Any) -> Any:
    def loss(self: Runner, task: Any, **named: Any) -> LoseAttempt:
        return LoseAttempt(task.id, task.attempt, named["crash"])

    return loss


def _hasty(patch: pytest.MonkeyPatch) -> None:
    start, begin = Runner._start, Runner._begin

    def start_and_begin(self: Runner, tree_id: str, task_id: str) -> None:
        start(self, tree_id, task_id)
        if (tree_id, task_id) in self._starting:
            tree = self._orchestrator.cached(tree_id)
            assert tree is not None
            begin(self, tree, e.TaskStarted(task_id, tree.tasks[task_id].attempt))

    patch.setattr(Runner, "_start", start_and_begin)
    patch.setattr(Runner, "_begin", _nothing(begin))


def _generous(old: Any) -> Any:
    def init(self: Runner, orchestrator: Any, registry: Any, clock: Any, limits: Any) -> None:
        old(self, orchestrator, registry, clock, replace(limits, tasks=limits.tasks + 1))

    return init


def _leaky(old: Any) -> Any:
    def release(self: Runner, key: tuple[str, str], lane: str) -> None:
        old(self, key, lane)
        if self._running == 0:
            self._running = 1

    return release


def _indiscreet(old: Any) -> Any:
    """Followers are told before it is durable."""

    def append(self: Orchestrator, tree: TaskTree, *arguments: Any, **named: Any) -> Decision:
        decision = old(self, tree, *arguments, **named)
        self._feed.publish(tree.head, decision.events)
        return decision  # type: ignore[no-any-return]

    return append


def _premature(old: Any) -> Any:
    """A creation is confirmed before it is durable."""

    async def create(self: Orchestrator, head: Any, plan: Any, message: Any, **named: Any) -> TaskTree:
        tree = TaskTree(head, plan.tasks)
        events: list[e.Event] = [e.TreeCreated(len(plan.tasks), head.id)]
        if named["execute"]:
            events += decide_module.decide(decide_module.c.Execute(), tree, self._clock.now())
        self._append(tree, events, is_new=True)
        return tree

    return create


def _skipping(old: Any) -> Any:
    def after(self: _Topic, cursor: int) -> Any:
        found = old(self, cursor)
        return found[1:] if found is not None and len(found) > 3 else found

    return after


def _deaf(old: Any) -> Any:
    def publish(self: Feed, head: Any, events: Any) -> None:
        topic = self._topics.get(head.id)
        if topic is not None and not isinstance(events[-1].event, e.TreeFinished):
            old(self, head, events)

    return publish


def _unsaved(old: Any) -> Any:
    """What could not be stored stays in memory all the same."""

    def done(self: Orchestrator, future: Any, tree: TaskTree, head: Any, recorded: Any) -> None:
        keeps = self._trees.get(tree.id) is tree
        old(self, future, tree, head, recorded)
        if keeps and future.exception() is not None:
            self._trees[tree.id] = tree

    return done


def _careless(old: Any) -> Any:
    """Whether the tree went on since the look is not asked."""

    def is_at_rest(self: MemoryStorage, tree_id: str, version: int) -> bool:
        return tree_id in self._heads

    return is_at_rest


def _impatient(patch: pytest.MonkeyPatch) -> None:
    ended = MemoryStorage.ended
    patch.setattr(MemoryStorage, "ended", lambda self, query: ended(self, replace(query, until=1e12)))
    patch.setattr(retention_module, "_has_ended", lambda head, until: True)


def _blind(old: Any) -> Any:
    """A follower does not see that events are missing."""

    async def page(storage: Any, tree_id: str, after: int, *, limit: int) -> Any:
        return await storage.events(tree_id, after, limit=limit)

    return page


PLANTED: dict[str, Plant] = {
    "a tree that went on is folded all the same": _in(MemoryStorage, "_is_at_rest", _careless),
    "a follower is not told that events are folded": _in(feed_module, "log_page", _blind),
    "folding forgets failures": lambda patch: patch.setattr(fold_module, "KEPT", e.TaskCompleted | e.ArtifactAdded),
    "retention takes what has just ended": _impatient,
    "one retry too many": _deciding(decide_module.c.FailAttempt, _one_retry_more),
    "a lost wake-up after a dependency": _in(TaskTree, "_release", _forgetful),
    "a lost wake-up after an answer": _applying(e.InputProvided, _forgetful),
    "optional dependencies are not waited for": _in(
        TaskTree, "edges", lambda old: lambda self, task: (d.id for d in task.dependencies if d.required)
    ),
    "groups never end": _deciding(decide_module.c.CompleteTask, _without(e.GroupEnded)),
    "the end of the tree is forgotten": _deciding(decide_module.c.CompleteTask, _without(e.TreeFinished)),
    "dependents of a failure are left waiting": _deciding(decide_module.c.FailAttempt, _without(e.TaskCancelled)),
    "a cancel forgets what it leaves": _deciding(decide_module.c.Cancel, _without(e.TaskCancelled)),
    "the end of a task is overwritten": _in(
        decide_module._Settling, "is_open", lambda old: lambda self, task_id: task_id in self.tree.waiting
    ),
    "at most once becomes at least once": _in(Runner, "_loss", _at_least_once),
    "a task is never taken for poison": lambda patch: patch.setattr(decide_module, "MAX_CRASHES", 10**9),
    "a restart forgets the trees that were live": _in(Session, "resume", _nothing_later),
    "a restart forgets what was ready": _in(TaskTree, "startable", lambda old: lambda self: []),
    "an attempt begins before its start is durable": _hasty,
    "one attempt more than the limit": _in(Runner, "__init__", _generous),
    "the limit of an executor is ignored": _in(Runner, "_lane_has_room", lambda old: lambda self, lane: True),
    "a slot leaks": _in(Runner, "_release", _leaky),
    "retries are never woken": _in(Runner, "_set_timer", _nothing),
    "what could not be stored is not given back": _in(Runner, "voided", _nothing),
    "what could not be stored stays in memory": _in(Orchestrator, "_done", _unsaved),
    "a cancel does not stop the work": _in(Attempt, "stop", _nothing),
    "followers are told before it is durable": _in(Orchestrator, "_append", _indiscreet),
    "a creation is confirmed before it is durable": _in(Orchestrator, "create", _premature),
    "a follower skips an event": _in(_Topic, "after", _skipping),
    "a follower is not woken at the end": _in(Feed, "publish", _deaf),
    "the idempotency key changes with the attempt": lambda patch: patch.setattr(
        TaskContext, "idempotency_key", property(lambda self: f"{self.task.id}:{self.run}:{self.attempt}")
    ),
}
