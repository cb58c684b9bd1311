"""Content as JSON values, in A2A's spelling: as executors and callbacks read and write it, and `tasks.*`. Pure.

Reading and writing a part gives the same value again, whatever is in it.
"""

from typing import Any

from msgspec import UNSET

from core.model.content import Artifact, Part, Said

_TEXTS = {"text": "text", "raw": "raw", "url": "url", "filename": "filename", "mediaType": "media_type"}


def part_of(value: Any) -> Part:
    """The part that a JSON value stands for; what no part has is kept as `extra`. What is no object is data."""
    match value:
        case {"text": str() as text, **others} if not others:  # as most parts are
            return Part(text=text)
        case dict():
            return _part_of(value)
    return Part(data=value)


def _part_of(value: dict[str, Any]) -> Part:
    known: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    for name, member in value.items():
        if name in _TEXTS and isinstance(member, str):
            known[_TEXTS[name]] = member
        elif name == "data" or (name == "metadata" and isinstance(member, dict)):
            known[name] = member
        else:
            extra[name] = member
    return Part(**known, extra=extra)


def parts_of(value: Any) -> tuple[Part, ...]:
    """The one part that a JSON value is: a string's text, else data (semantics §9)."""
    return (Part(text=value),) if isinstance(value, str) else (Part(data=value),)


def part_object(part: Part) -> dict[str, Any]:
    """The part as an executor would write it."""
    told: dict[str, Any] = {}
    if part.text is not None:
        told["text"] = part.text
    if part.raw is not None:
        told["raw"] = part.raw
    if part.url is not None:
        told["url"] = part.url
    if part.data is not UNSET:
        told["data"] = part.data
    if part.filename is not None:
        told["filename"] = part.filename
    if part.media_type is not None:
        told["mediaType"] = part.media_type
    if part.metadata is not None:
        told["metadata"] = part.metadata
    return told | part.extra if part.extra else told


def artifact_object(artifact: Artifact) -> dict[str, Any]:
    """The artifact, or piece of one, as callbacks and `tasks.*` tell it."""
    told: dict[str, Any] = {"artifactId": artifact.artifact_id, "parts": [part_object(part) for part in artifact.parts]}
    if artifact.name is not None:
        told["name"] = artifact.name
    if artifact.description is not None:
        told["description"] = artifact.description
    if artifact.metadata is not None:
        told["metadata"] = artifact.metadata
    if artifact.extensions:
        told["extensions"] = list(artifact.extensions)
    return told


def message_object(said: Said) -> dict[str, Any]:
    """A caller's message, as an executor reads it."""
    told = {
        "messageId": said.message_id,
        "role": "ROLE_USER",
        "parts": [part_object(part) for part in said.parts],
        "contextId": said.context_id,
        "taskId": said.task_id,
        "metadata": said.metadata,
        "extensions": list(said.extensions) or None,
        "referenceTaskIds": list(said.reference_task_ids) or None,
    }
    return {name: value for name, value in told.items() if value is not None}
