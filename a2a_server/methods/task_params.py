"""The params of the `tasks.*` methods (semantics §7). Nothing but their shape."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from msgspec import UNSET, Meta, Struct, UnsetType

from a2a_server.protocol.types import Timestamp
from core.model.plan import TaskInput
from core.model.task import TaskStatus

MOST_IDS = 1_000  # of one call

Id = Annotated[str, Meta(min_length=1)]
Ids = Annotated[list[Id], Meta(min_length=1, max_length=MOST_IDS)] | Id  # a list, or a string with commas
Limit = Annotated[int, Meta(ge=1, le=1_000)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
# The error for a field that a client of an older system may send.
BY_TOKEN = {"offset": "for the next page send page_token, from the last task of the page before"}


class Params(Struct, frozen=True, kw_only=True):
    """What all params have in common. The bindings refuse fields that they do not have."""


class CreateParams(Params, frozen=True, kw_only=True):
    """Also taken: the bare array, or one task."""

    tasks: list[TaskInput]


class WebhookAuthentication(Params, frozen=True, kw_only=True):
    """The scheme of the `Authorization` header and what follows it; `HMAC` signs instead."""

    scheme: Id
    credentials: str = ""


class WebhookConfig(Params, frozen=True, kw_only=True):
    """Where the events of the run are sent, as its stream would tell them."""

    url: Id
    token: str = ""
    authentication: WebhookAuthentication | None = None
    events: list[str] = []


class ExecuteParams(Params, frozen=True, kw_only=True):
    """Which tree to run, `task_id` or a new one of `tasks`, and how the answer is wanted.

    `a2a`: A2A clients see the new tree as a task of its caller.
    """

    task_id: Id | None = None
    tasks: list[Any] | None = None
    use_streaming: bool = False
    wait: bool = False
    force: bool = False
    a2a: bool = False
    webhook_config: WebhookConfig | None = None


class CancelParams(Params, frozen=True, kw_only=True):
    """What to cancel. `error_message` becomes the error of the tasks."""

    task_ids: Ids
    force: bool = False
    error_message: str | None = None


class AnswerParams(Params, frozen=True, kw_only=True):
    """The answer, any JSON value, or one for each of the questions that were asked at once, in their order.

    A root's id stands for the oldest open question of its tree.
    """

    task_id: Id
    answer: Any = UNSET
    answers: Annotated[list[Any], Meta(min_length=1)] | UnsetType = UNSET


class TaskParams(Params, frozen=True, kw_only=True):
    """One task."""

    task_id: Id


class TreeParams(Params, frozen=True, kw_only=True):
    """The tree of any node; the two names mean the same."""

    task_id: Id | None = None
    root_id: Id | None = None


class ChildrenParams(Params, frozen=True, kw_only=True):
    """Whose children."""

    parent_id: Id


class ListParams(Params, frozen=True, kw_only=True):
    """Which tasks, newest first. `page_token`: that of the last task of the page before.

    `since`: created then or later; RFC 3339 with a time zone.
    """

    INSTEAD: ClassVar[Mapping[str, str]] = BY_TOKEN

    user_id: str | None = None
    status: TaskStatus | None = None
    root_only: bool = True
    name: str | None = None
    context_id: str | None = None
    since: Timestamp | None = None
    limit: Limit = 100
    page_token: Id | None = None


class UpdateParams(Params, frozen=True, kw_only=True):
    """The task; beside it the fields to change, as `tasks.create` takes them."""

    task_id: Id


class CopyParams(Params, frozen=True, kw_only=True):
    """What to copy, with all below it or alone."""

    task_id: Id
    children: bool = True


class RunningParams(Params, frozen=True, kw_only=True):
    """Which of the running tasks. `page_token`: that of the last task of the page before."""

    INSTEAD: ClassVar[Mapping[str, str]] = BY_TOKEN

    user_id: str | None = None
    limit: Limit = 100
    page_token: Id | None = None


class RunningStatusParams(Params, frozen=True, kw_only=True):
    """Which tasks."""

    task_ids: Ids


class EventsParams(Params, frozen=True, kw_only=True):
    """The task (a root stands for its whole tree), and the number of the last event that is known."""

    task_id: Id
    after: Number = 0
    limit: Limit = 500
