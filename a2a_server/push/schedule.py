"""Whose turn it is to deliver.

The places for deliveries are shared by caller (`core.model.shares`), then by webhook: receivers of one caller that
never answer delay no delivery of another caller, and each of a caller's webhooks gives its place back after a while.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from a2a_server.push.deliveries import Deliveries, Step
from a2a_server.push.parcels import Ahead
from a2a_server.push.readers import Reader, Readers
from core.loop.alarms import Alarms
from core.loop.origin import CALLER
from core.model.shares import FairShares

logger = logging.getLogger(__name__)

TURN = 1.0  # seconds after which a reader gives its place to one that waits

Due = tuple[float, str, str]  # (when, tree, the key of the webhook whose reader waits until then)


class Schedule:
    """Gives readers their turns. `forgotten` is told the key of each webhook whose reader is no more."""

    def __init__(
        self,
        readers: Readers,
        deliveries: Deliveries,
        shares: FairShares[Reader],
        now: Callable[[], float],
        forgotten: Callable[[str], None],
    ) -> None:
        self._readers = readers
        self._deliveries = deliveries
        self.shares = shares  # by owner
        self._forgotten = forgotten
        self.jobs: set[asyncio.Task[None]] = set()
        self.due: Alarms[Due] = Alarms(now, lambda due: self.waiting(due) is not None, self._ring)
        self._is_closing = False

    async def close(self) -> None:
        """Drop what is under way; it is sent again by the next process."""
        self._is_closing = True
        self.due.close()
        jobs = list(self.jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def wake(self, reader: Reader) -> None:
        """It has something to do: at once, or once more when its job has ended."""
        if not reader.is_woken:
            reader.is_woken = True
            if reader.job is None:
                self.shares.ask(reader.config.owner, reader)
                self._fill()

    def wait(self, reader: Reader, until: float) -> None:
        """It does nothing until then."""
        reader.waits_until = until
        reader.is_woken = False  # what was committed meanwhile is for the next attempt
        self.due.set((until, reader.config.tree_id, reader.config.key))

    def waiting(self, due: Due) -> Reader | None:
        """Who still waits until then. It is looked up: an alarm keeps no reader, and no secrets of one, in memory."""
        when, tree_id, key = due
        reader = self._readers.find(tree_id, key)
        return reader if reader is not None and reader.waits_until == when else None

    def forget(self, reader: Reader) -> None:
        """It gets no more turns; a job of it goes on."""
        self._forgotten(reader.config.key)
        self.shares.withdraw(reader.config.owner, reader)
        self._readers.remove(reader)
        reader.waits_until = 0.0

    def _fill(self) -> None:
        while not self._is_closing and (taken := self.shares.take()) is not None:
            owner, reader = taken
            if not self._readers.has(reader):
                self.shares.give_back(owner)
                continue
            reader.is_woken = False
            reader.job = asyncio.create_task(self._turn(reader))
            self.jobs.add(reader.job)
            reader.job.add_done_callback(partial(self._done, reader))

    def _done(self, reader: Reader, job: asyncio.Task[None]) -> None:
        self.jobs.discard(job)
        self.shares.give_back(reader.config.owner)
        reader.job = None
        if not job.cancelled() and (bug := job.exception()) is not None:
            logger.error("deliveries to webhook %s stop", reader.config.key, exc_info=bug)
            self.forget(reader)
        if reader.is_woken:
            self.shares.ask(reader.config.owner, reader)
        self._fill()

    def _ring(self, due: Sequence[Due]) -> None:
        for each in due:
            if (reader := self.waiting(each)) is not None:
                reader.waits_until = 0.0
                self.wake(reader)

    async def _turn(self, reader: Reader) -> None:
        """Deliver up to the end of the log, of the turn, or to the first failure."""
        ends_at = asyncio.get_running_loop().time() + TURN
        CALLER.set(reader.config.owner)  # in whose name storage is read
        ahead = Ahead()
        while (step := await self._deliveries.step(reader, ahead)) is Step.GO_ON:
            if self.shares.waiting and asyncio.get_running_loop().time() >= ends_at:
                self.wake(reader)
                return
        if step is Step.LEAVE:
            self.forget(reader)
        elif not isinstance(step, Step):
            self.wait(reader, step)
