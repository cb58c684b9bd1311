"""The writer of a PostgreSQL database: a coroutine that makes durable, in order, what comes through its inbox.

Whatever appends wait become one statement (`statements`); jobs between two of them share a transaction. A batch in
which something is refused is written again item by item: only the guilty fail.
"""

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Sequence

from core.model.errors import CoreError, StorageUnavailable, VersionConflict
from core.model.task import TreeHead
from core.storage import codec
from core.storage.backlog import Backlog
from core.storage.base import Append
from core.storage.batch import Batch, RowsMissed
from core.storage.postgres.connect import UNSTORABLE
from core.storage.postgres.holder import Holder
from core.storage.postgres.sender import UNWRITABLE, Sender
from core.storage.postgres.statements import append as append_statement
from core.storage.writes import Answers, Outcome, Rows, Write, is_one_batch, next_batch, refused

logger = logging.getLogger(__name__)


class Inbox:
    """What was handed over, on the event loop itself."""

    def __init__(self) -> None:
        self._handed: deque[list[Write] | None] = deque()
        self._arrived = asyncio.Event()

    def put(self, writes: list[Write] | None, /) -> None:
        """Hand over; None is the end."""
        self._handed.append(writes)
        self._arrived.set()

    async def get(self) -> None:
        """Wait until there is something."""
        await self._arrived.wait()

    def take(self) -> tuple[list[Write], bool]:
        """All that is there, and whether that is the end."""
        items: list[Write] = []
        is_end = False
        while self._handed:
            handed = self._handed.popleft()
            if handed is None:
                is_end = True
                break
            items += handed
        self._arrived.clear()
        return items, is_end


class BatchWriter:
    """Writes through the holder's connection. `lease`: whose the trees are that live from now on; empty: nobody's."""

    def __init__(self, holder: Holder, *, lease: str = "") -> None:
        self.inbox = Inbox()
        self._holder = holder
        self._sender = Sender(holder)
        self._lease = lease
        self._rows = Rows()  # of what waits, as far as they are made
        self._backlog: Backlog[Write] = Backlog(self._rows.weigh)
        self._is_ending = False
        self._failed: dict[str, int] = {}  # tree -> number of its latest failed append
        self._failures = 0
        self._sizes: defaultdict[str, int] = defaultdict(int)  # owner -> bytes of events and tasks not told yet
        self._stored: dict[str, TreeHead] = {}
        self._work: asyncio.Task[None] | None = None

    def start(self, answers: Answers) -> None:
        """Begin to write what comes through `inbox`, up to None."""
        self._answers = answers
        self._work = asyncio.get_running_loop().create_task(self._run())
        answers.started(None)

    def abandon(self) -> None:
        """The event loop is gone, and the task with it."""
        if self._work is not None:
            self._work._log_destroy_pending = False  # type: ignore[attr-defined]
        self._work = None

    async def _run(self) -> None:
        try:
            while items := await self._take():
                for group in _groups(items):
                    outcomes = await self._write(group)
                    if self._rows.making:
                        self._rows.forget(group)
                    sizes, self._sizes = self._sizes, defaultdict(int)
                    self._answers.settle(outcomes, self._failures, sizes)
        finally:
            self._answers.ended()

    async def _take(self) -> list[Write]:
        """What waits, up to a batch. Empty at the end."""
        while True:
            if not self._backlog and not self._is_ending:
                await self.inbox.get()
            items, is_end = self.inbox.take()
            self._is_ending = self._is_ending or is_end
            if items and not self._backlog and is_one_batch(items, self._rows):
                return items
            for item in items:
                self._backlog.add(item, *item.line)
            if batch := next_batch(self._backlog):
                return batch
            if self._is_ending and not self._backlog:
                return []
            await asyncio.sleep(0)  # between two pieces of a large write others have their turns

    async def _write(self, items: list[Write]) -> list[Outcome]:
        """Appends, or jobs: together, or, where one of them is refused, each by itself."""
        try:
            try:
                return await self._together(items)
            except CoreError as error:
                if isinstance(error, StorageUnavailable):
                    raise
                self._stored.clear()
                return [await self._alone(item) for item in items]
        except StorageUnavailable as error:
            if self._holder.refusal() is None:
                logger.error("a batch of %d writes to the %s failed: %s", len(items), self._holder.place.text, error)
            return refused(items, error)
        except Exception:  # the writer's boundary: whatever it is, callers must not wait for ever
            logger.exception("a batch of %d writes to the %s failed", len(items), self._holder.place.text)
            return refused(items, StorageUnavailable(UNWRITABLE))
        finally:
            if self._holder.refusal() is not None:
                self._stored.clear()

    async def _together(self, items: list[Write]) -> list[Outcome]:
        appends = [item.work for item in items if isinstance(item.work, Append)]
        if appends:
            for item in items:
                self._require_known(item)
            await self._append(appends)
            self._forget_failures(items)
            return [(item.future, None, None) for item in items]
        results = await self._sender.transaction([item.work for item in items if not isinstance(item.work, Append)])
        return [(item.future, result, None) for item, result in zip(items, results, strict=True)]

    async def _alone(self, item: Write) -> Outcome:
        try:
            ((_, result, _),) = await self._together([item])
        except StorageUnavailable as error:
            return item.future, None, type(error)(str(error))
        except CoreError as refusal:
            if isinstance(item.work, Append):
                self._failures += 1
                self._failed[item.tree_id] = self._failures
            return item.future, None, VersionConflict(item.tree_id) if isinstance(refusal, RowsMissed) else refusal
        return item.future, result, None

    def _require_known(self, item: Write) -> None:
        """Raises VersionConflict for what was made before its maker knew that an earlier append of the tree failed."""
        if item.failures_known < self._failed.get(item.tree_id, 0):
            raise VersionConflict(item.tree_id)

    def _forget_failures(self, items: list[Write]) -> None:
        if not self._failed:
            return
        for item in items:
            self._failed.pop(item.tree_id, None)  # what comes of this tree from now on knows of all failures
        if any(item.failures_known == self._failures for item in items):
            self._failed.clear()  # whatever comes from now on knows of all of them

    async def _append(self, appends: list[Append]) -> None:
        """Raises RowsMissed or VersionConflict where one of them is refused; nothing of them is stored then."""
        fences: dict[str, str] = {}
        for append in appends:
            fences.setdefault(append.head.id, append.lease)
        try:
            batch = Batch(appends, self._stored, self._rows if self._rows.making else codec)
            sql, parameters = append_statement(batch.steps(), fences, self._lease)
        except UNSTORABLE as problem:
            raise self._sender.unstorable(problem) from problem
        await self._sender.append(sql, parameters, appends)
        for owner, size in batch.sizes.items():
            self._sizes[owner] += size
        for tree_id, head in batch.heads.items():
            if head.is_live:  # of live trees, the bulk need not be written again
                self._stored[tree_id] = head
            else:
                self._stored.pop(tree_id, None)


def _groups(items: Sequence[Write]) -> list[list[Write]]:
    """Neighbours of one kind: appends, or jobs."""
    groups: list[list[Write]] = []
    for item in items:
        if groups and isinstance(groups[-1][0].work, Append) == isinstance(item.work, Append):
            groups[-1].append(item)
        else:
            groups.append([item])
    return groups
