"""The agent card that clients of both versions read: v1.0's fields, and beside them those that v0.3 looks for. Pure.

The two differ in names only, except that v0.3 tells the kind of a security scheme by `type`, as OpenAPI does, and v1.0
by the member it stands in: a hybrid scheme is written in both ways.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from a2a_server.protocol import types

PROTOCOL_VERSION = "0.3.0"
_OURS = "0.3"

Json = dict[str, Any]


def hybrid(card: types.AgentCard) -> Json:
    """The card as JSON. One without an interface that speaks v0.3 has nothing to say to its clients, and is v1.0's."""
    told: Json = msgspec.to_builtins(card)
    spoken = [each for each in card.supported_interfaces if each.protocol_version == _OURS]
    if not spoken:
        return told
    interfaces = [{"url": each.url, "transport": each.protocol_binding} for each in spoken]
    told |= {
        "protocolVersion": PROTOCOL_VERSION,
        "url": interfaces[0]["url"],
        "preferredTransport": interfaces[0]["transport"],
        "additionalInterfaces": interfaces,
        "supportsAuthenticatedExtendedCard": bool(card.capabilities.extended_agent_card),
        "capabilities": told["capabilities"] | {"stateTransitionHistory": False},
        "skills": [_with_security(skill) for skill in told["skills"]],
    }
    if "securitySchemes" in told:
        told["securitySchemes"] = {name: _scheme(scheme) for name, scheme in told["securitySchemes"].items()}
    return _with_security(told)


def _with_security(told: Json) -> Json:
    """What has `securityRequirements` gets them as v0.3's `security`, too."""
    if "securityRequirements" not in told:
        return told
    return told | {"security": [_requirement(each) for each in told["securityRequirements"]]}


def _requirement(requirement: Mapping[str, Any]) -> dict[str, list[str]]:
    return {name: list(scopes.get("list", ())) for name, scopes in requirement.get("schemes", {}).items()}


def _scheme(scheme: Json) -> Json:
    """The scheme with its OpenAPI form around it."""
    for member, open_api in _SCHEMES.items():
        if member in scheme:
            return open_api(scheme[member]) | scheme
    return scheme


def _named(kind: str, names: Iterable[str]) -> Callable[[Json], Json]:
    """The fields of these names, under `type`."""
    kept = (*names, "description")
    return lambda told: {"type": kind} | {name: told[name] for name in kept if name in told}


def _api_key(told: Json) -> Json:
    return _named("apiKey", ["name"])(told) | {"in": told["location"]}


_SCHEMES: Mapping[str, Callable[[Json], Json]] = {
    "apiKeySecurityScheme": _api_key,
    "httpAuthSecurityScheme": _named("http", ["scheme", "bearerFormat"]),
    "oauth2SecurityScheme": _named("oauth2", ["flows", "oauth2MetadataUrl"]),
    "openIdConnectSecurityScheme": _named("openIdConnect", ["openIdConnectUrl"]),
    "mtlsSecurityScheme": _named("mutualTLS", []),
}
