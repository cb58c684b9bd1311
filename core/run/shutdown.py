"""The end of a runner: attempts end or are interrupted, and what did not run at all is reported."""

import asyncio

from core.model.commands import LoseAttempt
from core.model.errors import CoreError
from core.run.books import Books
from core.run.cancelling import STOP_LIMIT
from core.run.orchestrator import Orchestrator


async def starts_answered(books: Books, orchestrator: Orchestrator) -> None:
    """Wait until no start is on its way to the disk any more."""
    while books.starting:
        tree_id, _ = next(iter(books.starting))
        latest = orchestrator.latest(tree_id)
        if latest is None:
            return
        _, late = await asyncio.wait([latest], timeout=STOP_LIMIT)
        if late:
            return


async def report_never_begun(books: Books, orchestrator: Orchestrator) -> None:
    """Report attempts whose executor was not run at all, so that the next process knows that nothing came of them."""
    until = asyncio.get_running_loop().time() + STOP_LIMIT
    while books.never_begun:
        (tree_id, task_id), attempt = books.never_begun.popitem()
        try:
            async with asyncio.timeout_at(until):
                await orchestrator.handle(tree_id, LoseAttempt(task_id, attempt, crash=False))
        except TimeoutError:
            return
        except CoreError:  # its task has gone on, or cannot be stored now
            continue
