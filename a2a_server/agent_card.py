"""The agent card: the operator's template, the skills that are really registered, and what this server offers."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import msgspec
from msgspec.structs import replace

from a2a_server.protocol import types
from a2a_server.protocol.codec import decode_strict, encode
from a2a_server.protocol.errors import InvalidParams
from a2a_server.protocol.versions import SUPPORTED
from core.errors import ConfigurationError
from core.executors.base import ExecutorSpec
from core.executors.registry import ExecutorRegistry

DISTRIBUTION = "a2a-server"
FILE_NAME = "agent_card.json"
MAX_AGE = 300  # seconds that a client may keep the card
OFFERED = types.AgentCapabilities(streaming=True, push_notifications=False, extended_agent_card=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardDocument:
    """The card as it is served, byte for byte, and its HTTP headers."""

    card: types.AgentCard
    body: bytes
    etag: str
    last_modified: str

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer 200, and of 304 as well (RFC 9110 §15.4.5)."""
        return {
            "ETag": self.etag,
            "Last-Modified": self.last_modified,
            "Cache-Control": f"public, max-age={MAX_AGE}",
        }


def template_path(configured: str | None) -> Path:
    """Where the template is: as configured, else in the installed package, else at the root of the checkout."""
    if configured is not None:
        return Path(configured)
    package = Path(__file__).parent
    packaged = package / FILE_NAME
    return packaged if packaged.exists() else package.parent / FILE_NAME


def load_template(path: Path) -> types.AgentCard:
    """The operator's part of the card; the fields that the server knows better may be left out.

    Raises ConfigurationError that names the file and every wrong field.
    """
    try:
        given = msgspec.json.decode(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"the agent card {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"the agent card {path} is not JSON") from None
    if not isinstance(given, dict):
        raise ConfigurationError(f"the agent card {path} is not a JSON object")
    try:
        card = decode_strict(
            {"version": version(DISTRIBUTION), "capabilities": {}, "skills": [], "supportedInterfaces": []} | given,
            types.AgentCard,
        )
    except InvalidParams as error:
        wrong = "; ".join(f"{problem.field}: {problem.message}" for problem in error.violations)
        raise ConfigurationError(f"the agent card {path}: {wrong}") from None
    for field in msgspec.structs.fields(OFFERED):
        if getattr(card.capabilities, field.name) is True and getattr(OFFERED, field.name) is False:
            raise ConfigurationError(f"the agent card {path}: capabilities.{field.encode_name}: not offered yet")
    return card


def make_card(template: types.AgentCard, registry: ExecutorRegistry, url: str, *, now: float) -> CardDocument:
    """The card that is served at `url` (absolute, with a slash at its end) from `now` on (seconds since 1970, UTC).

    Raises ConfigurationError when the template describes a skill that nobody registered.
    """
    own = [types.AgentInterface(url=url, protocol_binding="JSONRPC", protocol_version=each) for each in SUPPORTED]
    # Clients append the path to it, some of them without a look at its last character.
    own.append(types.AgentInterface(url=url.rstrip("/"), protocol_binding="HTTP+JSON", protocol_version="1.0"))
    card = replace(
        template,
        supported_interfaces=[*own, *template.supported_interfaces],
        capabilities=replace(OFFERED, extensions=template.capabilities.extensions),
        skills=_skills(template, registry),
    )
    body = encode(card)
    etag = f'"{sha256(body).hexdigest()[:32]}"'
    return CardDocument(card=card, body=body, etag=etag, last_modified=formatdate(now, usegmt=True))


def not_modified(document: CardDocument, request: Mapping[str, str]) -> bool:
    """Whether a request with these headers (lower-case names) is answered 304 (RFC 9110 §13.2.2)."""
    if (tags := request.get("if-none-match")) is not None:
        known = {tag.strip().removeprefix("W/") for tag in tags.split(",")}
        return "*" in known or document.etag in known
    if (since := request.get("if-modified-since")) is not None:
        try:
            return parsedate_to_datetime(document.last_modified) <= parsedate_to_datetime(since)
        except (ValueError, TypeError):  # no date, or one without a time zone: the header does not count
            return False
    return False


def _skills(template: types.AgentCard, registry: ExecutorRegistry) -> list[types.AgentSkill]:
    """What is registered, in the template's words where it has any."""
    described = {skill.id: skill for skill in template.skills}
    specs = [spec for spec in registry if spec.is_skill]
    skills = [described.pop(spec.id) if spec.id in described else _skill(spec) for spec in specs]
    if described:
        raise ConfigurationError(f"the agent card describes skills that are not registered: {', '.join(described)}")
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
