"""How callers authenticate, as the agent card tells it (A2A v1.0 §4.5). Pure."""

from a2a_server.auth.settings import JWT, KEY_HEADER, KEYS, AuthSettings
from a2a_server.protocol.security import (
    APIKeySecurityScheme,
    HTTPAuthSecurityScheme,
    OpenIdConnectSecurityScheme,
    SecurityRequirement,
    SecurityScheme,
    StringList,
)


def security_schemes(settings: AuthSettings) -> dict[str, SecurityScheme]:
    """What the server takes, by the names that it has in the card."""
    schemes: dict[str, SecurityScheme] = {}
    if KEYS in settings.auth:
        key = APIKeySecurityScheme(location="header", name=KEY_HEADER)
        schemes["apiKey"] = SecurityScheme(api_key_security_scheme=key)
    if JWT in settings.auth and settings.jwt_keys is None:
        issuer = OpenIdConnectSecurityScheme(open_id_connect_url=settings.discovery_url)
        schemes["openIdConnect"] = SecurityScheme(open_id_connect_security_scheme=issuer)
    if settings.auth:
        bearer = HTTPAuthSecurityScheme(scheme="Bearer", bearer_format="JWT" if settings.auth == (JWT,) else "")
        schemes["bearer"] = SecurityScheme(http_auth_security_scheme=bearer)
    return schemes


def security_requirements(settings: AuthSettings) -> list[SecurityRequirement]:
    """Any one of the schemes will do."""
    return [SecurityRequirement(schemes={name: StringList()}) for name in security_schemes(settings)]
