"""Followers of trees. Wake-ups only: each follower reads the log from its own cursor, so that none delays another."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from core.loop.large_values import CHARACTERS, is_small
from core.model.content import Artifact, Part
from core.model.errors import LogCompacted, StorageError, TaskNotFound
from core.model.events import (
    ArtifactAdded,
    InputProvided,
    InputRequested,
    MessageReceived,
    MessageSent,
    Recorded,
    RunStarted,
    TaskCompleted,
    TaskProgressed,
    TaskUpdated,
)
from core.model.task import TreeHead
from core.storage.base import LOG_BYTES, EventQuery, Storage

PAGE = 64  # events read at once: a follower that does not read holds so many
Watcher = Callable[[TreeHead, Sequence[Recorded]], None]
EndWatcher = Callable[[str], None]

TAIL = 256  # latest events of a followed tree that are kept in memory
TAIL_BYTES = 1024 * 1024  # of JSON, that they may have
TAILS_BYTES = 64 * 1024 * 1024  # of JSON, that the tails of all followed trees may have together

# What callers and executors gave is in these: it may be large.
_GIVEN = frozenset(
    {MessageReceived, RunStarted, TaskProgressed, MessageSent, ArtifactAdded}
    | {InputRequested, InputProvided, TaskCompleted, TaskUpdated}
)
_encode = msgspec.json.Encoder().encode


class _Topic:
    """What the followers of one tree share: the committed tail of its log, and a wake-up."""

    def __init__(self) -> None:
        self.followers = 0
        self.head: TreeHead | None = None
        self.tail: deque[Recorded] = deque()
        self._sizes: deque[int] = deque()  # bytes of each of them
        self.size = 0
        self.is_gone = False
        self.waits: dict[asyncio.Future[TreeHead | None], Callable[[TreeHead], bool]] = {}
        self._changed: asyncio.Event | None = None  # made when somebody is about to wait

    @property
    def changed(self) -> asyncio.Event:
        """What the next `wake` sets."""
        if self._changed is None:
            self._changed = asyncio.Event()
        return self._changed

    def after(self, cursor: int) -> list[Recorded] | None:
        """The events after the cursor, or None when the tail does not reach back to it."""
        if not self.tail or self.tail[0].seq > cursor + 1:
            return None
        return [recorded for recorded in self.tail if recorded.seq > cursor][:PAGE]

    def add(self, events: Sequence[Recorded]) -> None:
        """Keep them, and drop the oldest ones for that."""
        for recorded in events:
            # What is large is not encoded to be weighed, on the event loop: it is more than a tail has.
            match recorded.event:
                # Most that is streamed is a short text; looking further would cost more than all the rest.
                case ArtifactAdded(artifact=Artifact(parts=(Part(text=str(text)),), metadata=None)) as event if (
                    len(text) <= CHARACTERS
                ):
                    size = len(_encode(event))
                case event:
                    is_light = event.__class__ not in _GIVEN or is_small(event)
                    size = len(_encode(event)) if is_light else TAIL_BYTES + 1
            self.tail.append(recorded)
            self._sizes.append(size)
            self.size += size
            while len(self.tail) > TAIL or self.size > TAIL_BYTES:
                self.tail.popleft()
                self.size -= self._sizes.popleft()

    def drop_tail(self) -> None:
        """Keep none of them: followers read the log."""
        self.tail.clear()
        self._sizes.clear()
        self.size = 0

    def wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def answer_waits(self, head: TreeHead) -> None:
        """Wake those only who wait for such a head: a tree of 10,000 tasks is published 10,000 times."""
        for answer, until in self.waits.items():
            if answer.done():
                continue
            try:
                if until(head):
                    answer.set_result(head)
            except Exception as error:  # noqa: BLE001 - the caller's own code; only that caller is told
                answer.set_exception(error)

    def end(self) -> None:
        """Let all who follow or wait look again."""
        self.wake()
        for answer in self.waits:
            if not answer.done():
                answer.set_result(None)


class Feed:
    """Tells followers what has been committed. Nothing is published before it is durable."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._topics: dict[str, _Topic] = {}
        self._watchers: list[Watcher] = []
        self._end_watchers: list[EndWatcher] = []
        self._tails = 0  # bytes of all tails
        self._going_on: Collection[str] | None = None  # once it is closed: trees that are followed all the same

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
        before = topic.size
        topic.add(events)
        self._tails += topic.size - before
        if self._tails > TAILS_BYTES:
            self._tails -= topic.size
            topic.drop_tail()
        topic.answer_waits(head)
        topic.wake()

    async def follow(self, tree_id: str, after: int = 0) -> AsyncIterator[Recorded]:
        """Every event of the tree after that sequence number, in order, none left out, until the feed closes.

        Raises LogCompacted where one of them is no longer stored.
        """
        topic = self._enter(tree_id)
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
                if not events:
                    await changed.wait()
                rest = deque(events)
                del events  # some may be large: each is let go when the follower asks for the next one
                while rest:
                    cursor = rest[0].seq
                    yield rest.popleft()
        finally:
            self._leave(tree_id, topic)

    async def wait(self, tree_id: str, until: Callable[[TreeHead], bool]) -> TreeHead:
        """The first head of the tree from now on that satisfies `until`, or as it is when the feed closes.

        Raises TaskNotFound when there is no such tree, and what `until` raises.
        """
        topic = self._enter(tree_id)
        answer: asyncio.Future[TreeHead | None] = asyncio.get_running_loop().create_future()
        topic.waits[answer] = until  # before reading, so that nothing falls between the read and the wait
        try:
            head = topic.head or await self._storage.head(tree_id)
            is_over = self._going_on is not None and tree_id not in self._going_on
            if head is not None and not topic.is_gone and not is_over and not until(head):
                head = await answer or topic.head or head
            if head is None or topic.is_gone:
                raise TaskNotFound(tree_id)
            return head
        finally:
            del topic.waits[answer]
            self._leave(tree_id, topic)

    @contextmanager
    def held(self, tree_id: str) -> Iterator[None]:
        """Keep the tail of the tree's log in memory meanwhile. From before the tree's creation on, that is all of it:
        waits and `told` need no storage then.
        """
        topic = self._enter(tree_id)
        try:
            yield
        finally:
            self._leave(tree_id, topic)

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
        topic = self._topics.get(tree_id)
        if topic is not None:
            topic.is_gone = True
            topic.end()

    def close(self, *, but: Collection[str] = ()) -> None:
        """End the followers of all trees but those after what is in memory; waits end with the head as it is.

        It may be called again, with fewer of them.
        """
        self._going_on = but
        for tree_id, topic in self._topics.items():
            if tree_id not in but:
                topic.end()

    @property
    def followers(self) -> int:
        return sum(topic.followers for topic in self._topics.values())

    def _enter(self, tree_id: str) -> _Topic:
        topic = self._topics.setdefault(tree_id, _Topic())
        topic.followers += 1
        return topic

    def _leave(self, tree_id: str, topic: _Topic) -> None:
        topic.followers -= 1
        if not topic.followers:
            self._topics.pop(tree_id, None)
            self._tails -= topic.size


async def log_page(
    storage: Storage, tree_id: str, after: int, *, until: int | None = None, limit: int
) -> Sequence[Recorded]:
    """The next events of the tree, none left out. Raises LogCompacted where one of them is no longer stored."""
    page = await storage.events(EventQuery(tree_id=tree_id, after=after, until=until, limit=limit, max_bytes=LOG_BYTES))
    if page and page[-1].seq - max(after, 0) != len(page):
        compacted = await storage.compacted(tree_id)
        if compacted <= after:
            if await storage.head(tree_id) is None:
                return ()  # it was deleted between the two looks
            raise StorageError(f"The log of tree {tree_id} has gaps after event {after}")
        raise LogCompacted(tree_id, compacted)
    return page
