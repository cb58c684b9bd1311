"""What an event looks like on the wire, worked out once for all followers of the same task.

The frames are kept, within a bound, as JSON that a binding only puts an envelope around.
"""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from cachetools import LRUCache

from a2a_server.protocol import types as wire
from a2a_server.protocol.codec import encode, encode_in_pieces
from a2a_server.protocol.dialect import A2A_1_0, A2ADialect
from a2a_server.views.snapshots import latest, tree_errors
from a2a_server.views.translate import tree_error_message, updates
from core.loop.beside import Beside
from core.loop.large_values import CHARACTERS, is_small
from core.loop.origin import CALLER
from core.model import events as e
from core.model.content import Artifact, Part
from core.model.events import Recorded
from core.model.node_status import ENDS
from core.model.streaming import stream_event
from core.model.task import TaskStatus
from core.storage.base import Storage

CACHE_BYTES = 16 * 1024 * 1024
LARGEST_KEPT = 4 * 1024 * 1024  # bytes; larger frames are encoded for each follower
ENTRY = 200  # bytes that a cache entry costs beside the frames, roughly


class View(NamedTuple):
    """Whose stream it is: a tree's (`task_id` is the root's), or that of one of its nodes. And in which dialect."""

    tree_id: str
    task_id: str
    context_id: str
    dialect: A2ADialect = A2A_1_0

    @property
    def is_root(self) -> bool:
        return self.task_id == self.tree_id


Key = tuple[str, int, str, bool]  # dialect, sequence number, task, whether the stream closes after it


class EventFrames:
    """The encoded frames of one session's events. Of those that are kept, the least recently used ones leave first."""

    def __init__(self, storage: Storage, beside: Beside, limit: int = CACHE_BYTES) -> None:
        self._storage = storage
        self._beside = beside
        self._cache: LRUCache[Key, tuple[bytes, ...]] = LRUCache(limit, getsizeof=_size)
        self._making: dict[Key, asyncio.Task[tuple[bytes, ...]]] = {}

    async def a2a(self, recorded: Recorded, view: View, closes: bool) -> tuple[bytes, ...]:
        """Those of an event in a view's dialect; `closes`: the stream ends with it."""
        key = (view.dialect.version + view.dialect.form, recorded.seq, view.task_id, closes)
        if (frames := self._cache.get(key)) is None:
            event = recorded.event
            ending = await self._ending(recorded, view) if isinstance(event, e.TreeFinished) else None
            told = updates(recorded, view.task_id, view.context_id, ending=ending)
            made = (view.dialect.event(update, closes) for update in told)
            match event:
                # A short text by itself, as most pieces are, is not looked at twice.
                case e.ArtifactAdded(artifact=Artifact(metadata=None, parts=(Part(text=str(text), metadata=None),))):
                    is_quick = len(text) <= CHARACTERS
                case _:
                    is_quick = is_small(event)
            frames = tuple(made) if is_quick else await self._shared(key, made)
            self._keep(key, frames)
        return frames

    async def tasks(self, recorded: Recorded) -> tuple[bytes, ...]:
        """Those of an event in the dialect of `tasks.*`."""
        key = ("tasks", recorded.seq, recorded.tree_id, False)
        if (frames := self._cache.get(key)) is None:
            ended = await self._end_of_root(recorded) if isinstance(recorded.event, e.TreeFinished) else None
            told = stream_event(recorded, ended=ended)
            if told is None or is_small(recorded.event):
                frames = () if told is None else (encode(told),)
            else:
                frames = await self._shared(key, map(encode_in_pieces, (told,)))
            self._keep(key, frames)
        return frames

    def _keep(self, key: Key, frames: tuple[bytes, ...]) -> None:
        if sum(map(len, frames)) <= LARGEST_KEPT:
            self._cache[key] = frames

    async def _shared(self, key: Key, made: Iterable[bytes]) -> tuple[bytes, ...]:
        """Large frames, made beside the event loop and once for all followers who come to them at the same time."""
        if (making := self._making.get(key)) is None:
            making = self._making[key] = asyncio.create_task(self._beside.run(CALLER.get(), tuple, made))
            making.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(making)

    async def _ending(self, recorded: Recorded, view: View) -> wire.Message | None:
        """Why the tree failed. What its executors said was told when they did."""
        if recorded.tree_status is TaskStatus.COMPLETED:
            return None
        events = await tree_errors(self._storage, view.tree_id, recorded.seq)
        return tree_error_message(view.tree_id, recorded.tree_status, events, view.context_id)

    async def _end_of_root(self, finished: Recorded) -> Recorded | None:
        tree_id = finished.tree_id
        return await latest(self._storage, tree_id, finished.seq, tree_id, ENDS)


def _size(frames: tuple[bytes, ...]) -> int:
    return sum(map(len, frames)) + ENTRY
