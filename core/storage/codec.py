"""Core values to rows and back. Bodies are JSON, guarded by a CRC-32: a row that does not match it is never served.

Nor is one whose key or owner, by which it was found, is not what the guarded body says.

A task is two JSON objects, one for what the caller wrote and one for what happened; reading joins them into one object
and decodes that. A tree's head is split in the same way. Fields at their defaults are left out.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any
from zlib import crc32

import msgspec
from msgspec.structs import FieldInfo

from core.model.errors import StorageError
from core.model.events import KINDS, Recorded
from core.model.owners import tenant_of
from core.model.task import Task, TaskStatus, TreeHead
from core.storage.base import Document, Node

Row = tuple[Any, ...]

EVENT_BODY = 5  # its place in an event's row
TASK_OWNER, TASK_SPEC = 4, 9  # their places in a task's row
_FIRST_STATE_FIELD = "status"  # of a task: the fields from here on are what happened
_BULK_FIELDS = ("scope", "metadata")  # of a head: without bound, and seldom replaced

_encode = msgspec.json.Encoder().encode
_decode_task = msgspec.json.Decoder(Task).decode
_decode_head = msgspec.json.Decoder(TreeHead).decode
_decode_event = msgspec.json.Decoder(Recorded).decode


def _part(name: str, fields: Sequence[FieldInfo]) -> Callable[[Any], bytes]:
    """An encoder of these fields of a value. It costs two C calls, whatever their number."""

    def field(info: FieldInfo) -> Any:
        if info.default_factory is not msgspec.NODEFAULT:
            return msgspec.field(default_factory=info.default_factory)
        # None where there is no default: such a field never is None, so it is always written.
        return msgspec.field(default=None if info.required else info.default)

    shape: Any = msgspec.defstruct(name, [(f.name, f.type, field(f)) for f in fields], omit_defaults=True, gc=False)
    values: Callable[[Any], tuple[Any, ...]] = attrgetter(*(f.name for f in fields))
    return lambda value: _encode(shape(*values(value)))


_TASK_FIELDS = msgspec.structs.fields(Task)
_SPLIT = [f.name for f in _TASK_FIELDS].index(_FIRST_STATE_FIELD)
_encode_spec = _part("TaskSpec", _TASK_FIELDS[:_SPLIT])
_encode_state = _part("TaskState", _TASK_FIELDS[_SPLIT:])
_HEAD_FIELDS = msgspec.structs.fields(TreeHead)
_encode_body = _part("HeadBody", [f for f in _HEAD_FIELDS if f.name not in _BULK_FIELDS])
_encode_bulk = _part("HeadBulk", [f for f in _HEAD_FIELDS if f.name in _BULK_FIELDS])


def event_row(recorded: Recorded) -> Row:
    """For `statements.INSERT_EVENTS`."""
    event = recorded.event
    body = _encode(recorded)
    return recorded.tree_id, recorded.seq, KINDS[type(event)], event.task_id, recorded.at, body, crc32(body)


def task_row(task: Task) -> Row:
    """For `statements.PUT_TASKS`."""
    spec, state = _encode_spec(task), _encode_state(task)
    return (
        task.id,
        task.tree_id,
        task.parent_id,
        task.position,
        task.owner,
        task.name,
        task.user_id,
        task.status.value,
        task.created_at,
        spec,
        crc32(spec),
        state,
        crc32(state),
        tenant_of(task.owner),
    )


def task_state_row(task: Task) -> Row:
    """For `statements.UPDATE_TASK_STATES`."""
    state = _encode_state(task)
    return task.id, task.status.value, state, crc32(state)


def task_spec_row(task: Task) -> Row:
    """For `statements.UPDATE_TASK_SPECS`."""
    spec = _encode_spec(task)
    return task.id, task.name, task.user_id, spec, crc32(spec)


def head_row(head: TreeHead) -> Row:
    """For `statements.INSERT_TREES`."""
    body, bulk = _encode_body(head), _encode_bulk(head)
    return (
        head.id,
        head.owner,
        head.version,
        head.status.value,
        head.run,
        head.is_live,
        head.origin,
        head.context_id,
        head.created_at,
        head.updated_at,
        body,
        crc32(body),
        bulk,
        crc32(bulk),
        tenant_of(head.owner),
    )


def head_change_row(head: TreeHead, expected: int) -> Row:
    """For `statements.UPDATE_TREES`; `expected` is the version that the stored tree must have."""
    body = _encode_body(head)
    return (
        head.id,
        expected,
        head.version,
        head.status.value,
        head.run,
        head.is_live,
        head.updated_at,
        body,
        crc32(body),
    )


def head_version_row(head: TreeHead, expected: int) -> Row:
    """For `statements.UPDATE_TREE_VERSIONS`."""
    body = _encode_body(head)
    return head.id, expected, head.version, body, crc32(body)


def head_bulk_row(head: TreeHead) -> Row:
    """For `statements.UPDATE_TREE_BULKS`."""
    bulk = _encode_bulk(head)
    return head.id, bulk, crc32(bulk)


def document_row(document: Document) -> Row:
    """For `statements.PUT_DOCUMENTS` and `statements.INSERT_DOCUMENTS`."""
    columns = (document.kind, document.id, document.owner, document.tree_id, float(document.at))
    return (*columns, document.body, _document_crc(columns, document.body))


def same_keys(one: TreeHead, other: TreeHead) -> bool:
    """Whether both versions of a head have the same in all columns but the version."""
    return (
        one.updated_at == other.updated_at
        and one.status is other.status
        and one.run == other.run
        and one.is_live is other.is_live
    )


def same_bulk(one: TreeHead, other: TreeHead) -> bool:
    """Whether both heads have the same bulk; quick where one was made from the other."""
    return (one.scope is other.scope or one.scope == other.scope) and (
        one.metadata is other.metadata or one.metadata == other.metadata
    )


def read_task(row: Sequence[Any], tenant: str | None = None) -> Task:
    """From (id, owner, spec, spec_crc, state, state_crc). Raises StorageError when the row is corrupt.

    So is one that was found by this `tenant`, which is not that of its owner.
    """
    task_id, owner, spec, spec_crc, state, state_crc = row
    try:
        if crc32(spec) == spec_crc and crc32(state) == state_crc:
            task = _decode_task(_joined(spec, state))
            if task.id == task_id and task.owner == owner and (tenant is None or tenant == tenant_of(owner)):
                return task
    except (TypeError, msgspec.MsgspecError):
        pass
    raise StorageError(f"The stored task {task_id} is corrupt")


def read_node(row: Sequence[Any]) -> Node:
    """From (id, name, status, parent_id). Raises StorageError when the status is none."""
    task_id, name, status, parent_id = row
    try:
        return Node(task_id, name, TaskStatus(status), parent_id)
    except ValueError:
        raise StorageError(f"The stored task {task_id} is corrupt") from None


def read_head(row: Sequence[Any]) -> TreeHead:
    """From (id, owner, body, body_crc, bulk, bulk_crc). Raises StorageError when the row is corrupt."""
    tree_id, owner, body, body_crc, bulk, bulk_crc = row
    try:
        if crc32(body) == body_crc and crc32(bulk) == bulk_crc:
            head = _decode_head(_joined(body, bulk))
            if head.id == tree_id and head.owner == owner:
                return head
    except (TypeError, msgspec.MsgspecError):
        pass
    raise StorageError(f"The stored tree {tree_id} is corrupt")


def read_bare_head(row: Sequence[Any], tenant: str | None = None) -> TreeHead:
    """From (id, owner, body, body_crc). Raises StorageError when the row is corrupt, as `read_task`."""
    tree_id, owner, body, body_crc = row
    try:
        if crc32(body) == body_crc:
            head = _decode_head(body)
            if head.id == tree_id and head.owner == owner and (tenant is None or tenant == tenant_of(owner)):
                return head
    except (TypeError, msgspec.MsgspecError):
        pass
    raise StorageError(f"The stored tree {tree_id} is corrupt")


def read_event(row: Sequence[Any]) -> Recorded:
    """From (tree_id, seq, body, crc). Raises StorageError when the row is corrupt."""
    tree_id, seq, body, crc = row
    try:
        if crc32(body) == crc:
            recorded = _decode_event(body)
            if recorded.tree_id == tree_id and recorded.seq == seq:
                return recorded
    except (TypeError, msgspec.MsgspecError):
        pass
    raise StorageError(f"The stored event {seq} of tree {tree_id} is corrupt")


def read_document(row: Sequence[Any]) -> Document:
    """From (kind, id, owner, tree_id, at, body, crc). Raises StorageError when the row is corrupt."""
    kind, document_id, owner, tree_id, at, body, crc = row
    if not isinstance(body, bytes) or _document_crc((kind, document_id, owner, tree_id, at), body) != crc:
        raise StorageError(f"The stored {kind} {document_id} is corrupt")
    return Document(kind=kind, id=document_id, owner=owner, tree_id=tree_id, at=at, body=body)


def _document_crc(columns: Sequence[Any], body: bytes) -> int:
    """Of all columns: the body belongs to the user of the document, and does not repeat them."""
    return crc32(body, crc32(_encode(columns)))


def _joined(first: bytes, second: bytes) -> bytes:
    """One JSON object with the fields of both; the first is never empty."""
    return first if second == b"{}" else first[:-1] + b"," + second[1:]
