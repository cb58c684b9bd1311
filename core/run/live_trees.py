"""The trees of one process that are in memory: each is loaded once, however many ask, and stays while it is live."""

import asyncio
from collections.abc import Callable, Sequence

from core.model.errors import TaskNotFound
from core.model.in_flight import Holdings, memory_of_tasks
from core.model.tree import TaskTree
from core.run.appends import Appends
from core.run.decisions import LARGE_TREE
from core.storage.base import Storage


class LiveTrees:
    """Loads trees and keeps those that are live; what they hold counts for their owners.

    `by_id` has those in memory; only the orchestrator changes it. `loaded` gets each live tree that was taken from
    storage.
    """

    def __init__(
        self, storage: Storage, appends: Appends, holdings: Holdings, loaded: Callable[[TaskTree], None]
    ) -> None:
        self._storage = storage
        self._appends = appends
        self._holdings = holdings
        self._loaded = loaded
        self._loading: dict[str, asyncio.Task[TaskTree]] = {}
        self.by_id: dict[str, TaskTree] = {}

    async def load(self, tree_id: str) -> TaskTree:
        """The tree, from memory or from storage; a live one of this member is kept in memory and goes on from here.

        Raises TaskNotFound when there is none, StorageError when it cannot be read.
        """
        tree = self.by_id.get(tree_id)
        if tree is not None:
            return tree
        loading = self._loading.get(tree_id)
        if loading is None:
            loading = asyncio.create_task(self._load(tree_id))
            self._loading[tree_id] = loading
            loading.add_done_callback(lambda done: self._end_loading(tree_id, done))
        return await asyncio.shield(loading)

    def is_parked(self, tree_id: str, version: int) -> bool:
        """Whether the tree, which has come to this version, can only go on when somebody answers one of its questions.

        One that is further already says nothing of this version, and what it says is not durable yet.
        """
        tree = self.by_id.get(tree_id)
        if tree is None or tree.version != version:
            return False
        return bool(tree.questions) and not tree.running and not tree.startable()

    def is_elsewhere(self, tree: TaskTree) -> bool:
        """Whether another member runs this tree, which was just loaded, so that nothing can be decided on it here."""
        return bool(self._storage.lease) and tree.is_live and self.by_id.get(tree.id) is not tree

    async def load_live(self, tree_ids: Sequence[str]) -> None:
        """Have those of the trees in memory that are live, read together; what cannot be read is left to `load`.

        They are this member's.
        """
        for head, tasks in await self._storage.load_many(tree_ids):
            # Should one have been loaded, changed and ended meanwhile, its next append is refused and it is read again.
            if head.is_live and head.id not in self.by_id and head.id not in self._loading:
                self._take_up(TaskTree(head, tasks))

    def _end_loading(self, tree_id: str, loading: asyncio.Task[TaskTree]) -> None:
        self._loading.pop(tree_id, None)
        if not loading.cancelled():
            loading.exception()  # seen, also when everybody who waited has gone away

    async def _load(self, tree_id: str) -> TaskTree:
        while (latest := self._appends.latest(tree_id)) is not None:  # what is on its way belongs to the tree
            await asyncio.wait([latest.stored])
        stored = await self._storage.load(tree_id)
        if stored is None:
            raise TaskNotFound(tree_id)
        made = await asyncio.to_thread(TaskTree, *stored) if len(stored[1]) > LARGE_TREE else TaskTree(*stored)
        # One that ends elsewhere, or is adopted, between the two looks is refused its next append and loaded again.
        lease = self._storage.lease
        is_own = not lease or not made.is_live or await self._storage.owner_of(tree_id) == lease
        if (tree := self.by_id.get(tree_id)) is not None:
            return tree
        if made.is_live and is_own:
            self._take_up(made)
        return made

    def drop(self, tree_id: str) -> None:
        """Let go of a tree that is in memory."""
        del self.by_id[tree_id]
        self._appends.leased.discard(tree_id)
        self._holdings.drop(tree_id)

    def _take_up(self, tree: TaskTree) -> None:
        self.by_id[tree.id] = tree
        if self._storage.lease:
            self._appends.leased.add(tree.id)
        self._holdings.force(tree.id, tree.head.owner, memory_of_tasks(tree.tasks.values(), tree.head.metadata))
        self._loaded(tree)
