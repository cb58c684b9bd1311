"""PgQueuer in the same database, on a connection of its own: what it queues are the leases of members.

Its tables stand beside ours with a prefix, so that the server's user needs no right to make a schema.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import QueryBuilderEnvironment, QueryQueueBuilder, QuerySchedulerBuilder
from pgqueuer.domain.settings import DBSettings, Durability
from pgqueuer.queries import Queries

from core.storage.postgres.connect import ERRORS, Connection, Fault, Place, fault_of

SETTINGS = DBSettings(prefix="a2a_", durability=Durability.balanced)
JOBS = SETTINGS.queue_table
ANSWER = 10.0  # seconds that a call of the engine may take

Value = TypeVar("Value")

_environment = QueryBuilderEnvironment(SETTINGS)
_queue = QueryQueueBuilder(SETTINGS)
_scheduler = QuerySchedulerBuilder(SETTINGS)


def queries_on(connection: Connection) -> Queries:
    """The engine's calls over this connection."""
    return Queries(AsyncpgDriver(connection), _environment, _queue, _scheduler)


async def install(connection: Connection) -> None:
    """Make the engine's tables, or bring them to what this version of it needs. One process at a time."""
    queries = queries_on(connection)
    if await queries.schema_is_installed():
        await queries.apply_upgrade()
    else:
        await queries.install()


class Engine:
    """One connection, made when it is needed and again when it was lost."""

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._settings = {"application_name": f"a2a-server {name} engine", "lock_timeout": "3s"}
        self._connection: Connection | None = None
        self._busy = asyncio.Lock()

    async def run(self, work: Callable[[Connection, Queries], Awaitable[Value]]) -> Value:
        """What the work gives, in one transaction. Raises what the driver raises, then nothing of it is stored."""
        async with self._busy:
            if self._connection is None or self._connection.is_closed():
                self._connection = await self._place.connect(self._settings)
            connection = self._connection
            try:
                async with asyncio.timeout(ANSWER), connection.transaction():
                    return await work(connection, queries_on(connection))
            except BaseException as error:
                if not isinstance(error, ERRORS) or fault_of(error) is Fault.LOST:
                    self.leave()
                    connection.terminate()
                raise

    async def close(self) -> None:
        """Let go of the connection."""
        if (connection := self.leave()) is not None:
            connection.terminate()

    def leave(self) -> Connection | None:
        """The connection, of which nothing is known here any more."""
        connection, self._connection = self._connection, None
        return connection
