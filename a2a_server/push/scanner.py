"""Finds stored webhooks that have something to send and no reader: after a crash, and when an ended tree goes on."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from a2a_server.push.configs import (
    AT_REST,
    DELIVERY_STATE,
    PAGE,
    STORAGE_PAUSE,
    ConfigStore,
    PushConfig,
    Webhook,
    behind,
    delivery_state_of,
)
from core.model.errors import StorageError, StorageUnavailable, TaskNotFound
from core.model.task import TreeHead
from core.storage.base import Document, DocumentQuery, Storage

logger = logging.getLogger(__name__)

Enroll = Callable[[Webhook], None]


class Looks:
    """Which readings of stored webhooks are under way, so that each sees what ended or changed meanwhile."""

    def __init__(self, store: ConfigStore) -> None:
        self._store = store
        self._latest: dict[str, object] = {}  # keys of webhooks that are being read, until something ends that

    def end(self, key: str) -> None:
        """What is being read of the webhook may be out of date, and is read again."""
        self._latest.pop(key, None)

    async def read(self, key: str) -> Webhook | None:
        """A webhook as it is stored, no older than what its last reader did; None, too, when another look has begun."""
        while True:
            look = self._latest[key] = object()
            try:
                found = await self._store.read(key)
            finally:
                latest = self._latest.get(key)
                if latest is look:
                    del self._latest[key]
            if latest is not None:
                return found if latest is look else None


class Scanner:
    """Enrolls stored webhooks. `is_busy`: whether one is being changed or has a reader."""

    def __init__(
        self, storage: Storage, store: ConfigStore, looks: Looks, is_busy: Callable[[PushConfig], bool], enroll: Enroll
    ) -> None:
        self._storage = storage
        self._store = store
        self._looks = looks
        self._is_busy = is_busy
        self._enroll = enroll
        self.jobs: set[asyncio.Task[Any]] = set()

    def start(self) -> asyncio.Task[None]:
        """Resume, in the background, the readers that an earlier process left with pending events."""
        # First those that have something to do by what is stored, then those at rest whose tree has gone on since.
        return self._hold(self._scan(DocumentQuery(kind=DELIVERY_STATE, limit=PAGE)))

    async def unread(self, heads: Sequence[TreeHead]) -> frozenset[str]:
        """Those of these trees of whose events, as many as the heads say, some are still to be delivered.

        A webhook of them that is stored as at rest nevertheless, as by a crash, gets its reader.
        """
        states = await behind(self._storage, heads)
        for tree_id in {document.tree_id for document in states if document.at >= AT_REST}:
            self.look_at(tree_id)
        return frozenset([document.tree_id for document in states])

    def look_at(self, tree_id: str) -> None:
        """Look, beside everything else, for webhooks of the tree that have something to do and no reader."""
        self._hold(self._scan(DocumentQuery(kind=DELIVERY_STATE, tree_id=tree_id, limit=PAGE)))

    async def close(self) -> None:
        """Look no more."""
        jobs = list(self.jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    def _hold(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = asyncio.create_task(work)
        self.jobs.add(job)
        job.add_done_callback(self.jobs.discard)
        return job

    async def _scan(self, query: DocumentQuery) -> None:
        """Resume the delivery states that the query finds, one by one, as soon as the storage can be read."""
        while True:
            try:
                page = await self._storage.documents(query)
                for document in page:
                    await self._resume(document)
            except StorageUnavailable:
                await asyncio.sleep(STORAGE_PAUSE)
                continue
            if not page:
                return
            query = query.following(page)

    async def _resume(self, document: Document) -> None:
        """Enroll a stored webhook, unless it is at rest at the end of its log, or was deleted meanwhile."""
        try:
            is_at_rest = document.at >= AT_REST
            if is_at_rest:
                head = await self._storage.head(document.tree_id)
                if head is None or delivery_state_of(document).cursor >= head.version:
                    return
            found = await self._read_idle(document.id)
            while found is not None and is_at_rest:  # not any more, also for retention and the next process
                awake = self._store.delivery_document(found.config, found.delivery)
                is_at_rest = not await self._storage.swap(awake, found.stored)
                found = await self._read_idle(document.id)
            if found is not None:
                self._enroll(found)
        except TaskNotFound:  # the tree was deleted meanwhile, and its webhooks with it
            return
        except StorageUnavailable:
            raise
        except StorageError as error:
            logger.error("deliveries to webhook %s stop: %s", document.id, error)

    async def _read_idle(self, key: str) -> Webhook | None:
        """A webhook as it is stored; None for one that is being changed, or has a reader, too."""
        found = await self._looks.read(key)
        return None if found is None or self._is_busy(found.config) else found
