"""An API key as it is stored."""

import msgspec
from msgspec import Struct

from core.model.owners import owner_of
from core.storage.base import Document

KIND = "api_key"


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


def written(key: ApiKey) -> Document:
    """To be stored, as its principal's."""
    owner = owner_of(key.grant.tenant, key.grant.principal)
    return Document(kind=KIND, id=key.id, owner=owner, at=key.created_at, body=msgspec.json.encode(key))


def read_key(document: Document) -> ApiKey:
    """What was written so."""
    return msgspec.json.decode(document.body, type=ApiKey)
