"""Rows as the schemas before 0007 had them: with content as the JSON of A2A."""

import sqlite3
from typing import Any
from zlib import crc32

import msgspec

from core.model import events as e
from core.model.content import Said
from core.model.content_json import artifact_object, message_object, part_object
from core.model.events import Recorded
from core.model.task import Task
from core.storage import codec


def former_event(recorded: Recorded) -> bytes:
    """The body of the event's row."""
    told: dict[str, Any] = msgspec.to_builtins(recorded)
    match recorded.event:
        case e.ArtifactAdded(artifact=artifact):
            told["event"]["artifact"] = artifact_object(artifact)
        case e.MessageSent(message=message) | e.MessageReceived(message=message):
            told["event"]["message"] = former_message(message)
        case e.InputProvided(message=Said() as message):
            told["event"]["message"] = former_message(message)
        case e.InputRequested(parts=parts):
            told["event"]["parts"] = [part_object(part) for part in parts]
    return msgspec.json.encode(told)


def former_message(said: Said) -> dict[str, Any]:
    """A caller's message, or an executor's, which had no more than its parts and what stood beside them."""
    told = message_object(said)
    if said.message_id is None:
        del told["role"]
    return told


def former_state(task: Task, state: bytes) -> bytes:
    """The state in the task's row."""
    told: dict[str, Any] = msgspec.json.decode(state)
    if task.question is not None:
        told["question"].pop("content")
        told["question"]["parts"] = task.question.parts
    if task.answer_messages:
        told["answer_messages"] = [None if said is None else former_message(said) for said in task.answer_messages]
    return msgspec.json.encode(told)


def before_content(connection: sqlite3.Connection) -> None:
    """Make it a database of the schema 0006."""
    for row in connection.execute("SELECT tree_id, seq, body, crc FROM events").fetchall():
        body = former_event(codec.read_event(row))
        connection.execute(
            "UPDATE events SET body = ?, crc = ? WHERE tree_id = ? AND seq = ?", (body, crc32(body), *row[:2])
        )
    tasks = connection.execute("SELECT id, owner, spec, spec_crc, state, state_crc FROM tasks").fetchall()
    for row in tasks:
        state = former_state(codec.read_task(row), row[4])
        connection.execute("UPDATE tasks SET state = ?, state_crc = ? WHERE id = ?", (state, crc32(state), row[0]))
    connection.execute("UPDATE alembic_version SET version_num = '0006'")
