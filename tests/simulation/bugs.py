"""Bugs to plant: each must be found by some seed, or the simulation would be a check that cannot fail."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from core.executors.base import TaskContext
from core.loop.alarms import Alarms
from core.model import commands as c
from core.model import compaction as compaction_module
from core.model import decide as decide_module
from core.model import events as e
from core.model import settling as settling_module
from core.model.commands import LoseAttempt
from core.model.room import Room
from core.model.submission import BARE
from core.model.tree import _APPLY, TaskTree
from core.run import feed as feed_module
from core.run import recovery as recovery_module
from core.run import retention as retention_module
from core.run.attempt import Attempt
from core.run.books import Books
from core.run.dispatcher import Dispatcher
from core.run.feed import Feed
from core.run.orchestrator import Decision, Orchestrator, new_tree
from core.run.retention import Retention
from core.run.runner import Runner
from core.run.started import Started
from core.run.topic import Topic
from core.session import Session
from core.storage.base import EventQuery
from core.storage.memory import MemoryStorage

Plant = Callable[[pytest.MonkeyPatch], None]
Remake = Callable[[Any], Any]  # the function as it is -> the function with the bug


def in_place_of(owner: Any, name: str, remake: Remake) -> Plant:
    """The attribute, made anew of what it was."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        old = getattr(owner, name)
        new = remake(old)
        if callable(old):
            _check_fit(old, new)
        patch.setattr(owner, name, new)

    return plant


def _check_fit(old: Any, new: Any) -> None:
    """Raise TypeError for a function that cannot be called as the old one is.

    Where such a call is made in a job of its own, its error is lost, and the simulation finds that instead of the bug.
    """
    parameters = inspect.signature(old).parameters.values()
    needed = [each for each in parameters if each.default is each.empty]
    positional = [each.name for each in needed if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    named = {each.name: None for each in needed if each.kind is each.KEYWORD_ONLY}
    inspect.signature(new).bind(*positional, **named)


def _deciding(command: type, remake: Remake) -> Plant:
    table = decide_module._DECIDE
    return lambda patch: patch.setitem(table, command, remake(table[command]))


def _applying(event: type, remake: Remake) -> Plant:
    return lambda patch: patch.setitem(_APPLY, event, remake(_APPLY[event]))


def _without(*kinds: type) -> Remake:
    """The decision, without these events."""
    return lambda old: lambda command, tree, now: [x for x in old(command, tree, now) if not isinstance(x, kinds)]


def nothing(old: Any) -> Any:
    """In place of a function: it does nothing."""
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
    def lost(task: Any, spec: Any, **named: Any) -> LoseAttempt:
        return LoseAttempt(task.id, task.attempt, named["crash"])

    return lost


def _impolite(old: Any) -> Any:
    """A start does not wait for an earlier attempt of its task to leave."""

    def start(self: Dispatcher, tree_id: str, task_id: str) -> None:
        attempt = self._books.attempts.pop((tree_id, task_id), None)
        old(self, tree_id, task_id)
        if attempt is not None:
            self._books.attempts.setdefault((tree_id, task_id), attempt)

    return start


def _generous(old: Any) -> Any:
    def init(self: Runner, orchestrator: Any, limits: Any, means: Any) -> None:
        old(self, orchestrator, replace(limits, tasks=limits.tasks + 1), means)

    return init


def _leaky(old: Any) -> Any:
    def release(self: Books, attempt: Attempt) -> None:
        old(self, attempt)
        if self.room.slots.used == 0:
            self.room.slots.used = 1

    return release


def _indiscreet(old: Any) -> Any:
    """Followers are told before it is durable."""

    def record(self: Orchestrator, tree: TaskTree, *arguments: Any, **named: Any) -> Decision:
        decision = old(self, tree, *arguments, **named)
        self._feed.publish(tree.head, decision.events)
        return decision  # type: ignore[no-any-return]

    return record


def _premature(old: Any) -> Any:
    """A creation is confirmed before it is durable."""

    async def create(self: Orchestrator, head: Any, plan: Any, submission: Any = BARE, **named: Any) -> Started:
        tree, recorded = new_tree(head, plan, submission, self._clock.now(), execute=named["execute"])
        self.trees.by_id[head.id] = tree
        self._record(tree, recorded, named["documents"], is_new=True)
        return Started(tree.head, recorded)

    return create


def _skipping(old: Any) -> Any:
    def after(self: Topic, cursor: int) -> Any:
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

    def void(self: Orchestrator, turn: Any, error: BaseException) -> None:
        keeps = self.trees.by_id.get(turn.tree.id) is turn.tree
        old(self, turn, error)
        if keeps:
            self.trees.by_id[turn.tree.id] = turn.tree

    return void


def _careless(old: Any) -> Any:
    """Whether the tree went on since the look is not asked."""
    return lambda self, tree_id, version: tree_id in self._heads


def _impatient(patch: pytest.MonkeyPatch) -> None:
    ended = MemoryStorage.ended
    patch.setattr(MemoryStorage, "ended", lambda self, query: ended(self, replace(query, until=1e12)))
    patch.setattr(retention_module, "_has_ended", lambda head, until: True)


def _blind(old: Any) -> Any:
    """A follower does not see that events are missing."""

    async def page(storage: Any, tree_id: str, after: int, *, limit: int) -> Any:
        return await storage.events(EventQuery(tree_id=tree_id, after=after, limit=limit))

    return page


def _inconsiderate(old: Any) -> Any:
    """Retention does not ask whose events are still to be delivered."""

    def init(self: Retention, storage: Any, feed: Any, clock: Any, times: Any, unread: Any = None) -> None:
        old(self, storage, feed, clock, times)

    return init


def _heedless(old: Any) -> Any:
    """Whose events are still to be delivered is asked only before trees are removed."""

    async def compact(self: Retention, now: float) -> Any:
        asked, self._unread = self._unread, retention_module._nothing
        try:
            return await old(self, now)
        finally:
            self._unread = asked

    return compact


def _none_later(old: Any) -> Any:
    async def method(self: Any, *given: Any) -> Any:
        return []

    return method


PLANTED: dict[str, Plant] = {
    "a tree that went on is compacted all the same": in_place_of(MemoryStorage, "_is_at_rest", _careless),
    "a follower is not told that events are compacted": in_place_of(feed_module, "log_page", _blind),
    "compacting forgets failures": lambda patch: patch.setattr(
        compaction_module, "KEPT", e.TaskCompleted | e.ArtifactAdded
    ),
    "retention takes what has just ended": _impatient,
    "retention takes what is still to be delivered": in_place_of(Retention, "__init__", _inconsiderate),
    "retention compacts what is still to be delivered": in_place_of(Retention, "_compact", _heedless),
    "what retention has put off is compacted before its time": in_place_of(
        Retention, "_still_due", lambda old: lambda self, tree_ids, until: old(self, tree_ids, float("inf"))
    ),
    "what retention has put off is never compacted": in_place_of(Retention, "_still_due", _none_later),
    "one retry too many": _deciding(c.FailAttempt, _one_retry_more),
    "a lost wake-up after a dependency": in_place_of(TaskTree, "_release", _forgetful),
    "a lost wake-up after an answer": _applying(e.InputProvided, _forgetful),
    "optional dependencies are not waited for": in_place_of(
        TaskTree, "edges", lambda old: lambda self, task: (d.id for d in task.dependencies if d.required)
    ),
    "what must not run is not skipped": in_place_of(settling_module.Settling, "_skip_unless_met", nothing),
    "a skip passes for a success": in_place_of(
        settling_module.Overlay, "is_skipped", lambda old: lambda self, task_id: False
    ),
    "groups never end": _deciding(c.CompleteTask, _without(e.GroupEnded)),
    "the end of the tree is forgotten": _deciding(c.CompleteTask, _without(e.TreeFinished)),
    "dependents of a failure are left waiting": _deciding(c.FailAttempt, _without(e.TaskCancelled)),
    "a cancel forgets what it leaves": _deciding(c.Cancel, _without(e.TaskCancelled)),
    "the end of a task is overwritten": in_place_of(
        settling_module.Overlay, "is_open", lambda old: lambda self, task_id: task_id in self._tree.waiting
    ),
    "at most once becomes at least once": in_place_of(recovery_module, "lost", _at_least_once),
    "a task is never taken for poison": lambda patch: patch.setattr(decide_module, "MAX_CRASHES", 10**9),
    "a restart forgets the trees that were live": in_place_of(Session, "resume", _nothing_later),
    "a restart forgets what was ready": in_place_of(TaskTree, "startable", lambda old: lambda self: []),
    "an attempt with effects begins before its start is durable": in_place_of(
        Dispatcher, "_may_begin", lambda old: lambda self, tree_id, lane: True
    ),
    "what went ahead of a start that was not stored is told of the next one": in_place_of(
        Dispatcher, "_start", _impolite
    ),
    "one attempt more than the limit": in_place_of(Runner, "__init__", _generous),
    "the limit of an executor is ignored": in_place_of(Room, "fit", lambda old: lambda self, lane: self.slots.fit),
    "a slot leaks": in_place_of(Books, "release_attempt", _leaky),
    "retries are never woken": in_place_of(Alarms, "set", nothing),
    "what could not be stored is not given back": in_place_of(Runner, "voided", nothing),
    "what could not be stored stays in memory": in_place_of(Orchestrator, "_void", _unsaved),
    "a cancel does not stop the work": in_place_of(Attempt, "stop", nothing),
    "followers are told before it is durable": in_place_of(Orchestrator, "_record", _indiscreet),
    "a creation is confirmed before it is durable": in_place_of(Orchestrator, "create", _premature),
    "a follower skips an event": in_place_of(Topic, "after", _skipping),
    "a follower is not woken at the end": in_place_of(Feed, "publish", _deaf),
    "the idempotency key changes with the attempt": lambda patch: patch.setattr(
        TaskContext, "idempotency_key", property(lambda self: f"{self.task.id}:{self.run}:{self.attempt}")
    ),
}
