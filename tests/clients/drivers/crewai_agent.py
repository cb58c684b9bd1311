"""CrewAI: the result of a delegation to a remote agent, which its agents read."""

import asyncio
import sys
from typing import Any

from crewai.a2a.utils.delegation import aexecute_a2a_delegation
from telling import ANSWER, PLAIN, Shown, finish, play, told


async def main(url: str) -> None:
    card = f"{url}/.well-known/agent-card.json"

    async def say(text: str, **more: Any) -> Any:
        return await aexecute_a2a_delegation(endpoint=card, auth=None, timeout=60, task_description=text, **more)

    async def plain(text: str) -> Shown:
        result = await say(text)
        return told(
            [text for text in (result.get("result"), result.get("error")) if text], state=result["status"].value
        )

    async def ask(text: str) -> Shown:
        first = await say(text)
        asked = first["history"][-1]
        question = [part.root.text for part in asked.parts if part.root.kind == "text"]
        second = await say(ANSWER, task_id=asked.task_id, context_id=asked.context_id)
        return told([second.get("result", "")], question=question)

    report: dict[str, Any] = {}
    await play(plain, PLAIN, report)
    await play(ask, ("ask",), report)
    finish(report)


asyncio.run(main(sys.argv[1]))
