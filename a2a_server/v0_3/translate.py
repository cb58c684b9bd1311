"""Between the values of A2A v0.3 and those of v1.0, in both directions. Pure.

v1.0 can say what v0.3 cannot: data that is no object goes out wrapped, with a mark by which it is recognised when it
comes back; a file name or media type of text or data is dropped.
"""

from collections.abc import Mapping

from msgspec.structs import replace

from a2a_server.protocol import types as v1
from a2a_server.protocol.bare import NO_ROOM, bare_metadata, is_short
from a2a_server.v0_3 import types as wire

STATES: Mapping[v1.TaskState, wire.TaskState] = {
    v1.TaskState.SUBMITTED: "submitted",
    v1.TaskState.WORKING: "working",
    v1.TaskState.COMPLETED: "completed",
    v1.TaskState.FAILED: "failed",
    v1.TaskState.CANCELED: "canceled",
    v1.TaskState.INPUT_REQUIRED: "input-required",
    v1.TaskState.REJECTED: "rejected",
    v1.TaskState.AUTH_REQUIRED: "auth-required",
}
ROLES: Mapping[wire.Role, v1.Role] = {"user": v1.Role.USER, "agent": v1.Role.AGENT}
ROLE_NAMES: Mapping[v1.Role, wire.Role] = {role: name for name, role in ROLES.items()}

ONLY_WEBHOOK = "default"  # the id of a webhook without one, as v0.3's TCK asks for it
WRAPPED = "data_part_compat"  # in a data part's metadata: its data is {"value": the real data}; as a2a-sdk marks it

# In: requests


def send_request(params: wire.MessageSendParams) -> v1.SendMessageRequest:
    """Without `blocking` the answer is waited for."""
    given = params.configuration or wire.MessageSendConfiguration()
    push = given.push_notification_config
    configuration = v1.SendMessageConfiguration(
        accepted_output_modes=given.accepted_output_modes or [],
        task_push_notification_config=None if push is None else push_config("", push),
        history_length=given.history_length or None,
        return_immediately=given.blocking is False,
    )
    return v1.SendMessageRequest(
        message=message(params.message), configuration=configuration, metadata=params.metadata or {}
    )


def get_request(params: wire.TaskQueryParams) -> v1.GetTaskRequest:
    """A `historyLength` of 0 is none at all: the whole history, as v0.3's own server has it."""
    return v1.GetTaskRequest(id=params.id, history_length=params.history_length or None)


def cancel_request(params: wire.TaskIdParams) -> v1.CancelTaskRequest:
    return v1.CancelTaskRequest(id=params.id, metadata=params.metadata or {})


def subscribe_request(params: wire.TaskIdParams) -> v1.SubscribeToTaskRequest:
    return v1.SubscribeToTaskRequest(id=params.id)


def create_push_request(params: wire.TaskPushNotificationConfig) -> v1.TaskPushNotificationConfig:
    return push_config(params.task_id, params.push_notification_config)


def delete_push_request(params: wire.DeletePushConfigParams) -> v1.PushNotificationConfigRequest:
    return v1.PushNotificationConfigRequest(task_id=params.id, id=params.push_notification_config_id)


def card_request(params: wire.NoParams) -> v1.GetExtendedAgentCardRequest:
    return v1.GetExtendedAgentCardRequest()


def push_config(task_id: str, config: wire.PushNotificationConfig) -> v1.TaskPushNotificationConfig:
    """v1.0 knows one scheme: the first one counts.

    v0.3's id is the client's, for several webhooks (v0.3 §6.8): one that is set without is always the same.
    """
    given = config.authentication
    authentication = None
    if given is not None:
        authentication = v1.AuthenticationInfo(scheme=given.schemes[0], credentials=given.credentials or "")
    return v1.TaskPushNotificationConfig(
        url=config.url,
        id=config.id or ONLY_WEBHOOK,
        task_id=task_id,
        token=config.token or "",
        authentication=authentication,
    )


def message(given: wire.Message) -> v1.Message:
    return v1.Message(
        message_id=given.message_id,
        role=ROLES[given.role],
        parts=[part(each) for each in given.parts],
        context_id=given.context_id or "",
        task_id=given.task_id or "",
        metadata=given.metadata or {},
        extensions=given.extensions or [],
        reference_task_ids=given.reference_task_ids or [],
    )


def part(given: wire.Part) -> v1.Part:
    metadata = given.metadata or {}
    match given:
        case wire.TextPart():
            return v1.Part(text=given.text, metadata=metadata)
        case wire.FilePart(file=file):
            return v1.Part(
                raw=file.content,
                url=file.uri,
                filename=file.name or "",
                media_type=file.mime_type or "",
                metadata=metadata,
            )
        case wire.DataPart(data=data):
            if metadata.get(WRAPPED) is True and set(data) == {"value"}:
                kept = {name: value for name, value in metadata.items() if name != WRAPPED}
                return v1.Part(data=data["value"], metadata=kept)
            return v1.Part(data=data, metadata=metadata)


# Out: results and events


def send_result(response: v1.SendMessageResponse) -> wire.Task | wire.Message:
    if response.message is not None:
        return message_of(response.message)
    assert response.task is not None, "a response is a task or a message"
    return task_of(response.task)


def event_of(event: v1.StreamResponse, *, is_last: bool) -> wire.Event:
    """`is_last`: the stream closes after it, which v0.3 says in a status update (`final`)."""
    if event.task is not None:
        return task_of(event.task)
    if event.message is not None:
        return message_of(event.message)
    if (status := event.status_update) is not None:
        return wire.TaskStatusUpdateEvent(
            task_id=status.task_id,
            context_id=status.context_id,
            status=status_of(status.status),
            final=is_last,
            metadata=status.metadata or None,
        )
    update = event.artifact_update
    assert update is not None, "an event is one of the four"
    return wire.TaskArtifactUpdateEvent(
        task_id=update.task_id,
        context_id=update.context_id,
        artifact=artifact_of(update.artifact),
        append=update.append,
        last_chunk=update.last_chunk,
        metadata=update.metadata or None,
    )


def shape_of(value: v1.Task | v1.SendMessageResponse | v1.StreamResponse) -> wire.Task | wire.Message | wire.Event:
    """The same of what a method answers, or of an event after which its stream goes on."""
    if isinstance(value, v1.Task):
        return task_of(value)
    return send_result(value) if isinstance(value, v1.SendMessageResponse) else event_of(value, is_last=False)


def bare_answer(answer: wire.Task | wire.Message) -> wire.Task | wire.Message:
    """The short answer for one that does not fit in memory (`protocol.bare`)."""
    if isinstance(answer, wire.Message):
        return replace(answer, parts=[wire.TextPart(text=NO_ROOM)], metadata={"cut": ["parts"]})
    said = answer.status.message
    kept = said if said is not None and is_short(said.parts, said.metadata) else None
    about = bare_metadata(answer.metadata or {}, keeps_message=kept is not None)
    return replace(answer, status=replace(answer.status, message=kept), artifacts=None, history=None, metadata=about)


def task_of(task: v1.Task) -> wire.Task:
    return wire.Task(
        id=task.id,
        context_id=task.context_id,
        status=status_of(task.status),
        artifacts=[artifact_of(each) for each in task.artifacts or ()] or None,
        history=[message_of(each) for each in task.history] or None,
        metadata=task.metadata or None,
    )


def status_of(status: v1.TaskStatus) -> wire.TaskStatus:
    said = None if status.message is None else message_of(status.message)
    return wire.TaskStatus(state=STATES[status.state], message=said, timestamp=status.timestamp or None)


def artifact_of(artifact: v1.Artifact) -> wire.Artifact:
    return wire.Artifact(
        artifact_id=artifact.artifact_id,
        parts=[part_of(each) for each in artifact.parts],
        name=artifact.name or None,
        description=artifact.description or None,
        metadata=artifact.metadata or None,
        extensions=artifact.extensions or None,
    )


def message_of(said: v1.Message) -> wire.Message:
    return wire.Message(
        message_id=said.message_id,
        role=ROLE_NAMES[said.role],
        parts=[part_of(each) for each in said.parts],
        context_id=said.context_id or None,
        task_id=said.task_id or None,
        metadata=said.metadata or None,
        extensions=said.extensions or None,
        reference_task_ids=said.reference_task_ids or None,
    )


def part_of(given: v1.Part) -> wire.Part:
    metadata = given.metadata or None
    if given.text is not None:
        return wire.TextPart(text=given.text, metadata=metadata)
    if given.raw is not None or given.url is not None:
        file = wire.File(
            content=given.raw, uri=given.url, mime_type=given.media_type or None, name=given.filename or None
        )
        return wire.FilePart(file=file, metadata=metadata)
    if isinstance(given.data, dict):
        return wire.DataPart(data=given.data, metadata=metadata)
    return wire.DataPart(data={"value": given.data}, metadata={**given.metadata, WRAPPED: True})


def push_config_of(config: v1.TaskPushNotificationConfig) -> wire.TaskPushNotificationConfig:
    given = config.authentication
    authentication = None
    if given is not None:
        authentication = wire.PushNotificationAuthenticationInfo(
            schemes=[given.scheme], credentials=given.credentials or None
        )
    told = wire.PushNotificationConfig(
        url=config.url, id=config.id or None, token=config.token or None, authentication=authentication
    )
    return wire.TaskPushNotificationConfig(task_id=config.task_id, push_notification_config=told)
