"""What the followers of one tree share: the latest events of its log, in memory, and a wake-up."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from core.loop.large_values import CHARACTERS, is_small
from core.model.content import Artifact, Part
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

PAGE = 64  # events read at once: a follower that does not read holds so many
TAIL = 256  # latest events of a followed tree that are kept in memory
TAIL_BYTES = 1024 * 1024  # of JSON, that they may have
TAILS_BYTES = 64 * 1024 * 1024  # of JSON, that the tails of all followed trees may have together

# What callers and executors gave is in these: it may be large.
_GIVEN = frozenset(
    {MessageReceived, RunStarted, TaskProgressed, MessageSent, ArtifactAdded}
    | {InputRequested, InputProvided, TaskCompleted, TaskUpdated}
)
_encode = msgspec.json.Encoder().encode


class Tails:
    """The tails of all topics together."""

    def __init__(self) -> None:
        self.size = 0  # bytes


class Topic:
    """What the followers of one tree share: the committed tail of its log, and a wake-up.

    The tail has no gaps and ends with the event `end`, which is not before the one that was `told`; or it is empty.
    """

    def __init__(self, tails: Tails) -> None:
        self.followers = 0  # who follow, wait or hold the tail
        self.readers = 0  # who follow
        self.head: TreeHead | None = None  # as it was published here last
        self.tail: deque[Recorded] = deque()
        self.end = 0  # how far the log is known to go
        self.told = 0  # up to which event followers were woken and waits answered
        self.wanted = 0  # of a foreign tree: how far it is to be read
        self.is_read = False  # of a foreign tree: a reader is at work
        self.read_head: TreeHead | None = None  # of a foreign tree, as it was read last for those who wait
        self._sizes: deque[int] = deque()  # bytes of each event of the tail
        self._tails = tails
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
        """Keep them, and drop the oldest ones for that. What is known already may be among them."""
        if self.end and events[0].seq != self.end + 1:
            events = self._fitting(events)
        before = self.size
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
            self.end = recorded.seq
        tails = self._tails
        tails.size += self.size - before
        if tails.size > TAILS_BYTES:
            self.drop_tail()

    def _fitting(self, events: Sequence[Recorded]) -> Sequence[Recorded]:
        """Those after the end; where there is a gap before them, the tail is dropped."""
        new = [recorded for recorded in events if recorded.seq > self.end]
        if new and new[0].seq != self.end + 1:
            self.drop_tail()
        return new

    def reached(self, end: int) -> None:
        """The log goes up to there, or further."""
        if end > self.end:
            self.drop_tail()  # without these events
            self.end = end

    def tell(self, version: int) -> None:
        """Wake all who follow: the log goes up to that version."""
        self.reached(version)
        self.told = max(self.told, version)
        self.wake()

    def answer(self, head: TreeHead | None) -> None:
        """Answer waits with a head that was read."""
        if head is not None:
            self.read_head = head
            self.answer_waits(head)

    def drop_tail(self) -> None:
        """Keep none of them: followers read the log."""
        self._tails.size -= self.size
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

    def let_go(self) -> None:
        """Let all who follow or wait look again."""
        self.wake()
        for answer in self.waits:
            if not answer.done():
                answer.set_result(None)


class Topics(dict[str, Topic]):
    """Those of one feed, by tree, each as long as it has followers. `left` is told when one has none any more."""

    def __init__(self) -> None:
        super().__init__()
        self.tails = Tails()
        self.left: Callable[[str], None] = lambda tree_id: None

    def enter(self, tree_id: str) -> Topic:
        """One more who follows, waits or holds the tail."""
        topic = self.setdefault(tree_id, Topic(self.tails))
        topic.followers += 1
        return topic

    def leave(self, tree_id: str, topic: Topic) -> None:
        """One less."""
        topic.followers -= 1
        if not topic.followers:
            self.pop(tree_id, None)
            self.tails.size -= topic.size
            topic.size = 0  # a reader may still have it
            self.left(tree_id)

    def end(self, tree_id: str) -> None:
        """The tree is gone: end its followers and waits."""
        topic = self.get(tree_id)
        if topic is not None:
            topic.is_gone = True
            topic.let_go()
