"""How much may run at a time in one process, and how much it may give."""

import os
from collections.abc import Callable

from msgspec import Struct

from core.executors.raised import ErrorTexts
from core.model.jsonvalue import MAX_BYTES, MAX_OUTPUT
from core.model.room import RoomLimits


class RunnerLimits(Struct, frozen=True, kw_only=True):
    """The limits of one process. None: no limit."""

    tasks: int = 100
    threads: int = 512  # plain functions, and those that hang after their attempt's end
    processes: int = 4 * (os.cpu_count() or 1)  # executors that use a child process
    caller: int | None = None  # tasks of one owner, whose share of threads and processes is the same
    weigh: Callable[[str], float] = lambda owner: 1.0  # how much of what is free an owner gets, beside others
    tree: int | None = None
    seconds: float | None = None  # that one attempt may take, whatever its task's `timeout` says
    artifact: int = MAX_BYTES  # bytes of JSON of one artifact, message or result
    output: int = MAX_OUTPUT  # bytes of JSON of all artifacts of one attempt
    in_flight: int | None = None  # bytes of memory that open trees and fetched answers take
    in_flight_per_owner: int | None = None
    stored: int = 0  # bytes that one owner may have stored; 0: any number
    error_texts: ErrorTexts = "full"  # what callers see of an executor's exceptions: text, type, or nothing

    def room(self) -> RoomLimits:
        """Those that say what may start."""
        return RoomLimits(
            slots=self.tasks, threads=self.threads, processes=self.processes, caller=self.caller, tree=self.tree
        )
