"""a2a-sdk 1.x: what its events and its tasks hold."""

import asyncio
import sys
import uuid
from typing import Any

import httpx
from a2a.client import ClientConfig, create_client
from a2a.types import CancelTaskRequest, GetTaskRequest, Message, Part, Role, SendMessageRequest, TaskState
from google.protobuf.json_format import MessageToDict
from telling import ANSWER, PLAIN, Shown, finish, play, told

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


class Told:
    """What a user who reads the events in order is shown: each artifact's pieces and each status message."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.task_id = self.state = ""
        self.question: list[Any] = []

    def status(self, status: Any) -> None:
        self.state = state(status)
        found = parts(status.message.parts)
        if self.state == "INPUT_REQUIRED":
            self.question = found
        else:
            self.shown += found

    def take(self, event: Any) -> None:
        match event.WhichOneof("payload"):
            case "task":
                self.task_id = event.task.id
                for artifact in event.task.artifacts:
                    self.shown += parts(artifact.parts)
                self.status(event.task.status)
            case "message":
                self.shown += parts(event.message.parts)
            case "status_update":
                self.status(event.status_update.status)
            case "artifact_update":
                self.shown += parts(event.artifact_update.artifact.parts)


async def main(url: str, binding: str) -> None:
    report: dict[str, Any] = {}
    for streaming in (True, False):
        suffix = "" if streaming else "~blocking"
        http = httpx.AsyncClient(timeout=60)
        config = ClientConfig(httpx_client=http, streaming=streaming, supported_protocol_bindings=[binding])
        client = await create_client(url, config)

        async def plain(text: str, client: Any = client) -> Shown:
            seen = Told()
            async for event in client.send_message(said(text)):
                seen.take(event)
            return told(seen.shown, state=seen.state)

        async def ask(text: str, client: Any = client) -> Shown:
            first, second = Told(), Told()
            async for event in client.send_message(said(text)):
                first.take(event)
            async for event in client.send_message(said(ANSWER, first.task_id)):
                second.take(event)
            task = await client.get_task(GetTaskRequest(id=first.task_id))
            history = [parts(each.parts)[0] for each in task.history]
            return told(second.shown, state=second.state, question=first.question, history=history)

        async def wait(text: str, client: Any = client) -> Shown:
            request = said(text)
            request.configuration.return_immediately = True
            async for event in client.send_message(request):
                seen = Told()
                seen.take(event)
                if seen.task_id:
                    task = await client.cancel_task(CancelTaskRequest(id=seen.task_id))
                    return told([], state=state(task.status))
            return told([])

        found: dict[str, Any] = {}
        await play(plain, PLAIN, found)
        await play(ask, ("ask",), found)
        await play(wait, ("wait",), found)
        report |= {name + suffix: value for name, value in found.items()}
        await http.aclose()
    finish(report)


asyncio.run(main(*sys.argv[1:3]))
