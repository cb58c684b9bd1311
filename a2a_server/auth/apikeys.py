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

from msgspec.structs import replace

from a2a_server.auth.errors import BadCredential
from a2a_server.auth.known_keys import KnownKeys
from a2a_server.auth.principal import Principal
from a2a_server.auth.stored_keys import KIND, ApiKey, Grant, read_key, written
from core.model.errors import CallerError
from core.model.owners import owner_of
from core.outside.clock import Clock
from core.storage.base import DocumentQuery, Documents, document_pages

PREFIX = "a2a_"
PAGE = 500
MOST_KEYS = 1_000  # of one tenant, unless the operator says otherwise
_FORM = re.compile(r"a2a_([0-9a-f]{16})_[0-9a-f]{64}")
_NO_DIGEST = bytes(32)


class KeyNotFound(CallerError):
    """There is no key with this id."""


class TooManyKeys(CallerError):
    """The tenant has as many keys as it may have, and all of them are good."""


class ApiKeys:
    """The keys in one storage. `known`: those that callers show.

    A tenant has `limit` keys at most. Those that are good for nothing any more make room for new ones.
    """

    def __init__(
        self, storage: Documents, clock: Clock, limit: int = MOST_KEYS, known: KnownKeys | None = None
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._limit = limit
        self._known = known or KnownKeys(storage, clock)
        self._creating = asyncio.Lock()  # a new key counts those that there are

    async def create(self, grant: Grant) -> tuple[ApiKey, str]:
        """A new key, and its text, which is nowhere else. Raises TooManyKeys."""
        key_id = secrets.token_hex(8)
        text, digest = _new_text(key_id)
        key = ApiKey(id=key_id, grant=grant, created_at=self._clock.now(), digest=digest, last_characters=text[-4:])
        async with self._creating:
            await self._make_room(grant.tenant)
            await self._storage.put_documents(written(key))
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
            self._known.forget(key.id)

    async def rotate(
        self, key_id: str, grace: float = 0.0, manages: Callable[[str], bool] = lambda tenant: True
    ) -> tuple[ApiKey, str]:
        """A new secret for the key; the old one stays good for so many seconds.

        Raises KeyNotFound, also for a key of a tenant that the caller does not manage.
        """
        text, digest = _new_text(key_id)

        def rotated(key: ApiKey) -> ApiKey:
            if key.revoked_at is not None:
                raise KeyNotFound(f"the key {key_id} is revoked; create a new one")
            return replace(
                key,
                digest=digest,
                last_characters=text[-4:],
                replaced=key.digest if grace > 0 else None,
                replaced_until=self._clock.now() + grace if grace > 0 else None,
            )

        return await self._change(key_id, manages, rotated), text

    async def revoke(self, key_id: str, manages: Callable[[str], bool] = lambda tenant: True) -> ApiKey:
        """The key is good for nothing any more; doing it again changes nothing. Raises KeyNotFound as `rotate` does."""

        def revoked(key: ApiKey) -> ApiKey:
            if key.revoked_at is not None:
                return key
            return replace(key, revoked_at=self._clock.now(), replaced=None, replaced_until=None)

        return await self._change(key_id, manages, revoked)

    async def all(self, manages: Callable[[str], bool] = lambda tenant: True) -> list[ApiKey]:
        """Every key of the tenants that the caller manages, revoked and expired ones too, oldest first."""
        pages = document_pages(self._storage, DocumentQuery(kind=KIND, limit=PAGE))
        keys = [read_key(document) async for page in pages for document in page]
        return [key for key in keys if manages(key.grant.tenant)]

    async def principal(self, text: str) -> Principal:
        """Who shows this key. Raises BadCredential."""
        if not (matched := _FORM.fullmatch(text)):
            raise BadCredential("it does not look like a key")
        key = await self._known.find(matched[1])
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

    async def _change(self, key_id: str, manages: Callable[[str], bool], change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        """Store what the change makes of the key, as it is then. Raises KeyNotFound."""
        while True:
            document = await self._storage.document(KIND, key_id)
            key = None if document is None else read_key(document)
            if key is None or not manages(key.grant.tenant):
                raise KeyNotFound(f"unknown key {key_id!r}")
            changed = change(key)
            if changed is key or await self._storage.swap(written(changed), document):
                self._known.forget(key_id)
                return changed


def _new_text(key_id: str) -> tuple[str, bytes]:
    text = f"{PREFIX}{key_id}_{secrets.token_hex(32)}"
    return text, sha256(text.encode()).digest()
