"""The agent card: template, registered skills, what the server offers, and the card for known callers."""

import json
from pathlib import Path
from typing import Any

import pytest

from a2a_server.auth.principal import NOBODY, Principal
from a2a_server.card.agent_card import Offer, extended_card, load_template, make_card, template_path
from a2a_server.card.signing import to_document
from a2a_server.protocol.errors import Unauthenticated
from a2a_server.protocol.security import HTTPAuthSecurityScheme, SecurityRequirement, SecurityScheme, StringList
from a2a_server.protocol.types import AgentCard
from core.executors.base import ExecutorSpec
from core.executors.registry import ExecutorRegistry
from core.model.errors import ConfigurationError

URL = "http://127.0.0.1:8000/"
TEMPLATE: dict[str, Any] = {
    "name": "Lab",
    "description": "Runs experiments.",
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
}
NOTHING = Offer(url=URL)
BEARER = Offer(
    url=URL,
    security_schemes={"bearer": SecurityScheme(http_auth_security_scheme=HTTPAuthSecurityScheme(scheme="Bearer"))},
    security_requirements=[SecurityRequirement(schemes={"bearer": StringList()})],
)


def registry_of(*specs: ExecutorSpec) -> ExecutorRegistry:
    registry = ExecutorRegistry()
    for spec in specs:
        registry.register(spec)
    return registry


def spec(id_: str, **fields: Any) -> ExecutorSpec:
    return ExecutorSpec(id=id_, make=lambda: pytest.fail("the card runs nothing"), **fields)


def write(directory: Path, card: Any) -> Path:
    file = directory / "card.json"
    file.write_text(card if isinstance(card, str) else json.dumps(card), "utf-8")
    return file


def made(directory: Path, *specs: ExecutorSpec, offer: Offer = NOTHING, **fields: Any) -> AgentCard:
    return make_card(load_template(write(directory, TEMPLATE | fields)), registry_of(*specs), offer)


def document(directory: Path, *specs: ExecutorSpec, offer: Offer = NOTHING, **fields: Any) -> dict[str, Any]:
    return to_document(made(directory, *specs, offer=offer, **fields))


def refusal(directory: Path, card: Any, *specs: ExecutorSpec, offer: Offer = NOTHING) -> str:
    with pytest.raises(ConfigurationError) as refused:
        make_card(load_template(write(directory, card)), registry_of(*specs), offer)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_project_s_own_template_is_found_and_valid() -> None:
    path = template_path(None)
    assert path.name == "agent_card.json"
    assert load_template(path).card.name


def test_a_configured_template_wins(tmp_path: Path) -> None:
    assert template_path(str(tmp_path / "x.json")) == tmp_path / "x.json"


def test_the_card_says_what_the_server_does(tmp_path: Path) -> None:
    echo = spec("echo", name="Echo", description="Says it again.", tags=("text",), examples=("hello",))
    card = document(tmp_path, echo, spec("inner", is_skill=False), spec("bare"))

    assert card["supportedInterfaces"] == [
        {"url": URL, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": URL, "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
        {"url": URL.rstrip("/"), "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        {"url": URL.rstrip("/"), "protocolBinding": "HTTP+JSON", "protocolVersion": "0.3"},
    ]
    assert card["capabilities"] == {"streaming": True, "pushNotifications": False, "extendedAgentCard": False}
    assert card["version"]
    assert [skill["id"] for skill in card["skills"]] == ["bare", "echo"]
    assert card["skills"][1] == {
        "id": "echo",
        "name": "Echo",
        "description": "Says it again.",
        "tags": ["text"],
        "examples": ["hello"],
        "inputModes": ["application/json", "text/plain"],
        "outputModes": ["application/json", "text/plain"],
    }
    assert all(card["skills"][0][field] for field in ("name", "description", "tags")), "required fields are not empty"


def test_the_template_s_words_for_a_skill_win(tmp_path: Path) -> None:
    words = {"id": "echo", "name": "Parrot", "description": "Repeats.", "tags": ["fun"]}
    card = document(tmp_path, spec("echo"), skills=[words])
    assert card["skills"] == [words]


def test_a_skill_that_nobody_registered_is_refused(tmp_path: Path) -> None:
    words = {"id": "ghost", "name": "Ghost", "description": "None.", "tags": ["x"]}
    assert "ghost" in refusal(tmp_path, TEMPLATE | {"skills": [words]}, spec("echo"))


def test_the_template_s_other_fields_are_kept(tmp_path: Path) -> None:
    provider = {"url": "https://a.example", "organization": "A"}
    extension = {"uri": "https://a.example/ext", "params": {"n": 1}}
    card = document(tmp_path, provider=provider, version="7", capabilities={"extensions": [extension]})
    assert (card["provider"], card["version"]) == (provider, "7")
    assert card["capabilities"]["extensions"] == [extension]


@pytest.mark.parametrize(
    ("card", "field"),
    [
        (TEMPLATE | {"name": ""}, "name"),
        (TEMPLATE | {"defaultInputModes": []}, "defaultInputModes"),
        (TEMPLATE | {"nmae": "x"}, "nmae"),
        (TEMPLATE | {"skills": [{"id": "a", "name": "A", "description": "d", "tags": []}]}, "skills[0].tags"),
        (TEMPLATE | {"provider": {"url": "u"}}, "provider.organization"),
        (TEMPLATE | {"capabilities": {"pushNotifications": True}}, "capabilities.pushNotifications"),
        (TEMPLATE | {"capabilities": {"extendedAgentCard": True}}, "capabilities.extendedAgentCard"),
        (TEMPLATE | {"defaultInputModes": ["text"]}, "defaultInputModes[0]"),
        (TEMPLATE | {"provider": {"url": "a", "organization": "A"}}, "provider.url"),
        (TEMPLATE | {"securitySchemes": {"x": {"type": "http"}}}, "securitySchemes.x.type"),
        (TEMPLATE | {"securityRequirements": [{"schemes": {"x": {}}}]}, "securityRequirements[0].schemes.x"),
        (TEMPLATE | {"signatures": []}, "signatures"),
        ('{"name": "a", "name": "b"}', "'name' twice"),
        ({}, "description"),
        ([], "not a JSON object"),
        ("{", "not JSON"),
    ],
)
def test_a_wrong_template_names_the_field(tmp_path: Path, card: Any, field: str) -> None:
    message = refusal(tmp_path, card)
    assert field in message
    assert "card.json" in message


def test_a_missing_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_template(tmp_path / "none.json")


def test_the_template_s_security_is_kept_where_the_server_asks_nobody(tmp_path: Path) -> None:
    """A proxy before the server may ask."""
    given = {
        "securitySchemes": {"id": {"openIdConnectSecurityScheme": {"openIdConnectUrl": "https://id.example/"}}},
        "securityRequirements": [{"schemes": {"id": {"list": ["a"]}}}],
    }
    card = document(tmp_path, **given)
    assert {name: card[name] for name in given} == given
    assert card["capabilities"]["extendedAgentCard"] is False


# What the server offers


def test_push_is_offered_where_it_is_wired(tmp_path: Path) -> None:
    card = document(tmp_path, offer=Offer(url=URL, push_notifications=True), capabilities={"pushNotifications": True})
    assert card["capabilities"]["pushNotifications"] is True


def test_a_server_that_identifies_callers_says_how_and_offers_an_extended_card(tmp_path: Path) -> None:
    words = {"id": "echo", "name": "E", "description": "d", "tags": ["t"]}
    words["securityRequirements"] = [{"schemes": {"bearer": {"list": ["write"]}}}]  # type: ignore[assignment]
    card = document(tmp_path, spec("echo"), offer=BEARER, skills=[words])
    assert card["securitySchemes"] == {"bearer": {"httpAuthSecurityScheme": {"scheme": "Bearer"}}}
    assert card["securityRequirements"] == [{"schemes": {"bearer": {}}}]
    assert card["capabilities"]["extendedAgentCard"] is True
    assert card["skills"] == [words], "a template may name the server's schemes"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"securitySchemes": {"bearer": {"httpAuthSecurityScheme": {"scheme": "Basic"}}}}, "securitySchemes.bearer"),
        ({"securityRequirements": [{"schemes": {"bearer": {}}}]}, "securityRequirements"),
    ],
)
def test_a_template_does_not_contradict_how_the_server_identifies_callers(
    tmp_path: Path, fields: dict[str, Any], field: str
) -> None:
    assert field in refusal(tmp_path, TEMPLATE | fields, offer=BEARER)


# The card for known callers


@pytest.mark.parametrize(
    ("skills", "shown"), [(None, ["a", "b"]), (frozenset({"b", "x"}), ["b"]), (frozenset[str](), [])]
)
def test_a_known_caller_sees_the_skills_of_its_credential(
    tmp_path: Path, skills: frozenset[str] | None, shown: list[str]
) -> None:
    card_for = extended_card(made(tmp_path, spec("a"), spec("b"), offer=BEARER), lambda card: card)
    card = card_for(Principal(id="p", skills=skills))
    assert [skill.id for skill in card.skills] == shown


def test_nobody_has_no_extended_card(tmp_path: Path) -> None:
    card_for = extended_card(made(tmp_path, spec("a"), offer=BEARER), lambda card: pytest.fail("nothing is signed"))
    with pytest.raises(Unauthenticated):
        card_for(NOBODY)
