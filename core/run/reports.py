"""Reports the outcome of an attempt to the log, until it is stored or no longer wanted."""

import asyncio
import logging

from core.model.commands import Command, FailAttempt
from core.model.errors import CallerError, RunElsewhere, StaleAttempt, StorageError, StorageUnavailable
from core.model.task import Cause
from core.run.attempt import Attempt
from core.run.orchestrator import Orchestrator

logger = logging.getLogger(__name__)

FIRST_DELAY = 0.05  # seconds after which a report that could not be stored is tried again; then twice as many
LONGEST_DELAY = 5.0


class Reports:
    """The reports of one process. Once `is_closing`, what cannot be stored is left to the next process."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator
        self.is_closing = False

    async def deliver(self, attempt: Attempt, command: Command) -> None:
        """Store the report from within the attempt's own job, which its executor's code may still cancel."""
        while True:
            try:
                return await self.store(attempt, command)
            except asyncio.CancelledError:
                if attempt.job is None or attempt.job.is_loop_ending:
                    raise
                attempt.forget_cancels()

    async def store(self, attempt: Attempt, command: Command) -> None:
        """Store the report. One that comes too late is dropped."""
        delay = FIRST_DELAY
        is_second = False
        while True:
            try:
                await self._orchestrator.handle(attempt.tree_id, command)
                return
            except (StaleAttempt, CallerError, RunElsewhere) as refusal:  # another member has declared it lost
                logger.debug("a report was dropped: %s", refusal)
                return
            except StorageUnavailable:
                if self.is_closing:
                    return
                await asyncio.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
            except StorageError as error:  # the report itself cannot be stored, so another one must end the task
                if is_second:
                    logger.exception("the outcome of task %s cannot be stored", attempt.task.id)
                    return
                is_second = True
                task = attempt.task
                command = FailAttempt(task.id, task.attempt, str(error), Cause.INVALID_RESULT, final=True)
