"""The cards of one server, made and signed by its settings: the public documents, and the card for known callers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from a2a_server.auth.principal import Principal
from a2a_server.card.agent_card import Offer, extended_card, load_template, make_card, template_path
from a2a_server.card.keys import load_keys
from a2a_server.card.published import KEYS_PATH, Forms, Hybrid, Published, publish
from a2a_server.card.signing import signatures
from a2a_server.config import Config
from a2a_server.protocol import types
from core.executors.registry import ExecutorRegistry
from core.model.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Cards:
    """The agent cards: the public one, and the extended one for identified callers (None: no authentication)."""

    published: Published
    extended: Callable[[Principal], types.AgentCard] | None

    @property
    def extensions(self) -> list[types.AgentExtension]:
        """The protocol extensions that the card names."""
        return self.published.card.capabilities.extensions


def make_cards(
    config: Config, registry: ExecutorRegistry, offer: Offer, *, now: float, hybrid: Hybrid | None = None
) -> Cards:
    """The cards of a server from `now` on. `hybrid` adds what v0.3 clients look for in a card.

    Raises ConfigurationError.
    """
    if config.extended_card is not None and not offer.identifies_callers:
        raise ConfigurationError("extended_card: needs auth, since only identified callers can read it")
    keys = load_keys(config.card_keys)
    template = load_template(template_path(config.card))
    public = _public(make_card(template, registry, offer), config.public_skills)
    published = publish(public, offer.url, now=now, keys=keys, forms=Forms(hybrid, config.card_mode))
    if not offer.identifies_callers:
        return Cards(published=published, extended=None)
    if config.extended_card is not None:
        template = load_template(template_path(config.extended_card))
    card = make_card(template, registry, offer)

    def sign(own: types.AgentCard) -> types.AgentCard:
        return replace(own, signatures=signatures(own, keys, jku=offer.url.rstrip("/") + KEYS_PATH))

    return Cards(published=published, extended=extended_card(card, sign))


def _public(card: types.AgentCard, skills: Sequence[str] | None) -> types.AgentCard:
    """The card with the skills that everybody may know; None: all of them. Raises ConfigurationError."""
    if skills is None:
        return card
    known = [skill.id for skill in card.skills]
    if unknown := sorted(set(skills).difference(known)):
        text = f"there is no skill {unknown[0]!r}; the skills are: {', '.join(known) or 'none'}"
        raise ConfigurationError(f"public_skills: {text}")
    return replace(card, skills=[skill for skill in card.skills if skill.id in skills])
