"""Content as executors, callbacks and `tasks.*` read and write it: nothing is lost on the way in, nor the way out."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.model.content import Artifact, Part, Said
from core.model.content_json import artifact_object, message_object, part_object, part_of, parts_of
from tests.core.contents import texts

NAMES = ["text", "raw", "url", "data", "filename", "mediaType", "media_type", "metadata", "extra", "kind"]
values = (
    st.none() | st.text(max_size=3) | st.integers(-5, 5) | st.just({}) | st.just({"k": 1}) | st.just([{"text": "x"}])
)
written = st.dictionaries(st.sampled_from(NAMES), values)


@given(written)
def test_a_part_is_written_as_it_was_read_also_after_it_was_stored(value: dict[str, Any]) -> None:
    part = part_of(value)
    assert part_object(part) == value
    assert part_object(msgspec.json.decode(msgspec.json.encode(part), type=Part)) == value


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ({"text": "x"}, Part(text="x")),
        ({"text": "x", "metadata": {}}, Part(text="x", metadata={})),
        ({"raw": "aGk=", "filename": "f", "mediaType": "a/b"}, Part(raw="aGk=", filename="f", media_type="a/b")),
        ({"url": "u", "data": None}, Part(url="u", data=None)),
        ({"text": 7, "metadata": "m", "kind": None}, Part(extra={"text": 7, "metadata": "m", "kind": None})),
        ({"media_type": "a/b", "extra": 1}, Part(extra={"media_type": "a/b", "extra": 1})),
        ("bare", Part(data="bare")),
        ([1], Part(data=[1])),
    ],
)
def test_a_member_that_is_not_what_it_should_be_is_kept_beside_the_others(value: Any, part: Part) -> None:
    assert part_of(value) == part


def test_a_text_is_a_text_and_every_other_value_is_data() -> None:
    assert parts_of("x") == texts("x")
    for value in (None, 7, 2.0, ["x"], {"text": "x"}):
        assert parts_of(value) == (Part(data=value),)


def test_an_artifact_has_what_was_said_of_it_and_no_more() -> None:
    bare = Artifact(artifact_id="a", parts=texts("x"))
    assert artifact_object(bare) == {"artifactId": "a", "parts": [{"text": "x"}]}
    whole = Artifact(artifact_id="a", parts=(), name="", description="d", metadata={}, extensions=("u",))
    told = {"artifactId": "a", "parts": [], "name": "", "description": "d", "metadata": {}, "extensions": ["u"]}
    assert artifact_object(whole) == told


def test_a_caller_s_message_has_what_it_came_with_and_no_more() -> None:
    bare = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
    assert message_object(Said(texts("x"), message_id="m")) == bare
    whole = Said(texts("x"), {"k": 1}, ("u",), "m", "c", "t", ("r",))
    more = {"contextId": "c", "taskId": "t", "metadata": {"k": 1}, "extensions": ["u"], "referenceTaskIds": ["r"]}
    assert message_object(whole) == bare | more
