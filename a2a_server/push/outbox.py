"""The outbox: each webhook is a reader of its tree's log with a stored cursor, so nothing falls between the two.

What is committed only wakes a reader up. A reader sends what comes after its cursor, one event after the other, and
stores the cursor when the receiver has taken it (`deliveries`): an event is sent again after a crash, under the same
id, and none is left out. No task waits for any of this: readers have turns of their own (`schedule`), and webhooks
without a reader are found in storage (`scanner`).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from a2a_server.push.configs import ConfigStore, PushConfig, Webhook
from a2a_server.push.deliveries import Deliveries
from a2a_server.push.readers import Reader, Readers
from a2a_server.push.scanner import Looks, Scanner
from a2a_server.push.schedule import Schedule
from core.model import events as e
from core.model.events import Recorded
from core.model.shares import FairShares
from core.model.task import Cause, TreeHead
from core.session import Session


class Outbox:
    """The webhooks of one server that have something to be told. `shares`: how many deliveries run at a time."""

    def __init__(
        self, session: Session, store: ConfigStore, deliveries: Deliveries, shares: FairShares[Reader]
    ) -> None:
        self._now = session.clock.now
        self._paused: set[str] = set()  # keys of webhooks that are being changed
        self._looks = Looks(store)
        self.deliveries = deliveries
        self.readers = Readers()
        self.schedule = Schedule(self.readers, deliveries, shares, session.clock.now, self._looks.end)
        self.scanner = Scanner(session.storage, store, self._looks, self._is_busy, self.enroll)
        self._is_closing = False
        session.feed.watch(self.notify, self.tree_deleted)

    def start(self) -> asyncio.Task[None]:
        """Resume, in the background, the readers that an earlier process left with pending events."""
        return self.scanner.start()

    async def close(self) -> None:
        """Drop what is under way; it is sent again by the next process."""
        self._is_closing = True
        await asyncio.gather(self.schedule.close(), self.scanner.close())

    def enroll(self, webhook: Webhook) -> None:
        """A stored webhook may have something to send."""
        reader = Reader(*webhook)
        if not self.readers.add(reader):
            return
        if reader.delivery.retry_at > self._now():
            self.schedule.wait(reader, reader.delivery.retry_at)
        else:
            self.schedule.wake(reader)

    async def stop(self, config: PushConfig) -> None:
        """Send it nothing more, until it is enrolled again; an attempt that is under way is broken off."""
        self._looks.end(config.key)
        reader = self.readers.of(config)
        if reader is None:
            return
        self.schedule.forget(reader)
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
            self._looks.end(config.key)  # one that began meanwhile may have seen it as it was
            self.scanner.look_at(config.tree_id)

    def _is_busy(self, config: PushConfig) -> bool:
        return config.key in self._paused or self.readers.of(config) is not None

    def notify(self, head: TreeHead, events: Sequence[Recorded]) -> None:
        """Something was committed; the feed's watcher."""
        for reader in self.readers.of_tree(head.id):
            if not reader.waits_until:
                self.schedule.wake(reader)
        if not self._is_closing and _may_go_on(events):
            self.scanner.look_at(head.id)

    def tree_deleted(self, tree_id: str) -> None:
        """Its webhooks went with it; the feed's watcher."""
        for reader in self.readers.of_tree(tree_id):
            if reader.waits_until:
                self.schedule.forget(reader)
            else:
                self.schedule.wake(reader)  # it finds that there is nothing left, also when it is about to end its job


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
