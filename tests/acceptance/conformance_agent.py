"""The agent that the conformance kits talk to: serve it with `--default-skill conformance`.

The kits say what they want to see by how a message begins: its `messageId` in the TCK, the text of its first part in
ACTS (§11). Any other message is completed with a text, or, as the TCK of v0.3 wants it, answered with a question
(`CONFORMANCE_OTHERS=ask`).
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from core import Parts, Rejected, TaskContext, executor

OTHERS_ASK = os.environ.get("CONFORMANCE_OTHERS", "complete") == "ask"
TICK = 0.5  # seconds between two signs of life
WORK = 2.0  # seconds that long work takes
RESUBSCRIBE = 2 * float(os.environ.get("TCK_STREAMING_TIMEOUT", "2.0"))  # the TCK's own variable
FILE = {"filename": "output.txt", "mediaType": "text/plain"}

Behaviour = Callable[[TaskContext], Awaitable[Any]]


def gives(result: Any) -> Behaviour:
    """Completes with this as its artifact, with None without one."""

    async def behaviour(context: TaskContext) -> Any:
        return result

    return behaviour


async def completes(context: TaskContext) -> None:
    await context.message("Hello from TCK")


async def replies(context: TaskContext) -> None:
    await context.reply("Direct message response")


async def asks(context: TaskContext) -> None:
    """Until the answer is the last one. An answer comes without its `messageId`: the TCK's texts tell them apart."""
    while (await context.ask("What else do you want to tell?")).startswith("TCK history message"):
        pass


async def asks_until_done(context: TaskContext) -> None:
    while await context.ask("What else? Say 'done' to end.") != "done":
        pass


async def asks_for_ever(context: TaskContext) -> None:
    """A pause to be seen at work in, then the next question."""
    await asyncio.sleep(TICK)
    while True:
        await context.ask("What else?")


async def asks_for_credentials(context: TaskContext) -> None:
    await context.ask("Sign in first, please.", auth=True)


async def declines(context: TaskContext) -> None:
    raise Rejected("rejected, as the message asked for")


async def fails(context: TaskContext) -> None:
    raise RuntimeError("failed, as the message asked for")


async def never_ends(context: TaskContext) -> None:
    await asyncio.Event().wait()


async def streams_chunks(context: TaskContext) -> None:
    await context.artifact("chunk-1 ")
    await context.artifact("chunk-2", last_chunk=True)


def works(seconds: float) -> Behaviour:
    """Gives a sign of life now and then, and an artifact at its end."""

    async def behaviour(context: TaskContext) -> str:
        for tick in range(ticks := round(seconds / TICK)):
            await context.progress(tick / ticks)
            await asyncio.sleep(TICK)
        return "The work is done"

    return behaviour


BEHAVIOURS: Mapping[str, Behaviour] = {
    "tck-complete-task": completes,
    "tck-message-response": replies,
    "tck-input-required": asks,
    "tck-multi-turn": asks_until_done,
    "tck-auth-required": asks_for_credentials,
    "tck-reject-task": declines,
    "tck-task-failure": fails,
    "tck-cancel": never_ends,
    "tck-long-running": works(WORK),
    "test-resubscribe-message-id": works(RESUBSCRIBE),
    "tck-artifact-text": gives("Generated text content"),
    "tck-artifact-data": gives({"key": "value", "count": 42}),
    "tck-artifact-file": gives(Parts([{"raw": b"Generated file content", **FILE}])),
    "tck-artifact-file-url": gives(Parts([{"url": "https://example.com/output.txt", **FILE}])),
    "tck-stream-001": gives("Stream hello from TCK"),
    "tck-stream-002": gives(None),
    "tck-stream-003": gives("Stream task lifecycle"),
    "tck-stream-ordering-001": gives("Ordered output"),
    "tck-stream-basic": gives("Streamed content"),
    "tck-stream-artifact-text": gives("Streamed text content"),
    "tck-stream-artifact-file": gives(Parts([{"raw": b"Streamed file content", **FILE}])),
    "tck-stream-artifact-chunked": streams_chunks,
    "tck-stream-chunked": streams_chunks,
}


def behaviour_of(message: Mapping[str, Any]) -> Behaviour:
    """What the message asks for; the longest prefix wins."""
    for sign in (message["messageId"], message["parts"][0].get("text", "")):
        if fitting := [prefix for prefix in BEHAVIOURS if sign.startswith(prefix)]:
            return BEHAVIOURS[max(fitting, key=len)]
    return asks_for_ever if OTHERS_ASK else completes


@executor("conformance", name="Conformance", input_modes=("*/*",), output_modes=("*/*",))
async def conformance(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Does what a conformance kit asks for."""
    return await behaviour_of(context.request["message"])(context)
