"""fasta2a, the client of pydantic-ai: the task that its call returns."""

import asyncio
import sys
import uuid
from typing import Any

from fasta2a.client import A2AClient
from telling import ANSWER, PLAIN, Shown, finish, json_shown, play, told


async def main(url: str) -> None:
    client = A2AClient(url)
    client.http_client.timeout = 60

    async def say(text: str, **more: Any) -> Any:
        message = {"message_id": uuid.uuid4().hex, "role": "user", "kind": "message", "parts": [{"text": text}], **more}
        answer = await client.send_message(message)
        if "error" in answer:
            raise RuntimeError(str(answer["error"]))
        result = answer["result"]
        return result.get("task") or result.get("message") or result if isinstance(result, dict) else result

    async def plain(text: str) -> Shown:
        return told(json_shown(await say(text)))

    async def ask(text: str) -> Shown:
        first = await say(text)
        return told(json_shown(await say(ANSWER, task_id=first["id"])), question=json_shown(first))

    report: dict[str, Any] = {}
    await play(plain, PLAIN, report)
    await play(ask, ("ask",), report)
    finish(report)


asyncio.run(main(sys.argv[1]))
