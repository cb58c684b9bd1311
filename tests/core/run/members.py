"""Two members on one storage, whose hints go over a wire that tests may cut, double or slow down."""

import asyncio
from collections.abc import Callable, Sequence

from core.cluster.bus import INTEREST, NEWLY, VERSION, Heard, HintValue
from core.cluster.interest import Interest
from core.model import events as e
from core.model.events import Recorded
from core.model.task import Task, TaskStatus, TreeHead
from core.run.feed import Feed
from core.run.foreign_trees import Intervals
from core.storage.base import Append, EventQuery
from core.storage.memory import MemoryStorage


class Wire:
    """Between the members. `delays`: of the next hint, the seconds after which it arrives, once for each."""

    def __init__(self) -> None:
        self.buses: list[FakeBus] = []
        self.delays: Callable[[], Sequence[float]] = lambda: (0.0,)
        self.sent: list[tuple[str, str, HintValue]] = []

    def send(self, sender: "FakeBus", kind: str, key: str, value: HintValue) -> None:
        self.sent.append((kind, key, value))
        for delay in self.delays():
            for bus in self.buses:
                if bus is not sender:
                    asyncio.get_running_loop().call_later(delay, bus.hear, kind, key, value)


class FakeBus:
    """One member's end of the wire, as `core.cluster.bus.Bus` says."""

    is_alone = False

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._heard: dict[str, Heard] = {INTEREST: self._said}
        self._interest = Interest()
        self.returned: Callable[[], None] = lambda: None
        wire.buses.append(self)

    async def open(self) -> None:
        """It is."""

    def abandon(self) -> None:
        """Nothing is held."""

    async def close(self) -> None:
        """Nothing is held."""

    def on(self, kind: str, heard: Heard) -> None:
        self._heard[kind] = heard

    def on_return(self, returned: Callable[[], None]) -> None:
        self.returned = returned

    def hint(self, kind: str, key: str, value: HintValue = None) -> None:
        self._wire.send(self, kind, key, value)

    def changed(self, tree_id: str, version: int) -> None:
        if self._interest.changed(tree_id, version, asyncio.get_running_loop().time()):
            self.hint(VERSION, tree_id, version)

    def deleted(self, tree_id: str) -> None:
        if self._interest.deleted(tree_id, asyncio.get_running_loop().time()):
            self.hint("d", tree_id)

    def hear(self, kind: str, key: str, value: HintValue) -> None:
        if kind in self._heard:
            self._heard[kind](key, value)

    def _said(self, tree_id: str, value: HintValue) -> None:
        version = self._interest.said(tree_id, asyncio.get_running_loop().time())
        if version is not None and value == NEWLY:
            self.hint(VERSION, tree_id, version)


class Slow(MemoryStorage):
    """Its reads take `delay()` seconds before they look, and as many after it; with `fault` they fail."""

    def __init__(self) -> None:
        super().__init__()
        self.delay: Callable[[], float] = lambda: 0.0
        self.fault: Exception | None = None
        self.pages = 0
        self.polls = 0

    async def events(self, query: EventQuery) -> Sequence[Recorded]:
        self.pages += 1
        await self._pass()
        found = await super().events(query)
        await self._pass()
        return found

    async def head(self, tree_id: str, *, owner: str | None = None, tenant: str | None = None) -> TreeHead | None:
        await self._pass()
        found = await super().head(tree_id, owner=owner, tenant=tenant)
        await self._pass()
        return found

    async def versions(self, tree_ids: Sequence[str]) -> dict[str, int]:
        self.polls += 1
        await self._pass()
        found = await super().versions(tree_ids)
        await self._pass()
        return found

    async def _pass(self) -> None:
        if delay := self.delay():
            await asyncio.sleep(delay)
        if self.fault is not None:
            raise self.fault


class Members:
    """The tree "t", which `owner` runs: the number of the member whose feed tells of what is written."""

    def __init__(self, intervals: Intervals | None = None) -> None:
        self.storage = Slow()
        self.wire = Wire()
        self.owner = 0
        self.version = 0
        self.feeds = [self._feed(number, intervals or Intervals()) for number in range(2)]

    def _feed(self, number: int, intervals: Intervals) -> Feed:
        return Feed(
            self.storage, FakeBus(self.wire), is_local=lambda tree_id: self.owner == number, intervals=intervals
        )

    async def write(self, count: int = 1, message: str | None = None) -> None:
        append = append_of(self.version, count, message)
        await self.storage.append(append)
        self.version += count
        self.feeds[self.owner].publish(append.head, append.events)

    async def write_slowly(self, count: int) -> None:
        """With a poll that sees it before its writer hears that it is stored."""
        append = append_of(self.version, count)
        await self.storage.append(append)
        self.version += count
        self.wire.buses[1].hear(VERSION, "t", self.version)
        await asyncio.sleep(0.3)
        self.feeds[self.owner].publish(append.head, append.events)

    async def end(self) -> None:
        for feed in self.feeds:
            feed.close()
            await feed.end_reads()


def append_of(version: int, count: int, message: str | None = None) -> Append:
    """So many events more of the tree "t", which has that version."""
    events = tuple(
        Recorded(
            tree_id="t", seq=version + n, at=0.0, name="t", tree_status=TaskStatus.IN_PROGRESS,
            event=e.TaskProgressed("t", 1, 0.5, message),
        )
        for n in range(1, count + 1)
    )  # fmt: skip
    head = TreeHead(id="t", version=version + count, created_at=0.0, updated_at=0.0)
    tasks = () if version else (Task(id="t", tree_id="t", name="t", created_at=0.0),)
    return Append(head=head, events=events, tasks=tasks, is_new=not version)


async def collect(feed: Feed, after: int, upto: int, found: list[int] | None = None) -> list[int]:
    """The numbers of the events that a follower sees, until that one has come or the feed ends."""
    seen = [] if found is None else found
    async for recorded in feed.follow("t", after):
        seen.append(recorded.seq)
        if recorded.seq >= upto:
            break
    return seen
