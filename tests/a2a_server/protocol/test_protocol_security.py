"""Security schemes and requirements as the wire has them."""

import json
from typing import Any

import pytest

from a2a_server.protocol import types
from a2a_server.protocol.codec import decode, decode_strict, encode
from a2a_server.protocol.errors import InvalidParams

CARD: dict[str, Any] = {
    "name": "n",
    "description": "d",
    "version": "1",
    "capabilities": {},
    "skills": [],
    "supportedInterfaces": [],
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
}
SCHEMES: dict[str, Any] = {
    "key": {"apiKeySecurityScheme": {"location": "header", "name": "X-API-Key"}},
    "bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer", "bearerFormat": "JWT"}},
    "code": {
        "oauth2SecurityScheme": {
            "flows": {
                "authorizationCode": {
                    "authorizationUrl": "https://id.example/auth",
                    "tokenUrl": "https://id.example/token",
                    "scopes": {"read": "Reads."},
                    "pkceRequired": True,
                }
            },
            "oauth2MetadataUrl": "https://id.example/meta",
        }
    },
    "client": {
        "oauth2SecurityScheme": {
            "flows": {"clientCredentials": {"tokenUrl": "https://id.example/token", "scopes": {}}},
        }
    },
    "device": {
        "oauth2SecurityScheme": {
            "flows": {
                "deviceCode": {
                    "deviceAuthorizationUrl": "https://id.example/device",
                    "tokenUrl": "https://id.example/token",
                    "scopes": {},
                }
            },
        }
    },
    "oidc": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "https://id.example/.well-known/openid"}},
    "mtls": {"mtlsSecurityScheme": {}},
}


def problems(**fields: Any) -> dict[str, str]:
    with pytest.raises(InvalidParams) as refused:
        decode_strict(CARD | fields, types.AgentCard)
    return {problem.field: problem.message for problem in refused.value.violations}


def test_every_kind_of_scheme_comes_back_as_it_was() -> None:
    given = CARD | {"securitySchemes": SCHEMES, "securityRequirements": [{"schemes": {"oidc": {"list": ["a"]}}}]}
    for read in (decode, decode_strict):
        assert json.loads(encode(read(given, types.AgentCard))) == given


def test_snake_case_is_read_within_schemes_too() -> None:
    """ProtoJSON: a reader takes the names of the proto as well."""
    given = CARD | {"security_schemes": {"k": {"api_key_security_scheme": {"location": "cookie", "name": "n"}}}}
    card = decode(given, types.AgentCard)
    assert json.loads(encode(card))["securitySchemes"] == {
        "k": {"apiKeySecurityScheme": {"location": "cookie", "name": "n"}}
    }


@pytest.mark.parametrize(
    ("scheme", "field"),
    [
        ({}, "securitySchemes.x"),
        ({"type": "http"}, "securitySchemes.x.type"),
        (SCHEMES["key"] | SCHEMES["bearer"], "securitySchemes.x"),
        (
            {"apiKeySecurityScheme": {"location": "body", "name": "k"}},
            "securitySchemes.x.apiKeySecurityScheme.location",
        ),
        ({"apiKeySecurityScheme": {"location": "header"}}, "securitySchemes.x.apiKeySecurityScheme.name"),
        ({"httpAuthSecurityScheme": {"scheme": ""}}, "securitySchemes.x.httpAuthSecurityScheme.scheme"),
        ({"oauth2SecurityScheme": {"flows": {}}}, "securitySchemes.x.oauth2SecurityScheme.flows"),
        (
            {"oauth2SecurityScheme": {"flows": {"implicit": {}, "password": {}}}},
            "securitySchemes.x.oauth2SecurityScheme.flows",
        ),
        (
            {"oauth2SecurityScheme": {"flows": {"clientCredentials": {"scopes": {}}}}},
            "securitySchemes.x.oauth2SecurityScheme.flows.clientCredentials.tokenUrl",
        ),
        (None, "securitySchemes.x"),
        ("http", "securitySchemes.x"),
    ],
)
def test_a_wrong_scheme_is_named_by_its_path(scheme: Any, field: str) -> None:
    assert field in problems(securitySchemes={"x": scheme})


def test_a_requirement_lists_scopes_by_scheme() -> None:
    assert "securityRequirements[0].schemes.x" in problems(securityRequirements=[{"schemes": {"x": ["scope"]}}])
    assert "securityRequirements[0].x" in problems(securityRequirements=[{"x": []}])
