"""What a client's message may hold, beyond its shape: sizes, counts, addresses, media types (A2A §13.4). Pure."""

import re
from collections.abc import Iterator

from a2a_server.protocol.errors import InvalidParams
from a2a_server.protocol.types import Message, Part
from a2a_server.protocol.web_url import web_url
from core.model.errors import Problem

MOST_PARTS = 1_000
MOST_REFERENCES = 100
MOST_EXTENSIONS = 100
LONGEST_CONTEXT_ID = 1_024  # characters, like those that follow
LONGEST_URL = 8_192
LONGEST_FILENAME = 255
LONGEST_MEDIA_TYPE = 255

# RFC 9110 §8.3.1; no nested quantifiers over the same characters, so that it takes linear time.
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[\t\x20-\x7e])*"'
_MEDIA_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))*", re.ASCII)


def check_message(message: Message, *, max_file: int) -> None:
    """Raise InvalidParams with everything that is wrong. `max_file`: bytes of one `raw` part."""
    if problems := [Problem(f"message.{problem.field}", problem.message) for problem in _problems(message, max_file)]:
        raise InvalidParams.of(problems)


def _problems(message: Message, max_file: int) -> Iterator[Problem]:
    if len(message.context_id) > LONGEST_CONTEXT_ID:
        yield Problem("contextId", f"is longer than {LONGEST_CONTEXT_ID} characters")
    for field, values, most in (
        ("parts", message.parts, MOST_PARTS),
        ("referenceTaskIds", message.reference_task_ids, MOST_REFERENCES),
        ("extensions", message.extensions, MOST_EXTENSIONS),
    ):
        if len(values) > most:
            yield Problem(field, f"has {len(values)} entries; {most} are allowed")
    for index, part in enumerate(message.parts[:MOST_PARTS]):
        for problem in _part_problems(part, max_file):
            yield Problem(f"parts[{index}].{problem.field}", problem.message)


def _part_problems(part: Part, max_file: int) -> Iterator[Problem]:
    if part.raw is not None and len(part.raw) > max_file:
        yield Problem("raw", f"has {len(part.raw)} bytes; {max_file} are allowed")
    if part.url is not None and (text := _wrong_url(part.url)):
        yield Problem("url", text)
    if len(part.filename) > LONGEST_FILENAME:
        yield Problem("filename", f"is longer than {LONGEST_FILENAME} characters")
    if len(part.media_type) > LONGEST_MEDIA_TYPE:
        yield Problem("mediaType", f"is longer than {LONGEST_MEDIA_TYPE} characters")
    elif part.media_type and not _MEDIA_TYPE.fullmatch(part.media_type):
        yield Problem("mediaType", "is not a valid media type (for example text/plain)")


def _wrong_url(url: str) -> str | None:
    """What keeps it from being fetched whatever is there; where it leads is judged when it is (core.outside.egress)."""
    if len(url) > LONGEST_URL:
        return f"is longer than {LONGEST_URL} characters"
    try:
        web_url(url)
    except ValueError as error:
        return str(error)
    return None
