"""Executors that the acceptance tests give to a real server."""

import asyncio
import os
import secrets
from pathlib import Path
from typing import Any

from core import TaskContext, executor

LEDGER = Path(os.environ.get("LEDGER", os.devnull))


def record(effect: str) -> None:
    """An effect that nothing can take back: a line in a file outside the database, synced."""
    handle = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(handle, f"{effect}\n".encode())
        os.fsync(handle)
    finally:
        os.close(handle)


@executor("noop")
async def noop(inputs: dict[str, Any]) -> Any:
    """Returns what nobody could guess, so that a second run would show."""
    return {"nonce": secrets.token_hex(8)}


@executor("work")
async def work(inputs: dict[str, Any]) -> Any:
    """A few milliseconds of waiting, as an HTTP call would be."""
    await asyncio.sleep(inputs.get("seconds", 0.004))
    return {"nonce": secrets.token_hex(8)}


@executor("effect")
async def effect(inputs: dict[str, Any], context: TaskContext) -> Any:
    """One effect for each attempt, under the attempt's idempotency key."""
    record(f"effect {context.idempotency_key}")
    await asyncio.sleep(0.002)
    return {"nonce": secrets.token_hex(8)}


@executor("effect_once", at_most_once=True)
async def effect_once(inputs: dict[str, Any], context: TaskContext) -> Any:
    """An effect that must never happen twice."""
    record(f"once {context.idempotency_key}")
    await asyncio.sleep(0.002)
    return {"nonce": secrets.token_hex(8)}


@executor("form")
async def form(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Asks three questions at once."""
    return await asyncio.gather(*(context.ask(f"{name}?") for name in ("name", "town", "age")))


@executor("nap")
async def nap(inputs: dict[str, Any], context: TaskContext) -> Any:
    """An effect that takes its time."""
    record(f"nap {context.idempotency_key}")
    await asyncio.sleep(inputs["seconds"])
    return {"nonce": secrets.token_hex(8)}


@executor("second_try")
async def second_try(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Fails once."""
    if context.attempt == 1:
        raise RuntimeError("once")


@executor("boom")
async def boom(inputs: dict[str, Any]) -> Any:
    """Fails."""
    raise RuntimeError(inputs.get("text", "boom"))


@executor("hang")
async def hang(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Runs until it is cancelled, then leaves a trace of any effect that would start afterwards."""
    await context.progress(0.1, "hanging")
    await asyncio.Event().wait()
    record(f"late {context.idempotency_key}")


@executor("greet")
async def greet(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Greets; asks for the name when it is not told."""
    name = inputs.get("text") or await context.ask("What is your name?")
    return f"Hello, {name}!"


@executor("interview")
async def interview(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Two questions, one after the other."""
    name = await context.ask("What is your name?")
    town = await context.ask(f"Where do you live, {name}?")
    return {"name": name, "town": town}


@executor("chunks")
async def chunks(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Streams its output in pieces, of a size, with a pause after each."""
    count = inputs.get("count", 3)
    for n in range(count):
        await context.artifact(f"chunk {n} ".ljust(inputs.get("size", 0), "."), last_chunk=n == count - 1)
        await asyncio.sleep(inputs.get("pause", 0))


@executor("direct")
async def direct(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Answers with a Message, not with a Task."""
    await context.reply(f"You said: {inputs.get('text', '')}")


@executor("stubborn", cancelable=False)
async def stubborn(inputs: dict[str, Any], context: TaskContext) -> Any:
    """Takes a while and cannot be interrupted."""
    await context.progress(0.1, "busy")
    await asyncio.sleep(inputs.get("seconds", 1.0))


@executor("ticking")
async def ticking(inputs: dict[str, Any], context: TaskContext) -> Any:
    """One effect after the other, until it is cancelled."""
    await context.progress(0.1, "ticking")
    while True:
        record(f"tick {context.idempotency_key}")
        await asyncio.sleep(0.05)
