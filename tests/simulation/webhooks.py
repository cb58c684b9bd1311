"""Webhooks in a simulated world: the outbox as the server wires it, receivers with moods, and what callers do to them.

The network is replaced where the sender leaves the process; everything above that is the product's.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from a2a_server.protocol.types import AuthenticationInfo, TaskPushNotificationConfig
from a2a_server.push.bodies import TASKS, Payloads
from a2a_server.push.configs import ConfigStore, DeliveryState, SecretBox
from a2a_server.push.deliveries import Deliveries, RetryPolicy
from a2a_server.push.outbox import Outbox
from a2a_server.push.parcels import Parcels
from a2a_server.push.sender import Sender
from a2a_server.push.webhooks import Caller, Enrolled, Subject, WebhookRules, Webhooks, from_now_on
from a2a_server.v0_3.dialect import A2A_0_3
from core.model.errors import TaskNotFound
from core.model.shares import FairShares
from core.model.task import ANONYMOUS, TaskStatus
from core.outside.egress import DestinationNotAllowed, EgressPolicy, FetchTimeout, Outgoing
from core.outside.fetched import EgressError, Incoming
from core.session import Session
from tests.simulation.ledger import CUT, GONE, TAKEN, Attempt, Hook
from tests.simulation.world import Crash, Violation, World

PATIENCE = RetryPolicy(initial=0.5, longest=30.0, max_age=60.0)
TIMEOUT = 10.0
LIMIT = 3  # webhooks of a task
RECEIVERS = 4
TASK_BODIES = {"0.3": A2A_0_3}
KINDS: Sequence[tuple[str, list[str]]] = (
    ("1.0", []), ("1.0", []), ("1.0", ["nodes"]), ("1.0", ["nodes", "chunks"]), ("0.3", []), (TASKS, []),
)  # fmt: skip


def make_webhooks(world: World, session: Session) -> Webhooks:
    """Wired as in `a2a_server.app`, on the simulated network."""
    store = ConfigStore(session.storage, SecretBox(()))
    receivers: Any = Receivers(world)
    sender = Sender(receivers, store.box, session.clock, timeout=TIMEOUT, secret=None)
    parcels = Parcels(session.storage, Payloads(session, TASK_BODIES))
    concurrency = world.chance.choice([2, 50])
    deliveries = Deliveries(session, store, parcels, sender, PATIENCE)
    receivers.most = concurrency
    outbox = Outbox(session, store, deliveries, FairShares(concurrency, concurrency))
    return Webhooks(session, store, outbox, WebhookRules(EgressPolicy(), limit=LIMIT, most_active=1_000))


@dataclass(slots=True)
class _Mood:
    """How a receiver fares for a while."""

    until: float = 0.0
    failures: float = 0.0
    hangs: float = 0.0


@dataclass(slots=True)
class Receivers:
    """Stands in for `Egress`: the receivers of one life, which take down what they are sent."""

    world: World
    most: int = 0
    _now: int = 0
    _moods: dict[str, _Mood] = field(default_factory=dict)

    async def fetch(self, call: Outgoing) -> Incoming:
        world = self.world
        if world.is_dead:
            await asyncio.get_running_loop().create_future()
        hook = world.ledger.hooks.get(call.headers["X-A2A-Notification-Token"])
        if hook is None:
            raise Violation(f"a webhook of a tree that was deleted long ago was called (seed {world.seed})")
        attempt = self._arrives(hook, call)
        hook.is_called = True
        self._now += 1
        try:
            answer = await self._answer(call)
        except EgressError as error:
            attempt.outcome = str(error)
            raise
        else:
            attempt.outcome = self._outcome(answer.status_code)
        finally:
            self._now -= 1
            hook.is_called = False
            if attempt.outcome != CUT:
                attempt.ended = world.clock.now()
                world.note("answered", hook.token, attempt.message_id, attempt.outcome, attempt.ended)
        if world.happens(world.faults.cut):
            asyncio.get_running_loop().call_soon(_crash)
        return answer

    def _arrives(self, hook: Hook, call: Outgoing) -> Attempt:
        world = self.world
        attempt = Attempt(call.headers["webhook-id"], call.body or b"", world.life, world.clock.now())
        world.note("sent", hook.token, attempt.message_id, attempt.body, attempt.began)
        hook.attempts.append(attempt)
        world.ledger.sent += 1
        if hook.is_called:
            raise Violation(f"two deliveries to {hook.token} at a time (seed {world.seed})")
        if self._now >= self.most:
            raise Violation(f"more deliveries at a time than the {self.most} that may be (seed {world.seed})")
        return attempt

    @staticmethod
    def _outcome(status: int) -> str:
        return TAKEN if status < 300 else str(status)

    async def _answer(self, call: Outgoing) -> Incoming:
        world, chance = self.world, self.world.chance
        mood = self._mood(call.url)
        await asyncio.sleep(chance.uniform(0.0, 0.2) if chance.random() < 0.95 else chance.uniform(0.2, 3.0))
        if world.happens(mood.hangs):
            await asyncio.sleep(TIMEOUT)  # as `Egress` would wait
            raise FetchTimeout("no complete answer")
        if world.happens(mood.failures):
            if chance.random() < 0.02:
                raise DestinationNotAllowed
            if chance.random() < 0.3:
                raise EgressError("the connection broke")
            return _answer(call, chance.choice([500, 502, 503, 429, 404, int(GONE)]), chance.choice(["", "", "5"]))
        return _answer(call, chance.choice([200, 204]))

    def _mood(self, url: str) -> _Mood:
        world = self.world
        mood = self._moods.setdefault(url.partition("?")[0], _Mood())
        if world.clock.now() >= mood.until:
            mood.until = world.clock.now() + world.chance.uniform(5.0, 60.0)
            failures, hangs = world.chance.choice([(0.05, 0.0), (0.05, 0.0), (0.6, 0.1), (0.2, 0.9)])
            mood.failures, mood.hangs = failures * world.faults.receiver, hangs * world.faults.receiver
        return mood


def _answer(call: Outgoing, status: int, retry_after: str = "") -> Incoming:
    headers = {"retry-after": retry_after} if retry_after else {}
    return Incoming(status_code=status, headers=headers, body=b"", url=call.url, elapsed=0.0)


def _crash() -> None:
    raise Crash("between a delivery and its cursor")


# Callers


def given(world: World, hook: Hook, **more: Any) -> TaskPushNotificationConfig:
    """What a caller writes to register it."""
    url = f"https://receiver{world.chance.randrange(RECEIVERS)}.example/?{hook.token.replace(' ', '')}"
    _, events = world.chance.choice(KINDS)
    authentication = AuthenticationInfo(scheme="Bearer", credentials="let me in")
    fields: dict[str, Any] = {"url": url, "token": hook.token, "authentication": authentication, "events": events}
    return TaskPushNotificationConfig(**fields | more)


def caller(world: World) -> Caller:
    return Caller(ANONYMOUS, world.chance.choice(KINDS)[0])


def enroll_with_tree(world: World, webhooks: Webhooks, tree_id: str) -> Enrolled:
    """A webhook that comes with its tree."""
    standing = DeliveryState(shown=TaskStatus.PENDING.value)
    wanted = given(world, world.ledger.new_hook())
    webhooks.check(wanted)
    return webhooks.prepare(caller(world), wanted, Subject(tree_id, tree_id, standing))


async def register(world: World, webhooks: Webhooks, tree_id: str, task_id: str) -> None:
    """A webhook for any task, now and then in the place of one that there is, by its id or by its address."""
    storage = world.storage
    known = await webhooks.of_task(ANONYMOUS, task_id)
    head, task = await storage.head(tree_id), await storage.task(task_id)
    if head is None or task is None:
        raise TaskNotFound(task_id)
    status = head.status if task_id == tree_id else task.status
    hook = world.ledger.new_hook()
    way = world.chance.randrange(3) if known else 0
    before = world.chance.choice(known) if known else None
    more = {} if before is None or way == 0 else {"id": before.id} if way == 1 else {"url": before.url}
    subject = from_now_on(head, task_id, status)
    config = await webhooks.add(caller(world), given(world, hook, **more), subject, by_address=way == 2)
    if hook.config != config:
        raise Violation(f"the webhook {config.key} was confirmed and not stored (seed {world.seed})")


async def unregister(world: World, webhooks: Webhooks, tree_id: str, task_id: str) -> None:
    """One of the task's webhooks is deleted."""
    known = await webhooks.of_task(ANONYMOUS, task_id)
    if not known:
        return
    config = world.chance.choice(known)
    await webhooks.remove(config)
    # Another caller may have brought it again in the same moment.
    stored = world.ledger.current.get(config.key)
    if stored is not None and stored.config == config:
        raise Violation(f"the end of webhook {config.key} was confirmed and is not stored (seed {world.seed})")
