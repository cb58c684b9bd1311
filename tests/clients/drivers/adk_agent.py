"""Google's Agent Development Kit: the events of a RemoteA2aAgent that its runner gives."""

import asyncio
import json
import sys
from typing import Any

from google.adk.agents.remote_a2a_agent import RemoteA2aAgent
from google.adk.runners import InMemoryRunner
from google.genai import types
from telling import ANSWER, PLAIN, Shown, finish, play, told

DATA = (b"<a2a_datapart_json>", b"</a2a_datapart_json>")  # how the kit keeps JSON in its own parts


def shown(event: Any) -> list[Any]:
    """What a chat shows of an event: its parts, but for thoughts."""
    found: list[Any] = []
    for part in event.content.parts if event.content else ():
        if part.text and not part.thought:
            found.append(part.text)
        elif part.inline_data and part.inline_data.data.startswith(DATA[0]):
            found.append({"data": json.loads(part.inline_data.data.removeprefix(DATA[0]).removesuffix(DATA[1]))})
        elif part.inline_data:
            found.append({"file": part.inline_data.data.hex()})
        elif part.function_call:  # a question is a call that waits for its answer
            found.append(part.function_call.args["input_required"])
    if event.error_message:
        found.append(event.error_message)
    return found


async def main(url: str) -> None:
    runner = InMemoryRunner(
        RemoteA2aAgent(name="remote", agent_card=f"{url}/.well-known/agent-card.json"), app_name="a"
    )

    async def say(text: str, session: str) -> list[Any]:
        found: list[Any] = []
        content = types.Content(role="user", parts=[types.Part(text=text)])
        async for event in runner.run_async(user_id="u", session_id=session, new_message=content):
            found += shown(event)
        return found

    async def plain(text: str) -> Shown:
        session = await runner.session_service.create_session(app_name="a", user_id="u")
        return told(await say(text, session.id))

    async def ask(text: str) -> Shown:
        session = await runner.session_service.create_session(app_name="a", user_id="u")
        question = await say(text, session.id)
        return told(await say(ANSWER, session.id), question=question)

    report: dict[str, Any] = {}
    await play(plain, PLAIN, report)
    await play(ask, ("ask",), report)
    finish(report)


asyncio.run(main(sys.argv[1]))
