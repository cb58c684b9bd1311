"""The objects of A2A v0.3 as they go over JSON-RPC (specification/json/a2a.json, tag v0.3.0). Nothing but their shape.

Objects say what they are by `kind`; None stands for "unset" and is left out of the output.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from a2a_server.protocol import types as v1

Required = Annotated[str, Meta(min_length=1)]
HistoryLength = Annotated[int, Meta(ge=0, le=2**31 - 1)]

Role = Literal["user", "agent"]
TaskState = Literal[
    "submitted",
    "working",
    "input-required",
    "completed",
    "canceled",
    "failed",
    "rejected",
    "auth-required",
]


class Wire(Struct, rename="camel", omit_defaults=True, frozen=True):
    """What all objects on the wire have in common."""


class TextPart(Wire, frozen=True, kw_only=True, tag_field="kind", tag="text"):
    """Text."""

    text: str
    metadata: dict[str, Any] | None = None


class File(Wire, frozen=True, kw_only=True):
    """A file: its content, or where it is."""

    content: bytes | None = field(default=None, name="bytes")
    uri: str | None = None
    mime_type: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        if (self.content is None) == (self.uri is None):
            raise ValueError("exactly one of bytes and uri is needed")


class FilePart(Wire, frozen=True, kw_only=True, tag_field="kind", tag="file"):
    """A file."""

    file: File
    metadata: dict[str, Any] | None = None


class DataPart(Wire, frozen=True, kw_only=True, tag_field="kind", tag="data"):
    """JSON; an object only."""

    data: dict[str, Any]
    metadata: dict[str, Any] | None = None


Part = TextPart | FilePart | DataPart
Parts = Annotated[list[Part], Meta(min_length=1)]


class Message(Wire, frozen=True, kw_only=True, tag_field="kind", tag="message"):
    """One turn of the conversation between a client and the agent."""

    message_id: Required
    role: Role
    parts: Parts
    context_id: str | None = None
    task_id: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: list[str] | None = None
    reference_task_ids: list[str] | None = None


class TaskStatus(Wire, frozen=True, kw_only=True):
    """A task's state, since when, and what the agent said about it."""

    state: TaskState
    message: Message | None = None
    timestamp: str | None = None


class Artifact(Wire, frozen=True, kw_only=True):
    """A piece of a task's output."""

    artifact_id: str
    parts: list[Part]
    name: str | None = None
    description: str | None = None
    metadata: dict[str, Any] | None = None
    extensions: list[str] | None = None


class Task(Wire, frozen=True, kw_only=True, tag_field="kind", tag="task"):
    """A task as v0.3 clients see it."""

    id: str
    context_id: str
    status: TaskStatus
    artifacts: list[Artifact] | None = None
    history: list[Message] | None = None
    metadata: dict[str, Any] | None = None


class TaskStatusUpdateEvent(Wire, frozen=True, kw_only=True, tag_field="kind", tag="status-update"):
    """A task's status changed; `final` closes the stream."""

    task_id: str
    context_id: str
    status: TaskStatus
    final: bool
    metadata: dict[str, Any] | None = None


class TaskArtifactUpdateEvent(Wire, frozen=True, kw_only=True, tag_field="kind", tag="artifact-update"):
    """A task gave a piece of output; `append` adds it to the artifact of the same id."""

    task_id: str
    context_id: str
    artifact: Artifact
    append: bool | None = None
    last_chunk: bool | None = None
    metadata: dict[str, Any] | None = None


Event = Task | Message | TaskStatusUpdateEvent | TaskArtifactUpdateEvent


class PushNotificationAuthenticationInfo(Wire, frozen=True, kw_only=True):
    """How a webhook wants to be authenticated: by the first of the schemes."""

    schemes: Annotated[list[Required], Meta(min_length=1)]
    credentials: str | None = None


class PushNotificationConfig(Wire, frozen=True, kw_only=True):
    """Where events are to be sent."""

    url: Required
    id: str | None = None
    token: str | None = None
    authentication: PushNotificationAuthenticationInfo | None = None


class TaskPushNotificationConfig(Wire, frozen=True, kw_only=True):
    """Where the events of a task are to be sent; also params of tasks/pushNotificationConfig/set."""

    task_id: Required
    push_notification_config: PushNotificationConfig


class MessageSendConfiguration(Wire, frozen=True, kw_only=True):
    """How the answer to a message is wanted."""

    accepted_output_modes: list[str] | None = None
    blocking: bool | None = None
    history_length: HistoryLength | None = None
    push_notification_config: PushNotificationConfig | None = None


class MessageSendParams(Wire, frozen=True, kw_only=True):
    """Params of message/send and message/stream."""

    message: Message
    configuration: MessageSendConfiguration | None = None
    metadata: dict[str, Any] | None = None


class TaskQueryParams(Wire, frozen=True, kw_only=True):
    """Params of tasks/get."""

    id: Required
    history_length: HistoryLength | None = None


class TaskIdParams(Wire, frozen=True, kw_only=True):
    """Params of tasks/cancel, tasks/resubscribe and tasks/pushNotificationConfig/list: `id` is the task's."""

    id: Required
    metadata: dict[str, Any] | None = None


class GetPushConfigParams(Wire, frozen=True, kw_only=True):
    """Params of tasks/pushNotificationConfig/get: `id` is the task's; its first config, if none is named."""

    id: Required
    push_notification_config_id: str | None = None


class DeletePushConfigParams(Wire, frozen=True, kw_only=True):
    """Params of tasks/pushNotificationConfig/delete: `id` is the task's."""

    id: Required
    push_notification_config_id: Required


class NoParams(Wire, frozen=True):
    """Params of agent/getAuthenticatedExtendedCard: none; whatever is given is ignored."""


class HybridCard(v1.AgentCard, frozen=True, kw_only=True):
    """The card that clients of both versions read: v1.0's fields, and those of v0.3 beside them."""

    protocol_version: str = ""
    url: str = ""
    preferred_transport: str = ""
    additional_interfaces: tuple[dict[str, str], ...] = ()
    supports_authenticated_extended_card: bool = False
    security: tuple[dict[str, list[str]], ...] = ()
