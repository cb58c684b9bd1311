"""The agent card: the operator's template, the skills that are really registered, and what this server offers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from msgspec.structs import replace

from a2a_server.auth.principal import NOBODY, Principal
from a2a_server.card.document import read_document
from a2a_server.card.rules import content_problems
from a2a_server.process.distribution import version
from a2a_server.protocol import types
from a2a_server.protocol.codec import decode_strict
from a2a_server.protocol.errors import InvalidParams, Unauthenticated
from a2a_server.protocol.security import SecurityRequirement, SecurityScheme
from a2a_server.protocol.versions import SUPPORTED
from core.executors.base import ExecutorSpec
from core.executors.registry import ExecutorRegistry
from core.model.errors import ConfigurationError, Problem

FILE_NAME = "agent_card.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Where this server is and what it offers as it is wired: the part of the card that no template can know."""

    url: str  # absolute, with a slash at its end
    push_notifications: bool = False
    security_schemes: Mapping[str, SecurityScheme] = field(default_factory=dict)
    security_requirements: Sequence[SecurityRequirement] = ()

    @property
    def identifies_callers(self) -> bool:
        """Whether callers are asked who they are. Only then there is an extended card (A2A §13.3)."""
        return bool(self.security_schemes)

    def capabilities(self) -> types.AgentCapabilities:
        return types.AgentCapabilities(
            streaming=True,
            push_notifications=self.push_notifications,
            extended_agent_card=self.identifies_callers,
        )


@dataclass(frozen=True, slots=True)
class Template:
    """The operator's part of a card, and the file that it is from."""

    path: Path
    card: types.AgentCard

    def wrong(self, problems: Sequence[Problem]) -> ConfigurationError:
        """The error that names the file and every field in these problems."""
        return ConfigurationError(f"the agent card {self.path}: {_told(problems)}")


def template_path(configured: str | None) -> Path:
    """Where the template is: as configured, else in the installed package, else at the root of the checkout."""
    if configured is not None:
        return Path(configured)
    package = Path(__file__).parents[1]
    packaged = package / FILE_NAME
    return packaged if packaged.exists() else package.parent / FILE_NAME


def load_template(path: Path) -> Template:
    """The operator's part of the card; the fields that the server knows better may be left out.

    Raises ConfigurationError that names the file and every wrong field.
    """
    try:
        given = read_document(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the agent card {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"the agent card {path} {error}") from None
    if "signatures" in given:
        raise ConfigurationError(
            f"the agent card {path}: signatures: remove them; the server signs the card itself (card_keys)"
        )
    try:
        card = decode_strict(
            {"version": version(), "capabilities": {}, "skills": [], "supportedInterfaces": []} | given,
            types.AgentCard,
        )
    except InvalidParams as error:
        raise ConfigurationError(f"the agent card {path}: {_told(error.violations)}") from None
    return Template(path, card)


def make_card(template: Template, registry: ExecutorRegistry, offer: Offer) -> types.AgentCard:
    """The card of a server, not signed yet.

    Raises ConfigurationError when the template is wrong, or promises what this server does not offer.
    """
    words = template.card
    described = replace(words, security_schemes={**words.security_schemes, **offer.security_schemes})
    if problems := [*_broken_promises(words, offer), *content_problems(described)]:
        raise template.wrong(problems)
    own = [types.AgentInterface(url=offer.url, protocol_binding="JSONRPC", protocol_version=each) for each in SUPPORTED]
    # Clients append the path to it, some of them without a look at its last character.
    rest = offer.url.rstrip("/")
    own += [types.AgentInterface(url=rest, protocol_binding="HTTP+JSON", protocol_version=each) for each in SUPPORTED]
    return replace(
        described,
        supported_interfaces=[*own, *words.supported_interfaces],
        capabilities=replace(offer.capabilities(), extensions=words.capabilities.extensions),
        security_requirements=[*offer.security_requirements, *words.security_requirements],
        skills=_skills(template, registry),
    )


def extended_card(
    card: types.AgentCard, sign: Callable[[types.AgentCard], types.AgentCard]
) -> Callable[[Principal], types.AgentCard]:
    """The extended card by caller (A2A §3.1.11): `card` with the skills that the caller may use, signed."""

    def card_for(principal: Principal) -> types.AgentCard:
        if principal is NOBODY:
            raise Unauthenticated
        usable = principal.skills
        skills = [skill for skill in card.skills if usable is None or skill.id in usable]
        return sign(replace(card, skills=skills))

    return card_for


def _broken_promises(words: types.AgentCard, offer: Offer) -> Iterator[Problem]:
    """What the template says and the server does not do; and what both say, where only one can be right."""
    offered = offer.capabilities()
    for capability in msgspec.structs.fields(offered):
        if getattr(words.capabilities, capability.name) is True and getattr(offered, capability.name) is False:
            yield Problem(f"capabilities.{capability.encode_name}", "not offered")
    for name in words.security_schemes.keys() & offer.security_schemes.keys():
        yield Problem(f"securitySchemes.{name}", "is a scheme name that the server uses itself")
    if offer.identifies_callers and words.security_requirements:
        yield Problem("securityRequirements", "omit it; the server adds its own, from the setting auth")


def _skills(template: Template, registry: ExecutorRegistry) -> list[types.AgentSkill]:
    """What is registered, in the template's words where it has any."""
    described = {skill.id: skill for skill in template.card.skills}
    specs = [spec for spec in registry if spec.is_skill]
    skills = [described.pop(spec.id) if spec.id in described else _skill(spec) for spec in specs]
    if described:
        raise template.wrong([Problem("skills", f"not registered: {', '.join(described)}")])
    return skills


def _skill(spec: ExecutorSpec) -> types.AgentSkill:
    name = spec.name or spec.id
    return types.AgentSkill(
        id=spec.id,
        name=name,
        description=spec.description or name,
        tags=list(spec.tags) or [spec.id],
        examples=list(spec.examples),
        input_modes=list(spec.input_modes),
        output_modes=list(spec.output_modes),
    )


def _told(problems: Sequence[Problem]) -> str:
    return "; ".join(f"{problem.field}: {problem.message}" for problem in problems)
