"""How a caller shows who he is, as the agent card tells it (A2A v1.0 §4.5): JSON as on the wire. Pure."""

from typing import Any

from a2a_server.auth.settings import JWT, KEY_HEADER, KEYS, AuthSettings


def security_schemes(settings: AuthSettings) -> dict[str, dict[str, Any]]:
    """`securitySchemes` of the card: by name, what the server takes."""
    schemes: dict[str, dict[str, Any]] = {}
    if KEYS in settings.auth:
        schemes["apiKey"] = {"apiKeySecurityScheme": {"location": "header", "name": KEY_HEADER}}
    if JWT in settings.auth and settings.jwt_keys is None:
        schemes["openIdConnect"] = {"openIdConnectSecurityScheme": {"openIdConnectUrl": settings.discovery_url}}
    if settings.auth:
        bearer = {"scheme": "Bearer"} | ({"bearerFormat": "JWT"} if settings.auth == (JWT,) else {})
        schemes["bearer"] = {"httpAuthSecurityScheme": bearer}
    return schemes


def security_requirements(settings: AuthSettings) -> list[dict[str, Any]]:
    """`securityRequirements` of the card: any one of the schemes will do."""
    return [{"schemes": {name: {"list": []}}} for name in security_schemes(settings)]
