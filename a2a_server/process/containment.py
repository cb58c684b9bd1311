"""Runs the event loop so that what only a whole program may raise, such as `sys.exit()`, does not end the server.

asyncio lets SystemExit and KeyboardInterrupt of any task or callback out of the loop. Where an attempt's code raised
it, the attempt fails, and the loop goes on from where it was left.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from core.loop.origin import Origin, origin_of_traceback

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
BreakOff = Callable[[Origin, BaseException], object]


class Containment:
    """Runs one coroutine as `asyncio.run` does. `break_off` fails the attempt whose code raised an error."""

    def __init__(self) -> None:
        self.break_off: BreakOff | None = None  # from when on there are attempts

    def run(self, main: Coroutine[Any, Any, Result]) -> Result:
        """What `main` returns or raises. Raises as well what gets out of the loop and is no attempt's doing."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            task = loop.create_task(main)
            while True:
                try:
                    return loop.run_until_complete(task)
                except (SystemExit, KeyboardInterrupt) as error:
                    self._contain(error, task)

    def _contain(self, error: BaseException, task: asyncio.Task[Any]) -> None:
        """Fail the attempt whose code raised the error. Raises the error where there is none."""
        origin = origin_of_traceback(error.__traceback__)
        if origin is None or self.break_off is None:
            if task.done() and not task.cancelled():
                task.exception()  # seen: it is raised here
            raise error
        logger.exception("code of %s raised %s; the server keeps running", origin, type(error).__name__)
        task.get_loop().call_soon(self.break_off, origin, error)
