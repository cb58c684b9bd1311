"""Webhooks as the methods use them: made, found, removed."""

from msgspec import Struct
from msgspec.structs import replace

from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import InvalidParams, Overloaded, RateLimited
from a2a_server.push.configs import (
    ConfigStore,
    DeliveryState,
    PushConfig,
    Secrets,
    Webhook,
    check_config,
)
from a2a_server.push.outbox import Outbox
from a2a_server.push.undelivered import Undelivered
from core.loop.keyed_locks import KeyedLocks
from core.model.errors import Problem
from core.model.task import TaskStatus, TreeHead
from core.outside.egress import EgressPolicy
from core.session import Session
from core.storage.base import Document

MOST_ACTIVE = (
    20_000  # webhooks that have something to be told: each is in memory, with up to 10 KiB of what was written
)
FULL_RETRY = 5.0  # seconds, told to those who have as many webhooks as they may have


class Caller(Struct, frozen=True):
    """Whose webhook it is, and the version under which it is registered: `1.0`, `0.3` or `tasks`."""

    owner: str
    wire_version: str


class Enrolled(Struct, frozen=True):
    """A webhook that is being stored: its documents, and what the outbox has to know when they are."""

    webhook: Webhook
    documents: tuple[Document, ...]

    @property
    def config(self) -> PushConfig:
        """What the caller wrote."""
        return self.webhook.config


class WebhookRules(Struct, frozen=True):
    """Where deliveries may go, the webhooks of one task, and those of one caller that are not at rest."""

    policy: EgressPolicy
    limit: int
    most_active: int


class Subject(Struct, frozen=True):
    """The task that a webhook is about, in its tree, and what its receiver knows of it already."""

    task_id: str
    tree_id: str
    delivery: DeliveryState


def from_now_on(head: TreeHead, task_id: str, status: TaskStatus) -> Subject:
    """What happens to a task after this."""
    return Subject(task_id, head.id, DeliveryState(cursor=head.version, shown=status.value))


class Webhooks:
    """The webhooks of one server."""

    def __init__(self, session: Session, store: ConfigStore, outbox: Outbox, rules: WebhookRules) -> None:
        self._session = session
        self._store = store
        self.outbox = outbox
        self.undelivered = Undelivered(session.storage, store, outbox.deliveries)
        self._rules = rules
        self._locks = KeyedLocks()  # one change at a time of a task's webhooks: those there are are looked at first

    def check(self, given: wire.TaskPushNotificationConfig, path: str = "") -> None:
        """Raise InvalidParams, with `path` before every field that is wrong."""
        check_config(given, self._rules.policy, path)

    def prepare(self, caller: Caller, given: wire.TaskPushNotificationConfig, subject: Subject) -> Enrolled:
        """A checked configuration as documents, for the transaction that makes its task.

        Raises RateLimited when too many of the caller's webhooks have something to be told, Overloaded when too many
        of all callers have.
        """
        self._check_room(caller.owner)
        return self._prepared(caller, given, subject)

    def _check_room(self, owner: str) -> None:
        if self.outbox.readers.active(owner) >= self._rules.most_active:
            text = f"{self._rules.most_active} of your webhooks have pending deliveries, the maximum"
            raise RateLimited(f"{text} (max_webhooks)", retry_after=FULL_RETRY)
        if len(self.outbox.readers) >= MOST_ACTIVE:
            raise Overloaded("Too many webhooks have pending deliveries", retry_after=FULL_RETRY)

    def _prepared(self, caller: Caller, given: wire.TaskPushNotificationConfig, subject: Subject) -> Enrolled:
        clock, box = self._session.clock, self._store.box
        authentication = given.authentication
        secrets = Secrets(token=given.token, credentials=authentication.credentials if authentication else "")
        config = PushConfig(
            id=given.id or clock.new_id(),
            task_id=subject.task_id,
            tree_id=subject.tree_id,
            owner=caller.owner,
            url=given.url,
            scheme=authentication.scheme if authentication else "",
            sealed=box.seal(secrets) if secrets != Secrets() else "",
            is_encrypted=box.encrypts,
            wire_version=caller.wire_version,
            events=tuple(given.events),
            created_at=clock.now(),
        )
        delivery = replace(subject.delivery, registered=clock.new_id())
        written, stored = self._store.documents(config, delivery)
        return Enrolled(Webhook(config, delivery, stored), (written, stored))

    def enroll(self, enrolled: Enrolled) -> None:
        """Its documents are stored: from now on it is told."""
        self.outbox.enroll(enrolled.webhook)

    async def add(
        self, caller: Caller, given: wire.TaskPushNotificationConfig, subject: Subject, *, by_address: bool = False
    ) -> PushConfig:
        """Store a webhook for what happens to the task from now on. It takes the place of the one with its id.

        With `by_address` one without an id takes the place of the one with its URL.

        Raises InvalidParams for what is wrong with it, and when the task has as many as it may have; RateLimited and
        Overloaded as `prepare` does.
        """
        self.check(given)
        async with self._locks.of(subject.task_id):
            known = await self._store.of_task(caller.owner, subject.task_id)
            before = next((config for config in known if config.id == given.id), None)
            if by_address and not given.id:
                before = next((config for config in known if config.url == given.url), None)
                given = replace(given, id=before.id if before is not None else "")
            if before is None and len(known) >= self._rules.limit:
                text = f"has {self._rules.limit} webhooks already, the maximum for a task"
                raise InvalidParams.of([Problem("taskId", text)])
            if before is None:
                self._check_room(caller.owner)
            enrolled = self._prepared(caller, given, subject)
            async with self.outbox.paused(before or enrolled.config):
                await self._session.storage.put_documents(*enrolled.documents)
            self.enroll(enrolled)
            return enrolled.config

    async def find(self, owner: str, task_id: str, config_id: str) -> PushConfig | None:
        """One webhook of the task."""
        return await self._store.find(owner, task_id, config_id)

    async def of_task(self, owner: str, task_id: str) -> list[PushConfig]:
        """The task's webhooks, oldest first."""
        return await self._store.of_task(owner, task_id)

    async def remove(self, config: PushConfig) -> None:
        """Nothing is sent to it any more."""
        async with self._locks.of(config.task_id), self.outbox.paused(config):
            await self._store.delete(config)
