"""Strands: the message of the result of an A2AAgent."""

import asyncio
import sys
from typing import Any

from strands.agent.a2a_agent import A2AAgent
from telling import PLAIN, Shown, finish, play, told


async def main(url: str) -> None:
    async def plain(text: str) -> Shown:
        result = await A2AAgent(endpoint=url, timeout=60).invoke_async(text)
        return told([block["text"] for block in result.message["content"] if "text" in block])

    report: dict[str, Any] = {}
    await play(plain, PLAIN, report)
    finish(report)


asyncio.run(main(sys.argv[1]))
