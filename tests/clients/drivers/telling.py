"""What the drivers share: the scenarios, and the report that each driver writes.

A driver runs in the environment of its client, `python DRIVER.py URL BINDING`, and writes one JSON object into the file
that REPORT names, for libraries print: for each scenario what the client showed to its user. Only the standard library
is imported here.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

PLAIN = ("hello there", "separators", "face", "interim", "chunks", "data", "file", "fail", "reject", "reply", "slow")
ANSWER = "Ada"
Shown = dict[str, Any]  # shown: list of texts, {"data": …} and {"file": hex}; state, question, history where they exist


def told(shown: list[Any], **more: Any) -> Shown:
    return {"shown": shown, **more}


async def play(scenario: Callable[[str], Awaitable[Shown]], names: tuple[str, ...], report: dict[str, Any]) -> None:
    """Each scenario with its own limit of 40 seconds; what the client raises is what its user sees."""
    for name in names:
        try:
            report[name.split(" ", maxsplit=1)[0]] = await asyncio.wait_for(scenario(name), 40)
        except Exception as error:  # noqa: BLE001 - whatever a client raises is what its user sees
            report[name.split(" ", maxsplit=1)[0]] = {"raised": f"{type(error).__name__}: {error}"[:1000], "shown": []}


def finish(report: dict[str, Any]) -> None:
    Path(os.environ["REPORT"]).write_text(json.dumps(report))
