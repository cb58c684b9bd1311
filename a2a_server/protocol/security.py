"""Security schemes and requirements, as the agent card tells them (A2A v1.0 §4.5; specification/a2a.proto)."""

from typing import Literal

from msgspec import field

from a2a_server.protocol.wire import Required, Wire, check_one_of


class APIKeySecurityScheme(Wire, frozen=True, kw_only=True):
    """A key in a header, a query parameter or a cookie of this name."""

    location: Literal["query", "header", "cookie"]
    name: Required
    description: str = ""


class HTTPAuthSecurityScheme(Wire, frozen=True, kw_only=True):
    """An HTTP authentication scheme, such as Bearer."""

    scheme: Required
    bearer_format: str = ""
    description: str = ""


class AuthorizationCodeOAuthFlow(Wire, frozen=True, kw_only=True):
    """RFC 6749 §4.1."""

    authorization_url: Required
    token_url: Required
    scopes: dict[str, str]
    refresh_url: str = ""
    pkce_required: bool = False


class ClientCredentialsOAuthFlow(Wire, frozen=True, kw_only=True):
    """RFC 6749 §4.4."""

    token_url: Required
    scopes: dict[str, str]
    refresh_url: str = ""


class DeviceCodeOAuthFlow(Wire, frozen=True, kw_only=True):
    """RFC 8628."""

    device_authorization_url: Required
    token_url: Required
    scopes: dict[str, str]
    refresh_url: str = ""


class ImplicitOAuthFlow(Wire, frozen=True, kw_only=True):
    """RFC 6749 §4.2. Deprecated."""

    authorization_url: str = ""
    scopes: dict[str, str] = {}
    refresh_url: str = ""


class PasswordOAuthFlow(Wire, frozen=True, kw_only=True):
    """RFC 6749 §4.3. Deprecated."""

    token_url: str = ""
    scopes: dict[str, str] = {}
    refresh_url: str = ""


class OAuthFlows(Wire, frozen=True, kw_only=True):
    """How a token is had: exactly one of the flows."""

    authorization_code: AuthorizationCodeOAuthFlow | None = None
    client_credentials: ClientCredentialsOAuthFlow | None = None
    device_code: DeviceCodeOAuthFlow | None = None
    implicit: ImplicitOAuthFlow | None = None
    password: PasswordOAuthFlow | None = None

    def __post_init__(self) -> None:
        check_one_of(self)


class OAuth2SecurityScheme(Wire, frozen=True, kw_only=True):
    """OAuth 2.0."""

    flows: OAuthFlows
    oauth2_metadata_url: str = ""
    description: str = ""


class OpenIdConnectSecurityScheme(Wire, frozen=True, kw_only=True):
    """OpenID Connect, by its discovery document."""

    open_id_connect_url: Required
    description: str = ""


class MutualTlsSecurityScheme(Wire, frozen=True, kw_only=True):
    """A client certificate."""

    description: str = ""


class SecurityScheme(Wire, frozen=True, kw_only=True):
    """How callers identify themselves: exactly one of the five."""

    api_key_security_scheme: APIKeySecurityScheme | None = None
    http_auth_security_scheme: HTTPAuthSecurityScheme | None = None
    oauth2_security_scheme: OAuth2SecurityScheme | None = None
    open_id_connect_security_scheme: OpenIdConnectSecurityScheme | None = None
    mtls_security_scheme: MutualTlsSecurityScheme | None = None

    def __post_init__(self) -> None:
        check_one_of(self)


class StringList(Wire, frozen=True, kw_only=True):
    """The scopes that are needed of one scheme."""

    scopes: list[str] = field(default_factory=list, name="list")


class SecurityRequirement(Wire, frozen=True, kw_only=True):
    """All of these schemes together; several requirements are alternatives."""

    schemes: dict[str, StringList] = {}
