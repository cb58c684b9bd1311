"""The objects of A2A v0.3 as they go over HTTP+JSON: the ProtoJSON of its `a2a.proto`, unlike those of JSON-RPC.

Nothing but their shape, and the way from and to the values of v1.0. Pure.
"""

from typing import Annotated, Any

from msgspec import Meta
from msgspec.structs import replace

from a2a_server.protocol import types as v1
from a2a_server.protocol.bare import NO_ROOM, bare_metadata, is_short
from a2a_server.protocol.wire import Required, Wire, check_one_of
from a2a_server.v0_3 import translate as to
from a2a_server.v0_3 import types as json
from a2a_server.v0_3.types import HistoryLength

CANCELED = "TASK_STATE_CANCELLED"  # v0.3's own spelling; the others are those of v1.0


class FilePart(Wire, frozen=True, kw_only=True):
    """A file: its content, or where it is."""

    file_with_uri: str | None = None
    file_with_bytes: bytes | None = None
    mime_type: str = ""
    name: str = ""

    def __post_init__(self) -> None:
        if (self.file_with_uri is None) == (self.file_with_bytes is None):
            raise ValueError("exactly one of fileWithUri and fileWithBytes is needed")


class DataPart(Wire, frozen=True, kw_only=True):
    """JSON; an object only."""

    data: dict[str, Any] = {}


class Content(Wire, frozen=True, kw_only=True):
    """What a part holds: exactly one of these."""

    text: str | None = None
    file: FilePart | None = None
    data: DataPart | None = None


class Part(Content, frozen=True, kw_only=True):
    """A piece of content."""

    metadata: dict[str, Any] = {}

    def __post_init__(self) -> None:
        check_one_of(Content(text=self.text, file=self.file, data=self.data))


class Message(Wire, frozen=True, kw_only=True):
    """One turn of the conversation between a client and the agent."""

    message_id: Required
    role: v1.Role
    content: Annotated[list[Part], Meta(min_length=1)]
    context_id: str = ""
    task_id: str = ""
    metadata: dict[str, Any] = {}
    extensions: list[str] = []


class AuthenticationInfo(Wire, frozen=True, kw_only=True):
    """How a webhook wants to be authenticated: by the first of the schemes; without any it does not."""

    schemes: list[Required] = []
    credentials: str = ""

    def __post_init__(self) -> None:
        if self.credentials and not self.schemes:
            raise ValueError("schemes is required beside credentials")


class PushNotificationConfig(Wire, frozen=True, kw_only=True):
    """Where events are to be sent. In the proto an empty object or text is the same as none."""

    url: Required
    id: str = ""
    token: str = ""
    authentication: AuthenticationInfo | None = None


class Configuration(Wire, frozen=True, kw_only=True):
    """How the answer to a message is wanted."""

    accepted_output_modes: list[str] = []
    push_notification: PushNotificationConfig | None = None
    history_length: HistoryLength = 0
    blocking: bool = False


class SendMessageRequest(Wire, frozen=True, kw_only=True):
    """The body of message:send and message:stream."""

    message: Message
    configuration: Configuration | None = None
    metadata: dict[str, Any] = {}


class TaskStatus(Wire, frozen=True, kw_only=True):
    """A task's state, since when, and what the agent said about it."""

    state: str
    message: Message | None = None
    timestamp: str = ""


class Artifact(Wire, frozen=True, kw_only=True):
    """A piece of a task's output."""

    artifact_id: str
    parts: list[Part]
    name: str = ""
    description: str = ""
    metadata: dict[str, Any] = {}
    extensions: list[str] = []


class Task(Wire, frozen=True, kw_only=True):
    """A task."""

    id: str
    context_id: str
    status: TaskStatus
    artifacts: list[Artifact] = []
    history: list[Message] = []
    metadata: dict[str, Any] = {}


class StatusUpdate(Wire, frozen=True, kw_only=True):
    """A task's status changed; `final` closes the stream."""

    task_id: str
    context_id: str
    status: TaskStatus
    final: bool = False
    metadata: dict[str, Any] = {}


class ArtifactUpdate(Wire, frozen=True, kw_only=True):
    """A task gave a piece of output."""

    task_id: str
    context_id: str
    artifact: Artifact
    append: bool = False
    last_chunk: bool = False
    metadata: dict[str, Any] = {}


class Response(Wire, frozen=True, kw_only=True):
    """The answer to a message, or one event of a stream: exactly one of the four."""

    task: Task | None = None
    message: Message | None = None
    status_update: StatusUpdate | None = None
    artifact_update: ArtifactUpdate | None = None


class PushConfig(Wire, frozen=True, kw_only=True):
    """Where the events of a task are to be sent."""

    name: str = ""
    push_notification_config: PushNotificationConfig | None = None


class PushConfigs(Wire, frozen=True, kw_only=True):
    """The webhooks of a task."""

    configs: list[PushConfig] = []
    next_page_token: str = ""


# In


def message(given: Message) -> v1.Message:
    return v1.Message(
        message_id=given.message_id,
        role=given.role,
        parts=[part(each) for each in given.content],
        context_id=given.context_id,
        task_id=given.task_id,
        metadata=given.metadata,
        extensions=given.extensions,
    )


def part(given: Part) -> v1.Part:
    if given.text is not None:
        return v1.Part(text=given.text, metadata=given.metadata)
    if given.data is not None:
        return to.part(json.DataPart(data=given.data.data, metadata=given.metadata))
    file = given.file
    assert file is not None, "a part is one of the three"
    return v1.Part(
        raw=file.file_with_bytes,
        url=file.file_with_uri,
        filename=file.name,
        media_type=file.mime_type,
        metadata=given.metadata,
    )


def send_request(given: SendMessageRequest) -> v1.SendMessageRequest:
    """A `historyLength` of 0 is none, as over JSON-RPC.

    Without a configuration the answer is waited for. In one the proto cannot tell false from unset, and polling clients
    leave `blocking` out.
    """
    wanted = given.configuration or Configuration(blocking=True)
    push = wanted.push_notification
    configuration = v1.SendMessageConfiguration(
        accepted_output_modes=wanted.accepted_output_modes,
        task_push_notification_config=None if push is None else push_config("", push),
        history_length=wanted.history_length or None,
        return_immediately=not wanted.blocking,
    )
    return v1.SendMessageRequest(message=message(given.message), configuration=configuration, metadata=given.metadata)


def push_config(task_id: str, given: PushNotificationConfig) -> v1.TaskPushNotificationConfig:
    asked = given.authentication
    authentication = None
    if asked is not None and asked.schemes:
        authentication = json.PushNotificationAuthenticationInfo(
            schemes=asked.schemes, credentials=asked.credentials or None
        )
    webhook = json.PushNotificationConfig(
        url=given.url, id=given.id or None, token=given.token or None, authentication=authentication
    )
    return to.push_config(task_id, webhook)


# Out


def response_of(answer: v1.SendMessageResponse) -> Response:
    if answer.message is not None:
        return Response(message=message_of(answer.message))
    assert answer.task is not None, "a response is a task or a message"
    return Response(task=task_of(answer.task))


def event_of(event: v1.StreamResponse, *, is_last: bool) -> Response:
    """`is_last`: the stream closes after it, which v0.3 says in a status update (`final`)."""
    if (status := event.status_update) is not None:
        update = StatusUpdate(
            task_id=status.task_id,
            context_id=status.context_id,
            status=status_of(status.status),
            final=is_last,
            metadata=status.metadata,
        )
        return Response(status_update=update)
    if (piece := event.artifact_update) is not None:
        given = ArtifactUpdate(
            task_id=piece.task_id,
            context_id=piece.context_id,
            artifact=artifact_of(piece.artifact),
            append=piece.append,
            last_chunk=piece.last_chunk,
            metadata=piece.metadata,
        )
        return Response(artifact_update=given)
    return response_of(v1.SendMessageResponse(task=event.task, message=event.message))


def shape_of(value: v1.Task | v1.SendMessageResponse | v1.StreamResponse) -> Task | Response:
    """The same of what a method answers, or of an event after which its stream goes on."""
    if isinstance(value, v1.Task):
        return task_of(value)
    return response_of(value) if isinstance(value, v1.SendMessageResponse) else event_of(value, is_last=False)


def bare_answer(answer: Task | Response) -> Task | Response:
    """The short answer for one that does not fit in memory (`protocol.bare`)."""
    if isinstance(answer, Task):
        return _bare_task(answer)
    if answer.task is not None:
        return Response(task=_bare_task(answer.task))
    assert answer.message is not None, "an answer is a task or a message"
    said = replace(answer.message, content=[Part(text=NO_ROOM)], metadata={"cut": ["parts"]})
    return Response(message=said)


def _bare_task(task: Task) -> Task:
    said = task.status.message
    kept = said if said is not None and is_short(said.content, said.metadata) else None
    about = bare_metadata(task.metadata, keeps_message=kept is not None)
    return replace(task, status=replace(task.status, message=kept), artifacts=[], history=[], metadata=about)


def task_of(task: v1.Task) -> Task:
    return Task(
        id=task.id,
        context_id=task.context_id,
        status=status_of(task.status),
        artifacts=[artifact_of(each) for each in task.artifacts or ()],
        history=[message_of(each) for each in task.history],
        metadata=task.metadata,
    )


def status_of(status: v1.TaskStatus) -> TaskStatus:
    state = CANCELED if status.state is v1.TaskState.CANCELED else status.state.value
    said = None if status.message is None else message_of(status.message)
    return TaskStatus(state=state, message=said, timestamp=status.timestamp)


def artifact_of(artifact: v1.Artifact) -> Artifact:
    return Artifact(
        artifact_id=artifact.artifact_id,
        parts=[part_of(each) for each in artifact.parts],
        name=artifact.name,
        description=artifact.description,
        metadata=artifact.metadata,
        extensions=artifact.extensions,
    )


def message_of(said: v1.Message) -> Message:
    return Message(
        message_id=said.message_id,
        role=said.role,
        content=[part_of(each) for each in said.parts],
        context_id=said.context_id,
        task_id=said.task_id,
        metadata=said.metadata,
        extensions=said.extensions,
    )


def part_of(given: v1.Part) -> Part:
    if given.raw is not None or given.url is not None:
        file = FilePart(
            file_with_uri=given.url, file_with_bytes=given.raw, mime_type=given.media_type, name=given.filename
        )
        return Part(file=file, metadata=given.metadata)
    match to.part_of(given):
        case json.DataPart(data=data, metadata=metadata):
            return Part(data=DataPart(data=data), metadata=metadata or {})
        case _:
            return Part(text=given.text, metadata=given.metadata)


def push_config_of(config: v1.TaskPushNotificationConfig) -> PushConfig:
    told = to.push_config_of(config).push_notification_config
    authentication = None
    if (asked := told.authentication) is not None:
        authentication = AuthenticationInfo(schemes=asked.schemes, credentials=asked.credentials or "")
    webhook = PushNotificationConfig(
        url=told.url, id=told.id or "", token=told.token or "", authentication=authentication
    )
    name = f"tasks/{config.task_id}/pushNotificationConfigs/{config.id}"
    return PushConfig(name=name, push_notification_config=webhook)


def push_configs_of(page: v1.ListTaskPushNotificationConfigsResponse) -> PushConfigs:
    return PushConfigs(configs=[push_config_of(each) for each in page.configs], next_page_token=page.next_page_token)
