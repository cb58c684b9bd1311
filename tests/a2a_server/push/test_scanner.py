"""Readings of stored webhooks: which are enrolled, and what a change meanwhile does to a reading."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from a2a_server.push.configs import DELIVERY_STATE, ConfigStore, DeliveryState, PushConfig, SecretBox, Webhook
from a2a_server.push.scanner import Looks, Scanner
from core.model.errors import StorageError, StorageUnavailable
from core.session import Session
from tests.a2a_server.push.receivers import SteadyClock
from tests.a2a_server.push.test_outbox import documents, finish
from tests.core.cores import Bench, settle, virtual_time


class Store(ConfigStore):
    """A store whose readings the test can hold up, or let fail."""

    gate: asyncio.Event | None = None
    errors: tuple[Exception, ...] = ()
    reads = 0

    async def read(self, key: str) -> Webhook | None:
        self.reads += 1
        found = await super().read(key)
        if self.gate is not None:
            await self.gate.wait()
        if self.errors:
            error, *rest = self.errors
            self.errors = tuple(rest)
            raise error
        return found


class World:
    """A scanner over a storage."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.store = Store(session.storage, SecretBox(()))
        self.looks = Looks(self.store)
        self.busy: set[str] = set()
        self.enrolled: list[str] = []
        self.scanner = Scanner(
            session.storage,
            self.store,
            self.looks,
            lambda config: config.id in self.busy,
            lambda webhook: self.enrolled.append(webhook.config.id),
        )

    async def hook(self, tree_id: str, config_id: str, *, at_rest: bool = False, cursor: int = 0) -> PushConfig:
        config = PushConfig(
            id=config_id, task_id=tree_id, tree_id=tree_id, owner="anonymous", url="https://e.example", created_at=1.0
        )
        delivery = DeliveryState(cursor=cursor)
        await self.session.storage.put_documents(*self.store.documents(config, delivery))
        if at_rest:
            await self.session.storage.put_documents(self.store.delivery_document(config, delivery, at_rest=True))
        return config


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with Bench(clock=SteadyClock()).session() as session:
        made = World(session)
        yield made
        await made.scanner.close()


@virtual_time
async def test_what_an_earlier_process_left_is_enrolled_once_each() -> None:
    async with world() as it:
        tree_id = await finish(it.session)
        for name in ("a", "b"):
            await it.hook(tree_id, name)
        await it.scanner.start()
        assert sorted(it.enrolled) == ["a", "b"]


@virtual_time
async def test_a_webhook_at_rest_is_enrolled_only_where_its_tree_has_gone_on() -> None:
    async with world() as it:
        tree_id = await finish(it.session)
        head = await it.session.storage.head(tree_id)
        assert head is not None
        await it.hook(tree_id, "done", at_rest=True, cursor=head.version)
        await it.hook(tree_id, "behind", at_rest=True, cursor=head.version - 1)
        await it.scanner.start()
        assert it.enrolled == ["behind"]


@virtual_time
async def test_a_webhook_that_has_a_reader_is_left_alone() -> None:
    async with world() as it:
        it.busy.add("a")
        await it.hook(await finish(it.session), "a")
        await it.scanner.start()
        assert it.enrolled == []


@virtual_time
async def test_only_webhooks_of_the_tree_are_looked_at() -> None:
    async with world() as it:
        first, second = await finish(it.session), await finish(it.session)
        await it.hook(first, "a")
        await it.hook(second, "b")
        it.scanner.look_at(second)
        await settle()
        assert it.enrolled == ["b"] and not it.scanner.jobs


@virtual_time
async def test_storage_that_is_away_is_waited_for() -> None:
    async with world() as it:
        it.store.errors = (StorageUnavailable("away"), StorageUnavailable("away"))
        await it.hook(await finish(it.session), "a")
        await it.scanner.start()
        assert it.enrolled == ["a"]


@virtual_time
async def test_a_webhook_that_cannot_be_read_is_logged_and_holds_up_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as it:
        it.store.errors = (StorageError("damaged"),)
        tree_id = await finish(it.session)
        for name in ("a", "b"):
            await it.hook(tree_id, name)
        await it.scanner.start()
        assert len(it.enrolled) == 1 and "damaged" in caplog.text


@virtual_time
async def test_a_webhook_that_is_deleted_meanwhile_is_not_enrolled() -> None:
    async with world() as it:
        config = await it.hook(await finish(it.session), "a")
        it.store.gate = asyncio.Event()
        reading = asyncio.ensure_future(it.looks.read(config.key))
        await settle()
        await it.store.delete(config)
        it.looks.end(config.key)
        it.store.gate.set()
        assert await reading is None
        assert it.store.reads == 2, "what was read before the end was read again"


@virtual_time
async def test_the_latest_of_two_looks_has_what_it_read() -> None:
    async with world() as it:
        config = await it.hook(await finish(it.session), "a")
        it.store.gate = asyncio.Event()
        first, second = (asyncio.ensure_future(it.looks.read(config.key)) for _ in range(2))
        await settle()
        it.store.gate.set()
        assert await first is None and await second is not None


@virtual_time
async def test_unread_trees_are_known_while_the_start_still_looks() -> None:
    async with world() as it:
        tree_id = await finish(it.session)
        await it.hook(tree_id, "a")
        head = await it.session.storage.head(tree_id)
        assert head is not None
        it.store.gate = asyncio.Event()
        it.scanner.start()
        await settle()
        assert await it.scanner.unread([head]) == {tree_id} and it.enrolled == []
        assert await it.scanner.unread([]) == frozenset()


@virtual_time
async def test_a_close_ends_a_scan_in_the_middle() -> None:
    async with world() as it:
        await it.hook(await finish(it.session), "a")
        it.store.gate = asyncio.Event()
        scan = it.scanner.start()
        await settle()
        await it.scanner.close()
        assert scan.cancelled() and it.enrolled == []
        assert await documents(it.session, DELIVERY_STATE), "it is there for the next process"
