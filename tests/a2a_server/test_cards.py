"""The cards of one server, by its settings."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from a2a_server.auth.principal import Principal
from a2a_server.card.agent_card import Offer
from a2a_server.card.keys import read_key_set
from a2a_server.card.signing import to_document, verify
from a2a_server.cards import Cards, make_cards
from a2a_server.config import Config
from core.executors.registry import ExecutorRegistry
from core.model.errors import ConfigurationError
from tests.a2a_server.card.cards import as_v0_3, key_file
from tests.a2a_server.card.test_agent_card import BEARER, NOTHING, TEMPLATE, registry_of, spec, write

URL = "https://a.example/"


def made(offer: Offer = NOTHING, registry: ExecutorRegistry | None = None, **settings: Any) -> Cards:
    offer = replace(offer, url=URL)
    return make_cards(Config(**settings), registry or registry_of(spec("echo")), offer, now=0.0, hybrid=as_v0_3)


def test_the_settings_decide_template_form_and_keys(tmp_path: Path) -> None:
    cards = made(
        card=str(write(tmp_path, TEMPLATE)), card_mode="strict", card_keys=(key_file(tmp_path, "ES256"),)
    )  # fmt: skip
    published = cards.published
    assert published.keys is not None
    document = json.loads(published.card_for(None).body)
    assert (document["name"], published.card_for(None)) == (TEMPLATE["name"], published.strict)
    assert all(verdict.is_valid for verdict in verify(document, read_key_set(published.keys.body)))


def test_without_identified_callers_there_is_no_extended_card(tmp_path: Path) -> None:
    assert made().extended is None
    with pytest.raises(ConfigurationError, match="extended_card: "):
        made(extended_card=str(write(tmp_path, TEMPLATE)))


def test_the_extended_card_is_the_public_one_for_the_caller_and_signed(tmp_path: Path) -> None:
    cards = made(BEARER, registry_of(spec("a"), spec("b")), card_keys=(key_file(tmp_path, "EdDSA"),))
    assert cards.extended is not None
    assert cards.published.keys is not None
    document = to_document(cards.extended(Principal(id="p", skills=frozenset({"a"}))))
    assert [skill["id"] for skill in document["skills"]] == ["a"]
    assert document["name"] == cards.published.card.name
    verdicts = verify(document, read_key_set(cards.published.keys.body))
    assert verdicts[0].is_valid
    assert not verdicts[0].uncovered


def test_the_extended_card_may_have_words_of_its_own(tmp_path: Path) -> None:
    own = TEMPLATE | {
        "name": "Lab, for members",
        "skills": [{"id": "a", "name": "A", "description": "more", "tags": ["t"]}],
    }
    cards = made(BEARER, registry_of(spec("a")), extended_card=str(write(tmp_path, own)))
    assert cards.extended is not None
    card = cards.extended(Principal(id="p"))
    assert (card.name, card.skills[0].description) == ("Lab, for members", "more")
    assert cards.published.card.name != card.name


@pytest.mark.parametrize("setting", ["card", "extended_card"])
def test_a_wrong_template_names_its_file(tmp_path: Path, setting: str) -> None:
    file = str(write(tmp_path, TEMPLATE | {"nmae": "x"}))
    with pytest.raises(ConfigurationError, match=file):
        made(BEARER, **{setting: file})


@pytest.mark.parametrize(
    ("public", "shown"), [(None, ["a", "b", "c"]), (("b",), ["b"]), (("c", "a"), ["a", "c"]), ((), [])]
)
def test_the_public_card_shows_the_skills_that_may_be_known_and_the_extended_one_the_callers(
    public: tuple[str, ...] | None, shown: list[str]
) -> None:
    """Found from outside: the public card listed skills that callers may not know."""
    cards = made(BEARER, registry_of(spec("a"), spec("b"), spec("c")), public_skills=public)
    for version in (None, "1.0", "0.3"):
        document = json.loads(cards.published.card_for(version).body)
        assert [skill["id"] for skill in document["skills"]] == shown
    assert cards.extended is not None
    extended = cards.extended(Principal(id="p", skills=frozenset({"a", "b"})))
    assert [skill.id for skill in extended.skills] == ["a", "b"]


def test_a_public_skill_that_is_not_there_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="public_skills: there is no skill 'ech'; the skills are: echo"):
        made(public_skills=("ech",))
