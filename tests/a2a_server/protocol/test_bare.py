"""Tests of protocol.bare: what is told of an answer for which there is no room, in all shapes of A2A."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from a2a_server.protocol import types as wire
from a2a_server.protocol.bare import MOST_PARTS, MOST_SAID, NO_ROOM, bare_object
from a2a_server.protocol.dialect import A2A_1_0, A2ADialect
from a2a_server.v0_3.dialect import A2A_0_3
from a2a_server.v0_3.rest import A2A_0_3_REST

DIALECTS = {"1.0": A2A_1_0, "0.3": A2A_0_3, "0.3 over HTTP": A2A_0_3_REST}
LONG = "x" * (MOST_SAID + 1)


def said(*parts: wire.Part, **fields: Any) -> wire.Message:
    return wire.Message(message_id="m", role=wire.Role.AGENT, parts=list(parts), **fields)


def task(message: wire.Message | None) -> wire.Task:
    status = wire.TaskStatus(state=wire.TaskState.FAILED, message=message, timestamp="2026-11-30T00:00:00.000Z")
    artifact = wire.Artifact(artifact_id="a", parts=[wire.Part(text=LONG)])
    about = {"progress": 0.5, "seq": 7, "rootTaskId": "r", "parentTaskId": "p", "nodes": [LONG]}
    return wire.Task(id="t", status=status, artifacts=[artifact], history=[said(wire.Part(text="y"))], metadata=about)


SHORT: dict[str, wire.Message] = {
    "a few words": said(wire.Part(text="out of memory")),
    "some parts": said(*[wire.Part(text="x" * (MOST_SAID // MOST_PARTS))] * MOST_PARTS),
    "as long as may be": said(wire.Part(text="x" * MOST_SAID)),
    "with extensions": said(wire.Part(text="x"), extensions=["https://a.example/x"]),
}
OTHERS: dict[str, wire.Message | None] = {
    "none": None,
    "long": said(wire.Part(text=LONG)),
    "long together": said(wire.Part(text="x" * MOST_SAID), wire.Part(text="x")),
    "many parts": said(*[wire.Part(text="")] * (MOST_PARTS + 1)),
    "data": said(wire.Part(data={"a": LONG})),
    "text and a file": said(wire.Part(text="x"), wire.Part(raw=b"x")),
    "metadata": said(wire.Part(text="x"), metadata={"a": LONG}),
    "a part's metadata": said(wire.Part(text="x", metadata={"a": LONG})),
}
WRAPPED: dict[str, Callable[[wire.Task], Any]] = {
    "task": lambda task: task,
    "response": lambda task: wire.SendMessageResponse(task=task),
}


def bared(dialect: A2ADialect, answer: Any) -> Any:
    told = msgspec.to_builtins(dialect.bare(dialect.shape(answer)))
    return told.get("task", told)


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("message", [*SHORT, *OTHERS])
@pytest.mark.parametrize("version", DIALECTS)
def test_a_bare_task_keeps_a_short_message_of_its_status(version: str, message: str, wrap: str) -> None:
    dialect, given = DIALECTS[version], (SHORT | OTHERS)[message]
    whole = msgspec.to_builtins(dialect.shape(task(given)))
    bare = bared(dialect, WRAPPED[wrap](task(given)))
    assert (bare["id"], bare["status"]["state"]) == ("t", whole["status"]["state"])
    assert not bare.keys() & {"artifacts", "history"}
    kept = {"progress": 0.5, "seq": 7, "rootTaskId": "r", "parentTaskId": "p"}
    if message in SHORT:
        assert bare["status"] == whole["status"]
        assert bare["metadata"] == kept | {"cut": ["artifacts", "history"]}
    else:
        assert "message" not in bare["status"]
        assert bare["metadata"] == kept | {"cut": ["artifacts", "history", "message"]}


@pytest.mark.parametrize("version", DIALECTS)
def test_of_a_direct_message_the_envelope_is_told(version: str) -> None:
    dialect = DIALECTS[version]
    answer = wire.SendMessageResponse(message=said(wire.Part(text=LONG), metadata={"a": LONG}))
    told = msgspec.json.encode(dialect.bare(dialect.shape(answer)))
    assert NO_ROOM.encode() in told and b'"m"' in told and len(told) < 500


@pytest.mark.parametrize("answer", [[1], None, {"id": "t", "inputs": LONG, "status": "failed"}])
def test_of_an_answer_of_ours_the_status_is_told(answer: Any) -> None:
    told = bare_object(answer)
    assert told == ({"id": "t", "status": "failed", "cut": ["inputs"]} if isinstance(answer, dict) else answer)
