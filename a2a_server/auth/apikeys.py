"""API keys: made here, shown once, kept as a hash.

A key is `a2a_<id>_<secret>`: it is found by its id, and secret scanners find it by its form. The secret has 256 random
bits, so one SHA-256 is the right hash for it: nobody can try that many, and what makes hashes of passwords slow (people
choose few of them) would only make each request slow.
"""

import asyncio
import hmac
import re
import secrets
from collections.abc import Callable
from hashlib import sha256

import msgspec
from cachetools import LRUCache
from msgspec import Struct
from msgspec.structs import replace

from a2a_server.auth.errors import BadCredential
from a2a_server.auth.principal import Principal
from core.model.errors import CallerError
from core.model.owners import owner_of
from core.outside.clock import Clock
from core.storage.base import Document, DocumentQuery, Storage, document_pages

KIND = "api_key"
PREFIX = "a2a_"
PAGE = 500
MOST_CACHED = 10_000  # keys, those that were used last
MOST_KEYS = 1_000  # of one tenant, unless the operator says otherwise
_FORM = re.compile(r"a2a_([0-9a-f]{16})_[0-9a-f]{64}")
_NO_DIGEST = bytes(32)


class KeyNotFound(CallerError):
    """There is no key with this id."""


class TooManyKeys(CallerError):
    """The tenant has as many keys as it may have, and all of them are good."""


class Grant(Struct, frozen=True, kw_only=True):
    """What a key allows: its holder is this principal."""

    principal: str
    tenant: str = ""
    is_operator: bool = False
    skills: tuple[str, ...] | None = None  # None: every skill
    expires_at: float | None = None  # seconds since 1970


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key as it is stored; the secret is not in it."""

    id: str
    grant: Grant
    created_at: float
    digest: bytes  # SHA-256 of the key's text
    last_characters: str  # of the secret, by which people know it again
    revoked_at: float | None = None
    replaced: bytes | None = None  # the digest before the last rotation,
    replaced_until: float | None = None  # and until when that is still good

    def is_spent(self, now: float) -> bool:
        """Whether it is good for nothing any more."""
        return self.revoked_at is not None or (self.grant.expires_at is not None and self.grant.expires_at <= now)


class ApiKeys:
    """The keys in one storage. Only the process that holds the storage changes them, so what is cached stays true.

    A tenant has `limit` keys at most. Those that are good for nothing any more make room for new ones.
    """

    def __init__(self, storage: Storage, clock: Clock, limit: int = MOST_KEYS) -> None:
        self._storage = storage
        self._clock = clock
        self._limit = limit
        self._changing = asyncio.Lock()  # a change reads, decides and writes
        self._cached: LRUCache[str, ApiKey] = LRUCache(MOST_CACHED)
        self._changes = 0

    async def create(self, grant: Grant) -> tuple[ApiKey, str]:
        """A new key, and its text, which is nowhere else. Raises TooManyKeys."""
        key_id = secrets.token_hex(8)
        text, digest = _new_text(key_id)
        key = ApiKey(id=key_id, grant=grant, created_at=self._clock.now(), digest=digest, last_characters=text[-4:])
        async with self._changing:
            await self._make_room(grant.tenant)
            await self._put(key)
        return key, text

    async def _make_room(self, tenant: str) -> None:
        """Remove keys of the tenant that are good for nothing, the oldest first, until one more fits."""
        now = self._clock.now()
        keys = await self.all(lambda of: of == tenant)
        surplus = len(keys) + 1 - self._limit
        spent = [key for key in keys if key.is_spent(now)][: max(0, surplus)]
        if len(spent) < surplus:
            text = f"the tenant {tenant!r} has {self._limit} valid keys, the maximum for a tenant (max_keys)"
            raise TooManyKeys(f"{text}; revoke one first")
        for key in spent:
            await self._storage.delete_documents((KIND, key.id))
            self._changes += 1
            self._cached.pop(key.id, None)

    async def rotate(
        self, key_id: str, grace: float = 0.0, manages: Callable[[str], bool] = lambda tenant: True
    ) -> tuple[ApiKey, str]:
        """A new secret for the key; the old one stays good for so many seconds.

        Raises KeyNotFound, also for a key of a tenant that the caller does not manage.
        """
        async with self._changing:
            key = await self._stored(key_id, manages)
            if key.revoked_at is not None:
                raise KeyNotFound(f"the key {key_id} is revoked; create a new one")
            text, digest = _new_text(key_id)
            key = replace(
                key,
                digest=digest,
                last_characters=text[-4:],
                replaced=key.digest if grace > 0 else None,
                replaced_until=self._clock.now() + grace if grace > 0 else None,
            )
            await self._put(key)
        return key, text

    async def revoke(self, key_id: str, manages: Callable[[str], bool] = lambda tenant: True) -> ApiKey:
        """The key is good for nothing any more; doing it again changes nothing. Raises KeyNotFound as `rotate` does."""
        async with self._changing:
            key = await self._stored(key_id, manages)
            if key.revoked_at is None:
                key = replace(key, revoked_at=self._clock.now(), replaced=None, replaced_until=None)
                await self._put(key)
        return key

    async def all(self, manages: Callable[[str], bool] = lambda tenant: True) -> list[ApiKey]:
        """Every key of the tenants that the caller manages, revoked and expired ones too, oldest first."""
        pages = document_pages(self._storage, DocumentQuery(kind=KIND, limit=PAGE))
        keys = [_decoded(document) async for page in pages for document in page]
        return [key for key in keys if manages(key.grant.tenant)]

    async def principal(self, text: str) -> Principal:
        """Who shows this key. Raises BadCredential."""
        if not (matched := _FORM.fullmatch(text)):
            raise BadCredential("it does not look like a key")
        key = await self._find(matched[1])
        digest = sha256(text.encode()).digest()
        # Compared for an unknown key as well, and both always, so that the time tells nothing.
        is_current = hmac.compare_digest(digest, key.digest if key else _NO_DIGEST)
        is_replaced = hmac.compare_digest(digest, (key.replaced if key else None) or _NO_DIGEST)
        if key is None:
            raise BadCredential("the key is unknown")
        now, grant = self._clock.now(), key.grant
        ends = [at for at in (grant.expires_at, key.replaced_until if is_replaced else None) if at is not None]
        if not (is_current or is_replaced):
            raise BadCredential(f"the secret of key {key.id} is wrong")
        if key.revoked_at is not None:
            raise BadCredential(f"key {key.id} is revoked")
        if ends and min(ends) <= now:
            raise BadCredential(f"key {key.id} has expired")
        return Principal(
            id=grant.principal,
            tenant=grant.tenant,
            is_operator=grant.is_operator,
            skills=None if grant.skills is None else frozenset(grant.skills),
            expires_at=min(ends, default=None),
            credential=key.id,
            owner=owner_of(grant.tenant, grant.principal),
        )

    async def _find(self, key_id: str) -> ApiKey | None:
        if (key := self._cached.get(key_id)) is not None:
            return key
        changes = self._changes
        document = await self._storage.document(KIND, key_id)
        if document is None:
            return None
        key = _decoded(document)
        if changes == self._changes:  # else it may have been changed while it was read
            self._cached[key_id] = key
        return key

    async def _stored(self, key_id: str, manages: Callable[[str], bool]) -> ApiKey:
        document = await self._storage.document(KIND, key_id)
        key = None if document is None else _decoded(document)
        if key is None or not manages(key.grant.tenant):
            raise KeyNotFound(f"unknown key {key_id!r}")
        return key

    async def _put(self, key: ApiKey) -> None:
        owner = owner_of(key.grant.tenant, key.grant.principal)
        body = msgspec.json.encode(key)
        await self._storage.put_documents(Document(kind=KIND, id=key.id, owner=owner, at=key.created_at, body=body))
        self._changes += 1
        self._cached.pop(key.id, None)


def _new_text(key_id: str) -> tuple[str, bytes]:
    text = f"{PREFIX}{key_id}_{secrets.token_hex(32)}"
    return text, sha256(text.encode()).digest()


def _decoded(document: Document) -> ApiKey:
    return msgspec.json.decode(document.body, type=ApiKey)
