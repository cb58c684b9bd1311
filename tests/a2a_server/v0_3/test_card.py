"""The hybrid card: all of v1.0's card, and what v0.3 looks for beside it."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from a2a_server.protocol import types
from a2a_server.protocol.codec import decode
from a2a_server.v0_3.card import hybrid

URL = "http://127.0.0.1:8000/"
SCHEMES: dict[str, Any] = {
    "key": {"apiKeySecurityScheme": {"location": "header", "name": "X-API-Key", "description": "ours"}},
    "bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer", "bearerFormat": "JWT"}},
    "oauth": {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"tokenUrl": "https://x/t", "scopes": {}}}}},
    "oidc": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "https://x/.well-known/openid-configuration"}},
    "tls": {"mtlsSecurityScheme": {}},
}
REQUIREMENTS = [{"schemes": {"oauth": {"list": ["read"]}, "key": {}}}, {"schemes": {"tls": {}}}]


def card(**fields: Any) -> types.AgentCard:
    interfaces = [
        {"url": URL, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": URL, "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
        {"url": URL.rstrip("/"), "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
    ]
    given = {
        "name": "agent",
        "description": "An agent.",
        "version": "1",
        "supportedInterfaces": interfaces,
        "capabilities": {"streaming": True, "extendedAgentCard": True},
        "defaultInputModes": ["text/plain"],
        "defaultOutputModes": ["text/plain"],
        "skills": [{"id": "s", "name": "s", "description": "s", "tags": ["s"]}],
    }
    return decode(given | fields, types.AgentCard)


def test_v1_card_is_all_there() -> None:
    """A client that reads it as v1.0 and ignores what it does not know reads the same card."""
    whole = card(securitySchemes=SCHEMES, securityRequirements=REQUIREMENTS)
    assert decode(hybrid(whole), types.AgentCard) == whole


def test_v0_3_fields_stand_beside_it() -> None:
    told = hybrid(card())
    assert {name: told[name] for name in told.keys() - msgspec.to_builtins(card()).keys()} == {
        "protocolVersion": "0.3.0",
        "url": URL,
        "preferredTransport": "JSONRPC",
        "additionalInterfaces": [{"url": URL, "transport": "JSONRPC"}],
        "supportsAuthenticatedExtendedCard": True,
    }
    assert told["capabilities"]["stateTransitionHistory"] is False


def test_security_schemes_say_their_type_as_open_api_does() -> None:
    told = hybrid(card(securitySchemes=SCHEMES))["securitySchemes"]
    added = {name: {k: v for k, v in scheme.items() if k not in SCHEMES[name]} for name, scheme in told.items()}
    assert added == {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "ours"},
        "bearer": {"type": "http", "scheme": "Bearer", "bearerFormat": "JWT"},
        "oauth": {"type": "oauth2"} | SCHEMES["oauth"]["oauth2SecurityScheme"],
        "oidc": {"type": "openIdConnect"} | SCHEMES["oidc"]["openIdConnectSecurityScheme"],
        "tls": {"type": "mutualTLS"},
    }


def test_security_requirements_are_told_in_both_ways() -> None:
    skill = {"id": "s", "name": "s", "description": "s", "tags": ["s"], "securityRequirements": REQUIREMENTS}
    told = hybrid(card(securitySchemes=SCHEMES, securityRequirements=REQUIREMENTS, skills=[skill]))
    for place in (told, told["skills"][0]):
        assert place["security"] == [{"oauth": ["read"], "key": []}, {"tls": []}]
    assert "security" not in hybrid(card())


@pytest.mark.parametrize("extended", [None, False])
def test_an_extended_card_is_offered_only_where_there_is_one(extended: bool | None) -> None:
    told = hybrid(card(capabilities={"extendedAgentCard": extended}))
    assert told["supportsAuthenticatedExtendedCard"] is False


def test_an_agent_that_does_not_speak_v0_3_does_not_say_so() -> None:
    only = replace(card(), supported_interfaces=card().supported_interfaces[:1])
    assert hybrid(only) == msgspec.to_builtins(only)
