"""What could not be delivered: webhooks whose next event waits for a retry, and dead letters, which may be resent."""

import asyncio
from collections.abc import Sequence
from typing import Literal, NotRequired, TypedDict

import msgspec

from a2a_server.push.configs import DEAD, DELIVERY_STATE, NOT_AT_REST, ConfigStore, DeadLetter
from a2a_server.push.deliveries import Deliveries
from core.loop.turns import Turns
from core.model.timestamps import to_timestamp
from core.storage.base import DocumentQuery, Storage

RESENT_AT_A_TIME = 10  # dead letters, of the process
RESENT_PER_CALLER = 5
GONE = "its webhook or its task was deleted"

Place = tuple[float, str]  # where a page ends: the time and the id of its last document


class DeliveryObject(TypedDict):
    """A delivery that failed: it waits for a retry (`url`, `after_seq`, `retry_at`), or was given up (the others)."""

    status: Literal["waiting", "dead"]
    task_id: str
    config_id: str
    attempts: int
    error: str
    url: NotRequired[str]
    after_seq: NotRequired[int]
    retry_at: NotRequired[str]
    delivery_id: NotRequired[str]
    seq: NotRequired[int]
    given_up_at: NotRequired[str]


class DeliveryPage(TypedDict):
    """Some deliveries, and with `next` where the page after them begins."""

    deliveries: list[DeliveryObject]
    next: str | None


class ResendObject(TypedDict):
    """What became of a dead letter that was sent again."""

    delivery_id: str
    delivered: bool
    error: NotRequired[str]


class Undelivered:
    """The failed deliveries of one server's webhooks."""

    def __init__(self, storage: Storage, store: ConfigStore, deliveries: Deliveries) -> None:
        self._storage = storage
        self._store = store
        self._deliveries = deliveries
        self._resending = Turns(RESENT_AT_A_TIME, RESENT_PER_CALLER)

    async def waiting(self, owner: str, after: Place | None, limit: int) -> tuple[list[DeliveryObject], Place | None]:
        """Webhooks whose next event has failed and is tried again, and where the next page begins."""
        query = DocumentQuery(
            kind=DELIVERY_STATE, owner=owner, until=NOT_AT_REST, after=after or (0.0, "\U0010ffff"), limit=limit
        )
        page = await self._storage.documents(query)
        told: list[DeliveryObject] = []
        for document in page:
            if (found := await self._store.read(document.id)) is None:
                continue
            config, delivery = found.config, found.delivery
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

    async def dead(self, owner: str, after: Place | None, limit: int) -> tuple[list[DeliveryObject], Place | None]:
        """Events that were given up, oldest first, and where the next page begins."""
        query = DocumentQuery(kind=DEAD, owner=owner, after=after, limit=limit)
        page = await self._storage.documents(query)
        told = [_shown(msgspec.json.decode(document.body, type=DeadLetter)) for document in page]
        return told, (page[-1].at, page[-1].id) if len(page) == limit else None

    async def resend(self, owner: str, delivery_ids: Sequence[str]) -> list[ResendObject]:
        """Make one more attempt for each dead letter; those that arrive are dead no more. One answer for each id."""

        async def again(delivery_id: str) -> ResendObject:
            async with self._resending.of(owner):
                error = await self._resend(owner, delivery_id)
            if error is None:
                return {"delivery_id": delivery_id, "delivered": True}
            return {"delivery_id": delivery_id, "delivered": False, "error": error}

        return list(await asyncio.gather(*map(again, delivery_ids)))

    async def _resend(self, owner: str, delivery_id: str) -> str | None:
        storage = self._storage
        document = await storage.document(DEAD, delivery_id)
        if document is None or document.owner != owner:
            return "there is no such dead letter"
        letter = msgspec.json.decode(document.body, type=DeadLetter)
        found, head = await self._store.read(letter.config_key), await storage.head(letter.tree_id)
        if found is not None and head is not None and letter.seq <= await storage.compacted(letter.tree_id):
            return "the event has been compacted and can no longer be resent"
        if found is None or head is None:
            return GONE
        async with self._deliveries.parcels.of(found.config, head, letter.seq, letter.shown) as parcel:
            if parcel is None:
                return GONE
            failed = await self._deliveries.send_all(found.config, parcel)
        if failed is not None:
            return failed.error
        await storage.delete_documents((DEAD, delivery_id))
        return None


def _shown(letter: DeadLetter) -> DeliveryObject:
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
