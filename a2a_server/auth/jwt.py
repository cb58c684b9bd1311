"""Tokens of an issuer (JWT, RFC 7519), judged by the rules of RFC 8725.

What a token says about its own keys (`jwk`, `jku`, `x5u`, `x5c`) is not looked at: the key is always one of the
issuer's. Claims are judged here, not by joserfc's JWTClaimsRegistry, so that the log says why a token was refused, and
the caller is told the same in every case.
"""

import binascii
from collections.abc import Mapping
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry
from msgspec import UNSET, Struct, UnsetType

from a2a_server.auth.errors import BadCredential
from a2a_server.auth.jwks import PublicKeys
from a2a_server.auth.principal import Principal
from a2a_server.auth.settings import AuthSettings
from a2a_server.protocol import base64url
from core.model.owners import owner_of
from core.outside.clock import Clock

LONGEST_TOKEN = 16 * 1024
LONGEST_NAME = 300  # characters of a principal or a tenant
LATEST = 1e11  # seconds since 1970; no real time is later
TYPES = frozenset({"jwt", "at+jwt"})  # other kinds of signed things must not pass for a token (RFC 8725 §3.11)


class _Header(Struct, frozen=True):
    """Of the token's header what is looked at."""

    alg: str
    kid: str | None = None
    typ: str | None = None
    crit: Any | UnsetType = UNSET


class _Algorithms(JWSRegistry):
    """The algorithms that are allowed and no others; unknown fields of the header are ignored (RFC 7515 §4).

    The library's own look-up warns at each use of `EdDSA`, whose name RFC 9864 retired; issuers still use it.
    """

    def __init__(self, allowed: frozenset[str]) -> None:
        super().__init__(algorithms=sorted(allowed), strict_check_header=False)
        self._names = allowed

    def get_alg(self, name: str) -> Any:  # the library does not export the type
        if name not in self._names:
            raise UnsupportedAlgorithmError
        return self.algorithms[name]


class JwtVerifier:
    """Says who holds a token of the issuer that the settings name."""

    def __init__(self, settings: AuthSettings, keys: PublicKeys, clock: Clock) -> None:
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._allowed = frozenset(settings.jwt_algorithms)
        self._registry = _Algorithms(self._allowed)

    async def principal(self, token: str) -> Principal:
        """Who shows this token. Raises BadCredential; Overloaded when the issuer's keys cannot be had."""
        header = self._header(token)
        key = await self._keys.find(header.kid, header.alg)
        if key is None:
            raise BadCredential("the issuer has no such key")
        try:
            payload = jws.deserialize_compact(token, key, registry=self._registry).payload
            claims = msgspec.json.decode(payload or b"", type=dict[str, Any])
        except JoseError as error:
            raise BadCredential(f"its signature is not valid ({error.error})") from None
        except (ValueError, RecursionError):
            raise BadCredential("its content is not JSON") from None
        return self._principal(claims, self._expiry(claims))

    async def close(self) -> None:
        """Stop reading keys."""
        await self._keys.close()

    def _header(self, token: str) -> _Header:
        if len(token) > LONGEST_TOKEN:
            raise BadCredential(f"it is longer than {LONGEST_TOKEN} characters")
        parts = token.split(".")
        if len(parts) != 3:
            raise BadCredential("it does not look like a token")
        try:
            header = msgspec.json.decode(base64url.decoded(parts[0]), type=_Header)
        except (ValueError, binascii.Error, RecursionError):
            raise BadCredential("its header cannot be read") from None
        if header.alg not in self._allowed:
            raise BadCredential("its algorithm is not allowed")
        if header.crit is not UNSET:
            raise BadCredential("it requires an unknown extension (crit)")
        if header.typ is not None and header.typ.lower().removeprefix("application/") not in TYPES:
            raise BadCredential("its type (typ) is not that of a token")
        return header

    def _expiry(self, claims: Mapping[str, Any]) -> float:
        """When the token ends, by this process's time. Raises BadCredential when it is not valid here and now."""
        settings, now = self._settings, self._clock.wall()  # which the issuer's clock is compared with
        if claims.get("iss") != settings.jwt_issuer:
            raise BadCredential("its issuer (iss) is not accepted")
        audience = claims.get("aud")
        meant_for = audience if isinstance(audience, list) else [audience]
        if not any(name in settings.jwt_audience for name in meant_for if isinstance(name, str)):
            raise BadCredential("its audience (aud) is not this server")
        expires_at = _moment(claims, "exp")
        if expires_at is None:
            raise BadCredential("it has no expiry (exp)")
        if now >= expires_at + settings.jwt_leeway:
            raise BadCredential("it has expired")
        if (begins := _moment(claims, "nbf")) is not None and begins > now + settings.jwt_leeway:
            raise BadCredential("it is not valid yet")
        return self._clock.now() + (expires_at + settings.jwt_leeway - now)

    def _principal(self, claims: Mapping[str, Any], expires_at: float) -> Principal:
        settings = self._settings
        principal = _name(claims, settings.jwt_principal_claim)
        tenant = _name(claims, settings.jwt_tenant_claim) if settings.jwt_tenant_claim else ""
        skills = _words(claims, settings.jwt_skills_claim) if settings.jwt_skills_claim else None
        return Principal(
            id=principal,
            tenant=tenant,
            is_operator=settings.jwt_operator_role in _words(claims, settings.jwt_roles_claim),
            skills=skills,
            expires_at=expires_at,
            owner=owner_of(tenant, principal),
        )


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of that very name (it may be an address with dots), else `a.b` as b in the object a."""
    if name in claims:
        return claims[name]
    value: Any = claims
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _name(claims: Mapping[str, Any], claim: str) -> str:
    value = _claim(claims, claim)
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_NAME:
        raise BadCredential("it has no claim with the caller's identity")
    return value


def _words(claims: Mapping[str, Any], claim: str) -> frozenset[str]:
    """The words of a list, or of a text with spaces between them (RFC 8693 §4.2); none where there is no such claim."""
    value = _claim(claims, claim)
    given = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return frozenset(word for word in given if isinstance(word, str))


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= LATEST:  # type(): a bool is no time
        raise BadCredential("its time claims are not numbers")
    return float(value)
