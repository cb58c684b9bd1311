"""Followers of trees. Wake-ups only: each follower reads the log from its own cursor, so that none delays another."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

from core.cluster.bus import Bus, LocalBus
from core.model.errors import TaskNotFound
from core.model.events import Recorded
from core.model.task import TreeHead
from core.run.foreign_trees import Followed, ForeignTrees, Intervals
from core.run.log_page import log_page
from core.run.topic import PAGE, Topics
from core.storage.base import Storage

Watcher = Callable[[TreeHead, Sequence[Recorded]], None]
EndWatcher = Callable[[str], None]
ALONE = LocalBus()
DEFAULT = Intervals()


class Feed:
    """Tells followers what has been committed. Nothing is published before it is durable.

    `is_local`: whether this process alone appends to the tree, so that all of its log is published here.
    """

    def __init__(
        self,
        storage: Storage,
        bus: Bus = ALONE,
        *,
        is_local: Callable[[str], bool] = lambda tree_id: True,
        intervals: Intervals = DEFAULT,
    ) -> None:
        self._storage = storage
        self._topics = Topics()
        self._watchers: list[Watcher] = []
        self._end_watchers: list[EndWatcher] = []
        self._going_on: Collection[str] | None = None  # once it is closed: trees that are followed all the same
        self.is_local = is_local
        self._foreign: ForeignTrees | None = None  # where others may append
        if not bus.is_alone:
            followed = Followed(self._topics, lambda tree_id: self.is_local(tree_id))
            self._foreign = ForeignTrees(storage, bus, followed, intervals)
            self._topics.left = self._foreign.left
            self.watch(lambda head, events: bus.changed(head.id, head.version), bus.deleted)

    def watch(self, watcher: Watcher, end_watcher: EndWatcher | None = None) -> None:
        """Call one with what is durable of every tree, from now on, the other with the ids of trees that are deleted.

        Hints: they must return at once and never raise.
        """
        self._watchers.append(watcher)
        if end_watcher is not None:
            self._end_watchers.append(end_watcher)

    def publish(self, head: TreeHead, events: Sequence[Recorded]) -> None:
        """These events of one tree are durable now. Called in the order of their sequence numbers."""
        for watcher in self._watchers:
            watcher(head, events)
        topic = self._topics.get(head.id)
        if topic is None:
            return
        topic.head = head
        topic.add(events)
        topic.told = head.version
        topic.answer_waits(head)
        topic.wake()

    async def follow(self, tree_id: str, after: int = 0) -> AsyncIterator[Recorded]:
        """Every event of the tree after that sequence number, in order, none left out, until the feed closes.

        Raises LogCompacted where one of them is no longer stored.
        """
        topic = self._topics.enter(tree_id)
        topic.readers += 1
        cursor = after
        try:
            while not topic.is_gone:
                changed = topic.changed  # before reading, so that nothing falls between the read and the wait
                is_over = self._going_on is not None and tree_id not in self._going_on
                events: Sequence[Recorded] | None = topic.after(cursor)
                if not events and is_over:
                    return
                if events is None:
                    events = await log_page(self._storage, tree_id, cursor, limit=PAGE)
                    if not events and self._foreign is not None and cursor != after:
                        topic.reached(cursor)  # from here on one reader is enough for all
                if not events:
                    if self._foreign is not None:
                        self._foreign.waited_for(tree_id, topic)
                    await changed.wait()
                rest = deque(events)
                del events  # some may be large: each is let go when the follower asks for the next one
                while rest:
                    cursor = rest[0].seq
                    yield rest.popleft()
        finally:
            topic.readers -= 1
            self._topics.leave(tree_id, topic)

    async def wait(self, tree_id: str, until: Callable[[TreeHead], bool]) -> TreeHead:
        """The first head of the tree from now on that satisfies `until`, or as it is when the feed closes.

        Of a tree that another member runs some heads may pass unseen.

        Raises TaskNotFound when there is no such tree, and what `until` raises.
        """
        topic = self._topics.enter(tree_id)
        answer: asyncio.Future[TreeHead | None] = asyncio.get_running_loop().create_future()
        topic.waits[answer] = until  # before reading, so that nothing falls between the read and the wait
        try:
            if self._foreign is not None and (topic.head is None or not until(topic.head)):
                self._foreign.waited_for(tree_id, topic)
            head = topic.head or await self._storage.head(tree_id)
            is_over = self._going_on is not None and tree_id not in self._going_on
            if head is not None and not topic.is_gone and not is_over and not until(head):
                head = await answer or topic.head or topic.read_head or head
            if head is None or topic.is_gone:
                raise TaskNotFound(tree_id)
            return head
        finally:
            del topic.waits[answer]
            self._topics.leave(tree_id, topic)

    @contextmanager
    def held(self, tree_id: str) -> Iterator[None]:
        """Keep the tail of the tree's log in memory meanwhile. From before the tree's creation on, that is all of it:
        waits and `told` need no storage then.
        """
        topic = self._topics.enter(tree_id)
        try:
            yield
        finally:
            self._topics.leave(tree_id, topic)

    def told(self, tree_id: str, until: int) -> list[Recorded] | None:
        """All events of the tree up to that one, where all of them are in memory."""
        topic = self._topics.get(tree_id)
        if topic is None or not topic.tail or topic.tail[0].seq != 1 or topic.tail[-1].seq < until:
            return None
        return [recorded for recorded in topic.tail if recorded.seq <= until]

    def forget(self, tree_id: str) -> None:
        """The tree was deleted: its followers end, and waits for it raise TaskNotFound."""
        for watcher in self._end_watchers:
            watcher(tree_id)
        self._topics.end(tree_id)

    def close(self, *, but: Collection[str] = ()) -> None:
        """End the followers of all trees but those after what is in memory; waits end with the head as it is.

        It may be called again, with fewer of them.
        """
        self._going_on = but
        for tree_id, topic in self._topics.items():
            if tree_id not in but:
                topic.let_go()

    async def end_reads(self) -> None:
        """Read nothing more for followers. Once it is closed, before the storage is."""
        if self._foreign is not None:
            await self._foreign.end()

    @property
    def followers(self) -> int:
        return sum(topic.followers for topic in self._topics.values())
