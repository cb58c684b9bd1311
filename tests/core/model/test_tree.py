"""The tree under any sequence of commands, and the proof that the machine which says so would notice a bug."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from core.model import decide as decide_module
from core.model import events as e
from core.model import queue as queue_module
from core.model import settling as settling_module
from core.model.task import TaskStatus, TreeHead
from core.model.tree import _APPLY, TaskTree
from tests.core.machine import TreeMachine
from tests.core.trees import NOW, running, start, task

CALM = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def test_any_sequence_of_commands_keeps_the_promises() -> None:
    """Nothing starts early, nothing ready is forgotten, a live tree ends, terminal is final, the log replays."""
    run_state_machine_as_test(
        TreeMachine,
        settings=settings(max_examples=150, stateful_step_count=40, suppress_health_check=CALM),
    )


Patch = Callable[[pytest.MonkeyPatch], None]


def _patch(target: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    return lambda patcher: patcher.setattr(target, name, make(getattr(target, name)))


def _patch_decide(command: str, make: Callable[[Any], Any]) -> Patch:
    kind = getattr(decide_module.c, command)
    table = decide_module._DECIDE
    return lambda patcher: patcher.setitem(table, kind, make(table[kind]))


def _patch_apply(event: type, make: Callable[[Any], Any]) -> Patch:
    return lambda patcher: patcher.setitem(_APPLY, event, make(_APPLY[event]))


def _no_fencing(_: Any) -> Any:
    return lambda tree, task_id, attempt: decide_module._find(tree, task_id)


def _same_attempt_number(old: Any) -> Any:
    def start(command: Any, tree: TaskTree, now: float) -> list[e.Event]:
        events = old(command, tree, now)
        return [replace(x, attempt=max(1, x.attempt - 1)) if isinstance(x, e.TaskStarted) else x for x in events]

    return start


def _drop(kind: type) -> Callable[[Any], Any]:
    def make(old: Any) -> Any:
        return lambda command, tree, now: [x for x in old(command, tree, now) if not isinstance(x, kind)]

    return make


def _one_retry_more(old: Any) -> Any:
    def fail(command: Any, tree: TaskTree, now: float) -> list[e.Event]:
        task = tree.tasks[command.task_id]
        tree.tasks[task.id] = replace(task, max_attempts=task.max_attempts + 1)
        try:
            return old(command, tree, now)  # type: ignore[no-any-return]
        finally:
            tree.tasks[task.id] = task

    return fail


def _forget_release(old: Any) -> Any:
    def release(self: TaskTree, task_id: str) -> None:
        old(self, task_id)
        self._ready.clear()

    return release


def _ignore_optional(old: Any) -> Any:
    def edges(self: TaskTree, task: Any) -> Any:
        return (d.id for d in task.dependencies if d.required)

    return edges


def _mutate_while_deciding(old: Any) -> Any:
    def cancel(command: Any, tree: TaskTree, now: float) -> list[e.Event]:
        events = old(command, tree, now)
        if events:
            tree.head = replace(tree.head, cancelled="oops")
        return events  # type: ignore[no-any-return]

    return cancel


def _lose_answer(old: Any) -> Any:
    def provide(self: TaskTree, event: Any, at: float) -> None:
        old(self, event, at)
        self._ready.clear()

    return provide


PLANTED: dict[str, Patch] = {
    "late attempts are accepted": _patch(decide_module, "_owned", _no_fencing),
    "attempt numbers are reused": _patch_decide("StartTask", _same_attempt_number),
    "the end of the tree is forgotten": _patch_decide("CompleteTask", _drop(e.TreeFinished)),
    "dependents of a failure are left waiting": _patch_decide("FailAttempt", _drop(e.TaskCancelled)),
    "what must not run is not skipped": _patch(
        settling_module.Settling, "_skip_unless_met", lambda old: lambda self, task: None
    ),
    "a skip passes for a success": _patch(
        settling_module.Overlay, "is_skipped", lambda old: lambda self, task_id: False
    ),
    "groups never end": _patch_decide("CompleteTask", _drop(e.GroupEnded)),
    "one retry too many": _patch_decide("FailAttempt", _one_retry_more),
    "a lost wake-up after a dependency": _patch(TaskTree, "_release", _forget_release),
    "optional dependencies are not waited for": _patch(TaskTree, "edges", _ignore_optional),
    "deciding a cancel changes the tree": _patch_decide("Cancel", _mutate_while_deciding),
    "an answer wakes nobody": _patch_apply(e.InputProvided, _lose_answer),
    "priority is upside down": _patch(
        queue_module.ReadyQueue,
        "offer",
        lambda old: lambda self, caller, lane, tree, priority, *rest: old(self, caller, lane, tree, -priority, *rest),
    ),
    "a cancel forgets what it leaves": _patch_decide("Cancel", _drop(e.TaskCancelled)),
    "a run resets what was completed": _patch_apply(
        e.RunStarted,
        lambda old: lambda self, event, at: old(self, replace(event, scope=None), at),
    ),
    "a terminal status is overwritten": _patch(
        settling_module.Overlay, "is_open", lambda old: lambda self, task_id: task_id in self._tree.waiting
    ),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_the_machine_finds_a_planted_bug(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The positive control: a check that cannot fail would be a defect."""
    PLANTED[bug](monkeypatch)
    search = settings(
        max_examples=5000,  # it ends with the first failure; which example that is changes with any source
        stateful_step_count=40,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=CALM,
    )
    with pytest.raises(BaseException):  # noqa: B017 - whichever promise breaks first
        run_state_machine_as_test(TreeMachine, settings=search)


def test_an_event_that_cannot_have_happened_is_a_bug() -> None:
    tree = running(task("a"))
    with pytest.raises(ValueError, match="cannot have completed without having run"):
        tree.apply(e.TaskCompleted("a", 1), NOW)


@pytest.mark.slow
def test_tolerance_and_settling_are_iterative() -> None:
    """100,000 tasks in a chain: nothing recurses."""
    chain = [task("t0")] + [task(f"t{n}", f"t{n - 1}") for n in range(1, 100_000)]
    tree = running(*chain)
    start(tree, "t0")
    for event in decide_module.decide(decide_module.c.FailAttempt("t0", 1, "boom"), tree, NOW):
        tree.apply(event, NOW)
    assert tree.tasks["t99999"].status is TaskStatus.CANCELLED
    assert tree.status is TaskStatus.FAILED


def test_a_tree_loaded_in_the_middle_of_a_run_is_the_same_tree() -> None:
    tree = running(task("a"), task("b", "a"), task("c"))
    start(tree, "a")
    loaded = TaskTree(tree.head, tree.tasks.values())
    assert isinstance(loaded.head, TreeHead)
    assert [t.id for t in loaded.startable()] == [t.id for t in tree.startable()]
    assert (loaded.waiting, loaded.running, loaded.open) == (tree.waiting, tree.running, tree.open)
