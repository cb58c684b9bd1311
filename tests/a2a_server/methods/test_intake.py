"""How a message becomes work."""

from typing import Any

import pytest

from a2a_server.methods.intake import Intake, accepts, read, said_of
from a2a_server.protocol.codec import decode
from a2a_server.protocol.errors import ContentTypeNotSupported, InvalidParams
from a2a_server.protocol.types import SendMessageRequest
from core.model.content import Part, Said
from core.model.errors import InvalidPlan, Problem
from core.model.plan import Plan
from tests.a2a_server.conftest import Lab, message

TREE = {"data": {"tasks": [{"name": "echo"}]}}


def work(*parts: Any, metadata: Any = None, request: Any = None, default: str | None = None) -> Any:
    said = message(None, *parts)["message"] | {"metadata": metadata or {}}
    params = decode({"message": said, "metadata": request or {}}, SendMessageRequest)
    return read(params, Lab().registry, default)


def test_data_part_with_tasks_is_a_tree() -> None:
    told = work({"text": "please"}, TREE, request={"skillId": "echo"})
    assert told.items == [{"name": "echo"}]
    assert told.path == "message.parts[1].data"


def test_one_message_brings_one_tree() -> None:
    with pytest.raises(InvalidParams, match=r"message.parts\[1\].data.tasks"):
        work(TREE, TREE)


def test_the_log_keeps_all_of_a_message() -> None:
    bare = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "x"}]}
    assert said_of(bare) == Said((Part(text="x"),), message_id="m")
    more = {"contextId": "c", "taskId": "t", "metadata": {"k": 1}, "extensions": ["u"], "referenceTaskIds": ["r"]}
    assert said_of(bare | more) == Said((Part(text="x"),), {"k": 1}, ("u",), "m", "c", "t", ("r",))


@pytest.mark.parametrize("key", ["skillId", "skill_id"])
@pytest.mark.parametrize("place", ["metadata", "request"])
def test_skill_is_named_in_the_metadata_of_message_or_request(key: str, place: str) -> None:
    assert work({"text": "x"}, **{place: {key: "say"}}).skill == "say"


def test_default_skill_takes_what_names_none() -> None:
    assert work({"text": "x"}, default="say").skill == "say"


def test_message_wins_over_request_and_default() -> None:
    assert work({"text": "x"}, metadata={"skillId": "say"}, request={"skillId": "echo"}, default="boom").skill == "say"


@pytest.mark.parametrize("named", [{}, {"skillId": "unheard"}, {"skillId": "internal"}])
def test_without_a_known_skill_the_error_lists_them(named: Any) -> None:
    """`internal` is registered, but no skill: A2A callers cannot name it."""
    with pytest.raises(InvalidParams, match="the skills are: ask, boom,") as refusal:
        work({"text": "x"}, metadata=named)
    assert [problem.field for problem in refusal.value.violations] == ["message.metadata.skillId"]


@pytest.mark.parametrize("wrong", [1, "", ["echo"], {}])
def test_skill_id_is_text(wrong: Any) -> None:
    with pytest.raises(InvalidParams, match="must be the id of a skill"):
        work({"text": "x"}, metadata={"skillId": wrong})


@pytest.mark.parametrize(
    ("parts", "inputs"),
    [
        ([{"text": "a"}, {"text": "b"}], {"text": "a\nb"}),
        ([{"data": {"a": 1, "b": 1}}, {"data": {"b": 2}}], {"a": 1, "b": 2}),
        ([{"data": 7}], {"data": 7}),
        ([{"data": 7}, {"data": None}], {"data": [7, None]}),
        ([{"url": "https://example.com"}, {"text": "a"}], {"files": [{"url": "https://example.com"}], "text": "a"}),
    ],
)
def test_parts_become_inputs(parts: Any, inputs: Any) -> None:
    assert work(*parts, default="echo").items == [{"name": "echo", "inputs": inputs}]


def test_media_type_that_the_skill_does_not_take_is_refused() -> None:
    with pytest.raises(ContentTypeNotSupported):
        work({"text": "x", "mediaType": "text/plain"}, default="images")
    assert work({"url": "https://example.com", "mediaType": "image/png"}, default="images").skill == "images"


@pytest.mark.parametrize(
    ("mode", "media_type", "covered"),
    [
        ("text/plain", "text/plain; charset=utf-8", True),
        ("text/plain", "TEXT/Plain", True),
        ("*/*", "image/png", True),
        ("text/*", "text/html", True),
        ("text/*", "textual/html", False),
        ("text/plain", "text/html", False),
    ],
)
def test_modes_cover_media_types(mode: str, media_type: str, covered: bool) -> None:
    assert accepts([mode], media_type) is covered


def test_executors_see_the_request_without_the_tree_that_they_are_in() -> None:
    told = Intake(items=[], metadata={"k": 1}).request({"messageId": "m", "parts": [TREE, {"text": "x"}]})
    assert told == {"message": {"messageId": "m", "parts": [{"text": "x"}]}, "metadata": {"k": 1}}


def test_executors_see_what_came_beside_the_message() -> None:
    """Of the tasks that the message refers to, those that its caller may see."""
    intake = Intake(items=[], output_modes=["text/plain"])
    told = intake.request({"parts": [], "referenceTaskIds": ["seen", "foreign"]}, ["seen"], ("uri:x",))
    assert told == {
        "message": {"parts": [], "referenceTaskIds": ["seen"]},
        "metadata": {},
        "acceptedOutputModes": ["text/plain"],
        "extensions": ["uri:x"],
    }


def test_what_is_wrong_with_a_tree_is_told_in_the_paths_of_its_message() -> None:
    def refuse(items: Any) -> Plan:
        raise InvalidPlan([Problem("tasks[0].name", f"{items} is wrong")])

    intake = work({"text": "please"}, TREE)
    with pytest.raises(InvalidPlan) as refusal:
        intake.planned(refuse)
    assert [each.field for each in refusal.value.problems] == ["message.parts[1].data.tasks[0].name"]
    with pytest.raises(InvalidPlan) as refusal:
        work({"text": "x"}, default="say").planned(refuse)
    assert [each.field for each in refusal.value.problems] == ["tasks[0].name"]
