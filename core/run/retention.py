"""Retention: logs of trees that have ended are compacted, and trees removed, each after its time, in small batches.

No caller waits for it: a batch is one short job of the storage's writer, and three quarters of the time it rests. Only
a round that lasts takes more at a time. A tree that goes on meanwhile is left alone.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from msgspec import Struct

from core.model.errors import StorageError, StorageUnavailable
from core.model.task import TreeHead
from core.outside.clock import Clock
from core.run.feed import Feed
from core.storage.base import EndedQuery, EndedTree, LogPart, Storage

logger = logging.getLogger(__name__)

PAGE = 100  # trees looked at together
BATCH_ROWS = 250  # of one job, about
MOST_ROWS = 2_000
DOUBLED_AFTER = 20.0  # seconds of one round: it does not keep up with what ends meanwhile
RESTS = 3  # times as long as a batch took, up to
LONGEST_REST = 0.05  # seconds
LONGEST_PAUSE = 30.0  # seconds between two rounds
SHORTEST_PAUSE = 0.5

Key = tuple[float, str]
Unread = Callable[[Sequence[TreeHead]], Awaitable[Collection[str]]]


class RetentionTimes(Struct, frozen=True, kw_only=True):
    """Seconds after its end at which a tree's log is compacted, and at which the tree is removed. None: never."""

    compact_after: float | None
    drop_after: float | None

    @property
    def pause(self) -> float:
        """Seconds between two rounds: short where the times are."""
        given = [each / 4 for each in (self.compact_after, self.drop_after) if each is not None]
        return max(SHORTEST_PAUSE, min([LONGEST_PAUSE, *given]))


async def _nothing(heads: Sequence[TreeHead]) -> Collection[str]:
    return ()


class Retention:
    """Keeps what one storage holds within the times.

    `unread` names those of the trees whose logs somebody has yet to read; they are neither compacted nor removed.
    """

    def __init__(
        self, storage: Storage, feed: Feed, clock: Clock, times: RetentionTimes, unread: Unread = _nothing
    ) -> None:
        self._storage = storage
        self._feed = feed
        self._clock = clock
        self._times = times
        self._unread = unread
        self._compacted_up_to: Key | None = None  # trees that ended before are compacted, except those put off
        self._put_off: dict[str, TreeHead] = {}  # were unread when their turn came, as they were then
        self._began = 0.0  # the present round
        self._run: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Work beside everything else, until `close`."""
        if self._times.compact_after is not None or self._times.drop_after is not None:
            self._run = asyncio.create_task(self._work())
            self._run.add_done_callback(_tell)

    async def close(self) -> None:
        """Stop, at once: whatever is under way is whole or did not happen. May be called twice."""
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait([self._run])
            self._run = None  # with everything that it held

    async def _work(self) -> None:
        while True:
            try:
                await self.round()
            except StorageUnavailable as error:
                logger.info("retention paused: %s", error)
            except StorageError:
                logger.exception("retention failed")
            await asyncio.sleep(self._times.pause)

    async def round(self) -> tuple[int, int]:
        """Compact and remove everything whose time has come; how many trees were compacted, and how many removed."""
        self._began = asyncio.get_running_loop().time()
        # What cannot be undone waits for both clocks: this process may have begun while the machine's was set wrong.
        now = min(self._clock.now(), self._clock.wall())
        removed = await self._remove(now)
        compacted = await self._compact(now)
        if compacted or removed:
            logger.info("retention: %d logs compacted, %d trees deleted", compacted, removed)
        return compacted, removed

    def _rows(self) -> int:
        """How many rows a batch may have at this moment."""
        lasts = asyncio.get_running_loop().time() - self._began
        return int(min(MOST_ROWS, BATCH_ROWS * 2 ** (lasts // DOUBLED_AFTER)))

    async def _remove(self, now: float) -> int:
        if self._times.drop_after is None:
            return 0
        until = now - self._times.drop_after
        removed, after = 0, None
        while page := await self._storage.ended(EndedQuery(until=until, after=after, limit=PAGE)):
            after = page[-1].key
            due = [each.head for each in page if _has_ended(each.head, until)]
            unread = await self._unread(due)
            heads = [head for head in due if head.id not in unread]
            for batch in _batches(heads, self._rows()):
                with _Rest() as rest:
                    dropped = await self._storage.drop(batch)
                for tree_id in dropped:
                    self._feed.forget(tree_id)
                    self._put_off.pop(tree_id, None)
                removed += len(dropped)
                await asyncio.sleep(rest.seconds)
        is_more = True
        while is_more:
            with _Rest() as rest:
                is_more = await self._storage.sweep(self._rows())
            await asyncio.sleep(rest.seconds)
        return removed

    async def _compact(self, now: float) -> int:
        if self._times.compact_after is None:
            return 0
        until = now - self._times.compact_after
        compacted = await self._compact_put_off(until)
        while page := await self._storage.ended(EndedQuery(until=until, after=self._compacted_up_to, limit=PAGE)):
            compacted += await self._compact_read([each for each in page if _has_ended(each.head, until)])
            self._compacted_up_to = page[-1].key
        return compacted

    async def _compact_put_off(self, until: float) -> int:
        """Those that are read now."""
        compacted, heads = 0, sorted(self._put_off.values(), key=lambda head: head.id)
        for first in range(0, len(heads), PAGE):
            some = heads[first : first + PAGE]
            unread = await self._unread(some)
            ready = [head.id for head in some if head.id not in unread]
            due = await self._still_due(ready, until)
            compacted += await self._compact_read(due)
            for tree_id in set(ready).difference(each.head.id for each in due):
                self._put_off.pop(tree_id, None)
        return compacted

    async def _compact_read(self, ended: Sequence[EndedTree]) -> int:
        """Compact those that nobody has yet to read, as they are now; put the others off."""
        unread = await self._unread([each.head for each in ended])
        compacted = await self._compact_trees([each for each in ended if each.head.id not in unread])
        for head in [each.head for each in ended]:
            if head.id in unread:
                self._put_off[head.id] = head
            else:
                self._put_off.pop(head.id, None)
        return compacted

    async def _still_due(self, tree_ids: Collection[str], until: float) -> list[EndedTree]:
        """Those of the trees that are. The turn of one that has run since comes again, after its new end."""
        found = []
        for tree_id in tree_ids:
            head = await self._storage.head(tree_id)
            if head is not None and _has_ended(head, until):
                found.append(EndedTree(head, await self._storage.compacted(tree_id)))
        return found

    async def _compact_trees(self, ended: Sequence[EndedTree]) -> int:
        """Compact all but the last event of each log, which followers are told as the end."""
        parts: list[LogPart] = []
        room = self._rows()
        trees = 0
        for each in ended:
            head, after = each.head, each.compacted
            trees += after < head.version - 1
            while after < head.version - 1:
                until = min(head.version - 1, after + room)
                parts.append(LogPart(head.id, head.version, after, until))
                room -= until - after
                after = until
                if room == 0:
                    await _compact_parts(self._storage, parts)
                    parts, room = [], self._rows()
        if parts:
            await _compact_parts(self._storage, parts)
        return trees


def _tell(run: asyncio.Task[None]) -> None:
    if not run.cancelled() and (bug := run.exception()) is not None:
        logger.error("retention has ended: nothing is compacted or deleted any more", exc_info=bug)


class _Rest:
    """How long the next batch waits."""

    def __enter__(self) -> "_Rest":
        self._began = asyncio.get_running_loop().time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = min(LONGEST_REST, RESTS * (asyncio.get_running_loop().time() - self._began))


async def _compact_parts(storage: Storage, parts: Sequence[LogPart]) -> None:
    with _Rest() as rest:
        await storage.compact(parts)
    await asyncio.sleep(rest.seconds)


def _has_ended(head: TreeHead, until: float) -> bool:
    """By the row itself: the columns by which it was found have no checksum."""
    return not head.is_live and head.status.is_terminal and head.updated_at <= until


def _batches(heads: Sequence[TreeHead], rows: int) -> list[list[TreeHead]]:
    """The trees in groups of about so many rows: each has its tasks and its events."""
    groups: list[list[TreeHead]] = []
    room = 0
    for head in heads:
        if room <= 0:
            groups.append([])
            room = rows
        groups[-1].append(head)
        room -= head.size + head.version
    return groups
