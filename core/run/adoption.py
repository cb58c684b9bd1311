"""How a member takes up the live trees that others left: at its start, and, where members share the database, later on.

The storage says which leases have lapsed. Adopting one is a duty that the storage gives to one member at a time; a
member that dies over it leaves it to the next one.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from core.executors.family import Family
from core.model.errors import StorageError
from core.run.live_trees import LiveTrees
from core.run.recovery import Recovery
from core.storage.base import Storage

logger = logging.getLogger(__name__)

TAKEN_TOGETHER = 200  # trees that are read at a time: one by one, each costs seven turns of a reader's thread
LOOK = 0.5  # seconds between two looks for lapsed leases


def database_mark(storage: Storage, lease: str) -> str:
    """What marks the processes of the member with this lease on this machine; empty where nothing outlives it."""
    return f"{storage.identity}:{lease}" if lease else storage.identity


class Adoption:
    """Of one session. `fenced` is called when this member's own trees were given to another one."""

    def __init__(
        self, storage: Storage, trees: LiveTrees, recovery: Recovery, family: Family, fenced: Callable[[], None]
    ) -> None:
        self._storage = storage
        self._trees = trees
        self._recovery = recovery
        self._family = family
        self._fenced = fenced
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look for lapsed leases from now on, where there can be any."""
        if self._storage.lease and self._looking is None:
            self._looking = asyncio.get_running_loop().create_task(self._look())

    async def close(self) -> None:
        """Adopt nothing more."""
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def adopt_lapsed(self) -> int:
        """Take up the trees of all leases that have lapsed; how many there were. Raises StorageError."""
        taken = 0
        while (lease := await self._storage.lapsed()) is not None:
            taken += await self._adopt(lease)
        return taken

    async def end_orphans(self, lease: str) -> None:
        """End what the member with this lease started on this machine and left at work."""
        if ended := await self._family.end_orphans(database_mark(self._storage, lease)):
            logger.warning("%d processes of an earlier server were still running and were ended", ended)

    async def _look(self) -> None:
        while not self._storage.is_fenced:
            await asyncio.sleep(LOOK)
            with suppress(StorageError):  # the storage says so in its own words; it is tried again
                await self.adopt_lapsed()
        self._fenced()

    async def _adopt(self, lease: str) -> int:
        await self.end_orphans(lease)
        tree_ids = await self._storage.adopt(lease)
        taken = 0
        with self._recovery.starting():
            for first in range(0, len(tree_ids), TAKEN_TOGETHER):
                some = tree_ids[first : first + TAKEN_TOGETHER]
                with suppress(StorageError):  # it is met again, tree by tree, just below
                    await self._trees.load_live(some)
                for tree_id in some:
                    taken += await self._taken(tree_id)
        await self._storage.settle(lease)
        if taken:
            logger.info("%d unfinished trees resumed", taken)
        return taken

    async def _taken(self, tree_id: str) -> bool:
        """Load the tree, which then goes on; whether it could be read: none must keep the others from going on."""
        try:
            await self._trees.load(tree_id)
        except StorageError:
            logger.exception("tree %s cannot be resumed", tree_id)
            return False
        return True
