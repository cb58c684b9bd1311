"""Rows of the schemas before 0007, which kept content as the JSON of A2A, as rows are now (decision 0018).

What is not renamed stays as it is, byte by byte. A row that does not match its checksum is left alone: it stays what it
is, a corrupt one.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final
from zlib import crc32

import msgspec
from msgspec import Raw

from core.model.task import Told

SCHEMA: Final = "0007"  # the first one whose rows are as they are now
KINDS: Final = ("artifact_added", "input_provided", "input_requested", "message_received", "message_sent")

_TYPES: Final = frozenset(f'"{kind}"'.encode() for kind in KINDS)
_TEXTS: Final = {"text": "text", "raw": "raw", "url": "url", "filename": "filename", "mediaType": "media_type"}
_IN_ORDER: Final = ("text", "raw", "url", "data", "filename", "media_type", "metadata", "extra")
_BESIDE_PARTS: Final = {
    "artifactId": "artifact_id",
    "messageId": "message_id",
    "contextId": "context_id",
    "taskId": "task_id",
    "referenceTaskIds": "reference_task_ids",
}

_encode = msgspec.json.Encoder().encode
_object = msgspec.json.Decoder(dict[str, Raw]).decode
_array = msgspec.json.Decoder(list[Raw]).decode


def is_former(schema: str | None) -> bool:
    """Whether a database of this schema has such rows."""
    return schema is not None and schema < SCHEMA


def event_body(body: bytes) -> bytes:
    """The body of an event; of one of another kind, which has no content, it is as it was."""
    recorded = _object(body)
    event = _object(recorded["event"])
    if bytes(event["type"]) not in _TYPES:
        return body
    for name, changed in (("artifact", _content), ("message", _content), ("parts", _parts)):
        if name in event and not _is_null(event[name]):
            event[name] = Raw(_encode(changed(event[name])))
    recorded["event"] = Raw(_encode(event))
    return _encode(recorded)


class Marks:
    """By what an executor's messages and artifacts are known when it runs again: before, and now.

    `core.model.replay` makes these marks of their JSON. Without the present ones a task that waits for an answer would
    tell again what it told before it asked.
    """

    def __init__(self) -> None:
        self._messages: dict[int, int] = {}
        self._pieces: dict[
            str, tuple[int, int, int]
        ] = {}  # artifact -> number of its pieces so far, CRC before and now
        self._artifacts: dict[tuple[str, int, int], int] = {}  # artifact, number and CRC before -> CRC now

    def add(self, body: Any, crc: Any) -> None:
        """The next event of the task's log, unless it is corrupt."""
        with suppress(KeyError, msgspec.MsgspecError):
            if _is_whole(body, crc):
                self._add(_object(_object(body)["event"]))

    def _add(self, event: dict[str, Raw]) -> None:
        if bytes(event["type"]) == b'"message_sent"':
            self._messages[_mark(event["message"])] = _mark(_encode(_content(event["message"])))
        elif bytes(event["type"]) == b'"artifact_added"':
            given, now = event["artifact"], _encode(_content(event["artifact"]))
            appends, is_last = (bytes(event[name]) == b"true" for name in ("append", "last_chunk"))
            artifact_id = msgspec.json.decode(_object(given)["artifactId"], type=str)
            count, crc, crc_now = self._pieces.get(artifact_id, (0, 0, 0)) if appends else (0, 0, 0)
            kind = 2 * appends + is_last
            count, crc, crc_now = count + 1, crc32(given, crc ^ kind), crc32(now, crc_now ^ kind)
            self._pieces[artifact_id] = count, crc, crc_now
            self._artifacts[artifact_id, count, crc] = crc_now

    def now(self, told: Told) -> Told:
        """What was told before the question, by the present marks. What is not in the log stays as it is."""
        messages = tuple(self._messages.get(mark, mark) for mark in told.messages)
        known = self._artifacts
        artifacts = {name: (count, known.get((name, count, crc), crc)) for name, (count, crc) in told.artifacts.items()}
        return Told(messages, artifacts)


def task_state(state: bytes, marks: Marks | None = None) -> bytes:
    """What happened to a task: its open question, the messages that answered earlier ones, and what it told before."""
    fields = _object(state)
    if "question" in fields and not _is_null(fields["question"]):
        question = _object(fields["question"])
        parts = question.pop("parts")
        fields["question"] = Raw(_encode({"content": _parts(parts), **question}))
    if "answer_messages" in fields:
        messages = _array(fields["answer_messages"])
        fields["answer_messages"] = Raw(_encode([each if _is_null(each) else _content(each) for each in messages]))
    if marks is not None and "told" in fields and not _is_null(fields["told"]):
        fields["told"] = Raw(_encode(marks.now(msgspec.json.decode(fields["told"], type=Told))))
    return _encode(fields)


def event_row(row: Sequence[Any]) -> Sequence[Any]:
    """As `core.storage.codec.read_event` takes it."""
    tree_id, seq, body, crc = row
    return tree_id, seq, *_now(body, crc, event_body)


def task_row(row: Sequence[Any], marks: Marks | None = None) -> Sequence[Any]:
    """As `core.storage.codec.read_task` takes it."""
    *spec, state, crc = row
    return *spec, *_now(state, crc, lambda state: task_state(state, marks))


def _now(body: Any, crc: Any, changed: Callable[[bytes], bytes]) -> tuple[Any, Any]:
    """The body as it is now, and its checksum."""
    if not _is_whole(body, crc):
        return body, crc
    try:
        body = changed(body)
    except (KeyError, msgspec.MsgspecError):
        return body, crc
    return body, crc32(body)


def _is_whole(body: Any, crc: Any) -> bool:
    return isinstance(body, bytes) and crc32(body) == crc


def _content(value: Raw) -> dict[str, Any]:
    """A message or an artifact."""
    fields: dict[str, Any] = {_BESIDE_PARTS.get(name, name): each for name, each in _object(value).items()}
    fields.pop("role", None)  # of a caller's message; it was always the same
    fields["parts"] = _parts(fields["parts"])
    return fields


def _parts(value: Raw) -> list[dict[str, Any]]:
    return [_part(part) for part in _array(value)]


def _part(value: Raw) -> dict[str, Any]:
    if not _begins(value, "{"):
        return {"data": value}
    part: dict[str, Any] = {}
    extra: dict[str, Raw] = {}
    for name, member in _object(value).items():
        if name in _TEXTS and _begins(member, '"'):
            part[_TEXTS[name]] = member
        elif name == "data" or (name == "metadata" and _begins(member, "{")):
            part[name] = member
        else:
            extra[name] = member
    if extra:
        part["extra"] = extra
    return {name: part[name] for name in _IN_ORDER if name in part}


def _mark(message: bytes | Raw) -> int:
    data = bytes(message)
    return len(data) << 32 | crc32(data)


def _begins(value: Raw, character: str) -> bool:
    return memoryview(value)[0] == ord(character)


def _is_null(value: Raw) -> bool:
    return _begins(value, "n")
