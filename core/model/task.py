"""What a task is, and which changes of its status are legal. Pure: no clock, no I/O, no asyncio, no randomness."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from core.model.content import Part, Said
from core.model.content_json import part_object
from core.model.retry import RetryPolicy

ANONYMOUS = "anonymous"  # the owner of everything while the server knows no callers


class TaskStatus(StrEnum):
    """Where a task stands (semantics §2)."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    INPUT_REQUIRED = "input_required"
    AUTH_REQUIRED = "auth_required"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"

    @property
    def is_terminal(self) -> bool:
        """Whether the task has ended; nothing changes it any more in this run."""
        return self in TERMINAL

    @property
    def is_interrupted(self) -> bool:
        """Whether the task waits for its caller's answer."""
        return self in INTERRUPTED


TERMINAL = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.REJECTED})
INTERRUPTED = frozenset({TaskStatus.INPUT_REQUIRED, TaskStatus.AUTH_REQUIRED})

# Every legal move within one run. Only a new run brings a task back to pending.
TRANSITIONS: Mapping[TaskStatus, frozenset[TaskStatus]] = {
    # Completed without an attempt: skipped (semantics §10).
    TaskStatus.PENDING: frozenset(
        {TaskStatus.IN_PROGRESS, TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}
    ),
    TaskStatus.IN_PROGRESS: TERMINAL | INTERRUPTED,
    TaskStatus.INPUT_REQUIRED: frozenset({TaskStatus.IN_PROGRESS, TaskStatus.FAILED, TaskStatus.CANCELLED}),
    TaskStatus.AUTH_REQUIRED: frozenset({TaskStatus.IN_PROGRESS, TaskStatus.FAILED, TaskStatus.CANCELLED}),
    TaskStatus.COMPLETED: frozenset(),
    TaskStatus.FAILED: frozenset(),
    TaskStatus.CANCELLED: frozenset(),
    TaskStatus.REJECTED: frozenset(),
}


class Cause(StrEnum):
    """Why a task failed, was cancelled or was skipped, for programs; `error` or `message` says it for people."""

    EXECUTOR_ERROR = "executor_error"
    INVALID_INPUT = "invalid_input"
    INVALID_RESULT = "invalid_result"
    UNKNOWN_EXECUTOR = "unknown_executor"
    NO_ROOM = "no_room"
    TIMEOUT = "timeout"
    DEADLINE = "deadline"
    QUEUE_TIMEOUT = "queue_timeout"
    POISON = "poison"
    OUTCOME_UNKNOWN = "outcome_unknown"
    DEPENDENCY_FAILED = "dependency_failed"
    CHILD_FAILED = "child_failed"
    REQUESTED = "requested"
    SKIPPED = "skipped"


class On(StrEnum):
    """Which end of a dependency lets its dependent run (semantics §10)."""

    SUCCESS = "success"
    FAILURE = "failure"
    ANY = "any"


class Dependency(Struct, frozen=True, gc=False, omit_defaults=True):
    """Another task of the same tree that this one waits for, and the end of it that lets this one run."""

    id: str
    on: On = On.SUCCESS

    @property
    def required(self) -> bool:
        """Whether the dependent never runs without this one's success."""
        return self.on is On.SUCCESS


class Question(Struct, frozen=True, gc=False, kw_only=True):
    """What an executor asked its caller, and whether credentials are asked for."""

    content: tuple[Part, ...]
    auth: bool = False
    keys: tuple[str, ...] = ()  # of each question, where several were asked at once
    asked_at: float

    @property
    def parts(self) -> tuple[dict[str, Any], ...]:
        """The content as JSON values, as callers of the Python API and of `tasks.*` read it."""
        return tuple(part_object(part) for part in self.content)


class Told(Struct, frozen=True, gc=False):
    """What a task's executor said before it asked, as `core.model.replay` knows it again."""

    messages: tuple[int, ...] = ()  # in order
    artifacts: dict[str, tuple[int, int]] = {}  # id -> number and CRC of its pieces


class Task(Struct, frozen=True, gc=False, kw_only=True):
    """One node of a task tree. Immutable; a tree replaces it to change it. Times are seconds since 1970 (UTC).

    The first block is what the caller wrote and stays as it is while the task runs; the second is what happened.
    """

    id: str
    tree_id: str = ""  # the root's id; empty while the task belongs to no tree yet
    owner: str = ANONYMOUS
    name: str
    ref: str | None = None  # the id that the caller's array used for it
    parent_id: str | None = None
    position: int = 0  # order of creation within the tree
    executor: str | None = None  # None: a group, which runs nothing
    user_id: str | None = None
    priority: int = 2  # lower starts first
    dependencies: tuple[Dependency, ...] = ()
    inputs: dict[str, Any] = {}
    schemas: dict[str, Any] | None = None
    params: dict[str, Any] | None = None
    timeout: float | None = None  # seconds for one attempt; of a group, for all below it from its first start on
    queue_timeout: float | None = None  # seconds that it may wait for a slot, once it is ready
    deadline: float | None = None
    max_attempts: int = 1
    retry: RetryPolicy = RetryPolicy()
    original_task_id: str | None = None
    created_at: float

    status: TaskStatus = TaskStatus.PENDING
    attempt: int = 0  # number of the latest attempt: the fencing token
    is_running: bool = False  # whether that attempt runs at this moment
    failures: int = 0  # failed attempts of this run
    crashes: int = 0  # attempts of this run that a crash ended
    lone_crashes: int = 0  # of those, the ones beside which nothing else ran
    runnable_at: float = 0.0  # not to be started before
    progress: float = 0.0  # 0 to 1
    message: str | None = None
    question: Question | None = None
    answers: tuple[Any, ...] = ()
    answer_messages: tuple[Said | None, ...] = ()  # what brought each of them, where that was a message
    asked: tuple[str, ...] = ()  # of each answer, the key of its question
    extensions: tuple[str, ...] | None = None  # that the latest answer's request activated; None: none came by A2A
    told: Told | None = None  # what was said before the last question
    result: Any = None
    error: str | None = None
    error_detail: str | None = None  # the details of the error, for operators only
    cause: Cause | None = None
    started_at: float | None = None
    finished_at: float | None = None
    updated_at: float = 0.0

    @property
    def is_group(self) -> bool:
        """A folder: its status is rolled up from its children (semantics §1)."""
        return self.executor is None

    @property
    def is_skipped(self) -> bool:
        """Completed without having run: what its dependencies came to did not ask for it."""
        return self.status is TaskStatus.COMPLETED and self.cause is Cause.SKIPPED

    @property
    def has_result(self) -> bool:
        """Whether it completed and was not skipped, so that its dependents see its result."""
        return self.status is TaskStatus.COMPLETED and self.cause is not Cause.SKIPPED

    @property
    def key(self) -> str:
        """The name under which dependents see this task's result: the caller's reference, else the id."""
        return self.ref or self.id


def reset(task: Task, at: float) -> Task:
    """The task as a new run finds it. The attempt number goes on: it is what fences late attempts of earlier runs."""
    return replace(
        task,
        status=TaskStatus.PENDING,
        is_running=False,
        failures=0,
        crashes=0,
        lone_crashes=0,
        runnable_at=0.0,
        progress=0.0,
        message=None,
        question=None,
        answers=(),
        answer_messages=(),
        asked=(),
        extensions=None,
        told=None,
        result=None,
        error=None,
        error_detail=None,
        cause=None,
        started_at=None,
        finished_at=None,
        updated_at=at,
    )


class TreeHead(Struct, frozen=True, gc=False, kw_only=True):
    """What is known of a tree as a whole. Its id is its root's id."""

    id: str
    owner: str = ANONYMOUS
    version: int = 0  # the sequence number of its last event
    status: TaskStatus = TaskStatus.PENDING
    run: int = 0  # number of the latest run
    run_at: float = 0.0  # when that run began
    is_live: bool = False  # a run has begun and has not ended
    scope: tuple[str, ...] | None = None  # the tasks of the latest run; None: all of them
    cancelled: str | None = None  # why the latest run was cancelled as a whole
    progress: float = 0.0
    size: int = 0  # number of tasks
    origin: str = "python"  # the interface it came through: python, tasks or a2a
    context_id: str | None = None
    metadata: dict[str, Any] = {}
    original_task_id: str | None = None
    created_at: float
    updated_at: float  # of the latest change of status

    def bare(self) -> "TreeHead":
        """The head without what may be large: its scope and metadata."""
        return self if self.scope is None and not self.metadata else replace(self, scope=None, metadata={})


def is_met(on: On, status: TaskStatus, *, is_skipped: bool) -> bool:
    """Whether a dependency that ended with this status lets a dependent of that kind run."""
    match on:
        case On.SUCCESS:
            return status is TaskStatus.COMPLETED and not is_skipped
        case On.FAILURE:
            return status is not TaskStatus.COMPLETED
    return True


def changed_task(task: Task, changes: dict[str, Any], at: float) -> Task:
    """The task with these fields, given as JSON values, changed."""
    return replace(task, **{k: msgspec.convert(v, _FIELD_TYPES[k]) for k, v in changes.items()}, updated_at=at)


_FIELD_TYPES: dict[str, Any] = {field.name: field.type for field in msgspec.structs.fields(Task)} | {
    "dependencies": tuple[Dependency, ...]
}
