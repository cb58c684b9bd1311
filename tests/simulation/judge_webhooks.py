"""What must hold of the webhooks of a simulated world (docs/webhooks.md), as their receivers saw it.

What there was to tell is worked out from the stored log, afterwards and at once.
"""

from collections.abc import Coroutine, Iterable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec

from a2a_server.push.bodies import Payloads
from a2a_server.push.configs import AT_REST, DELIVERY_STATE, DeliveryState
from core.model import events as e
from core.model.events import Recorded
from core.model.node_status import node_status
from core.model.task import Task
from core.storage.memory import MemoryStorage
from tests.simulation.ledger import CUT, GONE, TAKEN, Attempt, Hook
from tests.simulation.webhooks import PATIENCE, TASK_BODIES
from tests.simulation.world import Violation, World

FORBIDDEN = "destination not allowed"


class _Due(NamedTuple):
    """One event that is to be told, in so many bodies."""

    seq: int
    at: float
    bodies: tuple[bytes, ...]


def _whole(log: list[Recorded], tasks: Iterable[Task]) -> MemoryStorage:
    """A storage that has it, without what was compacted, and answers at once. Of the tasks only their place counts."""
    storage = MemoryStorage()
    storage._tasks = {task.id: task for task in tasks}
    storage._events[log[0].tree_id] = log
    return storage


def judge_webhooks(world: World, tree_id: str, log: list[Recorded], *, is_over: bool) -> None:
    """Raise Violation for the first promise that was broken. `is_over`: everything has come to its end."""
    for hook in world.ledger.of_tree(tree_id):
        try:
            _Case(world, hook, log).judge(is_over=is_over)
        except Violation as violation:
            lines = [
                f"{each.began - log[0].at:10.3f} life {each.life} {each.message_id[33:]} {each.outcome}"
                for each in hook.attempts
            ]
            text = f"{violation} ({hook.token}, {hook.config!r}, from {hook.standing!r})"
            raise Violation("\n".join([text, *lines])) from None


def judge_late_calls(world: World, hook: Hook) -> None:
    """Of a webhook whose tree was deleted: what was under way may still come to its end, one event's bodies."""
    gone = hook.gone if hook.gone is not None else hook.tree_gone
    late = [each for each in hook.attempts if gone is not None and each.began > gone]
    events = {each.message_id.rpartition("_")[0] for each in late}
    if len(events) > (hook.gone is None):
        raise Violation(f"{sorted(events)} was sent after the end of {hook.token} (seed {world.seed})")


class _Case:
    """One registration before the judge."""

    def __init__(self, world: World, hook: Hook, log: list[Recorded]) -> None:
        self._world = world
        self._hook = hook
        self._log = log
        self._kept = world.storage.kept(log[0].tree_id)
        self._is_dropped = log[0].tree_id in world.storage.dropped
        gone = hook.tree_gone if hook.tree_gone is not None else float("inf")
        self._attempts = [each for each in hook.attempts if each.began < gone]  # see `judge_late_calls`
        self._due = self._what_is_due()
        self._named = {
            f"{hook.config.digest}_{due.seq}_{n}": (place, n)  # type: ignore[union-attr]
            for place, due in enumerate(self._due)
            for n in range(len(due.bodies))
        }

    def judge(self, *, is_over: bool) -> None:
        for attempt in self._attempts:
            self._judge_body(attempt)
        if self._attempts:
            self._judge_first(self._attempts[0])
        for before, after in pairwise(self._attempts):
            self._judge_step(before, after)
        self._judge_letters()
        self._judge_end()
        if self._hook.gone is None:
            self._judge_standing(is_over=is_over)

    def _what_is_due(self) -> list[_Due]:
        """What is to be told from the beginning of the registration to the end of the log, by the log alone."""
        config, shown = self._hook.config, self._hook.standing.shown
        feed = SimpleNamespace(told=lambda tree_id, version: None)
        payloads = Payloads(SimpleNamespace(storage=_whole(self._log, self._kept.tasks), feed=feed), TASK_BODIES)  # type: ignore[arg-type]
        head = self._kept.head
        due = []
        statuses = [shown]
        for recorded in self._log[self._hook.standing.cursor :]:
            told = _at_once(payloads.tell(config, head, recorded, shown))  # type: ignore[arg-type]
            shown = told.shown
            if told.bodies:
                due.append(_Due(recorded.seq, recorded.at, told.bodies))
            speaks = node_status(recorded.event) is not None or isinstance(recorded.event, e.TreeFinished)
            if speaks and recorded.tree_status.value != statuses[-1]:
                statuses.append(recorded.tree_status.value)
        if config is not None and config.task_id == config.tree_id and shown != statuses[-1]:
            raise Violation(f"the receiver is told {shown} at the end, and the tree is {statuses[-1]}")
        return due

    def _judge_body(self, attempt: Attempt) -> None:
        if attempt.message_id not in self._named:
            raise Violation(f"the receiver was sent {attempt.message_id}, which is no name of what is due")
        place, n = self._named[attempt.message_id]
        if self._due[place].bodies[n] != attempt.body:
            told = f"{attempt.body!r}\nand not {self._due[place].bodies[n]!r}"
            raise Violation(f"delivery {attempt.message_id} tells something else than the log: {told}")

    def _judge_first(self, attempt: Attempt) -> None:
        if self._named[attempt.message_id] != (0, 0):
            raise Violation(f"the first delivery was {attempt.message_id}: something was left out")

    def _judge_step(self, before: Attempt, after: Attempt) -> None:
        """What may come after a delivery: the next one, or with an excuse the same event again."""
        place, n = self._named[before.message_id]
        is_last = n + 1 == len(self._due[place].bodies)
        has_excuse = before.life != after.life or self._was_trouble(before, after)
        again, following = (place, 0), (place + 1, 0)
        allowed = set()
        if before.outcome == TAKEN:
            allowed.add(following if is_last else (place, n + 1))
            if has_excuse:
                allowed.add(again)
        elif before.outcome == GONE:
            if has_excuse:
                allowed.add(again)
        elif before.outcome != CUT or has_excuse:
            allowed.add(again)
        letter = self._letter(place)
        if letter is not None and before.began <= letter <= after.began:
            allowed = {following}
        found = self._named[after.message_id]
        if found not in allowed:
            text = f"delivery {before.message_id} ({before.outcome}) was followed by {after.message_id}"
            raise Violation(f"{text}, and {sorted(allowed)} may follow {(place, n)}")

    def _was_trouble(self, before: Attempt, after: Attempt) -> bool:
        """Whether something of the webhook could not be stored between the two."""
        return any(before.began <= at <= after.began for at in self._world.ledger.troubles.get(self._hook.key, ()))

    def _letter(self, place: int) -> float | None:
        found = self._world.ledger.letters.get((self._hook.key, self._due[place].seq))
        return None if found is None else found[0]

    def _judge_letters(self) -> None:
        """Nothing is given up before its time, or without having been tried."""
        for place, due in enumerate(self._due):
            found = self._world.ledger.letters.get((self._hook.key, due.seq))
            if found is None:
                continue
            _, letter = found
            tried = [each for each in self._attempts if self._named[each.message_id][0] == place]
            is_mine = any(each.began <= letter.at for each in tried)
            if is_mine and letter.at - due.at <= PATIENCE.max_age and letter.error != FORBIDDEN:
                raise Violation(f"event {due.seq} was given up {letter.at - due.at:.3f} s after it happened")
            if is_mine and all(each.outcome in (TAKEN, CUT) for each in tried):
                raise Violation(f"event {due.seq} was given up, and no attempt had failed")

    def _judge_end(self) -> None:
        """After a delete nothing comes any more."""
        gone = self._hook.gone
        if gone is not None and (late := [each for each in self._attempts if each.began > gone]):
            raise Violation(f"{late[0].message_id} was sent after its webhook had ended")

    def _judge_standing(self, *, is_over: bool) -> None:
        """Whatever the cursor has passed was taken, or given up; in the end it has passed everything."""
        stored = {each.id: each for each in self._kept.documents if each.kind == DELIVERY_STATE}
        document = stored.get(self._hook.key)
        if document is None:
            raise Violation("a webhook has no standing")
        cursor = msgspec.json.decode(document.body, type=DeliveryState).cursor
        taken = {self._named[each.message_id] for each in self._attempts if each.outcome == TAKEN}
        for place, due in enumerate(self._due):
            is_told = all((place, n) in taken for n in range(len(due.bodies)))
            if is_told or self._letter(place) is not None:
                continue
            if due.seq <= cursor:
                raise Violation(f"the cursor has passed event {due.seq}, which the receiver never took")
            if is_over or self._is_dropped:
                raise Violation(f"event {due.seq} was never delivered")
        has_run = any(isinstance(recorded.event, e.RunStarted) for recorded in self._log)
        if is_over and has_run and document.at != AT_REST:
            raise Violation("a webhook that has nothing left to do is not at rest")
        if is_over and self._attempts and self._attempts[-1].outcome == GONE:
            raise Violation("a webhook was kept though its receiver wants no more")


def _at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that never has to wait."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the storage let the judge wait")
