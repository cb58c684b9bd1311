"""The readers: webhooks that have something to be told, or may have, by tree and by owner."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from a2a_server.push.configs import DeliveryState, PushConfig
from core.storage.base import Document


@dataclass(slots=True, eq=False)
class Reader:
    """One webhook that is not at rest."""

    config: PushConfig
    delivery: DeliveryState
    stored: Document  # its delivery state, as this reader has read or written it last
    is_woken: bool = False  # stands in line, or runs once more when its job has ended
    job: asyncio.Task[None] | None = None
    waits_until: float = 0.0  # for the next attempt
    is_gone: bool = False  # its receiver wants no more; it is to be removed


class Readers:
    """The readers of one server, at most one of a webhook."""

    def __init__(self) -> None:
        self._of_tree: dict[str, dict[str, Reader]] = {}  # tree -> the key of each of its webhooks
        self._active: Counter[str] = Counter()  # owner -> how many of these are its

    def __len__(self) -> int:
        return self._active.total()

    def trees(self) -> list[str]:
        return list(self._of_tree)

    def of(self, config: PushConfig) -> Reader | None:
        return self.find(config.tree_id, config.key)

    def find(self, tree_id: str, key: str) -> Reader | None:
        return self._of_tree.get(tree_id, {}).get(key)

    def of_tree(self, tree_id: str) -> Sequence[Reader]:
        return list(self._of_tree.get(tree_id, {}).values())

    def active(self, owner: str) -> int:
        """How many the owner has."""
        return self._active.get(owner, 0)

    def has(self, reader: Reader) -> bool:
        return self.of(reader.config) is reader

    def add(self, reader: Reader) -> bool:
        """Whether it is the webhook's reader now: not where it has one."""
        config = reader.config
        if self._of_tree.setdefault(config.tree_id, {}).setdefault(config.key, reader) is not reader:
            return False
        self._active[config.owner] += 1
        return True

    def remove(self, reader: Reader) -> None:
        """It is not the webhook's reader any more, if it was."""
        if not self.has(reader):
            return
        config = reader.config
        readers = self._of_tree[config.tree_id]
        del readers[config.key]
        if not readers:
            del self._of_tree[config.tree_id]
        self._active[config.owner] -= 1
        if not self._active[config.owner]:
            del self._active[config.owner]
