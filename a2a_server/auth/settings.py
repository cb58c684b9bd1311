"""The settings of who may call: which credentials are taken, and how tokens of an issuer are read."""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from core.model.errors import ConfigurationError

KEYS, JWT = "keys", "jwt"
KEY_HEADER = "X-API-Key"  # a key is taken as a bearer token too
DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0 §4

# Signatures with a key pair only. An algorithm with a shared secret, and `none`, cannot even be written here.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
Name = Annotated[str, Meta(min_length=1)]


class AuthSettings(Struct, frozen=True, kw_only=True):
    """Part of the server's settings."""

    auth: tuple[Literal["keys", "jwt"], ...] = ()  # the credentials that are taken; none: callers are not identified
    jwt_issuer: str | None = None  # `iss` of every token; its keys are found through it where `jwt_keys` is not set
    jwt_audience: tuple[Name, ...] = ()  # one of them is in `aud` of every token
    jwt_keys: str | None = None  # the issuer's public keys (JWKS): a file or an address
    # What a token may be signed with.
    jwt_algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA", "Ed25519")
    jwt_leeway: Annotated[float, Meta(ge=0, le=60)] = 30.0  # seconds that clocks may differ
    # Which claims say what; `a.b` is b in the object a.
    jwt_principal_claim: Name = "sub"
    jwt_tenant_claim: Name | None = None  # none: all principals are of one tenant
    jwt_roles_claim: Name = "scope"  # the claim with a caller's roles
    jwt_operator_role: Name = "a2a:operator"  # who has it is an operator
    jwt_skills_claim: Name | None = None  # none: every skill

    @property
    def identifies_callers(self) -> bool:
        """Whether callers have to authenticate."""
        return bool(self.auth)

    @property
    def discovery_url(self) -> str:
        """Where the issuer describes itself."""
        return (self.jwt_issuer or "").rstrip("/") + DISCOVERY


def check_auth(settings: AuthSettings, source: Callable[[str], str]) -> None:
    """The rules that one setting's type cannot say. Raises ConfigurationError."""
    if JWT not in settings.auth:
        return
    if not settings.jwt_issuer:
        raise ConfigurationError(f"{source('jwt_issuer')}: is needed to accept tokens (auth: jwt)")
    if not settings.jwt_audience:
        raise ConfigurationError(f"{source('jwt_audience')}: is needed to accept tokens: theirs must be meant for us")
    if not settings.jwt_algorithms:
        raise ConfigurationError(f"{source('jwt_algorithms')}: name at least one")
    if settings.jwt_keys is None:
        check_address(settings.jwt_issuer, source("jwt_issuer"))
    elif is_address(settings.jwt_keys):
        check_address(settings.jwt_keys, source("jwt_keys"))
    elif not Path(settings.jwt_keys).is_file():
        raise ConfigurationError(f"{source('jwt_keys')}: there is no file {settings.jwt_keys}")


def is_address(text: str) -> bool:
    """Whether a setting means an address and no file."""
    return "://" in text


def check_address(url: str, source: str) -> None:
    """Keys that come over an open line could be anybody's: https, or http on this machine.

    Raises ConfigurationError.
    """
    try:
        address = urlsplit(url)
        host = address.hostname or ""
    except ValueError:
        raise ConfigurationError(f"{source}: is not an address") from None
    if not host or not (address.scheme == "https" or (address.scheme == "http" and is_loopback(host))):
        raise ConfigurationError(f"{source}: must be an https address (http only on this machine)")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name or address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
