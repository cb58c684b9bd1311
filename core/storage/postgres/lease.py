"""The lease of a member, its right to run trees, and the lapsed leases of others.

A lease is a job of PgQueuer that is picked when it is made. The member renews its heartbeat; when that is older than
the lease lasts, the engine hands the job to another member, whose duty it is to adopt the trees with that lease. A
member that finds its own job in other hands, or gone, has lost its trees: its appends are refused from then on, since
each compares the tree's lease, and its process must end.
"""

import asyncio
import logging
import math
import os
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from pgqueuer.domain.models import Job
from pgqueuer.domain.types import JobId, QueueEntrypoint, QueueManagerId
from pgqueuer.ports.repository import EntrypointExecutionParameter
from pgqueuer.queries import Queries

from core.storage.base import OF_NOBODY
from core.storage.postgres.connect import ERRORS, Connection, Place
from core.storage.postgres.engine import Engine

logger = logging.getLogger(__name__)

LASTS = 10.0  # seconds after the last sign of life of its member
QUEUE = {QueueEntrypoint("lease"): EntrypointExecutionParameter(concurrency_limit=0)}
FIRST = 2**31 - 1  # priority: a member's own job before all others
AT_ONCE = timedelta(microseconds=-1)  # in the transaction that makes the job
RENEWALS = 3  # in the time that a lease lasts
PAUSE = 0.2  # seconds between two tries to renew while the database is away

JOIN = "INSERT INTO members (lease, host, pid, since) VALUES ($1, $2, $3, extract(epoch FROM clock_timestamp()))"
LEAVE = "DELETE FROM members WHERE lease = $1"
ANY_TREE = "SELECT EXISTS (SELECT 1 FROM trees WHERE lease = $1)"


class Lease:
    """Of one member. `lost` is called once, with the reason, when another member has its trees.

    `is_alone`: nobody else has the database open, so whoever had it before is gone.
    """

    def __init__(self, place: Place, lost: Callable[[str], None], *, lasts: float = LASTS, is_alone: bool) -> None:
        self.id = uuid.uuid4().hex
        self._place = place
        self._lost = lost
        self._lasts = lasts
        self._is_alone = is_alone
        self._engine = Engine(place, self.id)
        self._manager = QueueManagerId(uuid.UUID(self.id))
        self._job: Job | None = None
        self._lapsed: deque[tuple[str, Job | None]] = deque([(OF_NOBODY, None)])
        self._adopting: dict[str, Job] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._adopts_from = 0.0  # by `time.monotonic`: after an outage of the database everybody renews first

    async def take(self) -> None:
        """Make the lease; nobody sees its job before it is this member's. Raises what the driver raises."""
        await self._engine.run(self._take)
        self._renewing = asyncio.get_running_loop().create_task(self._keep_renewing())

    async def _take(self, connection: Connection, queries: Queries) -> None:
        lapsed: list[Job] = []
        if self._is_alone:
            await connection.execute("DELETE FROM members")
            while found := await self._dequeue(queries, 0.0):
                lapsed += found
        await queries.enqueue("lease", self.id.encode(), FIRST, AT_ONCE)
        while (found := await self._dequeue(queries, self._lasts)) and found[0].payload != self.id.encode():
            lapsed += found
        await connection.execute(JOIN, self.id, socket.gethostname(), os.getpid())
        self._job = found[0]
        self._note(lapsed)

    async def _dequeue(self, queries: Queries, after: float) -> list[Job]:
        """A job that waits, or whose member gave no sign for so many seconds; it is this member's now."""
        return await queries.dequeue(1, QUEUE, self._manager, None, timedelta(seconds=after))

    def _note(self, jobs: list[Job]) -> None:
        for job in jobs:
            lease = (job.payload or b"").decode()
            self._adopting[lease] = job
            self._lapsed.append((lease, job))

    async def lapsed(self) -> str | None:
        """See `Sharing.lapsed`. Raises what the driver raises."""
        if not self._lapsed and self._job is not None and time.monotonic() >= self._adopts_from:
            self._note(await self._engine.run(lambda _, queries: self._dequeue(queries, self._lasts)))
        return self._lapsed[0][0] if self._lapsed else None

    async def settle(self, lease: str) -> None:
        """See `Sharing.settle`. Raises what the driver raises."""
        job = self._adopting.get(lease)
        if job is not None:

            async def settle(connection: Connection, queries: Queries) -> None:
                await queries.log_jobs([(job, "successful", None)])
                await connection.execute(LEAVE, lease)

            await self._engine.run(settle)
        self._adopting.pop(lease, None)
        self._lapsed = deque(each for each in self._lapsed if each[0] != lease)

    async def _keep_renewing(self) -> None:
        pause = self._lasts / RENEWALS
        while self._job is not None:
            await asyncio.sleep(pause)
            try:
                is_ours = await self._engine.run(self._renew)
            except (*ERRORS, ValueError) as error:
                if pause != PAUSE:
                    told = "the lease on the %s cannot be renewed: %s; it is tried again"
                    logger.warning(told, self._place.text, error)
                pause, self._adopts_from = PAUSE, math.inf
                continue
            if pause == PAUSE:
                self._adopts_from = time.monotonic() + self._lasts
            pause = self._lasts / RENEWALS
            if not is_ours:
                self._job = None
                self._lost(
                    f"The trees of this process were given to another one, since it gave no sign of life to the "
                    f"{self._place.text} for {self._lasts:g} s"
                )

    async def _renew(self, _: Connection, queries: Queries) -> bool:
        """Renew the jobs; whether the own one is. The engine renews whoever asks, so its owner is looked at here."""
        if self._job is None:
            return True
        job = await queries.queue_job_by_id(JobId(self._job.id))
        if job is None or job.queue_manager_id != self._manager:
            return False
        await queries.update_heartbeat([self._job.id, *(each.id for each in self._adopting.values())])
        return True

    async def hand_back(self) -> None:
        """Let go of the lease: trees that carry it go to whoever comes first. The database may be away."""
        job, self._job = self._job, None
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing

        async def give(connection: Connection, queries: Queries) -> None:
            if job is None:
                return
            await queries.log_jobs([(job, "successful", None)])
            await connection.execute(LEAVE, self.id)
            leases = [self.id, *self._adopting]
            for lease in [each for each in leases if await connection.fetchval(ANY_TREE, each)]:
                await queries.enqueue("lease", lease.encode())
            if self._adopting:
                await queries.log_jobs([(each, "successful", None) for each in self._adopting.values()])

        if job is not None:
            with suppress(*ERRORS):
                await self._engine.run(give)
        await self._engine.close()

    def abandon(self) -> Connection | None:
        """The engine's connection, of which nothing is known here any more; the event loop is gone."""
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing._log_destroy_pending = False  # type: ignore[attr-defined]
        self._job = None
        return self._engine.leave()
