"""The objects of A2A v1.0 as they go over the wire (specification/a2a.proto, tag v1.0.1). Nothing but their shape.

Python names are snake_case, JSON names camelCase. As in ProtoJSON a plain field that is unset has its type's empty
value and is left out of the output; `None` stands for "unset" only where the protocol tells unset from empty.
User JSON (`metadata`, `data`) is kept as it came: integers stay integers.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from a2a_server.protocol.security import SecurityRequirement, SecurityScheme
from a2a_server.protocol.wire import Required, Wire

HistoryLength = Annotated[int, Meta(ge=0, le=2**31 - 1)]
PageSize = Annotated[int, Meta(ge=1, le=100)]
Timestamp = Annotated[datetime, Meta(tz=True)]


class TaskState(StrEnum):
    """Where a task stands. The proto's UNSPECIFIED (0) is "unset" and never a value."""

    SUBMITTED = "TASK_STATE_SUBMITTED"
    WORKING = "TASK_STATE_WORKING"
    COMPLETED = "TASK_STATE_COMPLETED"
    FAILED = "TASK_STATE_FAILED"
    CANCELED = "TASK_STATE_CANCELED"
    INPUT_REQUIRED = "TASK_STATE_INPUT_REQUIRED"
    REJECTED = "TASK_STATE_REJECTED"
    AUTH_REQUIRED = "TASK_STATE_AUTH_REQUIRED"


class Role(StrEnum):
    """Who speaks: the client (user) or the server (agent)."""

    USER = "ROLE_USER"
    AGENT = "ROLE_AGENT"


class Part(Wire, frozen=True, kw_only=True):
    """A piece of content: exactly one of `text`, `raw`, `url` and `data`. Null is a legal `data`."""

    text: str | None = None
    raw: bytes | None = None
    url: str | None = None
    data: Any | UnsetType = UNSET
    metadata: dict[str, Any] = {}
    filename: str = ""
    media_type: str = ""

    def __post_init__(self) -> None:
        given = (self.text is not None) + (self.raw is not None) + (self.url is not None) + (self.data is not UNSET)
        if given != 1:
            raise ValueError(f"exactly one of text, raw, url and data is needed, not {given}")


Parts = Annotated[list[Part], Meta(min_length=1)]


class Message(Wire, frozen=True, kw_only=True):
    """One turn of the conversation between a client and the agent."""

    message_id: Required
    role: Role
    parts: Parts
    context_id: str = ""
    task_id: str = ""
    metadata: dict[str, Any] = {}
    extensions: list[str] = []
    reference_task_ids: list[str] = []


class TaskStatus(Wire, frozen=True, kw_only=True):
    """A task's state, since when (RFC 3339, UTC, milliseconds), and what the agent said about it."""

    state: TaskState
    message: Message | None = None
    timestamp: str = ""


class Artifact(Wire, frozen=True, kw_only=True):
    """A piece of a task's output."""

    artifact_id: Required
    parts: Parts
    name: str = ""
    description: str = ""
    metadata: dict[str, Any] = {}
    extensions: list[str] = []


class Task(Wire, frozen=True, kw_only=True):
    """A task as A2A clients see it. `artifacts` None: left out; an empty list is written as one (A2A §3.1.4)."""

    id: Required
    status: TaskStatus
    context_id: str = ""
    artifacts: list[Artifact] | None = None
    history: list[Message] = []
    metadata: dict[str, Any] = {}


class TaskStatusUpdateEvent(Wire, frozen=True, kw_only=True):
    """A task's status changed."""

    task_id: Required
    context_id: Required
    status: TaskStatus
    metadata: dict[str, Any] = {}


class TaskArtifactUpdateEvent(Wire, frozen=True, kw_only=True):
    """A task gave a piece of output; `append` adds it to the artifact of the same id."""

    task_id: Required
    context_id: Required
    artifact: Artifact
    append: bool = False
    last_chunk: bool = False
    metadata: dict[str, Any] = {}


class SendMessageResponse(Wire, frozen=True, kw_only=True):
    """Exactly one of the two."""

    task: Task | None = None
    message: Message | None = None


class StreamResponse(Wire, frozen=True, kw_only=True):
    """One event of a stream: exactly one of the four."""

    task: Task | None = None
    message: Message | None = None
    status_update: TaskStatusUpdateEvent | None = None
    artifact_update: TaskArtifactUpdateEvent | None = None


class AuthenticationInfo(Wire, frozen=True, kw_only=True):
    """How a webhook wants to be authenticated."""

    scheme: Required
    credentials: str = ""


class TaskPushNotificationConfig(Wire, frozen=True, kw_only=True):
    """Where the events of a task are to be sent. `events` is ours alone: what else is wanted (`nodes`, `chunks`)."""

    url: Required
    tenant: str = ""
    id: str = ""
    task_id: str = ""
    token: str = ""
    authentication: AuthenticationInfo | None = None
    events: list[str] = []


class SendMessageConfiguration(Wire, frozen=True, kw_only=True):
    """How the answer to a message is wanted."""

    accepted_output_modes: list[str] = []
    task_push_notification_config: TaskPushNotificationConfig | None = None
    history_length: HistoryLength | None = None
    return_immediately: bool = False


class SendMessageRequest(Wire, frozen=True, kw_only=True):
    """Params of SendMessage and SendStreamingMessage."""

    message: Message
    tenant: str = ""
    configuration: SendMessageConfiguration = SendMessageConfiguration()
    metadata: dict[str, Any] = {}


class GetTaskRequest(Wire, frozen=True, kw_only=True):
    """Params of GetTask."""

    id: Required
    tenant: str = ""
    history_length: HistoryLength | None = None


class ListTasksRequest(Wire, frozen=True, kw_only=True):
    """Params of ListTasks."""

    tenant: str = ""
    context_id: str = ""
    status: TaskState | None = None
    page_size: PageSize | None = None
    page_token: str = ""
    history_length: HistoryLength | None = None
    status_timestamp_after: Timestamp | None = None
    include_artifacts: bool = False


class ListTasksResponse(Wire, frozen=True, kw_only=True):
    """One page of tasks; all four fields are always written."""

    tasks: list[Task]
    next_page_token: str
    page_size: int
    total_size: int


class CancelTaskRequest(Wire, frozen=True, kw_only=True):
    """Params of CancelTask."""

    id: Required
    tenant: str = ""
    metadata: dict[str, Any] = {}


class SubscribeToTaskRequest(Wire, frozen=True, kw_only=True):
    """Params of SubscribeToTask."""

    id: Required
    tenant: str = ""


class PushNotificationConfigRequest(Wire, frozen=True, kw_only=True):
    """Params of GetTaskPushNotificationConfig and DeleteTaskPushNotificationConfig."""

    task_id: Required
    id: Required
    tenant: str = ""


class ListTaskPushNotificationConfigsRequest(Wire, frozen=True, kw_only=True):
    """Params of ListTaskPushNotificationConfigs."""

    task_id: Required
    tenant: str = ""
    page_size: Annotated[int, Meta(ge=0, le=100)] = 0  # 0: unset; the proto cannot tell it here
    page_token: str = ""


class ListTaskPushNotificationConfigsResponse(Wire, frozen=True, kw_only=True):
    """One page of push configurations."""

    configs: list[TaskPushNotificationConfig] = []
    next_page_token: str = ""


class GetExtendedAgentCardRequest(Wire, frozen=True, kw_only=True):
    """Params of GetExtendedAgentCard, which may be absent altogether."""

    tenant: str = ""


class AgentInterface(Wire, frozen=True, kw_only=True):
    """One address of the agent, and what is spoken there."""

    url: Required
    protocol_binding: Required
    protocol_version: Required
    tenant: str = ""


class AgentProvider(Wire, frozen=True, kw_only=True):
    """Who offers the agent."""

    url: Required
    organization: Required


class AgentExtension(Wire, frozen=True, kw_only=True):
    """A protocol extension that the agent knows."""

    uri: Required
    description: str = ""
    required: bool = False
    params: dict[str, Any] = {}


class AgentCapabilities(Wire, frozen=True, kw_only=True):
    """The optional parts of the protocol; None: nothing said."""

    streaming: bool | None = None
    push_notifications: bool | None = None
    extensions: list[AgentExtension] = []
    extended_agent_card: bool | None = None


class AgentSkill(Wire, frozen=True, kw_only=True):
    """One thing that the agent can do."""

    id: Required
    name: Required
    description: Required
    tags: Annotated[list[str], Meta(min_length=1)]
    examples: list[str] = []
    input_modes: list[str] = []
    output_modes: list[str] = []
    security_requirements: list[SecurityRequirement] = []


class AgentCardSignature(Wire, frozen=True, kw_only=True):
    """A detached JWS over the card."""

    protected: Required
    signature: Required
    header: dict[str, Any] = {}


class AgentCard(Wire, frozen=True, kw_only=True):
    """The agent's description of itself."""

    name: Required
    description: Required
    supported_interfaces: list[AgentInterface]
    version: Required
    capabilities: AgentCapabilities
    default_input_modes: Annotated[list[str], Meta(min_length=1)]
    default_output_modes: Annotated[list[str], Meta(min_length=1)]
    skills: list[AgentSkill]
    provider: AgentProvider | None = None
    documentation_url: str | None = None
    security_schemes: dict[str, SecurityScheme] = {}
    security_requirements: list[SecurityRequirement] = []
    signatures: list[AgentCardSignature] = []
    icon_url: str | None = None
