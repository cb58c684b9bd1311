"""What has happened to a tree: the log's entries, in the past tense. They may not be refused.

Pure data. `TaskTree.apply` is the only reader that changes anything because of them. `by` is who asked for it, where
that was not the tree's owner (`core.model.owners`).
"""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from core.model.content import Artifact, Part, Said
from core.model.task import Cause, TaskStatus, Told


class TreeCreated(Struct, frozen=True, gc=False, omit_defaults=True, tag="tree_created"):
    """The tree and all its tasks were stored."""

    size: int
    task_id: str
    by: str | None = None


class MessageReceived(Struct, frozen=True, gc=False, tag="message_received"):
    """A caller's message reached this task; kept for its history."""

    task_id: str
    message: Said


class RunStarted(Struct, frozen=True, gc=False, omit_defaults=True, tag="run_started"):
    """The tasks in `scope` (None: all) that are not completed, or all of them with `force`, are to run."""

    task_id: str
    run: int
    scope: tuple[str, ...] | None = None
    force: bool = False
    by: str | None = None


class TaskStarted(Struct, frozen=True, gc=False, omit_defaults=True, tag="task_started"):
    """An attempt owns the task. Its resolved inputs are the results of the dependencies but the `absent` ones.

    `inputs_from`: of inputs that are not the task's own, the key of the dependency whose result gave each, as
    `core.model.inputs.sources_of` bounds them.
    """

    task_id: str
    attempt: int
    absent: tuple[str, ...] = ()
    inputs_from: dict[str, str] = {}


class TaskProgressed(Struct, frozen=True, gc=False, tag="task_progressed"):
    """The executor told how far it is (0 to 1)."""

    task_id: str
    attempt: int
    fraction: float
    message: str | None = None


class MessageSent(Struct, frozen=True, gc=False, tag="message_sent"):
    """The executor said something to its caller; `is_reply`: a direct Message in place of a Task."""

    task_id: str
    attempt: int
    message: Said
    is_reply: bool = False


class ArtifactAdded(Struct, frozen=True, gc=False, tag="artifact_added"):
    """The executor gave a piece of its output: an artifact, or with `append` more of one."""

    task_id: str
    attempt: int
    artifact: Artifact
    append: bool = False
    last_chunk: bool = False


class InputRequested(Struct, frozen=True, gc=False, tag="input_requested"):
    """The attempt ended with one question or several; nothing runs until an answer comes."""

    task_id: str
    attempt: int
    parts: tuple[Part, ...]
    auth: bool = False
    metadata: dict[str, Any] = {}  # of the message that asks, like the extensions
    extensions: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()  # of each question
    told: Told | None = None  # what was said before, so that it is not told again after the answer


class InputProvided(Struct, frozen=True, gc=False, omit_defaults=True, tag="input_provided"):
    """The caller answered the open question, and as many of those asked with it as `rest` has answers."""

    task_id: str
    answer: Any
    message: Said | None = None  # that brought it
    by: str | None = None
    rest: tuple[Any, ...] = ()
    extensions: tuple[str, ...] | None = None  # that the A2A request activated; None: it came by none


class AttemptFailed(Struct, frozen=True, gc=False, tag="attempt_failed"):
    """The attempt failed and another one will start at `retry_at`."""

    task_id: str
    attempt: int
    error: str
    cause: Cause
    retry_at: float
    detail: str | None = None  # what only an operator is told


class AttemptLost(Struct, frozen=True, gc=False, tag="attempt_lost"):
    """The process that ran the attempt is gone; another one will start.

    Only a `crash` that met the attempt `alone` counts towards poison: one beside others may have been their doing.
    """

    task_id: str
    attempt: int
    crash: bool = True
    alone: bool = True


class TaskCompleted(Struct, frozen=True, gc=False, tag="task_completed"):
    """The attempt returned its result."""

    task_id: str
    attempt: int
    result: Any = None


class TaskSkipped(Struct, frozen=True, gc=False, tag="task_skipped"):
    """The task completed without having run: its dependencies have ended, and not as one of them has to for it."""

    task_id: str
    reason: str


class TaskFailed(Struct, frozen=True, gc=False, tag="task_failed"):
    """The task failed for good in this run."""

    task_id: str
    attempt: int
    error: str
    cause: Cause
    detail: str | None = None  # what only an operator is told


class TaskRejected(Struct, frozen=True, gc=False, tag="task_rejected"):
    """The agent declined the task."""

    task_id: str
    attempt: int
    reason: str


class TaskCancelled(Struct, frozen=True, gc=False, omit_defaults=True, tag="task_cancelled"):
    """The task was cancelled, or a task it requires did not complete. A running attempt is to be stopped."""

    task_id: str
    error: str
    cause: Cause
    by: str | None = None


class GroupStarted(Struct, frozen=True, gc=False, tag="group_started"):
    """The first task below this group started."""

    task_id: str


class GroupEnded(Struct, frozen=True, gc=False, tag="group_ended"):
    """All tasks below this group have ended; its status is their roll-up."""

    task_id: str
    status: TaskStatus
    error: str | None = None
    cause: Cause | None = None


class TaskUpdated(Struct, frozen=True, gc=False, omit_defaults=True, tag="task_updated"):
    """Fields that a caller may change were changed while the task was pending."""

    task_id: str
    changes: dict[str, Any]
    by: str | None = None


class TreeCancelled(Struct, frozen=True, gc=False, omit_defaults=True, tag="tree_cancelled"):
    """The run was cancelled as a whole; it ends when the last task that cannot be stopped has ended."""

    task_id: str
    error: str
    by: str | None = None


class TreeFinished(Struct, frozen=True, gc=False, tag="tree_finished"):
    """Every task of the run has ended."""

    task_id: str
    status: TaskStatus


Event = (
    TreeCreated
    | MessageReceived
    | RunStarted
    | TaskStarted
    | TaskProgressed
    | MessageSent
    | ArtifactAdded
    | InputRequested
    | InputProvided
    | AttemptFailed
    | AttemptLost
    | TaskCompleted
    | TaskSkipped
    | TaskFailed
    | TaskRejected
    | TaskCancelled
    | GroupStarted
    | GroupEnded
    | TaskUpdated
    | TreeCancelled
    | TreeFinished
)

KINDS: Mapping[type, str] = {kind: str(kind.__struct_config__.tag) for kind in Event.__args__}  # their names in the log


class Recorded(Struct, frozen=True, gc=False, kw_only=True):
    """An event in its place in the log, with what a follower needs to tell it without knowing the tree."""

    tree_id: str
    seq: int  # 1, 2, 3, … without gaps within a tree
    at: float  # seconds since 1970
    name: str  # the task's name
    tree_status: TaskStatus  # the tree's status after this event
    event: Event

    @property
    def task_id(self) -> str:
        """The task it happened to; the root's id for what happened to the tree."""
        return self.event.task_id
