"""The bodies of deliveries, made only when memory allows.

Of each caller, and of all together, so many bytes are on their way to receivers; what is large waits until others have
arrived or failed. Nothing large is kept while it waits: what is to be sent is then made once more. Bodies are made two
at a time, since what they are made of is in memory, too.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from a2a_server.push.bodies import Payloads
from a2a_server.push.configs import PAGE, DeliveryState, PushConfig
from core.loop.byte_turns import ByteTurns
from core.loop.turns import Turns
from core.model.errors import TaskNotFound
from core.model.events import Recorded
from core.model.task import TreeHead
from core.storage.base import EventQuery, Storage

ON_THEIR_WAY: Final = 128 * 1024 * 1024  # bytes of all deliveries together
OF_ONE_CALLER: Final = 64 * 1024 * 1024
COPIES: Final = 2  # of a body that is being sent: itself, and what its connection has not passed on yet
SMALL: Final = 64 * 1024  # bytes of the bodies of an event that need no room
AHEAD: Final = 64 * 1024  # bytes of JSON of the events that are read ahead for one webhook
MADE_AT_A_TIME: Final = 2  # events of which bodies are being made

Make = Callable[[], Awaitable["Parcel | None"]]


class Parcel(NamedTuple):
    """What is to be sent of one event: its number, its time, its bodies, and the status that is known with them."""

    seq: int
    at: float
    bodies: tuple[bytes, ...]
    shown: str


@dataclass(slots=True)
class Ahead:
    """Small events that were read together, of one tree."""

    head: TreeHead | None = None
    events: deque[Recorded] = field(default_factory=deque)


class Parcels:
    """The parcels of one server. `on_their_way` and `of_one_caller` are bytes."""

    def __init__(
        self,
        storage: Storage,
        payloads: Payloads,
        *,
        on_their_way: int = ON_THEIR_WAY,
        of_one_caller: int = OF_ONE_CALLER,
    ) -> None:
        self._storage = storage
        self._payloads = payloads
        self._making = Turns(MADE_AT_A_TIME, MADE_AT_A_TIME)
        self.room = ByteTurns(on_their_way, of_one_caller)

    @asynccontextmanager
    async def next(self, config: PushConfig, delivery: DeliveryState, ahead: Ahead) -> AsyncIterator[Parcel | None]:
        """What the webhook gets of the event behind its cursor; None at the end of the log. It has room meanwhile.

        Raises TaskNotFound when the tree is gone, and StorageError.
        """

        async def make() -> Parcel | None:
            if not ahead.events:
                ahead.events.extend(
                    await self._storage.events(
                        EventQuery(tree_id=config.tree_id, after=delivery.cursor, limit=PAGE, max_bytes=AHEAD)
                    )
                )
                ahead.head = await head_of(self._storage, config.tree_id) if ahead.events else None
            if ahead.head is None:
                return None
            return await self._told(config, ahead.head, ahead.events.popleft(), delivery.shown)

        async with self._with_room(config.owner, make, ahead.events.clear) as parcel:
            yield parcel

    @asynccontextmanager
    async def of(self, config: PushConfig, head: TreeHead, seq: int, shown: str) -> AsyncIterator[Parcel | None]:
        """What the webhook gets of the event of this number; None when there is none. It has room meanwhile."""

        async def make() -> Parcel | None:
            page = await self._storage.events(EventQuery(tree_id=head.id, after=seq - 1, until=seq, limit=1))
            return await self._told(config, head, page[0], shown) if page else None

        async with self._with_room(config.owner, make, lambda: None) as parcel:
            yield parcel

    async def _told(self, config: PushConfig, head: TreeHead, recorded: Recorded, shown: str) -> Parcel:
        told = await self._payloads.tell(config, head, recorded, shown)
        return Parcel(recorded.seq, recorded.at, told.bodies, told.shown)

    @asynccontextmanager
    async def _with_room(self, owner: str, make: Make, drop: Callable[[], None]) -> AsyncIterator[Parcel | None]:
        """A parcel for which there is room. `drop` lets go of what was read ahead, so that `make` begins anew."""
        async with self._making.of(owner):
            parcel = await make()
        size = 0 if parcel is None else sum(map(len, parcel.bodies))
        if size <= SMALL:
            yield parcel
            return
        size *= COPIES
        is_here = self.room.take_now(owner, size)
        if not is_here:
            parcel = None
            drop()
            await self.room.take(owner, size)
        try:
            if not is_here:
                async with self._making.of(owner):
                    parcel = await make()
            yield parcel
        finally:
            self.room.give(owner, size)


async def head_of(storage: Storage, tree_id: str) -> TreeHead:
    """The tree's head. Raises TaskNotFound when it is gone."""
    head = await storage.head(tree_id)
    if head is None:
        raise TaskNotFound(tree_id)
    return head
