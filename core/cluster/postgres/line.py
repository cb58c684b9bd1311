"""One connection that listens to a channel and notifies it, and comes back by itself when it was lost."""

import asyncio
import hashlib
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from core.loop.jobs import Jobs
from core.model.errors import ConfigurationError
from core.storage.postgres.connect import ERRORS, Connection, Place, cut, pause_after

logger = logging.getLogger(__name__)

LOOK = 5.0  # seconds between two looks whether the connection is alive
ECHO = 3.0  # seconds in which a NOTIFY comes back at the start
ANSWER = 10.0  # seconds that a statement may take
SETTINGS = {
    "application_name": "a2a-server bus",
    "statement_timeout": "10s",
    "synchronous_commit": "off",  # a NOTIFY is a transaction, and what it says may be lost
}
NOTIFY = "SELECT pg_notify($1, $2)"
PROBE = "probe"  # a payload that says nothing


class Line:
    """Open it in an event loop, once. `heard` gets each payload; `returned` is called when it was lost and is back."""

    def __init__(
        self, place: Place, heard: Callable[[str], None], returned: Callable[[], None], *, look: float, echo: float
    ) -> None:
        self._place = place
        self._heard = heard
        self._returned = returned
        self._look_each = look
        self._echo_within = echo
        self._process = os.getpid()
        self._jobs = Jobs()
        self._busy = asyncio.Lock()
        self._connection: Connection | None = None
        self._channel = ""
        self._timer: asyncio.TimerHandle | None = None
        self._is_open = True

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    async def open(self) -> None:
        """Raises ConfigurationError where no NOTIFY arrives, StorageError where there is no connection."""
        try:
            connection, self._channel = await _listening(self._place, self._hear)
            try:
                await _require_echo(self._place, connection, self._channel, self._echo_within)
            except BaseException:
                connection.terminate()
                raise
        except (*ERRORS, ValueError) as error:
            raise self._place.refusal(error) from error
        self._use(connection)
        self._timer = asyncio.get_running_loop().call_later(self._look_each, self._look)

    async def close(self) -> None:
        """Hear nothing more."""
        self._is_open = False
        if self._timer is not None:
            self._timer.cancel()
        await self._jobs.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(*ERRORS):
                await connection.close(timeout=1.0)

    def abandon(self) -> None:
        """Close without the event loop, which is gone."""
        self._is_open = False
        connection, self._connection = self._connection, None
        if connection is not None and self._process == os.getpid():  # a forked child's parent goes on with it
            cut(connection)

    async def notify(self, payload: str) -> None:
        """Send it, if the connection lives: it may be lost. One at a time."""
        await self._execute(NOTIFY, self._channel, payload)

    async def _execute(self, statement: str, *values: Any) -> None:
        async with self._busy:
            if (connection := self._connection) is None:
                return
            try:
                await connection.execute(statement, *values, timeout=ANSWER)
            except ERRORS as error:
                self._lose(connection, error)

    def _hear(self, connection: Any, pid: int, channel: str, payload: str) -> None:
        if self._is_open:
            self._heard(payload)

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        connection.add_termination_listener(self._lose)

    def _lose(self, connection: Connection, error: BaseException | None = None) -> None:
        if self._connection is None or connection is not self._connection or not self._is_open:
            return
        self._connection = None
        connection.terminate()
        logger.warning("hints over the %s are lost: %s", self._place.text, error or "the connection was closed")
        self._jobs.start(self._come_back())

    async def _come_back(self) -> None:
        tries = 0
        while self._connection is None:
            await asyncio.sleep(pause_after(tries))
            tries += 1
            with suppress(*ERRORS, ValueError):
                connection, self._channel = await _listening(self._place, self._hear)
                if not connection.is_closed():
                    self._use(connection)
        logger.warning("hints over the %s come again", self._place.text)
        self._returned()

    def _look(self) -> None:
        """Nothing else tells of a machine that is gone."""
        if not self._busy.locked():
            self._jobs.start(self._execute("SELECT 1"))
        self._timer = asyncio.get_running_loop().call_later(self._look_each, self._look)


async def _listening(place: Place, heard: Callable[..., None]) -> tuple[Connection, str]:
    """A connection that listens to our channel, and the channel's name."""
    connection = await place.connect(SETTINGS)
    try:
        schema = await connection.fetchval("SELECT current_schema()", timeout=ANSWER)
        # Channels are the database's, not the schema's; and their names are short.
        channel = f"a2a_{hashlib.sha256(str(schema).encode()).hexdigest()[:16]}"
        await connection.add_listener(channel, heard)
    except BaseException:
        connection.terminate()
        raise
    return connection, channel


async def _require_echo(place: Place, connection: Connection, channel: str, within: float) -> None:
    """Raise ConfigurationError where a NOTIFY of another session is not heard in so many seconds.

    Of the same session it would be, through a pooler that gives sessions away after each transaction.
    """
    echo: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def hear(connection: Any, pid: int, channel: str, payload: str) -> None:
        if not echo.done():
            echo.set_result(None)

    await connection.add_listener(channel, hear)
    other = await place.connect(SETTINGS)
    try:
        async with asyncio.timeout(within):
            await other.execute(NOTIFY, channel, PROBE)
            await echo
    except TimeoutError:
        raise ConfigurationError(
            f"The {place.text} does not deliver notifications: a pooler in transaction mode stands before "
            "it; give PgBouncer pool_mode = session, or the server the address of PostgreSQL itself"
        ) from None
    finally:
        other.terminate()
    await connection.remove_listener(channel, hear)
