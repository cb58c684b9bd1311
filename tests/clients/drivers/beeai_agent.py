"""BeeAI: the output of an A2AAgent."""

import asyncio
import sys
from typing import Any

from beeai_framework.adapters.a2a.agents import A2AAgent
from beeai_framework.memory import UnconstrainedMemory
from telling import ANSWER, PLAIN, Shown, finish, play, told


async def main(url: str) -> None:
    def made() -> A2AAgent:
        return A2AAgent(url=url, memory=UnconstrainedMemory())

    async def plain(text: str) -> Shown:
        result = await made().run(text)
        return told([message.text for message in result.output])

    async def ask(text: str) -> Shown:
        agent = made()
        first = await agent.run(text)
        second = await agent.run(ANSWER)
        return told([message.text for message in second.output], question=[message.text for message in first.output])

    report: dict[str, Any] = {}
    await play(plain, PLAIN, report)
    await play(ask, ("ask",), report)
    finish(report)


asyncio.run(main(sys.argv[1]))
