"""a2a-sdk 1.x: what its events and its tasks hold."""

import asyncio
import sys
import uuid
from typing import Any

import httpx
from a2a.client import ClientConfig, create_client
from a2a.types import CancelTaskRequest, GetTaskRequest, Message, Part, Role, SendMessageRequest, TaskState
from google.protobuf.json_format import MessageToDict
from telling import Shown, Told, converse, finish, told

FINAL = {"COMPLETED", "FAILED", "REJECTED", "CANCELED"}


def parts(of: Any) -> list[Any]:
    found = []
    for part in of:
        match part.WhichOneof("content"):
            case "text":
                found.append(part.text)
            case "data":
                found.append({"data": MessageToDict(part.data)})
            case "raw":
                found.append({"file": part.raw.hex()})
    return found


def state(status: Any) -> str:
    return TaskState.Name(status.state).removeprefix("TASK_STATE_")


def said(text: str, task_id: str | None = None) -> SendMessageRequest:
    message = Message(message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)], task_id=task_id)
    return SendMessageRequest(message=message)


class Seen(Told):
    """What the events of one call show."""

    def changed(self, status: Any) -> None:
        self.status(state(status), parts(status.message.parts))

    def take(self, event: Any) -> None:
        match event.WhichOneof("payload"):
            case "task":
                self.task_id = event.task.id
                for artifact in event.task.artifacts:
                    self.shown += parts(artifact.parts)
                self.changed(event.task.status)
            case "message":
                self.shown += parts(event.message.parts)
            case "status_update":
                self.changed(event.status_update.status)
            case "artifact_update":
                self.shown += parts(event.artifact_update.artifact.parts)


async def main(url: str, binding: str) -> None:
    report: dict[str, Any] = {}
    for streaming in (True, False):
        suffix = "" if streaming else "~blocking"
        http = httpx.AsyncClient(timeout=60)
        config = ClientConfig(httpx_client=http, streaming=streaming, supported_protocol_bindings=[binding])
        client = await create_client(url, config)

        async def say(text: str, task_id: str | None = None, client: Any = client) -> Seen:
            seen = Seen()
            async for event in client.send_message(said(text, task_id)):
                seen.take(event)
            return seen

        async def history(task_id: str, client: Any = client) -> list[Any]:
            task = await client.get_task(GetTaskRequest(id=task_id))
            return [parts(each.parts)[0] for each in task.history]

        async def wait(text: str, client: Any = client) -> Shown:
            request = said(text)
            request.configuration.return_immediately = True
            async for event in client.send_message(request):
                seen = Seen()
                seen.take(event)
                if seen.task_id:
                    task = await client.cancel_task(CancelTaskRequest(id=seen.task_id))
                    return told([], state=state(task.status))
            return told([])

        await converse(say, history, wait, report, suffix)
        await http.aclose()
    finish(report)


asyncio.run(main(*sys.argv[1:3]))
