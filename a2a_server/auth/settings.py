"""The settings of authentication: which credentials are accepted, and how an issuer's tokens are read."""

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from a2a_server.protocol.web_url import web_url
from core.model.errors import ConfigurationError

KEYS, JWT = "keys", "jwt"
KEY_HEADER = "X-API-Key"  # a key is taken as a bearer token too
DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0 §4

# Signatures with a key pair only. An algorithm with a shared secret, and `none`, cannot even be written here.
Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"]
Name = Annotated[str, Meta(min_length=1)]


class AuthSettings(Struct, frozen=True, kw_only=True):
    """Part of the server's settings."""

    auth: tuple[Literal["keys", "jwt"], ...] = ()  # accepted credentials: keys, jwt; empty: no authentication
    jwt_issuer: str | None = None  # required `iss` of tokens; without `jwt_keys` its keys are discovered there
    jwt_audience: tuple[Name, ...] = ()  # tokens must have one of these in `aud`
    jwt_keys: str | None = None  # the issuer's public keys (JWKS): a file or a URL
    # Accepted signature algorithms of tokens.
    jwt_algorithms: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA", "Ed25519")
    jwt_leeway: Annotated[float, Meta(ge=0, le=60)] = 30.0  # tolerated clock difference in seconds
    # The claim with the caller's identity; in every claim setting, `a.b` is b in the object a.
    jwt_principal_claim: Name = "sub"
    jwt_tenant_claim: Name | None = None  # claim with the tenant; none: all callers are of one tenant
    jwt_roles_claim: Name = "scope"  # claim with the caller's roles
    jwt_operator_role: Name = "a2a:operator"  # role that makes a caller an operator
    jwt_skills_claim: Name | None = None  # claim with the skills a caller may use; none: all

    @property
    def identifies_callers(self) -> bool:
        """Whether callers must authenticate."""
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
        raise ConfigurationError(f"{source('jwt_issuer')}: required by auth = jwt")
    if not settings.jwt_audience:
        raise ConfigurationError(
            f"{source('jwt_audience')}: required by auth = jwt; tokens must be issued for this server"
        )
    if not settings.jwt_algorithms:
        raise ConfigurationError(f"{source('jwt_algorithms')}: name at least one")
    if settings.jwt_keys is None:
        check_address(settings.jwt_issuer, source("jwt_issuer"))
    elif is_address(settings.jwt_keys):
        check_address(settings.jwt_keys, source("jwt_keys"))
    elif not Path(settings.jwt_keys).is_file():
        raise ConfigurationError(f"{source('jwt_keys')}: the file {settings.jwt_keys} does not exist")


def is_address(text: str) -> bool:
    """Whether a setting is a URL, not a file."""
    return "://" in text


def check_address(url: str, source: str) -> None:
    """Keys need a protected connection: https, or http on loopback.

    Raises ConfigurationError.
    """
    try:
        address = web_url(url)
    except ValueError as error:
        raise ConfigurationError(f"{source}: {error}") from None
    if address.scheme != "https" and not is_loopback(address.hostname or ""):
        raise ConfigurationError(f"{source}: must be an https URL (http only on loopback)")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine by its very name or address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
