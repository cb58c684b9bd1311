"""The `keys.*` methods: API keys, for operators. Each acts for its own tenant, the server's (of tenant '') for all."""

import logging
from typing import Annotated, TypedDict

from msgspec import Meta, Struct

from a2a_server.auth.apikeys import ApiKeys
from a2a_server.auth.lifetimes import Lifetimes
from a2a_server.auth.stored_keys import ApiKey, Grant
from a2a_server.bindings.context import RequestContext
from a2a_server.bindings.jsonrpc import Method, NoParams
from a2a_server.edge.overload import CallKind
from a2a_server.protocol.errors import PermissionDenied
from core.model.timestamps import to_timestamp
from core.outside.clock import Clock

logger = logging.getLogger(__name__)

LONGEST_LIFE = 3_650 * 86_400.0  # seconds
LONGEST_GRACE = 30 * 86_400.0

Name = Annotated[str, Meta(min_length=1, max_length=300)]


class KeyObject(TypedDict):
    """An API key as callers and the command line see it; the key itself is stored nowhere."""

    id: str
    principal: str
    tenant: str
    is_operator: bool
    skills: list[str] | None
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    replaced_until: str | None
    last_characters: str


class NewKeyObject(KeyObject):
    """An API key with the text that proves it, which is shown this once."""

    key: str


class CreateKeyParams(Struct, frozen=True, kw_only=True):
    """Who the holder of the key is, and what the key is good for."""

    principal: Name
    tenant: Annotated[str, Meta(max_length=300)] | None = None  # None: the caller's own
    is_operator: bool = False
    skills: Annotated[tuple[Name, ...], Meta(max_length=1_000)] | None = None  # None: every skill
    expires_in: Annotated[float, Meta(gt=0, le=LONGEST_LIFE)] | None = None  # seconds


class KeyParams(Struct, frozen=True, kw_only=True):
    """One key."""

    id: Name


class RotateKeyParams(Struct, frozen=True, kw_only=True):
    """One key, and for how many seconds its old secret stays good."""

    id: Name
    grace: Annotated[float, Meta(ge=0, le=LONGEST_GRACE)] = 0.0


class KeysMethods:
    """The methods, over the keys of one server."""

    def __init__(self, keys: ApiKeys, lifetimes: Lifetimes, *, clock: Clock) -> None:
        self._keys = keys
        self._lifetimes = lifetimes
        self._clock = clock

    def table(self) -> list[Method]:
        """The methods, for the bindings."""
        return [
            Method(
                name="keys.create",
                handler=self.create,
                kind=CallKind.OTHER,
                params_type=CreateKeyParams,
                result_type=NewKeyObject,
                summary="Create an API key. Its secret is shown in this answer only.",
            ),
            Method(
                name="keys.list",
                handler=self.list_keys,
                kind=CallKind.OTHER,
                result_type=list[KeyObject],
                summary="List the API keys of the caller's tenant, without secrets (server operator: of all).",
            ),
            Method(
                name="keys.rotate",
                handler=self.rotate,
                kind=CallKind.OTHER,
                params_type=RotateKeyParams,
                result_type=NewKeyObject,
                summary="Give an API key a new secret; the old one stays valid for `grace` seconds.",
            ),
            Method(
                name="keys.revoke",
                handler=self.revoke,
                kind=CallKind.OTHER,
                params_type=KeyParams,
                result_type=KeyObject,
                summary="Revoke an API key; streams that were opened with it end.",
            ),
        ]

    async def create(self, context: RequestContext, params: CreateKeyParams) -> NewKeyObject:
        caller = context.principal
        grant = grant_of(params, self._clock, own_tenant=caller.tenant)
        if not caller.manages(grant.tenant):
            raise PermissionDenied(f"tenant: an operator can create keys only for its own tenant, {caller.tenant!r}")
        key, text = await self._keys.create(grant)
        logger.info("key %s for %r of tenant %r was created by %s", key.id, grant.principal, grant.tenant, _by(context))
        return {**key_object(key), "key": text}

    async def list_keys(self, context: RequestContext, params: NoParams) -> list[KeyObject]:
        return [key_object(key) for key in await self._keys.all(context.principal.manages)]

    async def rotate(self, context: RequestContext, params: RotateKeyParams) -> NewKeyObject:
        key, text = await self._keys.rotate(params.id, params.grace, context.principal.manages)
        self._lifetimes.end(key.id, params.grace)
        logger.info("key %s was rotated with %g s of grace by %s", key.id, params.grace, _by(context))
        return {**key_object(key), "key": text}

    async def revoke(self, context: RequestContext, params: KeyParams) -> KeyObject:
        key = await self._keys.revoke(params.id, context.principal.manages)
        self._lifetimes.end(key.id)
        logger.info("key %s was revoked by %s", key.id, _by(context))
        return key_object(key)


def grant_of(params: CreateKeyParams, clock: Clock, own_tenant: str) -> Grant:
    """What the key is to be good for."""
    return Grant(
        principal=params.principal,
        tenant=own_tenant if params.tenant is None else params.tenant,
        is_operator=params.is_operator,
        skills=params.skills,
        expires_at=None if params.expires_in is None else clock.now() + params.expires_in,
    )


def key_object(key: ApiKey) -> KeyObject:
    """A key as callers and the command line see it."""
    return {
        "id": key.id,
        "principal": key.grant.principal,
        "tenant": key.grant.tenant,
        "is_operator": key.grant.is_operator,
        "skills": None if key.grant.skills is None else list(key.grant.skills),
        "created_at": to_timestamp(key.created_at),
        "expires_at": _moment(key.grant.expires_at),
        "revoked_at": _moment(key.revoked_at),
        "replaced_until": _moment(key.replaced_until),
        "last_characters": key.last_characters,
    }


def _by(context: RequestContext) -> str:
    return f"{context.principal.id!r} of tenant {context.principal.tenant!r}"


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else to_timestamp(seconds)
