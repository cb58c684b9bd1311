"""The reading connections, in two lanes as in SQLite: reads by key, and lists, which have a time after which they end.

One that was lost is made anew, and its read repeated, until the database is away for too long.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.loop.origin import CALLER
from core.model.errors import QueryTooLong, StorageError, StorageUnavailable
from core.storage.base import LIST_SECONDS, READS_PER_CALLER
from core.storage.connections import SharedConnections
from core.storage.postgres.connect import ERRORS, Connection, Fault, Place, code_of, fault_of
from core.storage.write_queue import CLOSED

CONNECTIONS = 3  # for reads by key
LIST_CONNECTIONS = 1
PAUSE = 0.1  # seconds between two tries to connect
ANSWER = 40.0  # seconds that a read may take, the server's own limit of 30 included

Value = TypeVar("Value")


class Unfindable(StorageError):
    """Nothing can have such a key: the database has no such text."""


class _Slot:
    """Room for one connection, which is made when it is needed."""

    def __init__(self, place: Place, timeout: str) -> None:
        self._place = place
        self._settings = {"statement_timeout": timeout, "application_name": "a2a-server reader"}
        self._connection: Connection | None = None

    async def connection(self) -> Connection:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._place.connect(self._settings)
            except ERRORS as error:  # whatever it is, it may be over in a moment
                raise ConnectionRefusedError(str(error)) from error
        return self._connection

    def drop(self) -> None:
        connection = self.leave()
        if connection is not None:
            connection.terminate()

    def leave(self) -> Connection | None:
        connection, self._connection = self._connection, None
        return connection


class ReadPool:
    """Makes the connections, lends them, and repeats reads. `gives_up_at`: until when, by `time.monotonic`."""

    def __init__(self, place: Place, gives_up_at: Callable[[], float], *, list_seconds: float = LIST_SECONDS) -> None:
        self._gives_up_at = gives_up_at
        self._list_seconds = list_seconds
        self._shared: SharedConnections[_Slot] = SharedConnections(READS_PER_CALLER)
        self._shared_for_lists: SharedConnections[_Slot] = SharedConnections(LIST_CONNECTIONS)
        timeout = f"{round(list_seconds * 1000)}ms"
        by_key = [_Slot(place, "30s") for _ in range(CONNECTIONS)]
        lists = [_Slot(place, timeout) for _ in range(LIST_CONNECTIONS)]
        for shared, slots in ((self._shared, by_key), (self._shared_for_lists, lists)):
            for slot in slots:
                shared.add(slot)
        self._slots = [*by_key, *lists]
        self._is_open = True

    async def close(self) -> None:
        """Ends reads that are under way."""
        self._is_open = False
        for slot in self._slots:
            slot.drop()

    def abandon(self) -> list[Connection]:
        """The connections, of which nothing is known here any more."""
        self._is_open = False
        return [connection for slot in self._slots if (connection := slot.leave()) is not None]

    async def read(self, work: Callable[[Connection], Awaitable[Value]], *, is_list: bool = False) -> Value:
        """What the work gives. Raises Unfindable, StorageUnavailable, StorageError, and of lists QueryTooLong."""
        if not self._is_open:
            raise StorageUnavailable(CLOSED)
        shared = self._shared_for_lists if is_list else self._shared
        caller = CALLER.get()
        slot = await shared.take(caller)
        began_at = time.monotonic()
        try:
            while True:
                try:
                    async with asyncio.timeout(ANSWER):
                        return await work(await slot.connection())
                except (*ERRORS, ValueError) as error:
                    await self._after(slot, error, began_at, is_list=is_list)
        finally:
            shared.give(caller, slot)

    async def _after(self, slot: _Slot, error: BaseException, began_at: float, *, is_list: bool) -> None:
        """Come back when the read may be tried again; raises what its caller gets otherwise."""
        fault = fault_of(error)
        if not self._is_open:
            raise StorageUnavailable(CLOSED) from error
        if fault is Fault.TOO_LONG and is_list:
            raise QueryTooLong(self._list_seconds) from error
        if fault is Fault.LOST:
            slot.drop()
            if time.monotonic() < min(self._gives_up_at(), began_at + ANSWER):
                await asyncio.sleep(PAUSE)
                return
        elif fault is Fault.BUSY and time.monotonic() < began_at + ANSWER:
            return
        if fault is Fault.UNSTORABLE:
            raise Unfindable(f"The database cannot be asked for this ({code_of(error)})") from error
        is_passing = fault in (Fault.LOST, Fault.BUSY, Fault.UNAVAILABLE, Fault.TOO_LONG)
        kind = StorageUnavailable if is_passing else StorageError
        raise kind(f"The database cannot be read ({code_of(error)})") from error
