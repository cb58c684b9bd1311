"""The claim to a database: an advisory lock of the session that writes, alone or with others that share it."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

from core.model.errors import DatabaseInUse, StorageUnavailable
from core.storage.postgres.connect import ERRORS, Connection, Place

TRIES = 10  # for the lock at a start: a server that was killed a moment ago may still have it
TRY_AGAIN = 0.1  # seconds
LOCK = "732461985, hashtext(current_schema())"  # of advisory locks; one for each schema
PREPARING = "732461986, hashtext(current_schema())"  # likewise: held while the schema is made or changed
WRITER_SETTINGS = {
    "plan_cache_mode": "force_generic_plan",
    "enable_hashjoin": "off",  # rows are found by their keys, few among many
    "enable_mergejoin": "off",
    "lock_timeout": "3s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "5s",
}

# What is acknowledged is on the disk; who wants more of a standby, such as remote_apply, keeps it.
SYNCED = """SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') IN ('off', 'local')"""


class Claim:
    """Of one process to one database. `lease` tells it from all others, `is_shared`: others may have one as well."""

    def __init__(self, place: Place, lease: str, *, is_shared: bool = False) -> None:
        self._place = place
        self._lease = lease
        self._try = f"SELECT pg_try_advisory_lock{'_shared' if is_shared else ''}({LOCK})"

    async def connect(self) -> Connection:
        """A connection that does not hold the database yet."""
        settings = {**WRITER_SETTINGS, "application_name": f"a2a-server {self._lease}"}
        return await self._place.connect(settings)

    async def begin(self, connection: Connection, prepare: Callable[[Connection], Awaitable[None]]) -> str:
        """Hold the database; its identity. Raises DatabaseInUse, and what `prepare` raises."""
        await self._place.check(connection)
        await connection.execute(SYNCED)
        for attempt in range(TRIES):
            if await connection.fetchval(self._try):
                break
            if attempt == TRIES - 1:
                raise await self._in_use(connection)
            await asyncio.sleep(TRY_AGAIN)
        identity = await self._place.identity(connection)
        await connection.execute(f"SELECT pg_advisory_lock({PREPARING})")
        try:
            await prepare(connection)
        finally:
            await connection.execute(f"SELECT pg_advisory_unlock({PREPARING})")
        return identity

    async def _in_use(self, connection: Connection) -> DatabaseInUse:
        """One line that says by whom."""
        holder, is_own = "", False
        with suppress(*ERRORS):
            row = await connection.fetchrow("SELECT host, pid FROM members LIMIT 1")
            if row is not None:
                holder = f" (process {row['pid']} on {row['host']})"
                is_own = (row["host"], row["pid"]) == (socket.gethostname(), os.getpid())
        refusal = DatabaseInUse(
            f"The {self._place.text} is in use by another server{holder}; one server at a time may use a database"
        )
        refusal.is_own = is_own
        return refusal

    async def again(self) -> Connection | None:
        """A connection that holds the lock; None where another process has held it meanwhile."""
        connection = await self.connect()
        try:
            await self._place.check(connection)
            await connection.execute(SYNCED)
            if not await connection.fetchval(self._try):
                # The server may not know yet that the connection before is gone: its session is ended here.
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = current_setting('application_name') AND pid <> pg_backend_pid()"
                )
                if await self._is_ours(connection):
                    raise StorageUnavailable("its lock is still held by the connection before")
            if await self._is_ours(connection):
                return connection
        except BaseException:
            connection.terminate()
            raise
        connection.terminate()
        return None

    async def _is_ours(self, connection: Connection) -> bool:
        return bool(await connection.fetchval("SELECT EXISTS (SELECT 1 FROM members WHERE lease = $1)", self._lease))
