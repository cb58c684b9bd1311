"""What is kept of messages, artifacts and their parts: that which was given, as it was given."""

from typing import Any

import msgspec
import pytest
from msgspec import UNSET

from core.model.content import Artifact, Part, Said

PARTS: dict[str, tuple[Part, dict[str, Any]]] = {
    "a text": (Part(text="hi"), {"text": "hi"}),
    "an empty text": (Part(text=""), {"text": ""}),
    "nothing as data": (Part(data=None), {"data": None}),
    "data with a whole number and one with a fraction of nothing": (Part(data=[2, 2.0]), {"data": [2, 2.0]}),
    "a file": (Part(raw="aGk=", filename="", media_type="a/b"), {"raw": "aGk=", "filename": "", "media_type": "a/b"}),
    "empty metadata": (Part(url="https://a.example", metadata={}), {"url": "https://a.example", "metadata": {}}),
    "more than a part has": (Part(text="x", extra={"kind": "text"}), {"text": "x", "extra": {"kind": "text"}}),
    "nothing": (Part(), {}),
}


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_stored_as_it_is_and_nothing_else_of_it(name: str) -> None:
    part, stored = PARTS[name]
    data = msgspec.json.encode(part)
    assert data == msgspec.json.encode(stored)
    assert msgspec.json.decode(data, type=Part) == part


def test_a_part_without_data_is_not_one_of_null() -> None:
    assert Part(text="x").data is UNSET
    assert Part() != Part(data=None)


@pytest.mark.parametrize("metadata", [None, {}, {"k": [None]}])
def test_messages_and_artifacts_are_stored_as_they_are(metadata: dict[str, Any] | None) -> None:
    parts = (Part(text="x"), Part(data={"n": 2.0}))
    said = Said(parts, metadata, ("u",), "m", "c", "t", ("r",))
    artifact = Artifact(artifact_id="a", parts=parts, name="", metadata=metadata)
    for value in (said, artifact):
        assert msgspec.json.decode(msgspec.json.encode(value), type=type(value)) == value


def test_a_text_that_an_executor_says_is_stored_as_shortly_as_can_be() -> None:
    """The keys by which `core.model.replay` knows a message are made of this JSON, and outlive a program's version."""
    assert msgspec.json.encode(Said((Part(text="hi"),))) == b'{"parts":[{"text":"hi"}]}'
