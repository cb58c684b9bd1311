"""What may be asked of a tree: imperative, and may be refused. Pure data.

`by` is the owner-like name of the caller (`core.model.owners`), if that is not the tree's owner.
"""

from typing import Any

from msgspec import Struct

from core.model.content import Artifact, Part, Said
from core.model.task import Cause, Told


class Execute(Struct, frozen=True, gc=False):
    """Run the whole tree (`task_id` None), or one task with its unfinished dependencies and what depends on it."""

    task_id: str | None = None
    force: bool = False
    by: str | None = None


class StartTask(Struct, frozen=True, gc=False):
    """Give the task to a new attempt. `inputs_from`: which dependency's result gives which input, for the record."""

    task_id: str
    inputs_from: dict[str, str] = {}


class ReportProgress(Struct, frozen=True, gc=False):
    """An attempt tells how far it is."""

    task_id: str
    attempt: int
    fraction: float
    message: str | None = None


class SendMessage(Struct, frozen=True, gc=False):
    """An attempt says something to its caller."""

    task_id: str
    attempt: int
    message: Said
    is_reply: bool = False


class AddArtifact(Struct, frozen=True, gc=False):
    """An attempt gives a piece of its output."""

    task_id: str
    attempt: int
    artifact: Artifact
    append: bool = False
    last_chunk: bool = False


class RequestInput(Struct, frozen=True, gc=False):
    """An attempt asks its caller one question or several, whose parts follow each other, and ends."""

    task_id: str
    attempt: int
    parts: tuple[Part, ...]
    auth: bool = False
    metadata: dict[str, Any] = {}
    extensions: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # of each question, by which its answer is known
    told: Told | None = None  # what the attempt said before


class ProvideInput(Struct, frozen=True, gc=False):
    """The caller's answer. For a root without a question of its own: to the oldest open question of the tree.

    `each`: the value of each part of it. Where a task asks as many questions at once, each of them gets one; else the
    answer is the first one's, or with `is_exact` refused.
    """

    task_id: str
    answer: Any
    message: Said | None = None
    by: str | None = None
    each: tuple[Any, ...] = ()
    is_exact: bool = False
    extensions: tuple[str, ...] | None = None  # that the A2A request activated; None: it came by none


class CompleteTask(Struct, frozen=True, gc=False):
    """An attempt reports its result."""

    task_id: str
    attempt: int
    result: Any = None


class FailAttempt(Struct, frozen=True, gc=False):
    """An attempt reports that it failed; `chance` (uniform in [0, 1)) jitters the retry; `final`: do not retry."""

    task_id: str
    attempt: int
    error: str
    cause: Cause = Cause.EXECUTOR_ERROR
    chance: float = 0.0
    final: bool = False
    detail: str | None = None  # what the operator is told in place of `error`, where that is less than is known


class RejectTask(Struct, frozen=True, gc=False):
    """An attempt declines the task."""

    task_id: str
    attempt: int
    reason: str


class LoseAttempt(Struct, frozen=True, gc=False):
    """The process that ran the attempt is gone. `at_most_once`: its executor must not be run a second time.

    `alone`: no other attempt ran in that process when it crashed.
    """

    task_id: str
    attempt: int
    crash: bool = True
    at_most_once: bool = False
    alone: bool = True


class ExpireTask(Struct, frozen=True, gc=False):
    """The time of the task, or of the group with all below it, may be over."""

    task_id: str


class Cancel(Struct, frozen=True, gc=False):
    """Cancel the task, its subtree and all that requires them.

    `uninterruptible` names running tasks whose executor cannot be interrupted: they run to their end, unless `force`.
    """

    task_id: str
    reason: str | None = None
    force: bool = False
    uninterruptible: frozenset[str] = frozenset()
    by: str | None = None
    attempt: int | None = None  # only while this attempt of the task runs: it says so itself


class UpdateTask(Struct, frozen=True, gc=False):
    """Change fields of a task that has not been started."""

    task_id: str
    changes: dict[str, Any]
    by: str | None = None


class ReceiveMessage(Struct, frozen=True, gc=False):
    """A caller's message for a task that does not wait for one: kept in its history."""

    task_id: str
    message: Said


Command = (
    Execute
    | StartTask
    | ReportProgress
    | SendMessage
    | AddArtifact
    | RequestInput
    | ProvideInput
    | CompleteTask
    | FailAttempt
    | RejectTask
    | LoseAttempt
    | ExpireTask
    | Cancel
    | UpdateTask
    | ReceiveMessage
)
