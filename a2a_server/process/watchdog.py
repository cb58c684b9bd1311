"""Logs what blocks the event loop, and so every other call: a thread with a heartbeat."""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import PurePath
from time import monotonic
from types import FrameType, TracebackType

from core.loop.origin import callback_of, callers, origin_of

logger = logging.getLogger(__name__)

BEATS = 5  # heartbeats in the time that a callback may take
SHORTEST_PAUSE = 0.02  # seconds between two heartbeats
REPORT_EVERY = 5.0  # seconds between two reports
DEPTH = 15  # innermost functions of the stack that are told


class Watchdog:
    """Watches the running event loop, in a thread of its own, while it is used with `with`.

    `longest`: seconds that one callback may take; 0: nothing is watched.
    """

    def __init__(self, longest: float, clock: Callable[[], float] = monotonic) -> None:
        self._longest = longest
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._ended = threading.Event()
        self._beat = threading.Event()
        self._told_at = -REPORT_EVERY
        self._untold = 0

    def __enter__(self) -> "Watchdog":
        if self._longest:
            threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._beat.set()

    def _watch(self) -> None:
        pause = max(SHORTEST_PAUSE, self._longest / BEATS)
        while not self._ended.wait(pause):
            self._beat.clear()
            sent = self._clock()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:  # the loop is closed
                return
            if self._beat.wait(self._longest):
                continue
            is_told = self._look()
            self._beat.wait()
            if is_told and not self._ended.is_set():
                logger.warning("the event loop was blocked for %.2f s", self._clock() - sent)

    def _look(self) -> bool:
        """Log what blocks the loop at this moment, unless something was logged a short while ago."""
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None or callback_of(frame) is None:
            # It waits for the interpreter or the processor, or it was held in one piece and is free again.
            logger.debug("the event loop has not run for %.2f s", self._longest)
            return False
        if self._clock() - self._told_at < REPORT_EVERY:
            self._untold += 1
            return False
        more = f"; so did {self._untold} callbacks since the last report" if self._untold else ""
        text = "%s has blocked the event loop and all other calls for more than %.2f s%s: %s"
        logger.warning(text, holder(frame), self._longest, more, stack(frame))
        self._told_at, self._untold = self._clock(), 0
        return True


def holder(frame: FrameType) -> str:
    """Whose code runs there: an attempt's, a request's, or the server's own."""
    origin = origin_of(frame)
    if origin is not None:
        return str(origin)
    for each in callers(frame):
        scope = each.f_locals.get("scope")
        if isinstance(scope, dict) and scope.get("type") == "http":
            return f"a request ({scope.get('method')} {scope.get('path')})"
    return "the server"


def stack(frame: FrameType) -> str:
    """The innermost functions, with file and line."""
    return " < ".join(
        f"{each.f_code.co_qualname} ({PurePath(each.f_code.co_filename).name}:{each.f_lineno})"
        for each in islice(callers(frame), DEPTH)
    )
