"""The documents of a database, beside whoever runs its trees: what a command changes while servers use them."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from core.model.errors import CoreError, StorageUnavailable
from core.storage import codec
from core.storage.base import Document, DocumentQuery
from core.storage.postgres import documents
from core.storage.postgres.claim import SYNCED, WRITER_SETTINGS
from core.storage.postgres.connect import ERRORS, Connection, Place
from core.storage.postgres.dialect import QUERIES
from core.storage.postgres.migrate import stored_revision
from core.storage.postgres.storage import PostgresStorage
from core.storage.relational.storage import readable
from core.storage.tables import REVISIONS
from core.storage.write_queue import CLOSED

Value = TypeVar("Value")


class Beside:
    """`Documents` over one connection, each change a transaction. It holds nothing: rows decide who was first."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._place = Place(url)
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Raises ConfigurationError and StorageError; DatabaseInUse when a server holds one that has to be migrated."""
        try:
            connection = await self._place.connect({**WRITER_SETTINGS, "application_name": "a2a-server command"})
        except (*ERRORS, ValueError) as error:
            raise self._place.refusal(error) from error
        self._connection = connection
        try:
            await self._place.check(connection)
            await connection.execute(SYNCED)
            if await stored_revision(self._place, connection) != REVISIONS[-1]:
                storage = PostgresStorage(self._url)
                await storage.open()
                await storage.close()
        except BaseException as error:
            await self.close()
            if isinstance(error, ERRORS) and not isinstance(error, CoreError):
                raise self._place.refusal(error) from error
            raise

    async def close(self) -> None:
        """May be called twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def document(self, kind: str, document_id: str) -> Document | None:
        names = QUERIES.document.parameters({"kind": kind, "id": document_id})
        rows = await self._run(lambda connection: connection.fetch(QUERIES.document.sql, *names))
        return codec.read_document(rows[0]) if rows else None

    async def documents(self, query: DocumentQuery) -> list[Document]:
        sql, parameters = QUERIES.document_list(query)
        return await readable(
            await self._run(lambda connection: connection.fetch(sql, *parameters)), codec.read_document
        )

    async def put_documents(self, *given: Document) -> None:
        await self._run(lambda connection: documents.put(connection, given))

    async def put_new(self, document: Document) -> Document:
        return await self._run(lambda connection: documents.put_new(connection, document))

    async def swap(self, document: Document, expected: Document | None, *others: Document) -> bool:
        return await self._run(lambda connection: documents.swap(connection, document, expected, others))

    async def delete_documents(self, *names: tuple[str, str], expected: Document | None = None) -> int:
        return await self._run(lambda connection: documents.delete(connection, names, expected))

    async def _run(self, work: Callable[[Connection], Awaitable[Value]]) -> Value:
        """What it gives, once it is durable. Raises StorageUnavailable, and what the work raises."""
        if self._connection is None:
            raise StorageUnavailable(CLOSED)
        try:
            async with self._connection.transaction():
                return await work(self._connection)
        except ERRORS as error:
            raise self._place.refusal(error) from error
