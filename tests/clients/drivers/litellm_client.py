"""LiteLLM's A2A client: the task that its call returns, and the events of its stream."""

import asyncio
import sys
import uuid
from typing import Any

from a2a.compat.v0_3.types import MessageSendParams, SendMessageRequest, SendStreamingMessageRequest
from litellm.a2a_protocol import asend_message, asend_message_streaming, create_a2a_client
from telling import ANSWER, PLAIN, Shown, finish, json_shown, play, told


def request(kind: Any, text: str, **more: Any) -> Any:
    message = {"messageId": uuid.uuid4().hex, "role": "user", "kind": "message", **more}
    message["parts"] = [{"kind": "text", "text": text}]
    return kind(id=uuid.uuid4().hex, params=MessageSendParams(message=message))


def plainly(value: Any) -> Any:
    return value if isinstance(value, dict) else value.model_dump(mode="json", by_alias=True, exclude_none=True)


async def main(url: str) -> None:
    client = await create_a2a_client(base_url=url)

    async def say(text: str, **more: Any) -> Any:
        answer = await asend_message(a2a_client=client, request=request(SendMessageRequest, text, **more))
        given = plainly(answer)
        return plainly(given["result"])

    async def plain(text: str) -> Shown:
        return told(json_shown(await say(text)))

    async def ask(text: str) -> Shown:
        first = await say(text)
        return told(json_shown(await say(ANSWER, taskId=first["id"])), question=json_shown(first))

    async def streamed(text: str) -> Shown:
        found: list[Any] = []
        stream = asend_message_streaming(a2a_client=client, request=request(SendStreamingMessageRequest, text))
        async for event in stream:
            given = plainly(event)
            found += json_shown(given.get("result", given))
        return told(found)

    report: dict[str, Any] = {}
    await play(streamed, PLAIN, report)
    found: dict[str, Any] = {}
    await play(plain, PLAIN, found)
    await play(ask, ("ask",), found)
    finish(report | {f"{name}~blocking": value for name, value in found.items()})


asyncio.run(main(sys.argv[1]))
