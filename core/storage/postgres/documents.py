"""What the writer does with documents in PostgreSQL. Another process may do the same at the same time: rows decide."""

from collections.abc import Sequence

from core.model.errors import TaskNotFound
from core.storage import codec
from core.storage.base import Document
from core.storage.codec import Row
from core.storage.postgres.connect import Connection
from core.storage.postgres.dialect import QUERIES
from core.storage.postgres.statements import PUT_DOCUMENTS, PUT_NEW_DOCUMENTS, alone, columns_of

# Until the transaction ends nobody removes these trees; that they go on hinders nobody.
TREES = "SELECT id FROM trees WHERE id = ANY ($1::text[]) FOR KEY SHARE"
# The CRC is of all columns.
SWAP = (
    "UPDATE documents SET owner = $3, tree_id = $4, at = $5, body = $6, crc = $7 "
    "WHERE kind = $1 AND id = $2 AND crc = $8 AND body = $9 RETURNING 1"
)
LOCK = "SELECT 1 FROM documents WHERE kind = $1 AND id = $2 AND crc = $3 AND body = $4 FOR UPDATE"
DELETE = (
    "DELETE FROM documents AS d USING unnest($1::text[], $2::text[]) AS n(kind, id) "
    "WHERE d.kind = n.kind AND d.id = n.id RETURNING 1"
)


async def put(connection: Connection, documents: Sequence[Document]) -> None:
    """Store them, each in the place of the one before. Raises TaskNotFound."""
    await _require_trees(connection, documents)
    latest = {(document.kind, document.id): codec.document_row(document) for document in documents}
    if latest:
        await connection.fetch(alone(PUT_DOCUMENTS), *columns_of(list(latest.values())))


async def put_new(connection: Connection, document: Document) -> Document:
    """Store it, unless there is one, which is given back. Raises TaskNotFound."""
    query = QUERIES.document
    names = query.parameters({"kind": document.kind, "id": document.id})
    while True:
        if await _insert(connection, document):
            return document
        # It was stored by one whose transaction has ended, or it was gone again before this look.
        if (found := await connection.fetchrow(query.sql, *names)) is not None:
            return codec.read_document(found)


async def swap(
    connection: Connection, document: Document, expected: Document | None, others: Sequence[Document]
) -> bool:
    """Store it and the others where the stored one is as expected; whether it was. Raises TaskNotFound."""
    if expected is None:
        is_swapped = await _insert(connection, document)
    else:
        was: Row = codec.document_row(expected)
        row = codec.document_row(document)
        is_swapped = await connection.fetchval(SWAP, *row, was[-1], was[-2]) is not None
    if is_swapped and others:
        await put(connection, others)
    return is_swapped


async def delete(connection: Connection, names: Sequence[tuple[str, str]], expected: Document | None = None) -> int:
    """Remove those that are there, if the expected one is; how many there were."""
    if expected is not None:
        row = codec.document_row(expected)
        if await connection.fetchval(LOCK, *row[:2], row[-1], row[-2]) is None:
            return 0
    return len(await connection.fetch(DELETE, *columns_of(names))) if names else 0


async def _insert(connection: Connection, document: Document) -> bool:
    await _require_trees(connection, [document])
    rows = columns_of([codec.document_row(document)])
    return bool(await connection.fetch(alone(PUT_NEW_DOCUMENTS), *rows))


async def _require_trees(connection: Connection, documents: Sequence[Document]) -> None:
    wanted = {document.tree_id for document in documents if document.tree_id}
    if wanted:
        there = await connection.fetch(TREES, list(wanted))
        if missing := wanted - {row["id"] for row in there}:
            raise TaskNotFound(min(missing))
