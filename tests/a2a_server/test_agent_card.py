"""The agent card: template, registered skills, addresses, and what a cache may ask."""

import json
from pathlib import Path
from typing import Any

import pytest

from a2a_server.agent_card import CardDocument, load_template, make_card, not_modified, template_path
from core.errors import ConfigurationError
from core.executors.base import ExecutorSpec
from core.executors.registry import ExecutorRegistry

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
URL = "http://127.0.0.1:8000/"
TEMPLATE: dict[str, Any] = {
    "name": "Lab",
    "description": "Runs experiments.",
    "defaultInputModes": ["text/plain"],
    "defaultOutputModes": ["text/plain"],
}


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


def document(directory: Path, *specs: ExecutorSpec, **fields: Any) -> CardDocument:
    return make_card(load_template(write(directory, TEMPLATE | fields)), registry_of(*specs), URL, now=NOW)


def refusal(directory: Path, card: Any) -> str:
    with pytest.raises(ConfigurationError) as refused:
        load_template(write(directory, card))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_project_s_own_template_is_found_and_valid() -> None:
    path = template_path(None)
    assert path.name == "agent_card.json"
    assert load_template(path).name


def test_a_configured_template_wins(tmp_path: Path) -> None:
    assert template_path(str(tmp_path / "x.json")) == tmp_path / "x.json"


def test_the_card_says_what_the_server_does(tmp_path: Path) -> None:
    echo = spec("echo", name="Echo", description="Says it again.", tags=("text",), examples=("hello",))
    card = json.loads(document(tmp_path, echo, spec("inner", is_skill=False), spec("bare")).body)

    assert card["supportedInterfaces"] == [
        {"url": URL, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
        {"url": URL, "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
        {"url": URL.rstrip("/"), "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
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
    card = json.loads(document(tmp_path, spec("echo"), skills=[words]).body)
    assert card["skills"] == [words]


def test_a_skill_that_nobody_registered_is_refused(tmp_path: Path) -> None:
    words = {"id": "ghost", "name": "Ghost", "description": "None.", "tags": ["x"]}
    with pytest.raises(ConfigurationError, match="ghost"):
        document(tmp_path, spec("echo"), skills=[words])


def test_the_template_s_other_fields_are_kept(tmp_path: Path) -> None:
    provider = {"url": "https://a.example", "organization": "A"}
    extension = {"uri": "https://a.example/ext", "params": {"n": 1}}
    card = json.loads(document(tmp_path, provider=provider, version="7", capabilities={"extensions": [extension]}).body)
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


def test_equal_cards_have_equal_etags_and_others_do_not(tmp_path: Path) -> None:
    first, again, other = document(tmp_path), document(tmp_path), document(tmp_path, name="Other")
    assert first.etag == again.etag != other.etag
    assert first.headers == {
        "ETag": first.etag,
        "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        "Cache-Control": "public, max-age=300",
    }


def test_a_cache_that_knows_the_card_gets_304(tmp_path: Path) -> None:
    card = document(tmp_path)
    for tags in (card.etag, f"W/{card.etag}", f'"x", {card.etag}', "*"):
        assert not_modified(card, {"if-none-match": tags})
    assert not not_modified(card, {})
    assert not not_modified(card, {"if-none-match": '"x"'})


def test_a_date_counts_only_without_an_etag(tmp_path: Path) -> None:
    """RFC 9110 §13.2.2."""
    card = document(tmp_path)
    later, earlier = "Fri, 02 Jan 2026 00:00:00 GMT", "Wed, 31 Dec 2025 00:00:00 GMT"
    assert not_modified(card, {"if-modified-since": card.last_modified})
    assert not_modified(card, {"if-modified-since": later})
    assert not not_modified(card, {"if-modified-since": earlier})
    assert not not_modified(card, {"if-none-match": '"x"', "if-modified-since": later})
    for nonsense in ("", "yesterday", "Fri, 02 Jan 2026 00:00:00", "Fri, 99 Jan 2026 00:00:00 GMT", "5" * 400):
        assert not not_modified(card, {"if-modified-since": nonsense})
