"""What makes a card right."""

from typing import Any

import pytest

from a2a_server.card.rules import card_problems
from tests.a2a_server.card.cards import CARD, as_v0_3, card

SKILL: dict[str, Any] = {"id": "a", "name": "A", "description": "d", "tags": ["t"]}
HERE: dict[str, Any] = CARD["supportedInterfaces"][0]


def fields(**changed: Any) -> set[str]:
    document = {name: value for name, value in (CARD | changed).items() if value is not ...}
    return {problem.field for problem in card_problems(document)}


def scheme(**inner: Any) -> dict[str, Any]:
    return {"securitySchemes": {"bearer": inner}}


def test_a_right_card_has_no_problems() -> None:
    assert card_problems(CARD) == []


@pytest.mark.parametrize(
    "changed",
    [
        {
            "supportedInterfaces": [
                HERE,
                {"url": "a.example:50051", "protocolBinding": "GRPC", "protocolVersion": "1.0"},
            ]
        },
        {"supportedInterfaces": [HERE | {"protocolBinding": "https://a.example/binding", "protocolVersion": "0.3"}]},
        {"supportedInterfaces": [HERE | {"url": "http://[::1]:8000/a2a"}]},
        {"iconUrl": "data:image/png;base64,AA=="},
        {"defaultInputModes": ["*/*", "image/*", "text/plain; charset=utf-8", "application/vnd.x+json"]},
        {"skills": [SKILL, SKILL | {"id": "b", "securityRequirements": [{"schemes": {"bearer": {"list": ["x"]}}}]}]},
        {"securityRequirements": [{}]},
    ],
)
def test_what_the_protocol_allows_is_right(changed: dict[str, Any]) -> None:
    assert fields(**changed) == set()


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"name": ...}, "name"),
        ({"description": ""}, "description"),
        ({"nmae": "x"}, "nmae"),
        ({"skills": ...}, "skills"),
        ({"capabilities": {"streaming": "yes"}}, "capabilities.streaming"),
        ({"capabilities": {"stateTransitionHistory": True}}, "capabilities.stateTransitionHistory"),
        ({"supportedInterfaces": []}, "supportedInterfaces"),
        ({"supportedInterfaces": [HERE | {"url": "/a2a"}]}, "supportedInterfaces[0].url"),
        ({"supportedInterfaces": [HERE | {"url": "ftp://a.example/"}]}, "supportedInterfaces[0].url"),
        ({"supportedInterfaces": [HERE | {"url": "https://u:p@a.example/"}]}, "supportedInterfaces[0].url"),
        ({"supportedInterfaces": [HERE | {"url": "https://a.example:x/"}]}, "supportedInterfaces[0].url"),
        ({"supportedInterfaces": [HERE | {"url": "https://[a/"}]}, "supportedInterfaces[0].url"),
        ({"supportedInterfaces": [HERE | {"url": "https://a.example/ b"}]}, "supportedInterfaces[0].url"),
        ({"supportedInterfaces": [HERE | {"url": "a.example:443"}]}, "supportedInterfaces[0].url"),
        ({"supportedInterfaces": [HERE | {"protocolBinding": "REST"}]}, "supportedInterfaces[0].protocolBinding"),
        ({"supportedInterfaces": [HERE | {"protocolVersion": "1.0.1"}]}, "supportedInterfaces[0].protocolVersion"),
        ({"provider": {"url": "a.example", "organization": "A"}}, "provider.url"),
        ({"documentationUrl": "docs"}, "documentationUrl"),
        ({"iconUrl": "icon.png"}, "iconUrl"),
        ({"capabilities": {"extensions": [{"uri": "ext"}]}}, "capabilities.extensions[0].uri"),
        ({"defaultInputModes": ["text"]}, "defaultInputModes[0]"),
        ({"defaultOutputModes": ["text/plain", "text plain"]}, "defaultOutputModes[1]"),
        ({"skills": [SKILL | {"outputModes": ["x"]}]}, "skills[0].outputModes[0]"),
        ({"skills": [SKILL, SKILL]}, "skills[1].id"),
        ({"securityRequirements": [{"schemes": {"x": {}}}]}, "securityRequirements[0].schemes.x"),
        (
            {"skills": [SKILL | {"securityRequirements": [{"schemes": {"x": {}}}]}]},
            "skills[0].securityRequirements[0].schemes.x",
        ),
        (
            scheme(openIdConnectSecurityScheme={"openIdConnectUrl": "id"}),
            "securitySchemes.bearer.openIdConnectSecurityScheme.openIdConnectUrl",
        ),
        (
            scheme(oauth2SecurityScheme={"flows": {"clientCredentials": {"tokenUrl": "t", "scopes": {}}}}),
            "securitySchemes.bearer.oauth2SecurityScheme.flows.clientCredentials.tokenUrl",
        ),
    ],
)
def test_what_is_wrong_is_named(changed: dict[str, Any], field: str) -> None:
    assert field in fields(**changed)


def test_the_fields_of_v0_3_are_unknown_to_v1_0() -> None:
    """Conformance kits hold cards against a closed schema."""
    named = {problem.field for problem in card_problems(as_v0_3(card()))}
    assert {"url", "protocolVersion", "preferredTransport", "securitySchemes.bearer.type"} <= named
