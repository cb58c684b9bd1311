"""The writing connection, which holds the database for this process, and comes back when it was lost.

A session-level advisory lock is taken on it. So who can write holds the lock, and a second server on the same database
is refused at its start. When the connection is lost, writes wait until it is there again, with its lock, and are
refused after `patience`. Where another process held the database meanwhile, this one writes no more: what it has in
memory is not the truth any longer.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

from core.model.errors import CoreError, DatabaseLost, StorageError, StorageUnavailable
from core.storage.postgres.claim import Claim
from core.storage.postgres.connect import ERRORS, Connection, Fault, Place, fault_of, pause_after

logger = logging.getLogger(__name__)

PATIENCE = 15.0  # seconds without a connection after which writes are refused
LOOK = 5.0  # seconds between two looks whether an idle connection is alive
ANSWER = 40.0  # seconds that a statement may take, the server's own limit of 30 included

Value = TypeVar("Value")


class ConnectionLost(Exception):
    """The connection ended under a statement: it may be stored, or not."""


class Fence:
    """What keeps this process from writing ever again. `reason`: why; None while it may write."""

    reason: str | None = None

    def close(self, reason: str) -> None:
        """May be called twice: the first reason counts."""
        if self.reason is None:
            self.reason = reason
            logger.critical("%s", reason)


class Holder:
    """Open it once; `run` may be called again and again, by one caller at a time or several.

    `prepare` is called with the first connection when the lock is held: migrations.
    """

    def __init__(self, place: Place, claim: Claim, *, patience: float = PATIENCE) -> None:
        self.place = place
        self._claim = claim
        self.identity = ""
        self.patience = patience
        self._connection: Connection | None = None
        self._busy = asyncio.Lock()
        self._is_there = asyncio.Event()
        self._wakes = asyncio.Event()  # the watch
        self._watch: asyncio.Task[None] | None = None
        self._lost_at: float | None = None
        self.fence = Fence()

    async def open(self, prepare: Callable[[Connection], Awaitable[None]]) -> None:
        """Raises ConfigurationError, StorageError or DatabaseInUse."""
        try:
            connection = await self._claim.connect()
        except (*ERRORS, ValueError) as error:
            raise self.place.refusal(error) from error
        try:
            self.identity = await self._claim.begin(connection, prepare)
        except BaseException as error:
            connection.terminate()
            if isinstance(error, ERRORS) and not isinstance(error, CoreError):
                raise self.place.refusal(error) from error
            raise
        self._use(connection)
        self._watch = asyncio.get_running_loop().create_task(self._keep_watch())

    async def close(self) -> None:
        """Give the database up."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        connection, self._connection = self._connection, None
        self._is_there.clear()
        if connection is not None and not connection.is_closed():
            with suppress(*ERRORS):  # the lock goes with it
                await connection.close(timeout=1.0)

    def abandon(self) -> Connection | None:
        """The connection, of which nothing is known here any more."""
        connection, self._connection = self._connection, None
        watch, self._watch = self._watch, None
        if watch is not None:
            watch._log_destroy_pending = False  # type: ignore[attr-defined]  # its event loop is gone
        return connection

    def refusal(self) -> str | None:
        """Why nothing can be written at this moment."""
        if self.fence.reason is not None:
            return self.fence.reason
        if self._lost_at is None:
            return None
        seconds = time.monotonic() - self._lost_at
        return f"The connection to the {self.place.text} is lost for {seconds:.0f} s; it is tried again"

    @property
    def gives_up_at(self) -> float:
        """When whoever waits for the database waits no longer, by `time.monotonic`."""
        return (time.monotonic() if self._lost_at is None else self._lost_at) + self.patience

    async def run(self, work: Callable[[Connection], Awaitable[Value]]) -> Value:
        """What it gives, as soon as there is a connection. One work at a time.

        Raises ConnectionLost, StorageUnavailable when there is none for too long, and what the work raises.
        """
        while True:
            await self._there()
            async with self._busy:
                if (connection := self._connection) is None or not self._is_there.is_set():
                    continue
                try:
                    async with asyncio.timeout(ANSWER):
                        return await work(connection)
                except (*ERRORS, TimeoutError) as error:
                    if connection.is_closed() or fault_of(error) is Fault.LOST:
                        self._lose(connection, error)
                        raise ConnectionLost from error
                    raise
                except asyncio.CancelledError:
                    self._lose(connection)
                    raise

    async def _there(self) -> None:
        if self.fence.reason is not None:
            raise DatabaseLost(self.fence.reason)
        if self._is_there.is_set():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(self.gives_up_at - time.monotonic()):
                await self._is_there.wait()
        if self.fence.reason is not None:
            raise DatabaseLost(self.fence.reason)
        if not self._is_there.is_set():
            raise StorageUnavailable(self.refusal() or f"The {self.place.text} cannot be written at this moment")

    def _use(self, connection: Connection) -> None:
        self._connection = connection
        self._lost_at = None
        connection.add_termination_listener(self._lose)
        self._is_there.set()

    def _lose(self, connection: Any, error: BaseException | None = None) -> None:
        if self._connection is None or connection is not self._connection:
            return
        self._connection = None
        self._is_there.clear()
        self._lost_at = time.monotonic()
        connection.terminate()
        if self._watch is not None:
            logger.warning("the connection to the %s is lost: %s", self.place.text, error or "it was closed")
            self._wakes.set()

    async def _keep_watch(self) -> None:
        """Look whether the connection is alive, and get another one where it is not."""
        while True:
            if self.fence.reason is None and not self._is_there.is_set():
                await self._come_back()
            self._wakes.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK):
                    await self._wakes.wait()
            if self._is_there.is_set() and not self._busy.locked():
                with suppress(ConnectionLost, StorageError, *ERRORS):
                    await self.run(lambda connection: connection.execute("SELECT 1", timeout=LOOK))

    async def _come_back(self) -> None:
        tries = 0
        said = ""
        while self.fence.reason is None:
            try:
                connection = await self._claim.again()
            except (*ERRORS, CoreError) as error:
                if str(error) != said:
                    said = str(error)
                    logger.warning("the %s cannot be used yet: %s", self.place.text, said)
                await asyncio.sleep(pause_after(tries))
                tries += 1
                continue
            if connection is None:
                self.fence.close(
                    f"The {self.place.text} was taken over by another server while the connection was lost: "
                    "restart this one when the other has ended"
                )
                return
            self._use(connection)
            logger.warning("the connection to the %s is there again", self.place.text)
            return
