"""Idempotent creation: a request that comes again under its key leads to the task that it made the first time.

What a key led to is a document, stored in the transaction that made the task: its row is the truth, also after a crash.
A lock for each key only spares concurrent senders of one process the conflict.
"""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.keyed import HEADER, no_key
from a2a_server.methods.access import OpenTasks
from a2a_server.protocol.errors import A2AError, InvalidParams
from core.loop.keyed_locks import KeyedLocks
from core.model.errors import CoreError, Problem
from core.session import Session
from core.storage.base import Document, DocumentQuery

KIND = "idempotency"
LONGEST_KEY = 255  # characters
PURGE_EVERY = 60.0  # seconds
PURGE_SIZE = 200  # expired keys that one purge removes at most

Documents = tuple[Document, ...]
Value = TypeVar("Value")

_canonical = msgspec.json.Encoder(order="deterministic").encode


class Made(Struct, frozen=True):
    """What a key led to: the task, and the digest of the request that made it."""

    digest: str
    task_id: str


class Claim(Struct, frozen=True, kw_only=True):
    """A request under a key."""

    id: str  # of the key's document: one for each owner and key
    owner: str
    digest: str
    source: str  # what the caller calls the key
    at: float

    def document(self, tree_id: str, task_id: str) -> Document:
        """What is stored with the task that the request makes, or hands its message to."""
        body = msgspec.json.encode(Made(self.digest, task_id))
        return Document(kind=KIND, id=self.id, owner=self.owner, tree_id=tree_id, at=self.at, body=body)


class Idempotency:
    """The keys of one server, known for `keep` seconds; with `by_message_id` a message's id is one, too."""

    def __init__(self, session: Session, *, keep: float, by_message_id: bool = False) -> None:
        self._session = session
        self._keep = keep
        self._by_message_id = by_message_id
        self._locks = KeyedLocks()
        self._purge_at = float("-inf")

    async def claim(
        self, context: RequestContext, operation: str, params: Any, *, message_id: str = ""
    ) -> Claim | None:
        """The claim that the request makes, None without a key. Raises InvalidParams for a key that is none.

        An owner has one request under a key, whatever its operation. The request's digest is that of the operation and
        its decoded params, not of the method, the binding and the envelope that brought them.
        """
        if (key := context.idempotency_key) is not None:
            if not 1 <= len(key) <= LONGEST_KEY or not (key.isascii() and key.isprintable()):
                text = f"must be 1 to {LONGEST_KEY} printable ASCII characters"
                raise no_key(text)
            source = HEADER
        elif self._by_message_id and message_id:
            key, source = message_id, "message.messageId"
        else:
            return None
        request = [operation, params]
        if context.aside is None:
            digest = _digest(request)
        else:
            digest = await context.aside.run(context.owner, _digest, request)
        return Claim(
            id=_digest([context.owner, source, key]),
            owner=context.owner,
            digest=digest,
            source=source,
            at=self._session.clock.now(),
        )

    async def once(
        self, claim: Claim | None, make: Callable[[], Awaitable[Value]], again: Callable[[str], Awaitable[Value]]
    ) -> Value:
        """What `make` makes, or, where the request came before, what `again` finds for the id of the task it led to.

        `make` stores the claim's document with what it makes. Raises InvalidParams when the key came with another
        request before.
        """
        if claim is None:
            return await make()
        async with self._locks.of(claim.id):
            if (known := await self._known(claim)) is not None:
                return await again(known)
            await self._purge()
            try:
                return await make()
            except (CoreError, A2AError):
                # Of one whose sender went away before it was stored, or that another process took at the same time: its
                # row refuses this one, or what it led to does.
                if (known := await self._known(claim)) is None:
                    raise
                return await again(known)

    async def _known(self, claim: Claim) -> str | None:
        storage = self._session.storage
        document = await storage.document(KIND, claim.id)
        if document is None:
            return None
        if document.at + self._keep <= claim.at:
            await storage.delete_documents((KIND, claim.id), expected=document)
            return None
        made = msgspec.json.decode(document.body, type=Made)
        if made.digest != claim.digest:
            raise InvalidParams.of([Problem(claim.source, "was already used for a different request; use a new key")])
        return made.task_id

    async def _purge(self) -> None:
        """Remove some of what has expired, now and then, so that what is kept stays bounded."""
        now = self._session.clock.now()
        if now < self._purge_at:
            return
        storage = self._session.storage
        expired = await storage.documents(DocumentQuery(kind=KIND, until=now - self._keep, limit=PURGE_SIZE))
        if len(expired) < PURGE_SIZE:  # else there is more to remove: go on with the next new key
            self._purge_at = now + PURGE_EVERY
        # Each by itself, and as it was: its key may have come again meanwhile.
        await asyncio.gather(*[storage.delete_documents((KIND, each.id), expected=each) for each in expired])


def _digest(value: Any) -> str:
    return sha256(_canonical(value)).hexdigest()


class Acceptance(NamedTuple):
    """What stands before new work: how many tasks its caller has open, and whether the request came before."""

    open_tasks: OpenTasks
    idempotency: Idempotency
