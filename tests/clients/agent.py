"""The agent that every client talks to: the first word of a message chooses what happens."""

import asyncio

from core import Parts, Rejected, TaskContext, executor

SEPARATORS = "one\u2028two\u2029three\u0085four"
EMOJI = "\N{GRINNING FACE} e\u0301 \u05d0 \u200d end"
FILE = bytes(range(256))


@executor("tell", description="Answers in many ways", tags=("clients",))
async def tell(inputs: dict[str, object], context: TaskContext) -> object:
    word = str(inputs.get("text") or "").split(" ")[0]
    match word:
        case "separators":
            return SEPARATORS
        case "emoji":
            return EMOJI
        case "interim":
            await context.message("Thinking about it")
            return "Said and done"
        case "chunks":
            for chunk in ("one ", "two ", "three"):
                await context.artifact(chunk, last_chunk=chunk == "three")
            return None
        case "data":
            return {"greeting": "Hello", "n": 3, "nested": {"list": [1, 2.5, None, True]}}
        case "file":
            return Parts([{"raw": FILE, "filename": "all.bin", "mediaType": "application/octet-stream"}])
        case "ask":
            return f"Hello, {await context.ask('Who are you?')}!"
        case "fail":
            raise RuntimeError("the printer is on fire")
        case "reject":
            raise Rejected("not my job")
        case "reply":
            await context.reply("a direct message")
            return None
        case "slow":
            await asyncio.sleep(2)  # several pings of the stream
            return "slow, but sure"
        case "wait":
            await asyncio.sleep(3600)
    return f"Hello, {inputs.get('text')}!"
