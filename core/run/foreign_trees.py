"""Followed trees that another member runs: hints say that there is more, and one reader a tree fetches it for all.

Hints may be lost, come twice or late. So what is followed is polled as well, all of it in one read.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

from core.cluster.bus import DELETED, INTEREST, NEWLY, VERSION, Bus, HintValue
from core.loop.jobs import Jobs
from core.model.errors import CoreError, StorageError, StorageUnavailable
from core.run.log_page import log_page
from core.run.topic import PAGE, TAIL, Topic, Topics
from core.storage.base import Storage

logger = logging.getLogger(__name__)


class Intervals(NamedTuple):
    """Seconds, as the event loop counts them."""

    poll: float = 2.0  # between two looks at how far the trees are
    renew: float = 10.0  # between two words of interest in one tree


class Followed(NamedTuple):
    """What a feed shares with its foreign trees."""

    topics: Topics
    is_local: Callable[[str], bool]


class Reader:
    """Reads what followers lack: one read at a time for each tree, however many follow it."""

    def __init__(self, storage: Storage, topics: Topics) -> None:
        self._storage = storage
        self._topics = topics
        self.jobs = Jobs()

    def hinted(self, tree_id: str, version: int) -> None:
        """The log of the tree goes up to there: what followers lack of it is read."""
        topic = self._topics.get(tree_id)
        if topic is None or version <= max(topic.told, topic.wanted if topic.is_read else 0):
            return
        topic.head = None
        topic.wanted = max(topic.wanted, version)
        if not topic.is_read:
            topic.is_read = True
            self.jobs.start(self._read(tree_id, topic))

    async def _read(self, tree_id: str, topic: Topic) -> None:
        """Fetch and tell what is new, until followers have all that was hinted at."""
        try:
            while topic.told < topic.wanted and topic.followers and not topic.is_gone:
                await self._read_up_to(topic.wanted, tree_id, topic)
        except StorageUnavailable as error:  # the next poll tries again
            logger.debug("the log of tree %s cannot be read: %s", tree_id, error)
        except CoreError:  # followers meet it, too, and tell their callers
            topic.drop_tail()
            topic.wake()
        finally:
            topic.is_read = False

    async def _read_up_to(self, version: int, tree_id: str, topic: Topic) -> None:
        # Of a long way only the last part is worth keeping: a follower that is behind reads the log itself.
        is_far = version - topic.end > (TAIL if topic.end else PAGE)
        after, told = version - PAGE if is_far else topic.end, version
        while topic.readers and after < version:
            page = await log_page(self._storage, tree_id, after, limit=PAGE)
            if not topic.followers:
                return
            if not page:  # so it goes up to there no more, or not yet
                told = topic.end
                break
            topic.add(page)
            topic.wake()
            after = page[-1].seq
        if topic.waits:
            head = await self._storage.head(tree_id)
            told = min(told, 0 if head is None else head.version)
            topic.answer(head)
        if told < version == topic.wanted:
            topic.wanted = told
        topic.tell(told)


class ForeignTrees:
    """Of one feed. Whose a tree is may change at any time, and is asked again with each poll."""

    def __init__(self, storage: Storage, bus: Bus, followed: Followed, intervals: Intervals) -> None:
        self._storage = storage
        self._bus = bus
        self._topics, self._is_local = followed
        self._intervals = intervals
        self._renew_at: dict[str, float] = {}  # by tree in which interest was said
        self._reader = Reader(storage, self._topics)
        self._jobs = Jobs()
        self._timer: asyncio.TimerHandle | None = None
        self._is_polling = False
        self._wants_poll = False
        self._adopted: set[str] = set()  # trees that became ours: the last words of their former owners may be lost
        bus.on(VERSION, self._hear_version)
        bus.on(DELETED, lambda tree_id, value: self._topics.end(tree_id))
        bus.on_return(self._hints_return)

    def waited_for(self, tree_id: str, topic: Topic) -> None:
        """Somebody has all that is known of the tree, and waits for more."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._intervals.poll, self._tick)
        if not self._is_local(tree_id):
            topic.head = None  # what was published here is not the latest any more
            if tree_id not in self._renew_at:
                self._say_interest(tree_id, NEWLY)

    def left(self, tree_id: str) -> None:
        """Nobody does any more."""
        self._renew_at.pop(tree_id, None)
        if not self._topics and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def end(self) -> None:
        """Read no more."""
        if self._timer is not None:
            self._timer.cancel()
        await self._jobs.cancel()
        await self._reader.jobs.cancel()

    def _hear_version(self, tree_id: str, value: HintValue) -> None:
        if isinstance(value, int):
            self._reader.hinted(tree_id, value)

    def _hints_return(self) -> None:
        """Some may have been lost, here or on their way to others."""
        for tree_id in self._foreign():
            self._say_interest(tree_id, NEWLY)
        self._poll_soon()

    def _say_interest(self, tree_id: str, value: HintValue = None) -> None:
        self._renew_at[tree_id] = asyncio.get_running_loop().time() + self._intervals.renew
        self._bus.hint(INTEREST, tree_id, value)

    def _foreign(self) -> list[str]:
        """Those that somebody follows or waits for."""
        topics = self._topics.items()
        return [each for each, topic in topics if (topic.readers or topic.waits) and not self._is_local(each)]

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._intervals.poll, self._tick)
        foreign = self._foreign()
        for tree_id in self._renew_at.keys() - set(foreign):
            del self._renew_at[tree_id]
            self._adopted.add(tree_id)
        for tree_id in foreign:
            self._topics[tree_id].head = None
            if (renew_at := self._renew_at.get(tree_id)) is None:
                self._say_interest(tree_id, NEWLY)
            elif renew_at <= loop.time():
                self._say_interest(tree_id)
        if foreign or self._adopted:
            self._poll_soon()

    def _poll_soon(self) -> None:
        self._wants_poll = True
        if not self._is_polling:
            self._is_polling = True
            self._jobs.start(self._poll())

    async def _poll(self) -> None:
        try:
            while self._wants_poll:
                self._wants_poll = False
                followed = [*self._foreign(), *self._adopted]
                if followed:
                    self._compare(followed, await self._storage.versions(followed))
                    self._adopted.difference_update(followed)
        except StorageError as error:  # the next poll may fare better
            logger.debug("followed trees cannot be polled: %s", error)
        finally:
            self._is_polling = False

    def _compare(self, tree_ids: list[str], versions: Mapping[str, int]) -> None:
        for tree_id in tree_ids:
            topic = self._topics.get(tree_id)
            if (version := versions.get(tree_id)) is not None:
                self._reader.hinted(tree_id, version)
            elif topic is not None and (topic.told or topic.end):  # else it may not be there yet
                self._topics.end(tree_id)
