"""Functions that a test cancels in processes of their own."""

import time
from typing import Any


def killed_process(inputs: Any, context: Any) -> None:
    context.progress(0.5)
    time.sleep(60)


def solid_process(inputs: Any, context: Any) -> str:
    context.progress(0.5)
    while not context.cancelled:
        time.sleep(0.01)
    return "stopped by itself"
