"""What the drivers share: the scenarios, and the report that each driver writes.

A driver runs in the environment of its client, `python DRIVER.py URL BINDING`, and writes one JSON object into the file
that REPORT names, for libraries print: for each scenario what the client showed to its user. Only the standard library
is imported here.
"""

import asyncio
import base64
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PLAIN = ("hello there", "separators", "emoji", "interim", "chunks", "data", "file", "fail", "reject", "reply", "slow")
ANSWER = "Ada"
Shown = dict[str, Any]  # shown: list of texts, {"data": …} and {"file": hex}; state, question, history where they exist


class Told:
    """What a user who reads the events in order is shown: each artifact's pieces and each status message."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.task_id = self.state = ""
        self.question: list[Any] = []

    def status(self, state: str, said: list[Any]) -> None:
        """A status, as v1.0 spells it, and what its message says."""
        self.state = state
        if state == "INPUT_REQUIRED":
            self.question = said
        else:
            self.shown += said


def told(shown: list[Any], **more: Any) -> Shown:
    return {"shown": shown, **more}


async def play(scenario: Callable[[str], Awaitable[Shown]], names: tuple[str, ...], report: dict[str, Any]) -> None:
    """Each scenario with its own limit of 40 seconds; what the client raises is what its user sees."""
    for name in names:
        try:
            report[name.split(" ", maxsplit=1)[0]] = await asyncio.wait_for(scenario(name), 40)
        except Exception as error:  # noqa: BLE001 - whatever a client raises is what its user sees
            report[name.split(" ", maxsplit=1)[0]] = {"raised": f"{type(error).__name__}: {error}"[:1000], "shown": []}


async def converse(
    say: Callable[..., Awaitable[Told]],
    history: Callable[[str], Awaitable[list[Any]]],
    wait: Callable[[str], Awaitable[Shown]],
    report: dict[str, Any],
    suffix: str,
) -> None:
    """All scenarios. `say` sends a text, perhaps to a task; `history` is that of a task; `wait` cancels one."""

    async def plain(text: str) -> Shown:
        seen = await say(text)
        return told(seen.shown, state=seen.state)

    async def ask(text: str) -> Shown:
        first = await say(text)
        second = await say(ANSWER, first.task_id)
        more = {"question": first.question, "history": await history(first.task_id)}
        return told(second.shown, state=second.state, **more)

    found: dict[str, Any] = {}
    await play(plain, PLAIN, found)
    await play(ask, ("ask",), found)
    await play(wait, ("wait",), found)
    report |= {name + suffix: value for name, value in found.items()}


def json_parts(of: list[Any]) -> list[Any]:
    """What parts hold that are JSON objects, as v0.3 spells them."""
    found: list[Any] = []
    for part in of:
        if "text" in part:
            found.append(part["text"])
        elif "data" in part:
            found.append({"data": part["data"]})
        else:
            found.append({"file": base64.b64decode(part["file"]["bytes"]).hex()})
    return found


def json_shown(result: Any) -> list[Any]:
    """What a task, a message or an event shows that is a JSON object."""
    if "parts" in result:
        return json_parts(result["parts"])
    found = [each for artifact in result.get("artifacts") or () for each in json_parts(artifact["parts"])]
    if "artifact" in result:
        found += json_parts(result["artifact"]["parts"])
    message = (result.get("status") or {}).get("message")
    return found + (json_parts(message["parts"]) if message else [])


def finish(report: dict[str, Any]) -> None:
    Path(os.environ["REPORT"]).write_text(json.dumps(report))
