"""The objects that `tasks.*` tells, as types: what is encoded, and what `rpc.discover` describes. Pure."""

from typing import Any, Literal, NotRequired, TypedDict

from core.model.retry import RetryPolicy
from core.model.task import Cause, On, TaskStatus


class DependencyObject(TypedDict):
    """Another task that must end before this one starts."""

    id: str
    on: On
    required: NotRequired[bool]


class TaskObject(TypedDict):
    """A task. Times are RFC 3339; a root has its tree's status and progress too."""

    id: str
    root_task_id: str | None
    parent_id: str | None
    ref: str | None
    name: str
    executor: str | None
    user_id: str | None
    status: TaskStatus
    progress: float
    priority: int
    dependencies: list[DependencyObject]
    inputs: dict[str, Any]
    schemas: dict[str, Any] | None
    params: dict[str, Any] | None
    result: Any
    error: str | None
    cause: Cause | None
    message: str | None
    question: list[Any] | None
    attempt: int
    timeout: float | None
    queue_timeout: float | None
    deadline: str | None
    max_attempts: int
    retry: RetryPolicy
    original_task_id: str | None
    created_at: str | None
    started_at: str | None
    completed_at: str | None
    updated_at: str | None
    tree_status: NotRequired[TaskStatus]
    tree_progress: NotRequired[float]
    context_id: NotRequired[str | None]
    tenant: NotRequired[str]
    principal: NotRequired[str]
    error_detail: NotRequired[str]


class ListedTask(TaskObject):
    """A task in a list; the page behind it begins at `page_token`."""

    page_token: str


class TreeObject(TaskObject):
    """A task with those below it."""

    children: "list[TreeObject]"


class StartedRun(TypedDict):
    """A run that has started."""

    success: bool
    root_task_id: str
    task_id: str
    status: TaskStatus
    message: str


class TaskStatusObject(TypedDict):
    """How far a task is. Of an unknown id only the first three fields are told."""

    task_id: str
    status: str  # or "not_found"
    is_running: bool
    progress: NotRequired[float]
    error: NotRequired[str | None]
    started_at: NotRequired[str | None]
    updated_at: NotRequired[str | None]
    root_task_id: NotRequired[str | None]
    name: NotRequired[str]


class TaskCount(TypedDict):
    """How many tasks there are."""

    count: int


class DeletedTask(TypedDict):
    """A tree that was deleted."""

    success: bool
    task_id: str
    message: str


class EventObject(TypedDict):
    """An event of the log. Which of the other fields it has depends on its `type`."""

    type: str
    task_id: str
    root_task_id: str
    name: str
    status: TaskStatus
    progress: float | None
    result: Any
    error: str | None
    seq: int
    timestamp: str
    message: NotRequired[str | list[Any] | None]
    attempt: NotRequired[int]
    inputs_from: NotRequired[dict[str, str]]
    retry_at: NotRequired[str]
    artifact: NotRequired[dict[str, Any]]
    append: NotRequired[bool]
    last_chunk: NotRequired[bool]
    question: NotRequired[list[Any]]
    cause: NotRequired[Cause]
    by: NotRequired[dict[str, str]]


class StreamEnd(TypedDict):
    """The last frame of a stream."""

    type: Literal["stream_end"]
