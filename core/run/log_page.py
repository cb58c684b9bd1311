"""Pages of a tree's log, of which followers must miss nothing."""

from collections.abc import Sequence

from core.model.errors import LogCompacted, StorageError
from core.model.events import Recorded
from core.storage.base import LOG_BYTES, EventQuery, Storage


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
