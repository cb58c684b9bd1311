"""What is said and what is made: the messages and artifacts of a task, and the parts that they are made of. Pure data.

The log and the tasks' rows keep it in this form (decision 0018). A field is None where it was not given, which is not
the same as empty. `core.model.content_json` has the JSON that executors and callbacks read and write.
"""

from typing import Any

from msgspec import UNSET, Struct, UnsetType


class Part(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A piece of content: a text, a file (`raw`, or the `url` that it is at), or `data`, which may be None."""

    text: str | None = None
    raw: str | None = None  # the bytes of a file in base64
    url: str | None = None
    data: Any | UnsetType = UNSET  # any JSON value
    filename: str | None = None
    media_type: str | None = None
    metadata: dict[str, Any] | None = None
    extra: dict[str, Any] = {}  # what else an executor wrote in it, as it wrote it


class Said(Struct, frozen=True, gc=False, omit_defaults=True):
    """A message: of an executor, which is its parts and what stands beside them, or of a caller, which names more."""

    parts: tuple[Part, ...]
    metadata: dict[str, Any] | None = None
    extensions: tuple[str, ...] = ()
    message_id: str | None = None  # from here on: of a caller's
    context_id: str | None = None
    task_id: str | None = None
    reference_task_ids: tuple[str, ...] = ()


class Artifact(Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """A piece of a task's output, or more of one that is there."""

    artifact_id: str
    parts: tuple[Part, ...]
    name: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: tuple[str, ...] = ()
