"""What comes with a new tree beside its tasks. Pure."""

from typing import Any

from msgspec import Struct

from core.model.content import Said


class Submission(Struct, frozen=True, kw_only=True):
    """Where a tree comes from, and what its caller said with it."""

    origin: str = "tasks"  # the methods that it came through: A2A's see only their own trees
    context_id: str | None = None
    metadata: dict[str, Any] = {}  # the request, as executors see it
    message: Said | None = None  # that it was made of
    original_task_id: str | None = None  # of which it is a copy
    by: str | None = None  # who acted for its owner


BARE = Submission()  # what comes with a tree of which nothing else is known
