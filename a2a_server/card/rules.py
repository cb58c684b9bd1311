"""What makes an agent card right beyond the shape of its fields (A2A v1.0 §4.4, §4.5, §8.3)."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from a2a_server.protocol import types
from a2a_server.protocol.codec import decode_strict
from a2a_server.protocol.errors import InvalidParams
from a2a_server.protocol.web_url import web_url
from core.model.errors import Problem

BINDINGS = ("JSONRPC", "GRPC", "HTTP+JSON")

_VERSION = re.compile(r"\d{1,9}\.\d{1,9}", re.ASCII)
_MEDIA_TYPE = re.compile(
    r"(?:\*|[\w!#$&^.+-]+)/(?:\*|[\w!#$&^.+-]+)(?:\s*;\s*[\w.+-]+=(?:[\w.+-]+|\"[^\"]*\"))*", re.ASCII
)
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+", re.ASCII)
_AUTHORITY = re.compile(r"[^\s/@?#]+:\d{1,5}")  # how gRPC addresses are given


def card_problems(document: Mapping[str, Any]) -> list[Problem]:
    """Everything that is wrong with a card as others publish it; nothing is unknown to v1.0 and right."""
    try:
        card = decode_strict(document, types.AgentCard)
    except InvalidParams as error:
        return list(error.violations)
    nowhere = [] if card.supported_interfaces else [Problem("supportedInterfaces", "has no URL of the agent")]
    return [*nowhere, *content_problems(card)]


def content_problems(card: types.AgentCard) -> list[Problem]:
    """What is wrong with the values of a card's fields."""
    return [
        *_interfaces(card.supported_interfaces),
        *_urls(card),
        *_modes(card, ""),
        *_skills(card),
        *_security(card),
    ]


def _interfaces(interfaces: Sequence[types.AgentInterface]) -> Iterator[Problem]:
    for index, each in enumerate(interfaces):
        field = f"supportedInterfaces[{index}]"
        is_grpc = each.protocol_binding == "GRPC"
        if not _is_web_address(each.url) and not (is_grpc and _AUTHORITY.fullmatch(each.url)):
            yield Problem(f"{field}.url", "must be an absolute http or https URL")
        if each.protocol_binding not in BINDINGS and not _URI.fullmatch(each.protocol_binding):
            yield Problem(f"{field}.protocolBinding", f"must be {', '.join(BINDINGS)} or the URI of a binding")
        if not _VERSION.fullmatch(each.protocol_version):
            yield Problem(f"{field}.protocolVersion", "must be Major.Minor, such as 1.0")


def _urls(card: types.AgentCard) -> Iterator[Problem]:
    given = {"documentationUrl": card.documentation_url, "iconUrl": card.icon_url}
    if card.provider is not None:
        given["provider.url"] = card.provider.url
    for field, url in given.items():
        if url is not None and not _is_web_address(url) and not (field == "iconUrl" and url.startswith("data:")):
            yield Problem(field, "must be an absolute http or https URL")
    for index, extension in enumerate(card.capabilities.extensions):
        if not _URI.fullmatch(extension.uri):
            yield Problem(f"capabilities.extensions[{index}].uri", "must be an absolute URI")


def _modes(of: types.AgentCard | types.AgentSkill, path: str) -> Iterator[Problem]:
    for name in ("default_input_modes", "default_output_modes", "input_modes", "output_modes"):
        for index, mode in enumerate(getattr(of, name, ())):
            if not _MEDIA_TYPE.fullmatch(mode):
                yield Problem(f"{path}{_json_name(of, name)}[{index}]", "must be a media type (for example text/plain)")


def _skills(card: types.AgentCard) -> Iterator[Problem]:
    times = Counter(skill.id for skill in card.skills)
    for index, skill in enumerate(card.skills):
        if times[skill.id] > 1:
            yield Problem(f"skills[{index}].id", "is already the id of another skill")
        yield from _modes(skill, f"skills[{index}].")


def _security(card: types.AgentCard) -> Iterator[Problem]:
    for name, scheme in card.security_schemes.items():
        yield from _scheme_urls(scheme, f"securitySchemes.{name}")
    required = {"": card.security_requirements}
    required |= {f"skills[{index}].": skill.security_requirements for index, skill in enumerate(card.skills)}
    for path, requirements in required.items():
        for index, requirement in enumerate(requirements):
            for name in (each for each in requirement.schemes if each not in card.security_schemes):
                field = f"{path}securityRequirements[{index}].schemes.{name}"
                yield Problem(field, "is not one of the securitySchemes")


def _scheme_urls(value: Struct, path: str) -> Iterator[Problem]:
    """The addresses in a security scheme: every text field whose name says that it is one."""
    for field in msgspec.structs.fields(value):
        item, name = getattr(value, field.name), f"{path}.{field.encode_name}"
        if isinstance(item, Struct):
            yield from _scheme_urls(item, name)
        elif isinstance(item, str) and item and field.name.endswith("_url") and not _is_web_address(item):
            yield Problem(name, "must be an absolute http or https URL")


def _is_web_address(text: str) -> bool:
    try:
        return not web_url(text).fragment and not re.search(r"\s", text)
    except ValueError:
        return False


def _json_name(of: Struct, name: str) -> str:
    return next(field.encode_name for field in msgspec.structs.fields(of) if field.name == name)
