"""What callers see of a database whose rows had content as A2A's JSON (schema 0006): the same as before."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from a2a_server.app import build
from a2a_server.config import Config
from a2a_server.protocol.codec import encode
from a2a_server.views.translate import updates
from core.executors.base import Parts, TaskContext
from core.model.streaming import stream_event
from core.run.retention import Retention, RetentionTimes
from core.storage.base import EventQuery
from core.storage.sqlite.integrity import examine
from core.storage.sqlite.migrate import REVISIONS, stored_revision
from core.storage.sqlite.sql import SqlStorage
from tests.a2a_server.conftest import Caller, Lab, message, tree_message
from tests.core.storage.former import before_content

URI = "https://a.example/x"
ODD = [
    {"text": "t", "metadata": {"k": {"mediaType": 1.0}}, "mediaType": "text/markdown"},
    {"raw": b"\xff\x00", "filename": "", "mediaType": "a/b"},
    {"raw": "_w", "filename": "in the other alphabet"},
    {"raw": "!", "filename": "no base64"},
    {"url": "https://a.example/f", "kind": "file", "n": None},
    {"data": None, "metadata": {}},
    {"data": {"tasks": [2, 2.0, 2**60]}},
    {"text": "snake", "media_type": "text/plain"},
    {"text": 7},
    {"text": "two", "data": "things"},
    {"text": "x", "extra": {"text": "y"}},
    {},
]


async def talk(inputs: dict[str, Any], context: TaskContext) -> Any:
    await context.message("thinking", metadata={"m": [1.0]}, extensions=[URI])
    await context.message(Parts(ODD))
    await context.artifact("ans")
    await context.artifact("wer", metadata={"a": 1})
    await context.artifact(Parts(ODD), artifact_id="b", name="", description="d", extensions=[URI], last_chunk=True)
    seen = []
    for question in (Parts([{"text": "one?", "metadata": {"q": 1}}, {"data": {"choices": [1]}}]), "two?"):
        answer = await context.ask(question, metadata={"q": question}, extensions=[URI])
        seen.append([answer, context.answer_message])
    await context.message("thanks")
    return Parts([*ODD, {"data": seen}])


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Caller]:
    lab = Lab()
    lab._register(talk, has_effects=False)
    application = build(Config(), registry=lab.registry, storage=SqlStorage(str(path)))
    await application.start()
    await application.resume()
    try:
        yield Caller(application, lab)
    finally:
        await application.stop(1.0)


def answer(task_id: str, text: str) -> Any:
    given = message(None, {"text": text, "metadata": {"k": 1}}, {"raw": "aGk=", "filename": "f"}, task=task_id)
    given["message"] |= {"metadata": {"n": 1.0}, "extensions": [URI], "referenceTaskIds": [task_id]}
    return given


async def seen_of(call: Caller, tasks: list[str]) -> dict[str, Any]:
    """All that there is to see."""
    seen: dict[str, Any] = {"ListTasks": await call("ListTasks", {"includeArtifacts": True, "historyLength": 100})}
    for task_id in tasks:
        for method in ("GetTask", "tasks/get"):
            seen[f"{method} {task_id}"] = await call(method, {"id": task_id})
        for method in ("tasks.get", "tasks.tree"):
            seen[f"{method} {task_id}"] = await call(method, {"task_id": task_id})
        log = await call.session.storage.events(EventQuery(tree_id=task_id))
        seen[f"stream {task_id}"] = [encode(updates(each, task_id, "c")) for each in log]
        seen[f"tasks.* stream {task_id}"] = [encode(stream_event(each)) for each in log]
    return seen


async def fill(call: Caller) -> list[str]:
    """Tasks that have ended, one of them compacted, and tasks that wait after none and after one answer."""
    compacted, ended, answered, asked = [(await call.send("talk"))["id"] for _ in range(4)]
    for task_id in (compacted, ended):
        assert (await call("SendMessage", answer(task_id, "first")))["task"]["status"]["state"].endswith("REQUIRED")
        done = (await call("SendMessage", answer(task_id, "second")))["task"]
        assert done["status"]["state"] == "TASK_STATE_COMPLETED"
        if task_id == compacted:
            session = call.session
            times = RetentionTimes(compact_after=0.0, drop_after=None)
            assert (await Retention(session.storage, session.feed, session.clock, times).round())[0] == 1
    await call("SendMessage", answer(answered, "first"))
    tree = tree_message({"id": "r", "name": "root"}, {"name": "echo", "parent_id": "r", "inputs": {"parts": ODD[:1]}})
    root = (await call("SendMessage", tree))["task"]["id"]
    return [compacted, ended, answered, asked, root]


@pytest.mark.asyncio
async def test_callers_see_the_same_tasks_before_and_after(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    async with serving(path) as call:
        tasks = await fill(call)
        before = await seen_of(call, tasks)
    with closing(sqlite3.connect(path)) as connection:
        before_content(connection)
        connection.commit()
        log = b"".join(body for (body,) in connection.execute("SELECT body FROM events ORDER BY tree_id, seq"))
    assert log.count(b'"artifactId"') > 8 and log.count(b'"messageId"') > 8 and b'"artifact_id"' not in log
    assert not examine(path).problems, "a database of before is whole, too"

    async with serving(path) as call:
        assert await seen_of(call, tasks) == before
        # The one that had an answer gets the other one, and its executor sees both messages as it always did.
        done = (await call("SendMessage", answer(tasks[2], "second")))["task"]
        (result,) = [each for each in done["artifacts"] if each["artifactId"] == tasks[2]]
        (first, said), (second, _) = result["parts"][-1]["data"]
        assert first == [{"text": "first", "metadata": {"k": 1}}, {"raw": "aGk=", "filename": "f"}]
        assert (said["parts"], said["metadata"], said["extensions"]) == (first, {"n": 1.0}, [URI])
        assert second[0]["text"] == "second"
        said = [each["parts"][0].get("text") for each in done["history"] if each["role"] == "ROLE_AGENT"]
        assert said == ["thinking", "t", "one?", "two?", "thanks"], "nothing is said again"
    assert stored_revision(path) == REVISIONS[-1]
    assert not examine(path).problems
