"""fasta2a, the client of pydantic-ai: the task that its call returns."""

import asyncio
import sys
import uuid
from typing import Any

from fasta2a.client import A2AClient
from telling import ANSWER, PLAIN, Shown, finish, play, told


def parts(of: list[Any]) -> list[Any]:
    found: list[Any] = []
    for part in of:
        if "text" in part:
            found.append(part["text"])
        elif "data" in part:
            found.append({"data": part["data"]})
        else:
            found.append({"part": repr(part)})
    return found


def shown(result: Any) -> list[Any]:
    if "parts" in result:
        return parts(result["parts"])
    status = result["status"].get("message")
    return [text for artifact in result.get("artifacts") or () for text in parts(artifact["parts"])] + (
        parts(status["parts"]) if status else []
    )


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
        return told(shown(await say(text)))

    async def ask(text: str) -> Shown:
        first = await say(text)
        return told(shown(await say(ANSWER, task_id=first["id"])), question=shown(first))

    report: dict[str, Any] = {}
    await play(plain, PLAIN, report)
    await play(ask, ("ask",), report)
    finish(report)


asyncio.run(main(sys.argv[1]))
