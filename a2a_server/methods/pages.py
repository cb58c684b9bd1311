"""The page tokens of ListTasks: where a page ended, sealed, so that a token is good for its owner and query alone."""

import asyncio
import hmac
import secrets
from hashlib import sha256

import msgspec
from msgspec import Struct

from a2a_server.protocol import base64url
from a2a_server.protocol import types as wire
from a2a_server.protocol.codec import encode
from a2a_server.protocol.errors import InvalidParams
from core.model.errors import Problem
from core.model.task import TreeHead
from core.storage.base import Document, Storage

KIND, KEY_ID = "secret", "page_tokens"
SEAL = 16  # bytes of the seal that a token carries


class _Cursor(Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The last row of a page: what its token says."""

    updated_at: float
    task_id: str


class Pages:
    """The tokens of one owner's query."""

    def __init__(self, key: bytes, query: bytes) -> None:
        self._key = key
        self._query = query

    def token(self, last: TreeHead) -> str:
        """The token of the page that ends with this tree."""
        cursor = msgspec.json.encode(_Cursor(last.updated_at, last.id))
        return base64url.encoded(self._seal(cursor) + cursor)

    def read(self, token: str) -> tuple[float, str]:
        """Where the page ended. Raises InvalidParams for anything that was not given for this very query."""
        try:
            data = base64url.decoded(token)
        except ValueError:  # not ASCII, not base64
            data = b""
        seal, cursor = data[:SEAL], data[SEAL:]
        if not hmac.compare_digest(seal, self._seal(cursor)):
            raise InvalidParams.of([Problem("pageToken", "is not a token that ListTasks returned for this query")])
        last = msgspec.json.decode(cursor, type=_Cursor)
        return last.updated_at, last.task_id

    def _seal(self, cursor: bytes) -> bytes:
        return hmac.digest(self._key, sha256(self._query).digest() + cursor, "sha256")[:SEAL]


class PageTokens:
    """Makes and reads tokens, with a key that is kept in the storage: they outlive the process."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._key: bytes | None = None
        self._opening = asyncio.Lock()

    async def of(self, owner: str, params: wire.ListTasksRequest) -> Pages:
        """The tokens for this owner and these filters."""
        filters = (owner, params.context_id, params.status, params.status_timestamp_after)
        return Pages(self._key or await self._stored_key(), encode(filters))

    async def _stored_key(self) -> bytes:
        async with self._opening:
            if self._key is None:
                stored = await self._storage.document(KIND, KEY_ID)
                if stored is None:  # another process may make one at the same time: the first is everybody's
                    made = Document(kind=KIND, id=KEY_ID, body=encode(secrets.token_hex(32)))
                    stored = await self._storage.put_new(made)
                self._key = bytes.fromhex(msgspec.json.decode(stored.body, type=str))
            return self._key
