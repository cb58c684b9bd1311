"""Files in A2A parts: `raw` bytes in base64, or the `url` they are at, which is fetched under the egress guard."""

from base64 import b64encode
from binascii import Error, a2b_base64
from collections.abc import Iterable, Mapping
from typing import Any

from core.model.errors import CallerError
from core.outside.egress import Egress, Outgoing
from core.outside.fetched import EgressError, Room


class FileUnreadable(CallerError):
    """The part is no file, or its file cannot be had. The text is safe to show."""


async def read_file(part: Mapping[str, Any], egress: Egress, owner: str = "", room: Room | None = None) -> bytes:
    """The content of a file part. Raises FileUnreadable; `egress` bounds what is fetched, in size and time.

    `owner`: on whose behalf it is fetched; `room` pays for the memory that it takes.
    """
    if isinstance(raw := part.get("raw"), str):
        try:
            return a2b_base64(raw, strict_mode=True)
        except (Error, ValueError):
            raise FileUnreadable("the file cannot be read: raw is not base64") from None
    if not isinstance(url := part.get("url"), str):
        raise FileUnreadable("the part is not a file: it has neither raw nor url")
    try:
        answer = await egress.fetch(Outgoing(url=url, follow_redirects=True, owner=owner), room)
    except EgressError as refusal:
        raise FileUnreadable(f"the file cannot be read: {refusal}") from refusal
    if answer.status_code != 200:
        raise FileUnreadable(f"the file cannot be read: its server answered with status {answer.status_code}")
    return answer.body


def encoded(parts: Iterable[Any]) -> list[Any]:
    """The parts with `raw` bytes as the base64 that goes over the wire."""
    return [_encoded(part) for part in parts]


def _encoded(part: Any) -> Any:
    if isinstance(part, dict) and isinstance(raw := part.get("raw"), bytes | bytearray | memoryview):
        return {**part, "raw": b64encode(raw).decode()}
    return part
