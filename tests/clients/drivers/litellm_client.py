"""LiteLLM's A2A client: the task that its call returns, and the events of its stream."""

import asyncio
import base64
import sys
import uuid
from typing import Any

from a2a.compat.v0_3.types import MessageSendParams, SendMessageRequest, SendStreamingMessageRequest
from litellm.a2a_protocol import asend_message, asend_message_streaming, create_a2a_client
from telling import ANSWER, PLAIN, Shown, finish, play, told


def parts(of: list[Any]) -> list[Any]:
    found: list[Any] = []
    for part in of:
        if "text" in part:
            found.append(part["text"])
        elif "data" in part:
            found.append({"data": part["data"]})
        else:
            found.append({"file": base64.b64decode(part["file"]["bytes"]).hex()})
    return found


def shown(result: Any) -> list[Any]:
    """Of a task, a message or an event, as JSON."""
    if "parts" in result:
        return parts(result["parts"])
    found = [each for artifact in result.get("artifacts") or () for each in parts(artifact["parts"])]
    if "artifact" in result:
        found += parts(result["artifact"]["parts"])
    message = (result.get("status") or {}).get("message")
    return found + (parts(message["parts"]) if message else [])


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
        return told(shown(await say(text)))

    async def ask(text: str) -> Shown:
        first = await say(text)
        return told(shown(await say(ANSWER, taskId=first["id"])), question=shown(first))

    async def streamed(text: str) -> Shown:
        found: list[Any] = []
        stream = asend_message_streaming(a2a_client=client, request=request(SendStreamingMessageRequest, text))
        async for event in stream:
            given = plainly(event)
            found += shown(given.get("result", given))
        return told(found)

    report: dict[str, Any] = {}
    await play(streamed, PLAIN, report)
    found: dict[str, Any] = {}
    await play(plain, PLAIN, found)
    await play(ask, ("ask",), found)
    finish(report | {f"{name}~blocking": value for name, value in found.items()})


asyncio.run(main(sys.argv[1]))
