"""Messages and artifacts of texts for tests, and what they say."""

from typing import Any

from core.model.content import Artifact, Part, Said


def texts(*given: str) -> tuple[Part, ...]:
    return tuple(Part(text=text) for text in given)


def said(*given: str, **more: Any) -> Said:
    return Said(texts(*given), **more)


def artifact(artifact_id: str, *given: str, **more: Any) -> Artifact:
    return Artifact(artifact_id=artifact_id, parts=texts(*given), **more)


def text_of(content: Said | Artifact) -> str:
    return "".join(part.text or "" for part in content.parts)
