"""Webhooks as the methods use them: made, found, removed, and what could not be delivered."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from a2a_server.protocol import types as wire
from a2a_server.protocol.errors import InvalidParams, Overloaded, RateLimited
from a2a_server.push.configs import (
    DEAD,
    NOT_AT_REST,
    STANDING,
    ConfigStore,
    DeadLetter,
    DeliveryState,
    PushConfig,
    Secrets,
    check_config,
)
from a2a_server.push.outbox import Outbox
from core.loop.keyed_locks import KeyedLocks
from core.loop.turns import Turns
from core.model.errors import Problem
from core.model.task import TaskStatus, TreeHead
from core.model.timestamps import to_timestamp
from core.outside.egress import EgressPolicy
from core.session import Session
from core.storage.base import Document, DocumentQuery

MOST_ACTIVE = (
    20_000  # webhooks that have something to be told: each is in memory, with up to 10 KiB of what was written
)
FULL_RETRY = 5.0  # seconds, told to those who have as many webhooks as they may have
RESENT_AT_A_TIME = 10  # dead letters, of the process
RESENT_PER_CALLER = 5
GONE = "its webhook or its task was deleted"


class Caller(Struct, frozen=True):
    """Whose webhook it is, and the version under which it is registered: `1.0`, `0.3` or `tasks`."""

    owner: str
    wire_version: str


class Enrolled(Struct, frozen=True):
    """A webhook that is being stored: its documents, and what the outbox has to know when they are."""

    config: PushConfig
    delivery: DeliveryState
    documents: tuple[Document, ...]


class Webhooks:
    """The webhooks of one server. `limit`: of one task; `most_active`: of one caller that are not at rest."""

    def __init__(
        self,
        session: Session,
        store: ConfigStore,
        outbox: Outbox,
        policy: EgressPolicy,
        *,
        limit: int,
        most_active: int,
    ) -> None:
        self._session = session
        self._store = store
        self._outbox = outbox
        self._policy = policy
        self._limit = limit
        self._most_active = most_active
        self._locks = KeyedLocks()
        self._resending = Turns(RESENT_AT_A_TIME, RESENT_PER_CALLER)

    def start(self) -> None:
        """Resume, in the background, the deliveries that an earlier process left."""
        self._outbox.start()

    async def unread(self) -> frozenset[str]:
        """The trees with events still to be delivered; waits until those of an earlier process are known."""
        return await self._outbox.unread()

    async def close(self) -> None:
        """Send nothing more; what is under way is sent again by the next process."""
        await self._outbox.close()

    def check(self, given: wire.TaskPushNotificationConfig, path: str = "") -> None:
        """Raise InvalidParams, with `path` before every field that is wrong."""
        check_config(given, self._policy, path)

    def prepare(
        self,
        caller: Caller,
        given: wire.TaskPushNotificationConfig,
        *,
        task_id: str,
        tree_id: str,
        delivery: DeliveryState,
    ) -> Enrolled:
        """A checked configuration as documents, for the transaction that makes its task.

        Raises RateLimited when too many of the caller's webhooks have something to be told, Overloaded when too many
        of all callers have.
        """
        self._check_room(caller.owner)
        return self._prepared(caller, given, task_id, tree_id, delivery)

    def _check_room(self, owner: str) -> None:
        if self._outbox.active(owner) >= self._most_active:
            text = f"{self._most_active} of your webhooks have pending deliveries, the maximum"
            raise RateLimited(f"{text} (max_webhooks)", retry_after=FULL_RETRY)
        if self._outbox.active() >= MOST_ACTIVE:
            raise Overloaded("Too many webhooks have pending deliveries", retry_after=FULL_RETRY)

    def _prepared(
        self,
        caller: Caller,
        given: wire.TaskPushNotificationConfig,
        task_id: str,
        tree_id: str,
        delivery: DeliveryState,
    ) -> Enrolled:
        clock, box = self._session.clock, self._store.box
        authentication = given.authentication
        secrets = Secrets(token=given.token, credentials=authentication.credentials if authentication else "")
        config = PushConfig(
            id=given.id or clock.new_id(),
            task_id=task_id,
            tree_id=tree_id,
            owner=caller.owner,
            url=given.url,
            scheme=authentication.scheme if authentication else "",
            sealed=box.seal(secrets) if secrets != Secrets() else "",
            is_encrypted=box.encrypts,
            wire_version=caller.wire_version,
            events=tuple(given.events),
            created_at=clock.now(),
        )
        return Enrolled(config, delivery, self._store.documents(config, delivery))

    def enroll(self, enrolled: Enrolled) -> None:
        """Its documents are stored: from now on it is told."""
        self._outbox.enroll(enrolled.config, enrolled.delivery)

    async def add(
        self,
        caller: Caller,
        given: wire.TaskPushNotificationConfig,
        head: TreeHead,
        task_id: str,
        status: TaskStatus,
        *,
        by_address: bool = False,
    ) -> PushConfig:
        """Store a webhook for what happens to the task from now on. It takes the place of the one with its id.

        With `by_address` one without an id takes the place of the one with its URL.

        Raises InvalidParams for what is wrong with it, and when the task has as many as it may have; RateLimited and
        Overloaded as `prepare` does.
        """
        self.check(given)
        async with self._lock(task_id):
            known = await self._store.of_task(caller.owner, task_id)
            before = next((config for config in known if config.id == given.id), None)
            if by_address and not given.id:
                before = next((config for config in known if config.url == given.url), None)
                given = replace(given, id=before.id if before is not None else "")
            if before is None and len(known) >= self._limit:
                text = f"has {self._limit} webhooks already, the maximum for a task"
                raise InvalidParams.of([Problem("taskId", text)])
            if before is None:
                self._check_room(caller.owner)
            delivery = DeliveryState(cursor=head.version, shown=status.value)
            enrolled = self._prepared(caller, given, task_id, head.id, delivery)
            async with self._outbox.paused(before or enrolled.config):
                await self._session.storage.put_documents(*enrolled.documents)
            self.enroll(enrolled)
            return enrolled.config

    def _lock(self, task_id: str) -> asyncio.Lock:
        """One change at a time of a task's webhooks: what there are is looked at before one is stored."""
        return self._locks.of(task_id)

    async def find(self, owner: str, task_id: str, config_id: str) -> PushConfig | None:
        """One webhook of the task."""
        return await self._store.find(owner, task_id, config_id)

    async def of_task(self, owner: str, task_id: str) -> list[PushConfig]:
        """The task's webhooks, oldest first."""
        return await self._store.of_task(owner, task_id)

    async def remove(self, config: PushConfig) -> None:
        """Nothing is sent to it any more."""
        async with self._lock(config.task_id), self._outbox.paused(config):
            await self._store.delete(config)

    # What could not be delivered

    async def waiting(
        self, owner: str, after: tuple[float, str] | None, limit: int
    ) -> tuple[list[dict[str, Any]], Any]:
        """Webhooks whose next event has failed and is tried again, and where the next page begins."""
        query = DocumentQuery(
            kind=STANDING, owner=owner, until=NOT_AT_REST, after=after or (0.0, "\U0010ffff"), limit=limit
        )
        page = await self._session.storage.documents(query)
        told = []
        for document in page:
            if (found := await self._store.read(document.id)) is None:
                continue
            config, delivery = found
            told.append(
                {
                    "status": "waiting",
                    "task_id": config.task_id,
                    "config_id": config.id,
                    "url": config.url,
                    "after_seq": delivery.cursor,
                    "attempts": delivery.attempts,
                    "error": delivery.error,
                    "retry_at": to_timestamp(delivery.retry_at),
                }
            )
        return told, (page[-1].at, page[-1].id) if len(page) == limit else None

    async def dead(self, owner: str, after: tuple[float, str] | None, limit: int) -> tuple[list[dict[str, Any]], Any]:
        """Events that were given up, oldest first, and where the next page begins."""
        query = DocumentQuery(kind=DEAD, owner=owner, after=after, limit=limit)
        page = await self._session.storage.documents(query)
        told = [_shown(msgspec.json.decode(document.body, type=DeadLetter)) for document in page]
        return told, (page[-1].at, page[-1].id) if len(page) == limit else None

    async def resend(self, owner: str, delivery_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Make one more attempt for each dead letter; those that arrive are dead no more. One answer for each id."""

        async def again(delivery_id: str) -> dict[str, Any]:
            async with self._resending.of(owner):
                error = await self._resend(owner, delivery_id)
            return {"delivery_id": delivery_id, "delivered": error is None} | ({"error": error} if error else {})

        return list(await asyncio.gather(*map(again, delivery_ids)))

    async def _resend(self, owner: str, delivery_id: str) -> str | None:
        storage = self._session.storage
        document = await storage.document(DEAD, delivery_id)
        if document is None or document.owner != owner:
            return "there is no such dead letter"
        letter = msgspec.json.decode(document.body, type=DeadLetter)
        found, head = await self._store.read(letter.config_key), await storage.head(letter.tree_id)
        if found is not None and head is not None and letter.seq <= await storage.compacted(letter.tree_id):
            return "the event has been compacted and can no longer be resent"
        if found is None or head is None:
            return GONE
        async with self._outbox.parcels.of(found[0], head, letter.seq, letter.shown) as parcel:
            if parcel is None:
                return GONE
            failed = await self._outbox.send_all(found[0], parcel)
        if failed is not None:
            return failed.error
        await storage.delete_documents((DEAD, delivery_id))
        return None


def _shown(letter: DeadLetter) -> dict[str, Any]:
    return {
        "status": "dead",
        "delivery_id": letter.id,
        "task_id": letter.task_id,
        "config_id": letter.config_key.removeprefix(f"{letter.task_id}/"),
        "seq": letter.seq,
        "attempts": letter.attempts,
        "error": letter.error,
        "given_up_at": to_timestamp(letter.at),
    }
