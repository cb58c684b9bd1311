"""a2a-sdk 0.3: what its events and its tasks hold."""

import asyncio
import base64
import sys
import uuid
from typing import Any

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import DataPart, Message, Part, Role, Task, TaskIdParams, TaskQueryParams, TextPart
from telling import Shown, Told, converse, finish, told


def parts(of: Any) -> list[Any]:
    found: list[Any] = []
    for part in of:
        inner = part.root
        if isinstance(inner, TextPart):
            found.append(inner.text)
        elif isinstance(inner, DataPart):
            found.append({"data": inner.data})
        else:
            found.append({"file": base64.b64decode(inner.file.bytes).hex()})
    return found


def said(text: str, task_id: str | None = None) -> Message:
    part = Part(root=TextPart(text=text))
    return Message(message_id=uuid.uuid4().hex, role=Role.user, parts=[part], task_id=task_id)


class Seen(Told):
    """What the events of one call show."""

    def changed(self, status: Any) -> None:
        state = status.state.value.replace("-", "_").upper()
        self.status(state, parts(status.message.parts) if status.message else [])

    def take(self, event: Any) -> None:
        if isinstance(event, Message):
            self.shown += parts(event.parts)
            return
        task, update = event
        self.task_id = task.id
        if update is None:
            for artifact in task.artifacts or ():
                self.shown += parts(artifact.parts)
            self.changed(task.status)
        elif update.kind == "status-update":
            self.changed(update.status)
        else:
            self.shown += parts(update.artifact.parts)


async def main(url: str, binding: str) -> None:
    report: dict[str, Any] = {}
    for streaming in (True, False):
        suffix = "" if streaming else "~blocking"
        http = httpx.AsyncClient(timeout=60)
        card = await A2ACardResolver(http, url).get_agent_card()
        config = ClientConfig(httpx_client=http, streaming=streaming, supported_transports=[binding])
        client = ClientFactory(config).create(card)
        polling = ClientFactory(ClientConfig(httpx_client=http, streaming=False, polling=True)).create(card)

        async def say(text: str, task_id: str | None = None, client: Any = client) -> Seen:
            seen = Seen()
            async for event in client.send_message(said(text, task_id)):
                seen.take(event)
            return seen

        async def history(task_id: str, client: Any = client) -> list[Any]:
            task = await client.get_task(TaskQueryParams(id=task_id))
            return [parts(each.parts)[0] for each in task.history or ()]

        async def wait(text: str, client: Any = client, polling: Any = polling) -> Shown:
            async for event in polling.send_message(said(text)):
                task = event[0] if isinstance(event, tuple) else event
                assert isinstance(task, Task)
                ended = await client.cancel_task(TaskIdParams(id=task.id))
                return told([], state=ended.status.state.value.upper())
            return told([])

        await converse(say, history, wait, report, suffix)
        await http.aclose()
    finish(report)


asyncio.run(main(*sys.argv[1:3]))
