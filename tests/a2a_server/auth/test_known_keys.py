"""Keys that several processes use (`a2a_server.auth.known_keys` and `key_watch`): two of them on one storage."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from a2a_server.auth.apikeys import ApiKeys
from a2a_server.auth.errors import BadCredential
from a2a_server.auth.key_watch import KeyWatch
from a2a_server.auth.known_keys import MAX_AGE, KnownKeys
from a2a_server.auth.lifetimes import Lifetimes
from a2a_server.auth.stored_keys import Grant
from core.model.errors import StorageError, StorageUnavailable
from core.outside.clock import SystemClock
from core.storage.base import Document, DocumentQuery
from core.storage.memory import MemoryStorage
from tests.a2a_server.auth.clocks import SetClock
from tests.a2a_server.auth.test_lifetimes import Source, collect, holder
from tests.core.cores import settle

ANN = Grant(principal="ann", tenant="t")


class Watched(MemoryStorage):
    """Counts reads, and can hold one back, or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.asked: list[Sequence[str]] = []
        self.errors: list[StorageError] = []
        self.gate: asyncio.Event | None = None

    async def document(self, kind: str, document_id: str) -> Document | None:
        self.reads += 1
        found = await super().document(kind, document_id)
        await self._pass()
        return found

    async def documents(self, query: DocumentQuery) -> list[Document]:
        if query.ids is None:
            return await super().documents(query)
        self.asked.append(query.ids)
        found = await super().documents(query)
        await self._pass()
        return found

    async def _pass(self) -> None:
        if self.errors:
            raise self.errors.pop()
        if self.gate is not None:
            await self.gate.wait()


class Two:
    """Two processes on one storage. `ended`: what the first one is told of keys, with the seconds that are left."""

    def __init__(self) -> None:
        self.storage, self.clock = Watched(), SetClock()
        self.ended: list[tuple[str, float]] = []
        self.known = KnownKeys(
            self.storage, self.clock, MAX_AGE, lambda key_id, left: self.ended.append((key_id, left))
        )
        self.keys = ApiKeys(self.storage, self.clock, known=self.known)
        self.other = ApiKeys(self.storage, self.clock)

    async def make(self) -> tuple[str, str]:
        """A key that the first one knows."""
        await self.storage.open()
        key, text = await self.other.create(ANN)
        await self.keys.principal(text)
        return key.id, text

    async def is_good(self, text: str) -> bool:
        try:
            return (await self.keys.principal(text)).id == "ann"
        except BadCredential:
            return False


@pytest.mark.asyncio
async def test_a_key_that_another_process_revoked_is_good_for_5_seconds_at_most() -> None:
    """F6. Found by reading: it was good there until a restart."""
    two = Two()
    key_id, text = await two.make()
    await two.other.revoke(key_id)

    two.clock.time += MAX_AGE - 0.1
    assert await two.is_good(text)
    two.clock.time += 0.1
    assert not await two.is_good(text)
    assert two.ended == [(key_id, 0.0)]


@pytest.mark.asyncio
async def test_a_key_that_another_process_removed_is_unknown_then() -> None:
    two = Two()
    key_id, text = await two.make()
    await two.storage.delete_documents(("api_key", key_id))
    two.clock.time += MAX_AGE
    assert not await two.is_good(text)
    assert two.ended == [(key_id, 0.0)]


@pytest.mark.parametrize("grace", [0.0, 60.0])
@pytest.mark.asyncio
async def test_a_key_that_another_process_rotated_ends_with_its_grace(grace: float) -> None:
    two = Two()
    key_id, old = await two.make()
    _, new = await two.other.rotate(key_id, grace)
    two.clock.time += MAX_AGE

    assert await two.is_good(new)
    assert await two.is_good(old) is (grace > 0)
    assert two.ended == [(key_id, grace - MAX_AGE if grace else 0.0)]


@pytest.mark.asyncio
async def test_a_key_is_read_once_in_5_seconds_however_many_ask_at_the_same_time() -> None:
    two = Two()
    _, text = await two.make()
    for _ in range(3):
        two.clock.time += MAX_AGE
        two.storage.reads = 0
        assert await asyncio.gather(*[two.is_good(text) for _ in range(20)]) == [True] * 20
        assert await two.is_good(text)
        assert two.storage.reads == 1
    assert two.ended == []


@pytest.mark.asyncio
async def test_whoever_asks_first_and_leaves_takes_nobody_elses_answer_away() -> None:
    two = Two()
    _, text = await two.make()
    two.clock.time += MAX_AGE
    two.storage.gate = asyncio.Event()
    first, second = (asyncio.create_task(two.is_good(text)) for _ in range(2))
    await settle()
    first.cancel()
    two.storage.gate.set()
    assert await second
    two.clock.time += MAX_AGE
    two.storage.errors = [StorageUnavailable("away")]
    with pytest.raises(StorageUnavailable):
        await two.is_good(text)
    assert await two.is_good(text)


@pytest.mark.asyncio
async def test_a_read_that_is_stopped_leaves_nothing_behind() -> None:
    two = Two()
    _, text = await two.make()
    two.clock.time += MAX_AGE
    two.storage.gate = asyncio.Event()
    asking = asyncio.create_task(two.is_good(text))
    await settle()
    (reading,) = two.known._reading.values()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    two.storage.gate.set()
    assert await two.is_good(text)


@pytest.mark.asyncio
async def test_two_processes_that_change_a_key_at_once_lose_no_change() -> None:
    """A rotation that had read the key before its revocation would have made it good again."""
    two = Two()
    key_id, _ = await two.make()
    two.storage.gate = asyncio.Event()
    rotating, revoking = asyncio.create_task(two.keys.rotate(key_id)), asyncio.create_task(two.other.revoke(key_id))
    await settle()
    two.storage.gate.set()
    await asyncio.gather(rotating, revoking, return_exceptions=True)
    (key,) = await two.keys.all()
    assert key.revoked_at is not None


@pytest.mark.asyncio
async def test_keys_are_looked_at_together_and_those_that_are_not_good_any_more_are_told() -> None:
    two = Two()
    made = [(await two.make())[0] for _ in range(4)]
    await two.other.revoke(made[0])
    await two.other.rotate(made[1], grace=9.0)
    two.storage.reads = 0

    await two.known.look([*made, "gone"])
    await two.known.look(made)

    assert two.ended == [(made[0], 0.0), (made[1], 9.0), ("gone", 0.0), (made[0], 0.0)]
    assert (two.storage.asked, two.storage.reads) == ([[*made, "gone"], made], 0)


@pytest.mark.asyncio
async def test_a_key_that_is_revoked_here_during_a_look_is_not_remembered_as_good() -> None:
    two = Two()
    key_id, text = await two.make()
    two.storage.gate = asyncio.Event()
    looking = asyncio.create_task(two.known.look([key_id]))
    await settle()
    gate, two.storage.gate = two.storage.gate, None
    await two.keys.revoke(key_id)
    gate.set()
    await looking
    assert not await two.is_good(text)
    assert len(two.storage.asked) == 2


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await settle()


def watching(two: Two) -> tuple[KeyWatch, Lifetimes]:
    """A watch that does not rest, and streams that it ends."""
    lifetimes = Lifetimes(SystemClock())
    two.known = KnownKeys(two.storage, two.clock, MAX_AGE, lifetimes.end)
    return KeyWatch(two.known, lifetimes, pause=0.0), lifetimes


@pytest.mark.asyncio
async def test_streams_of_a_key_that_another_process_revoked_end_and_no_others() -> None:
    two = Two()
    watch, lifetimes = watching(two)
    made = [(await two.make())[0] for _ in range(2)]
    watch.start()
    await settle()
    assert two.storage.asked == [], "nothing is open"
    readers = [asyncio.create_task(collect(lifetimes.guarded(Source().items(), holder(key)))) for key in (*made, "")]
    await until(lambda: len(two.storage.asked) > 3)

    await two.other.revoke(made[0])

    assert await readers[0] == [1]
    assert set(two.storage.asked[0]) == set(made)
    assert not readers[1].done() and not readers[2].done()
    await watch.close()
    await watch.close()
    for reader in readers[1:]:
        reader.cancel()
    await asyncio.wait(readers)


@pytest.mark.parametrize("error", [StorageUnavailable("away"), StorageError("corrupt")])
@pytest.mark.asyncio
async def test_a_look_that_fails_is_made_again(error: StorageError, caplog: pytest.LogCaptureFixture) -> None:
    two = Two()
    watch, lifetimes = watching(two)
    key_id, _ = await two.make()
    reader = asyncio.create_task(collect(lifetimes.guarded(Source().items(), holder(key_id))))
    await settle()
    two.storage.errors = [error]
    watch.start()
    await until(lambda: len(two.storage.asked) > 1)
    await two.other.revoke(key_id)
    assert await reader == [1]
    assert len(caplog.messages) == (0 if isinstance(error, StorageUnavailable) else 1)
    await watch.close()
