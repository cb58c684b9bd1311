"""Executors for the siege: what an operator might offer, and one caller misuses."""

import asyncio
import time
from typing import Any

from core import executor


@executor("quick")
async def quick(inputs: dict[str, Any]) -> str:
    """Returns at once."""
    return "quick"


@executor("sleepy")
async def sleepy(inputs: dict[str, Any]) -> None:
    """Waits as long as its caller says."""
    await asyncio.sleep(float(inputs["seconds"]))


@executor("slow")
def slow(inputs: dict[str, Any]) -> None:
    """Keeps a thread as long as its caller says."""
    time.sleep(float(inputs["seconds"]))
