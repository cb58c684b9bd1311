"""Microsoft's Agent Framework: the text of an A2AAgent's response, and of its stream."""

import asyncio
import base64
import sys
from typing import Any

from agent_framework_a2a import A2AAgent
from telling import PLAIN, Shown, finish, play, told


def contents(of: Any) -> list[Any]:
    found: list[Any] = []
    for content in of:
        if content.type == "text":
            found.append(content.text)
        elif content.type == "data":
            found.append({"file": base64.b64decode(content.uri.partition(",")[2]).hex()})
    return found


def shown(response: Any) -> list[Any]:
    found: list[Any] = []
    for message in response.messages:
        found += contents(message.contents)
    return found


async def main(url: str) -> None:
    async def plain(text: str) -> Shown:
        async with A2AAgent(name="remote", url=url) as agent:
            return told(shown(await agent.run(text)))

    async def streamed(text: str) -> Shown:
        async with A2AAgent(name="remote", url=url) as agent:
            return told([each async for update in agent.run(text, stream=True) for each in contents(update.contents)])

    report: dict[str, Any] = {}
    await play(streamed, PLAIN, report)
    found: dict[str, Any] = {}
    await play(plain, PLAIN, found)
    finish(report | {f"{name}~blocking": value for name, value in found.items()})


asyncio.run(main(sys.argv[1]))
