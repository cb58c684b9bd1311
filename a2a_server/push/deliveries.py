"""One delivery after the other: what comes after a webhook's cursor is sent, and then the cursor is moved.

An attempt that failed leaves the cursor where it is, with the time of the next one; what is given up becomes a dead
letter. Whose turn it is is decided elsewhere (a2a_server.push.schedule).
"""

import logging
from enum import Enum, auto

from msgspec import Struct
from msgspec.structs import replace

from a2a_server.push.configs import STORAGE_PAUSE, ConfigStore, DeadLetter, DeliveryState, PushConfig
from a2a_server.push.parcels import Ahead, Parcel, Parcels, head_of
from a2a_server.push.readers import Reader
from a2a_server.push.sender import Failed, Sender
from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from core.session import Session, has_ended
from core.storage.base import Document

logger = logging.getLogger(__name__)


class DeliveryRetry(Struct, frozen=True, kw_only=True):
    """How long an event is tried, in seconds."""

    initial: float
    longest: float
    max_age: float

    def delay(self, attempts: int, chance: float) -> float:
        """The wait after so many failed attempts, with full jitter."""
        return chance * min(self.longest, self.initial * 2.0 ** min(attempts - 1, 60))


class Step(Enum):
    """What a reader does after a step; a time instead of one of these is that of its next attempt."""

    GO_ON = auto()  # the cursor has moved
    STAY = auto()  # the log has no more at present
    LEAVE = auto()  # there is nothing left to do, or the webhook is no more


class Overtaken(Exception):
    """The stored delivery state is not what its reader has left there."""


class Deliveries:
    """Reads the logs and sends, for the readers of one server."""

    def __init__(
        self, session: Session, store: ConfigStore, parcels: Parcels, sender: Sender, retry_policy: DeliveryRetry
    ) -> None:
        self._storage = session.storage
        self._clock = session.clock
        self._store = store
        self.parcels = parcels
        self.sender = sender
        self._retry_policy = retry_policy

    async def step(self, reader: Reader, ahead: Ahead) -> Step | float:
        """Tell the next event; at the end of the log, see whether anything may follow."""
        try:
            try:
                return await self._step(reader, ahead)
            except Overtaken:
                return await self._read_again(reader, ahead)
        except TaskNotFound:  # the tree is gone, and its webhooks with it
            return Step.LEAVE
        except StorageUnavailable:
            return self._clock.now() + STORAGE_PAUSE
        except StorageError as error:
            logger.error("deliveries to webhook %s stop: %s", reader.config.key, error)
            return Step.LEAVE

    async def _step(self, reader: Reader, ahead: Ahead) -> Step | float:
        if reader.is_gone:
            return await self._remove(reader)
        async with self.parcels.next(reader.config, reader.delivery, ahead) as parcel:
            if parcel is not None:
                return await self._deliver(reader, parcel)
        return await self._rest(reader)

    async def _read_again(self, reader: Reader, ahead: Ahead) -> Step:
        """Go on from what is stored, or not at all, where the webhook is no more or another one has its place."""
        found = await self._store.read(reader.config.key)
        if found is None or found.delivery.registered != reader.delivery.registered:
            return Step.LEAVE
        reader.delivery, reader.stored = found.delivery, found.stored  # by a write whose answer this reader never got
        ahead.events.clear()
        return Step.GO_ON

    async def _deliver(self, reader: Reader, parcel: Parcel) -> Step | float:
        """Tell one event, and move the cursor behind it."""
        config, delivery = reader.config, reader.delivery
        after = DeliveryState(cursor=parcel.seq, shown=parcel.shown, registered=delivery.registered)
        if not parcel.bodies:  # nothing to be remembered: looking at it again would find nothing again
            reader.delivery = after
            return Step.GO_ON
        failed = await self.send_all(config, parcel)
        if failed is None:
            await self._keep(reader, after)
            return Step.GO_ON
        if failed.is_gone:
            logger.info("webhook %s was removed: %s", config.key, failed.error)
            reader.is_gone = True
            return await self._remove(reader)
        waiting = self._after_failure(delivery, failed)
        if failed.is_final or self._clock.now() - parcel.at > self._retry_policy.max_age:
            await self._give_up(reader, waiting, after)
            return Step.GO_ON
        await self._keep(reader, waiting)
        return waiting.retry_at

    async def _remove(self, reader: Reader) -> Step:
        if not await self._store.delete(reader.config, reader.stored):
            raise Overtaken
        return Step.LEAVE

    async def _keep(self, reader: Reader, delivery: DeliveryState, *others: Document, at_rest: bool = False) -> None:
        """Store where the delivery stands. Raises Overtaken, so that no old cursor comes back."""
        document = self._store.delivery_document(reader.config, delivery, at_rest=at_rest)
        if not await self._storage.swap(document, reader.stored, *others):
            raise Overtaken
        reader.stored, reader.delivery = document, delivery

    async def send_all(self, config: PushConfig, parcel: Parcel) -> Failed | None:
        """Send the bodies of one event, in order, up to the first failure. Their ids are the same every time."""
        for n, body in enumerate(parcel.bodies):
            if failed := await self.sender.send(config, f"{config.digest}_{parcel.seq}_{n}", body):
                return failed
        return None

    def _after_failure(self, delivery: DeliveryState, failed: Failed) -> DeliveryState:
        attempts = delivery.attempts + 1
        delay = max(failed.retry_after, self._retry_policy.delay(attempts, self._clock.chance()))
        return replace(
            delivery,
            attempts=attempts,
            error=failed.error,
            retry_at=self._clock.now() + min(delay, self._retry_policy.longest),
        )

    async def _give_up(self, reader: Reader, failed: DeliveryState, after: DeliveryState) -> None:
        """The event becomes a dead letter; the next one has its turn."""
        config = reader.config
        letter = DeadLetter(
            id=f"{config.key}/{after.cursor}",
            config_key=config.key,
            task_id=config.task_id,
            tree_id=config.tree_id,
            seq=after.cursor,
            shown=failed.shown,
            attempts=failed.attempts,
            error=failed.error,
            at=self._clock.now(),
        )
        logger.warning("event %d for webhook %s is a dead letter now: %s", letter.seq, config.key, letter.error)
        await self._keep(reader, after, self._store.dead_document(config, letter))

    async def _rest(self, reader: Reader) -> Step:
        """The end of the log: of a tree that has ended nothing is left to do; of any other the reader is woken."""
        head = await head_of(self._storage, reader.config.tree_id)
        if not has_ended(head) or reader.delivery.cursor < head.version:
            return Step.STAY
        await self._keep(reader, reader.delivery, at_rest=True)
        if not reader.is_woken:
            return Step.LEAVE
        await self._keep(reader, reader.delivery)  # a new run has begun meanwhile
        return Step.STAY
