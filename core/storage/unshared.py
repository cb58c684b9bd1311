"""A database that one process has for itself: whatever is live in it is this process's."""

from abc import abstractmethod

from core.storage.base import OF_NOBODY


class Unshared:
    """The part `Sharing` of such a storage."""

    address = ""
    is_exclusive = True
    lease = OF_NOBODY
    is_fenced = False
    _is_resumed = False

    @abstractmethod
    async def live_trees(self) -> list[str]:
        """See `Trees`."""

    def _begin(self) -> None:
        """It was opened: what an earlier process left is not taken up yet."""
        self._is_resumed = False

    async def lapsed(self) -> str | None:
        return None if self._is_resumed else OF_NOBODY

    async def adopt(self, lease: str) -> list[str]:
        return await self.live_trees()

    async def settle(self, lease: str) -> None:
        self._is_resumed = True

    async def owner_of(self, tree_id: str) -> str:
        return OF_NOBODY
