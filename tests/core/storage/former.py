"""Rows as the schemas before 0007 had them: with content as the JSON of A2A."""

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from zlib import crc32

import msgspec

from core.model import events as e
from core.model.content import Artifact, Said
from core.model.content_json import artifact_object, message_object, part_object
from core.model.events import Event, Recorded
from core.model.replay import key_of
from core.model.task import Task, Told
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


def told_by(events: Iterable[Event], written: Callable[[Any], Any]) -> Told:
    """The marks of what the events tell, written in that way, as `TaskContext` makes them."""
    messages: list[int] = []
    artifacts: dict[str, tuple[int, int]] = {}
    for event in events:
        if isinstance(event, e.MessageSent):
            messages.append(key_of(msgspec.json.encode(written(event.message))))
        elif isinstance(event, e.ArtifactAdded):
            count, crc = artifacts.get(event.artifact.artifact_id, (0, 0))
            crc = crc32(msgspec.json.encode(written(event.artifact)), crc ^ (2 * event.append + event.last_chunk))
            artifacts[event.artifact.artifact_id] = count + 1, crc
    return Told(tuple(messages), artifacts)


def former_told(told: Told, events: Sequence[Event]) -> Told:
    """By the JSON that rows had. `events` are those of the task up to its last question."""
    assert told == told_by(events, lambda content: content)
    return told_by(
        events, lambda content: artifact_object(content) if isinstance(content, Artifact) else former_message(content)
    )


def former_state(task: Task, state: bytes, events: Sequence[Event] = ()) -> bytes:
    """The state in the task's row, after these events of its log."""
    told: dict[str, Any] = msgspec.json.decode(state)
    if task.told is not None and not task.status.is_terminal:  # else its log may be compacted
        asked = max(n for n, event in enumerate(events) if isinstance(event, e.InputRequested))
        told["told"] = former_told(task.told, events[:asked])
    if task.question is not None:
        told["question"].pop("content")
        told["question"]["parts"] = task.question.parts
    if task.answer_messages:
        told["answer_messages"] = [None if said is None else former_message(said) for said in task.answer_messages]
    return msgspec.json.encode(told)


def before_content(connection: sqlite3.Connection) -> None:
    """Make it a database of the schema 0006."""
    connection.execute("ALTER TABLE trees DROP COLUMN lease")
    rows = connection.execute("SELECT tree_id, seq, body, crc FROM events ORDER BY tree_id, seq").fetchall()
    log = list(map(codec.read_event, rows))
    for row, each in zip(rows, log, strict=True):
        body = former_event(each)
        connection.execute(
            "UPDATE events SET body = ?, crc = ? WHERE tree_id = ? AND seq = ?", (body, crc32(body), *row[:2])
        )
    tasks = connection.execute("SELECT id, owner, spec, spec_crc, state, state_crc FROM tasks").fetchall()
    for row in tasks:
        task = codec.read_task(row)
        state = former_state(
            task, row[4], [each.event for each in log if each.tree_id == task.tree_id and each.task_id == task.id]
        )
        connection.execute("UPDATE tasks SET state = ?, state_crc = ? WHERE id = ?", (state, crc32(state), row[0]))
    connection.execute("UPDATE alembic_version SET version_num = '0006'")
