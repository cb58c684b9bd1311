"""Sends what is to be written through the holder's connection, until it is known to be stored, or refused.

When the connection is lost under a statement, it is sent again over the next one; where it is refused then, a look at
the log tells whether it was stored the first time.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from core.model.errors import StorageError, StorageUnavailable
from core.storage import codec
from core.storage.base import Append
from core.storage.batch import RowsMissed
from core.storage.postgres.connect import ERRORS, UNSTORABLE, Connection, Fault, code_of, fault_of
from core.storage.postgres.holder import ConnectionLost, Holder
from core.storage.writes import Job

logger = logging.getLogger(__name__)

TRIES = 3  # of a statement that met a lock
NOT_JSON = "A value cannot be stored: it is not JSON"
UNWRITABLE = "The database cannot be written at this moment"

Value = TypeVar("Value")


class Sender:
    """Of one writer."""

    def __init__(self, holder: Holder) -> None:
        self._holder = holder

    async def append(self, sql: str, parameters: Sequence[Any], appends: Sequence[Append]) -> None:
        """The statement that stores the appends. Raises RowsMissed where one of them is refused."""
        is_resent = False
        while True:
            try:
                await self._run_on(lambda connection: connection.fetchval(sql, *parameters))
                return
            except ConnectionLost:
                is_resent = True
            except RowsMissed:
                if is_resent and await self._is_stored(appends):
                    return
                raise

    async def _is_stored(self, appends: Sequence[Append]) -> bool:
        """Whether it was stored, although the answer was lost: all of it is, where one event is, byte for byte."""
        event = next((append.events[-1] for append in appends if append.events), None)
        if event is None:
            return False
        body = codec.event_row(event)[codec.EVENT_BODY]
        look = "SELECT body FROM events WHERE tree_id = $1 AND seq = $2"
        while True:
            try:
                return bool(await self._run_on(lambda held: held.fetchval(look, event.tree_id, event.seq)) == body)
            except ConnectionLost:
                continue

    async def transaction(self, jobs: list[Job]) -> list[Any]:
        """What the jobs give, once they are durable. Raises what one of them raises."""
        number: int | None = None  # of the transaction that was under way when the connection was lost
        results: list[Any] = []

        async def work(connection: Connection) -> None:
            nonlocal number, results
            if number is not None and await _has_committed(connection, number):
                return
            number = None
            async with connection.transaction():
                results = [await job(connection) for job in jobs]
                number = await connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text::bigint")

        while True:
            try:
                await self._run_on(work)
                return results
            except ConnectionLost:
                continue

    async def _run_on(self, work: Callable[[Connection], Awaitable[Value]]) -> Value:
        """On the holder's connection, a few times where a lock is in the way. Its errors become ours.

        Raises ConnectionLost, RowsMissed, StorageUnavailable, StorageError.
        """
        for attempt in range(1, TRIES + 1):
            try:
                return await self._holder.run(work)
            except (*ERRORS, *UNSTORABLE) as error:
                fault = fault_of(error)
                if fault is Fault.BUSY and attempt < TRIES:
                    continue
                raise self._refusal(fault, error) from error
        raise AssertionError("unreachable")

    def _refusal(self, fault: Fault, error: BaseException) -> StorageError:
        match fault:
            case Fault.REFUSED:
                return RowsMissed()
            case Fault.UNSTORABLE:
                return self.unstorable(error)
            case Fault.CORRUPT:
                return StorageError(f"The database is damaged ({code_of(error)})")
            case _:
                logger.error("a write to the %s failed: %s", self._holder.place.text, error)
                return StorageUnavailable(f"{UNWRITABLE} ({code_of(error)})")

    def unstorable(self, problem: BaseException) -> StorageError:
        """What the maker of such a value gets."""
        logger.error("a write to the %s cannot be stored: %s", self._holder.place.text, problem)
        return StorageError(NOT_JSON)


async def _has_committed(connection: Connection, number: int) -> bool:
    """Whether the transaction is stored; one that still ends is waited for."""
    while True:
        status = await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", str(number))
        if status != "in progress":
            return bool(status == "committed")
        await asyncio.sleep(0.05)
