"""The outbox: each webhook is a reader of its tree's log with a stored cursor, so nothing falls between the two.

What is committed only wakes a reader up. A reader sends what comes after its cursor, one event after the other, and
stores the cursor when the receiver has taken it: an event is sent again after a crash, under the same id, and none is
left out. No task waits for any of this.

The places for deliveries are shared by caller (`core.model.shares`), then by webhook: receivers of one caller that
never answer delay no delivery of another caller, and each of a caller's webhooks gives its place back after a while.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from a2a_server.push.configs import (
    AT_REST,
    PAGE,
    STANDING,
    ConfigStore,
    DeadLetter,
    DeliveryState,
    PushConfig,
    delivery_state_of,
    unread_trees,
)
from a2a_server.push.parcels import Ahead, Parcel, Parcels, head_of
from a2a_server.push.sender import Failed, Sender
from core.loop.alarms import Alarms
from core.loop.origin import CALLER
from core.model import events as e
from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from core.model.events import Recorded
from core.model.shares import FairShares
from core.model.task import Cause, TreeHead
from core.outside.clock import Clock
from core.session import Session, has_ended
from core.storage.base import Document, DocumentQuery

logger = logging.getLogger(__name__)

STORAGE_PAUSE = 1.0  # seconds after which a reader whose cursor could not be stored goes on
TURN = 1.0  # seconds after which a reader gives its place to one that waits


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """How long an event is tried, in seconds."""

    initial: float
    longest: float
    max_age: float

    def delay(self, attempts: int, chance: float) -> float:
        """The wait after so many failed attempts, with full jitter."""
        return chance * min(self.longest, self.initial * 2.0 ** min(attempts - 1, 60))


@dataclass(slots=True, eq=False)
class _Reader:
    """One webhook that is not at rest."""

    config: PushConfig
    delivery: DeliveryState
    is_woken: bool = False  # stands in line, or runs once more when its job has ended
    job: asyncio.Task[None] | None = None
    waits_until: float = 0.0  # for the next attempt
    is_gone: bool = False  # its receiver wants no more; it is to be removed


_Due = tuple[float, str, str]  # (when, tree, the key of the webhook that waits until then)


class Outbox:
    """The readers of one server."""

    def __init__(
        self,
        session: Session,
        store: ConfigStore,
        parcels: Parcels,
        sender: Sender,
        retry_policy: RetryPolicy,
        *,
        concurrency: int,
        concurrency_per_caller: int,
    ) -> None:
        self._session = session
        self._store = store
        self.parcels = parcels
        self._sender = sender
        self._retry_policy = retry_policy
        self._shares: FairShares[_Reader] = FairShares(concurrency, concurrency_per_caller)  # by owner
        self._time = session.clock
        self._clock: Clock = session.clock
        self._readers: dict[str, dict[str, _Reader]] = {}  # tree -> the key of each of its webhooks
        self._active: Counter[str] = Counter()  # owner -> how many of these are its
        self._paused: set[str] = set()  # keys of webhooks that are being changed
        self._looks: dict[str, object] = {}  # keys of webhooks that are being read, until something ends that
        self._jobs: set[asyncio.Task[None]] = set()
        self._due: Alarms[_Due] = Alarms(session.clock.now, lambda due: self._waiting(due) is not None, self._ring)
        self._side_jobs: set[asyncio.Task[Any]] = set()
        self._started: asyncio.Task[None] | None = None
        self._closing = False
        session.feed.watch(self.notify, self.tree_deleted)

    def start(self) -> asyncio.Task[None]:
        """Resume, in the background, the readers that an earlier process left with pending events."""
        # First those that have something to do by what is stored, then those at rest whose tree has gone on since.
        self._started = self._hold(self._take_all(DocumentQuery(kind=STANDING, limit=PAGE)))
        return self._started

    async def unread(self) -> frozenset[str]:
        """The trees of whose events some are still to be delivered.

        It waits until everything an earlier process left is resumed: a crash may have stored a busy webhook as at rest.
        """
        if self._started is not None:
            await asyncio.shield(self._started)
        return await unread_trees(self._session.storage)

    async def _take_all(self, query: DocumentQuery) -> None:
        """Resume the delivery states that the query finds, one by one, as soon as the storage can be read."""
        while True:
            try:
                page = await self._session.storage.documents(query)
                for document in page:
                    await self._take(document)
            except StorageUnavailable:
                await asyncio.sleep(STORAGE_PAUSE)
                continue
            if not page:
                return
            query = query.following(page)

    def _take_up(self, tree_id: str) -> None:
        """Look, beside everything else, for webhooks of the tree that have something to do and no reader."""
        self._hold(self._take_all(DocumentQuery(kind=STANDING, tree_id=tree_id, limit=PAGE)))

    async def _take(self, document: Document) -> None:
        """Enroll a stored webhook, unless it is at rest at the end of its log, or was deleted meanwhile."""
        try:
            is_at_rest = document.at >= AT_REST
            if is_at_rest:
                head = await self._session.storage.head(document.tree_id)
                if head is None or delivery_state_of(document).cursor >= head.version:
                    return
            found = await self._read_idle(document.id)
            if found is not None and is_at_rest:  # not any more, also for retention and the next process
                await self._session.storage.put_documents(self._store.delivery_document(*found))
                found = await self._read_idle(document.id)
            if found is not None:
                self.enroll(*found)
        except TaskNotFound:  # the tree was deleted meanwhile, and its webhooks with it
            return
        except StorageUnavailable:
            raise
        except StorageError as error:
            logger.error("deliveries to webhook %s stop: %s", document.id, error)

    async def _read_idle(self, key: str) -> tuple[PushConfig, DeliveryState] | None:
        """A webhook as it is stored; None for one that is being changed, or has a reader, too."""
        found = await self._read(key)
        if found is None or key in self._paused or self._reader_of(found[0]) is not None:
            return None
        return found

    async def _read(self, key: str) -> tuple[PushConfig, DeliveryState] | None:
        """A webhook as it is stored, no older than what its last reader did; None, too, when another look has begun."""
        while True:
            look = self._looks[key] = object()
            try:
                found = await self._store.read(key)
            finally:
                latest = self._looks.get(key)
                if latest is look:
                    del self._looks[key]
            if latest is not None:
                return found if latest is look else None

    async def close(self) -> None:
        """Drop what is under way; it is sent again by the next process."""
        self._closing = True
        self._due.close()
        jobs = [*self._jobs, *self._side_jobs]
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def enroll(self, config: PushConfig, delivery: DeliveryState) -> None:
        """A stored webhook may have something to send."""
        reader = _Reader(config, delivery)
        if self._readers.setdefault(config.tree_id, {}).setdefault(config.key, reader) is not reader:
            return
        self._active[config.owner] += 1
        if delivery.retry_at > self._time.now():
            self._wait(reader, delivery.retry_at)
        else:
            self._wake(reader)

    def active(self, owner: str | None = None) -> int:
        """How many webhooks of the owner have something to be told, or may have; without an owner, of all."""
        return self._active.total() if owner is None else self._active.get(owner, 0)

    async def stop(self, config: PushConfig) -> None:
        """Send it nothing more, until it is enrolled again; an attempt that is under way is broken off."""
        self._looks.pop(config.key, None)
        reader = self._reader_of(config)
        if reader is None:
            return
        self._forget(reader)
        if reader.job is not None:
            reader.job.cancel()
            await asyncio.wait([reader.job])

    @asynccontextmanager
    async def paused(self, config: PushConfig) -> AsyncIterator[None]:
        """It is sent nothing meanwhile; whether it goes on is decided by what is stored of it afterwards."""
        self._paused.add(config.key)
        try:
            await self.stop(config)
            yield
        finally:
            self._paused.discard(config.key)
            self._looks.pop(config.key, None)  # one that began meanwhile may have seen it as it was
            self._take_up(config.tree_id)

    def notify(self, head: TreeHead, events: Sequence[Recorded]) -> None:
        """Something was committed; the feed's watcher."""
        for reader in self._readers.get(head.id, {}).values():
            if not reader.waits_until:
                self._wake(reader)
        if not self._closing and _may_go_on(events):
            self._take_up(head.id)

    def tree_deleted(self, tree_id: str) -> None:
        """Its webhooks went with it; the feed's watcher."""
        for reader in list(self._readers.get(tree_id, {}).values()):
            if reader.waits_until:
                self._forget(reader)
            else:
                self._wake(reader)  # it finds that there is nothing left, also when it is about to end its job

    # Whose turn it is

    def _hold(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = asyncio.create_task(work)
        self._side_jobs.add(job)
        job.add_done_callback(self._side_jobs.discard)
        return job

    def _wake(self, reader: _Reader) -> None:
        if not reader.is_woken:
            reader.is_woken = True
            if reader.job is None:
                self._shares.ask(reader.config.owner, reader)
                self._fill()

    def _fill(self) -> None:
        while not self._closing and (taken := self._shares.take()) is not None:
            owner, reader = taken
            if not self._is_known(reader):
                self._shares.give_back(owner)
                continue
            reader.is_woken = False
            reader.job = asyncio.create_task(self._read_on(reader))
            self._jobs.add(reader.job)
            reader.job.add_done_callback(partial(self._done, reader))

    def _done(self, reader: _Reader, job: asyncio.Task[None]) -> None:
        self._jobs.discard(job)
        self._shares.give_back(reader.config.owner)
        reader.job = None
        if not job.cancelled() and (bug := job.exception()) is not None:
            logger.error("deliveries to webhook %s stop", reader.config.key, exc_info=bug)
            self._forget(reader)
        if reader.is_woken:
            self._shares.ask(reader.config.owner, reader)
        self._fill()

    def _wait(self, reader: _Reader, until: float) -> None:
        reader.waits_until = until
        reader.is_woken = False  # what was committed meanwhile is for the next attempt
        self._due.set((until, reader.config.tree_id, reader.config.key))

    def _ring(self, due: Sequence[_Due]) -> None:
        for each in due:
            if (reader := self._waiting(each)) is not None:
                reader.waits_until = 0.0
                self._wake(reader)

    def _waiting(self, due: _Due) -> _Reader | None:
        """Who still waits until then. It is looked up: an alarm keeps no reader, and no secrets of one, in memory."""
        when, tree_id, key = due
        reader = self._readers.get(tree_id, {}).get(key)
        return reader if reader is not None and reader.waits_until == when else None

    def _reader_of(self, config: PushConfig) -> _Reader | None:
        return self._readers.get(config.tree_id, {}).get(config.key)

    def _is_known(self, reader: _Reader) -> bool:
        return self._reader_of(reader.config) is reader

    def _forget(self, reader: _Reader) -> None:
        self._looks.pop(reader.config.key, None)
        self._shares.withdraw(reader.config.owner, reader)
        if self._is_known(reader):
            readers = self._readers[reader.config.tree_id]
            del readers[reader.config.key]
            self._active[reader.config.owner] -= 1
            if not self._active[reader.config.owner]:
                del self._active[reader.config.owner]
            if not readers:
                del self._readers[reader.config.tree_id]
        reader.waits_until = 0.0

    # Reading and sending

    async def _read_on(self, reader: _Reader) -> None:
        """Send what comes after the cursor, up to the end of the log, of its turn, or to the first failure."""
        ends_at = asyncio.get_running_loop().time() + TURN
        CALLER.set(reader.config.owner)  # in whose name storage is read
        try:
            if reader.is_gone:
                await self._remove(reader)
                return
            ahead = Ahead()
            while True:
                async with self.parcels.next(reader.config, reader.delivery, ahead) as parcel:
                    if parcel is None:
                        break
                    if not await self._deliver(reader, parcel):
                        return
                del parcel  # it may be large, and has given its room back
                if self._shares.waiting and asyncio.get_running_loop().time() >= ends_at:
                    self._wake(reader)
                    return
            await self._rest(reader)
        except TaskNotFound:  # the tree is gone, and its webhooks with it
            self._forget(reader)
        except StorageUnavailable:
            self._wait(reader, self._time.now() + STORAGE_PAUSE)
        except StorageError as error:
            logger.error("deliveries to webhook %s stop: %s", reader.config.key, error)
            self._forget(reader)

    async def _deliver(self, reader: _Reader, parcel: Parcel) -> bool:
        """Tell one event, and move the cursor behind it. False when the reader has to wait, or is no more."""
        config, delivery = reader.config, reader.delivery
        after = DeliveryState(cursor=parcel.seq, shown=parcel.shown)
        if not parcel.bodies:  # nothing to be remembered: looking at it again would find nothing again
            reader.delivery = after
            return True
        failed = await self.send_all(config, parcel)
        if failed is None:
            await self._keep(reader, after)
            return True
        if failed.is_gone:
            logger.info("webhook %s was removed: %s", config.key, failed.error)
            reader.is_gone = True
            await self._remove(reader)
            return False
        waiting = self._after_failure(delivery, failed)
        if failed.is_final or self._time.now() - parcel.at > self._retry_policy.max_age:
            await self._give_up(reader, waiting, after)
            return True
        await self._keep(reader, waiting)
        self._wait(reader, waiting.retry_at)
        return False

    async def _remove(self, reader: _Reader) -> None:
        await self._store.delete(reader.config)
        self._forget(reader)

    async def _keep(self, reader: _Reader, delivery: DeliveryState) -> None:
        await self._session.storage.put_documents(self._store.delivery_document(reader.config, delivery))
        reader.delivery = delivery

    async def send_all(self, config: PushConfig, parcel: Parcel) -> Failed | None:
        """Send the bodies of one event, in order, up to the first failure. Their ids are the same every time."""
        for n, body in enumerate(parcel.bodies):
            if failed := await self._sender.send(config, f"{config.digest}_{parcel.seq}_{n}", body):
                return failed
        return None

    def _after_failure(self, delivery: DeliveryState, failed: Failed) -> DeliveryState:
        attempts = delivery.attempts + 1
        delay = max(failed.retry_after, self._retry_policy.delay(attempts, self._clock.chance()))
        return replace(
            delivery,
            attempts=attempts,
            error=failed.error,
            retry_at=self._time.now() + min(delay, self._retry_policy.longest),
        )

    async def _give_up(self, reader: _Reader, failed: DeliveryState, after: DeliveryState) -> None:
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
            at=self._time.now(),
        )
        logger.warning("event %d for webhook %s is a dead letter now: %s", letter.seq, config.key, letter.error)
        await self._session.storage.put_documents(
            self._store.dead_document(config, letter), self._store.delivery_document(config, after)
        )
        reader.delivery = after

    async def _rest(self, reader: _Reader) -> None:
        """The end of the log: of a tree that has ended nothing is left to do; of any other the reader is woken."""
        head = await head_of(self._session.storage, reader.config.tree_id)
        if has_ended(head) and reader.delivery.cursor >= head.version:
            document = self._store.delivery_document(reader.config, reader.delivery, at_rest=True)
            await self._session.storage.put_documents(document)
            if not reader.is_woken:
                self._forget(reader)
            else:  # a new run has begun meanwhile
                await self._keep(reader, reader.delivery)


def _may_go_on(events: Sequence[Recorded]) -> bool:
    """Whether with these a tree may go on that had ended, so that webhooks of it are at rest."""
    if isinstance(events[0].event, e.TreeCreated):
        return False
    return any(
        isinstance(recorded.event, e.RunStarted)
        # of what a run of a part of the tree has left, without another run
        or (isinstance(recorded.event, e.TaskCancelled) and recorded.event.cause is Cause.REQUESTED)
        for recorded in events
    )
