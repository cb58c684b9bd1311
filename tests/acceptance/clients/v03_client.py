"""What a2a-sdk 0.3 sees of a server: run in a venv of its own, with the server's address; a JSON report on stdout.

Each step is a key of the report; a step that raises is reported with the exception's type and text.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.client.client import Client
from a2a.client.errors import A2AClientHTTPError, A2AClientJSONRPCError
from a2a.types import (
    AgentCard,
    DataPart,
    FilePart,
    FileWithBytes,
    GetTaskPushNotificationConfigParams,
    Message,
    Part,
    PushNotificationConfig,
    Role,
    Task,
    TaskIdParams,
    TaskPushNotificationConfig,
    TaskQueryParams,
    TextPart,
)

Step = Callable[[], Awaitable[Any]]


def message(text: str, *parts: Any, skill: str | None = None, task_id: str | None = None) -> Message:
    said = [Part(root=TextPart(text=text)), *(Part(root=part) for part in parts)]
    metadata = {"skillId": skill} if skill else None
    return Message(message_id=uuid.uuid4().hex, role=Role.user, parts=said, task_id=task_id, metadata=metadata)


def webhook(task_id: str) -> TaskPushNotificationConfig:
    config = PushNotificationConfig(id="one", url="https://hook.invalid/")
    return TaskPushNotificationConfig(task_id=task_id, push_notification_config=config)


def tree(name: str) -> Message:
    part = Part(root=DataPart(data={"tasks": [{"name": name}]}))
    return Message(message_id=uuid.uuid4().hex, role=Role.user, parts=[part])


def told(value: Any) -> Any:
    return value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def events(client: Client, said: Message) -> list[Any]:
    """The raw events of a call: a task, a message, or (task, update) pairs of which the update counts."""
    found = []
    async for event in client.send_message(said):
        match event:
            case (Task() as task, None):
                found.append(told(task))
            case (Task(), update):
                found.append(told(update))
            case _:
                found.append(told(event))
    return found


async def error_of(call: Awaitable[Any]) -> Any:
    try:
        return {"unexpected": str(await call)}
    except A2AClientJSONRPCError as error:
        return told(error.error)
    except A2AClientHTTPError as error:  # of HTTP+JSON it tells the status only
        return {"code": error.status_code}


class Session:
    def __init__(self, http: httpx.AsyncClient, url: str, binding: str) -> None:
        self.http = http
        self.url = url
        self.binding = binding

    def client(self, card: AgentCard, **wishes: bool) -> Client:
        config = ClientConfig(
            httpx_client=self.http, supported_transports=[self.binding], use_client_preference=True, **wishes
        )
        return ClientFactory(config).create(card)

    async def open(self) -> Any:
        """The card, and the clients that it leads to."""
        card = await A2ACardResolver(self.http, self.url).get_agent_card()
        self.streaming = self.client(card)
        self.blocking = self.client(card, streaming=False)
        self.polling = self.client(card, streaming=False, polling=True)
        return told(card)

    async def send(self) -> Any:
        return await events(self.blocking, message("Ada", skill="greet"))

    async def direct(self) -> Any:
        return await events(self.blocking, message("hi", skill="direct"))

    async def stream(self) -> Any:
        return await events(self.streaming, message("Ada", skill="greet"))

    async def chunks(self) -> Any:
        return await events(self.streaming, tree("chunks"))

    async def parts(self) -> Any:
        """All kinds of parts, read back from the task's history."""
        file = FilePart(file=FileWithBytes(bytes="aGk=", mime_type="text/plain", name="hi.txt"))
        (task,) = await events(self.blocking, message("Ada", file, DataPart(data={"n": 2**60 + 1}), skill="greet"))
        return task["history"][0]["parts"]

    async def get(self) -> Any:
        (task,) = await events(self.blocking, message("Ada", skill="greet"))
        return told(await self.blocking.get_task(TaskQueryParams(id=task["id"])))

    async def multi_turn(self) -> Any:
        asked = await events(self.streaming, tree("interview"))
        task_id = asked[0]["id"]
        again = await events(self.streaming, message("Ada", task_id=task_id))
        (ended,) = await events(self.blocking, message("London", task_id=task_id))
        return {"asked": asked, "again": again, "ended": ended}

    async def cancel(self) -> Any:
        """A task that runs is followed by another stream while it is cancelled."""
        (running,) = await events(self.polling, tree("hang"))
        params = TaskIdParams(id=running["id"])
        seen: list[Any] = []
        async for task, update in self.streaming.resubscribe(params):
            seen.append(told(task if update is None else update))
            if len(seen) == 1:
                cancelled = told(await self.streaming.cancel_task(params))
        return {"running": running, "seen": seen, "cancelled": cancelled}

    async def webhook(self) -> Any:
        (ended,) = await events(self.blocking, message("Ada", skill="greet"))
        made = await self.blocking.set_task_callback(webhook(ended["id"]))
        params = GetTaskPushNotificationConfigParams(id=ended["id"], push_notification_config_id="one")
        return {"task": ended["id"], "made": told(made), "read": told(await self.blocking.get_task_callback(params))}

    async def errors(self) -> Any:
        (ended,) = await events(self.blocking, message("Ada", skill="greet"))
        return {
            "get": await error_of(self.blocking.get_task(TaskQueryParams(id="nope"))),
            "cancel": await error_of(self.blocking.cancel_task(TaskIdParams(id="nope"))),
            "cancel ended": await error_of(self.blocking.cancel_task(TaskIdParams(id=ended["id"]))),
            "send to ended": await error_of(events(self.blocking, message("more", task_id=ended["id"]))),
            "send to nobody": await error_of(events(self.blocking, message("more", task_id="nope"))),
            "stream to nobody": await error_of(events(self.streaming, message("more", task_id="nope"))),
            "unknown skill": await error_of(events(self.blocking, message("x", skill="no-such-skill"))),
            "webhook of nobody": await error_of(self.blocking.set_task_callback(webhook("nope"))),
        }


async def main(url: str, binding: str) -> None:
    report: dict[str, Any] = {}
    async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
        session = Session(http, url, binding)
        steps: list[tuple[str, Step]] = [("card", session.open)]
        steps += [(name, getattr(session, name)) for name in ("send", "direct", "stream", "chunks", "parts", "get")]
        steps += [(name, getattr(session, name)) for name in ("multi_turn", "cancel", "webhook", "errors")]
        for name, step in steps:
            try:
                report[name] = await step()
            except Exception as error:  # noqa: BLE001 - the report is what says so
                report[name] = {"raised": f"{type(error).__name__}: {error}"}
    json.dump(report, sys.stdout)


asyncio.run(main(*sys.argv[1:]))
