"""The official client (a2a-sdk from PyPI) against a real server process, through the card, over both bindings."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from a2a.client import Client, ClientConfig, create_client
from a2a.helpers import get_artifact_text, get_message_text, new_data_message, new_text_message
from a2a.types import (
    CancelTaskRequest,
    DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest,
    GetTaskRequest,
    ListTaskPushNotificationConfigsRequest,
    ListTasksRequest,
    Message,
    Role,
    SendMessageConfiguration,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    Task,
    TaskPushNotificationConfig,
    TaskState,
)
from a2a.utils.constants import TransportProtocol
from a2a.utils.errors import InvalidParamsError, TaskNotFoundError, UnsupportedOperationError

from tests.acceptance.process import ServerProcess

COMPLETED = TaskState.TASK_STATE_COMPLETED
CANCELED = TaskState.TASK_STATE_CANCELED
INPUT_REQUIRED = TaskState.TASK_STATE_INPUT_REQUIRED


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder: Path = tmp_path_factory.mktemp("official")
    process = ServerProcess(folder, "--default-skill", "greet").start()
    yield process
    process.close()


@pytest.fixture(params=[TransportProtocol.JSONRPC, TransportProtocol.HTTP_JSON])
def binding(request: pytest.FixtureRequest) -> str:
    return str(request.param.value)


@pytest_asyncio.fixture(params=[True, False], ids=["streaming", "blocking"])
async def client(server: ServerProcess, binding: str, request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with await connect(server, binding, streaming=request.param) as made:
        yield made


@pytest_asyncio.fixture
async def streaming(server: ServerProcess, binding: str) -> AsyncIterator[Client]:
    async with await connect(server, binding) as made:
        yield made


async def connect(server: ServerProcess, binding: str, **options: Any) -> Client:
    return await create_client(server.url, ClientConfig(supported_protocol_bindings=[binding], **options))


def text_message(text: str, *, skill: str | None = None, task_id: str | None = None) -> Message:
    message = new_text_message(text, role=Role.ROLE_USER, task_id=task_id)
    if skill:
        message.metadata["skillId"] = skill
    return message


def tree_message(tasks: list[dict[str, Any]]) -> Message:
    return new_data_message({"tasks": tasks}, role=Role.ROLE_USER)


async def send(client: Client, message: Message, **configuration: Any) -> list[StreamResponse]:
    request = SendMessageRequest(message=message, configuration=SendMessageConfiguration(**configuration))
    return [event async for event in client.send_message(request)]


async def final_task(client: Client, events: list[StreamResponse]) -> Task:
    return await client.get_task(GetTaskRequest(id=events[0].task.id))


@pytest.mark.asyncio
async def test_send_reaches_the_skill_and_brings_its_result(client: Client) -> None:
    task = await final_task(client, await send(client, text_message("Ada", skill="greet")))
    assert task.status.state == COMPLETED
    assert get_artifact_text(task.artifacts[0]) == "Hello, Ada!"
    assert [get_message_text(message) for message in task.history] == ["Ada"]


@pytest.mark.asyncio
async def test_stream_begins_with_the_task_and_ends_with_its_terminal_state(streaming: Client) -> None:
    events = await send(streaming, text_message("Ada"))
    kinds = [event.WhichOneof("payload") for event in events]
    assert kinds[0] == "task"
    assert "artifact_update" in kinds
    assert events[-1].status_update.status.state == COMPLETED


@pytest.mark.asyncio
async def test_a_tree_is_sent_streamed_and_read_node_by_node(streaming: Client) -> None:
    tasks = [
        {"id": "root", "name": "root"},
        {"id": "a", "name": "noop", "parent_id": "root"},
        {"id": "b", "name": "greet", "parent_id": "root", "inputs": {"text": "b"}, "dependencies": ["a"]},
    ]
    events = await send(streaming, tree_message(tasks))
    named = [dict(event.status_update.metadata).get("nodeName") for event in events if event.HasField("status_update")]
    assert named.index("noop") < named.index("greet")
    root = await final_task(streaming, events)
    assert root.status.state == COMPLETED
    node = next(artifact for artifact in root.artifacts if artifact.name == "greet")
    child = await streaming.get_task(GetTaskRequest(id=node.artifact_id))
    assert child.status.state == COMPLETED
    assert get_artifact_text(child.artifacts[0]) == "Hello, b!"


@pytest.mark.asyncio
async def test_multi_turn_question_is_answered_by_task_id_alone(client: Client) -> None:
    first = await send(client, tree_message([{"name": "interview"}]))
    task = await final_task(client, first)
    assert task.status.state == INPUT_REQUIRED
    assert get_message_text(task.status.message) == "What is your name?"
    await send(client, text_message("Ada", task_id=task.id))
    task = await client.get_task(GetTaskRequest(id=task.id))
    assert get_message_text(task.status.message) == "Where do you live, Ada?"
    await send(client, text_message("London", task_id=task.id))
    task = await client.get_task(GetTaskRequest(id=task.id))
    assert task.status.state == COMPLETED
    assert dict(task.artifacts[0].parts[0].data.struct_value) == {"name": "Ada", "town": "London"}


@pytest.mark.asyncio
async def test_question_survives_a_restart(server: ServerProcess, streaming: Client, binding: str) -> None:
    """kill -9 while the task waits; the answer reaches it after the restart."""
    first = await send(streaming, tree_message([{"name": "interview"}]))
    task_id = first[0].task.id
    await send(streaming, text_message("Ada", task_id=task_id))
    server.kill()
    server.start()
    async with await connect(server, binding) as fresh:
        await send(fresh, text_message("London", task_id=task_id))
        task = await fresh.get_task(GetTaskRequest(id=task_id))
    assert task.status.state == COMPLETED
    assert dict(task.artifacts[0].parts[0].data.struct_value) == {"name": "Ada", "town": "London"}


@pytest.mark.asyncio
async def test_return_immediately_then_subscribe_then_cancel(
    streaming: Client, server: ServerProcess, binding: str
) -> None:
    async with await connect(server, binding, streaming=False, polling=True) as polling:
        events = await send(polling, tree_message([{"name": "hang"}]), return_immediately=True)
    task_id = events[0].task.id
    assert events[0].task.status.state in (TaskState.TASK_STATE_SUBMITTED, TaskState.TASK_STATE_WORKING)
    seen = []
    async for event in streaming.subscribe(SubscribeToTaskRequest(id=task_id)):
        seen.append(event)
        if len(seen) == 1:
            assert event.HasField("task")
            cancelled = await streaming.cancel_task(CancelTaskRequest(id=task_id))
            assert cancelled.status.state == CANCELED
    assert seen[-1].status_update.status.state == CANCELED
    again = await streaming.cancel_task(CancelTaskRequest(id=task_id))
    assert again.status.state == CANCELED


@pytest.mark.asyncio
async def test_webhooks_are_created_read_listed_and_deleted(streaming: Client) -> None:
    task_id = (await send(streaming, text_message("Ada")))[0].task.id
    read = GetTaskPushNotificationConfigRequest(task_id=task_id, id="one")
    for name in ("one", "two"):
        config = TaskPushNotificationConfig(task_id=task_id, id=name, url=f"https://hook.invalid/{name}", token="t")
        created = await streaming.create_task_push_notification_config(config)
        assert (created.task_id, created.id, created.url) == (task_id, name, f"https://hook.invalid/{name}")
    assert (await streaming.get_task_push_notification_config(read)).url == "https://hook.invalid/one"
    every = ListTaskPushNotificationConfigsRequest(task_id=task_id)
    listed = await streaming.list_task_push_notification_configs(every)
    assert {config.id for config in listed.configs} == {"one", "two"}
    gone = DeleteTaskPushNotificationConfigRequest(task_id=task_id, id="one")
    await streaming.delete_task_push_notification_config(gone)
    listed = await streaming.list_task_push_notification_configs(every)
    assert [config.id for config in listed.configs] == ["two"]
    with pytest.raises(TaskNotFoundError):
        await streaming.get_task_push_notification_config(read)


@pytest.mark.asyncio
async def test_list_pages_through_the_callers_tasks(streaming: Client) -> None:
    mine = {(await send(streaming, text_message(name)))[0].task.id for name in ("x", "y", "z")}
    found: list[str] = []
    token = ""
    while True:
        page = await streaming.list_tasks(ListTasksRequest(page_size=2, page_token=token, status=COMPLETED))
        found += [task.id for task in page.tasks]
        assert not any(task.artifacts for task in page.tasks)
        token = page.next_page_token
        if not token:
            break
    assert len(found) == len(set(found)) == page.total_size
    assert mine <= set(found)


@pytest.mark.asyncio
async def test_direct_message_is_a_message(client: Client) -> None:
    events = await send(client, text_message("hi", skill="direct"))
    assert [event.WhichOneof("payload") for event in events] == ["message"]
    assert get_message_text(events[0].message) == "You said: hi"


@pytest.mark.asyncio
async def test_errors_arrive_as_the_clients_own_types(streaming: Client) -> None:
    task = (await send(streaming, text_message("Ada")))[0].task
    for wrong, type_ in (
        (streaming.get_task(GetTaskRequest(id="nope")), TaskNotFoundError),
        (streaming.cancel_task(CancelTaskRequest(id="nope")), TaskNotFoundError),
        (send(streaming, text_message("x", skill="no-such-skill")), InvalidParamsError),
        (send(streaming, text_message("x", task_id="nope")), TaskNotFoundError),
        (send(streaming, text_message("x", task_id=task.id)), UnsupportedOperationError),
        (streaming.list_tasks(ListTasksRequest(page_token="nope")), InvalidParamsError),
    ):
        with pytest.raises(type_):
            await wrong
