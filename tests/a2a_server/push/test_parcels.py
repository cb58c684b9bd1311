"""Room for what is sent to webhooks (`a2a_server.push.parcels`): how many bytes are on their way at a time."""

import asyncio
from typing import Any

import pytest

from a2a_server.push.bodies import TASKS
from a2a_server.push.configs import DEAD, PushConfig
from a2a_server.push.parcels import AHEAD, COPIES, MADE_AT_A_TIME, SMALL, Parcels
from a2a_server.push.sender import Failed
from core.session import Session
from core.storage.base import EventQuery
from core.storage.sqlite.sql import SqlStorage
from tests.a2a_server.push.receivers import Post, Receiver, SteadyClock, until
from tests.a2a_server.push.test_outbox import documents, finish
from tests.core.cores import Bench, virtual_time

LARGE = 100_000  # characters of a result
ROOM = COPIES * (LARGE + 4_000)  # bytes that one event of a task with such a result takes on its way, about
VERSIONS = {"1.0": (), "0.3": (), "1.0 and pieces": ("chunks", "nodes"), TASKS: ()}


def bench() -> Bench:
    made = Bench(clock=SteadyClock())

    async def large(inputs: dict[str, Any], context: Any) -> str:
        return str(inputs.get("letter", "x")) * LARGE

    made.add("large", large)
    return made


class Gated(Receiver):
    """Takes small bodies at once, and large ones when the gate is open. It sees how many bytes are on their way."""

    bytes_now = 0
    most_bytes = 0
    owners: tuple[str, ...] = ()

    async def send(self, config: PushConfig, message_id: str, body: bytes) -> Failed | None:
        if len(body) < LARGE:
            self.taken.append((message_id, {}))
            self.urls.append(config.url)
            return None
        self.bytes_now += len(body)
        self.most_bytes = max(self.most_bytes, self.bytes_now)
        self.owners += (config.owner,)
        try:
            return await super().send(config, message_id, body)
        finally:
            self.bytes_now -= len(body)


@pytest.mark.parametrize("version", VERSIONS)
@virtual_time
async def test_so_many_bytes_are_on_their_way_and_the_others_wait(version: str) -> None:
    """Fifty deliveries at a time had all their events in memory: a page of the log and 30 MiB each."""
    async with bench().session() as session:
        receiver = Gated(gate=asyncio.Event())
        post = Post(session, receiver, on_their_way=3 * ROOM, of_one_caller=3 * ROOM)
        tree_id = await finish(session, "large")
        for n in range(10):
            await post.hook(
                tree_id, config_id=f"c{n}", wire_version=version.split(" ", maxsplit=1)[0], events=VERSIONS[version]
            )
        await until(lambda: receiver.now == 3)
        room = post.outbox.deliveries.parcels.room
        assert room.taken <= 3 * ROOM
        assert receiver.gate is not None
        receiver.gate.set()
        await until(lambda: not post.outbox.readers)

        assert receiver.most == 3 and receiver.most_bytes <= 3 * ROOM // COPIES
        assert len(set(receiver.ids)) == len(receiver.ids) >= 20, "each of them has arrived, once"
        assert room.taken == 0
        await post.outbox.close()


@virtual_time
async def test_large_deliveries_of_one_caller_leave_room_for_anothers_and_small_ones_need_none() -> None:
    async with bench().session() as session:
        receiver = Gated(gate=asyncio.Event())
        post = Post(session, receiver, on_their_way=2 * ROOM, of_one_caller=ROOM)
        large, small = await finish(session, "large"), await finish(session)
        for n in range(10):
            await post.hook(large, config_id=f"c{n}", owner="ann")
        await until(lambda: receiver.now == 1)
        await post.hook(small, owner="ann", url="https://example.com/small")
        await until(lambda: receiver.urls.count("https://example.com/small") == 2)
        await post.hook(large, config_id="bob's", owner="bob")
        await until(lambda: receiver.now == 2)

        assert receiver.owners == ("ann", "bob")
        assert receiver.gate is not None
        receiver.gate.set()
        await until(lambda: not post.outbox.readers)
        assert receiver.owners.count("ann") == 10
        await post.outbox.close()


@virtual_time
async def test_what_is_larger_than_all_room_arrives_by_itself() -> None:
    async with bench().session() as session:
        receiver = Gated()
        post = Post(session, receiver, on_their_way=ROOM // 2, of_one_caller=ROOM // 4)
        tree_id = await finish(session, "large")
        for n in range(3):
            await post.hook(tree_id, config_id=f"c{n}")
        await until(lambda: not post.outbox.readers)
        assert len(receiver.owners) == 3
        await post.outbox.close()


@virtual_time
async def test_nothing_large_is_kept_while_it_waits() -> None:
    """It is made again when there is room: else those that wait would be as large as those on their way."""
    async with bench().session() as session:
        receiver = Gated(gate=asyncio.Event())
        post = Post(session, receiver, on_their_way=ROOM, of_one_caller=ROOM)
        parcels, made = post.outbox.deliveries.parcels, list[int]()
        tell = parcels._payloads.tell

        async def counted(*given: Any) -> Any:
            told = await tell(*given)
            made.append(sum(map(len, told.bodies)))
            return told

        parcels._payloads.tell = counted  # type: ignore[method-assign]
        tree_id = await finish(session, "large")
        for n in range(2):
            await post.hook(tree_id, config_id=f"c{n}")
        await until(lambda: receiver.now == 1)
        await until(lambda: sum(size > LARGE for size in made) == 2)
        assert receiver.gate is not None
        receiver.gate.set()
        await until(lambda: not post.outbox.readers)
        assert sum(size > LARGE for size in made) == 3, "the one that waited, twice"
        await post.outbox.close()


@virtual_time
async def test_bodies_are_made_so_many_at_a_time() -> None:
    """What they are made of is in memory beside them."""
    async with bench().session() as session:
        receiver = Receiver()
        post = Post(session, receiver)
        parcels, now, most = post.outbox.deliveries.parcels, 0, 0
        tell = parcels._payloads.tell

        async def slowly(*given: Any) -> Any:
            nonlocal now, most
            now += 1
            most = max(most, now)
            await asyncio.sleep(1.0)  # virtual
            now -= 1
            return await tell(*given)

        parcels._payloads.tell = slowly  # type: ignore[method-assign]
        tree_id = await finish(session)
        for n in range(10):
            await post.hook(tree_id, config_id=f"c{n}", owner=f"owner {n % 3}")
        await until(lambda: not post.outbox.readers)
        assert most == MADE_AT_A_TIME == 2
        await post.outbox.close()


@virtual_time
async def test_a_webhook_that_is_stopped_gives_its_room_back() -> None:
    async with bench().session() as session:
        receiver = Gated(gate=asyncio.Event())
        post = Post(session, receiver, on_their_way=ROOM, of_one_caller=ROOM)
        tree_id = await finish(session, "large")
        configs = [await post.hook(tree_id, config_id=f"c{n}") for n in range(3)]
        await until(lambda: receiver.now == 1)
        for config in configs:  # one of them sends, the others wait
            await post.outbox.stop(config)
        assert post.outbox.deliveries.parcels.room.taken == 0
        await post.outbox.close()


@virtual_time
async def test_a_dead_letter_is_sent_again_where_there_is_room() -> None:
    async with bench().session() as session:
        receiver = Gated(outcomes=[Failed(error="no", is_final=True)])
        post = Post(session, receiver, on_their_way=ROOM, of_one_caller=ROOM)
        config = await post.hook(await finish(session, "large"))
        await until(lambda: not post.outbox.readers)
        (letter,) = await documents(session, DEAD)
        seq = int(letter.id.rpartition("/")[2])
        parcels = post.outbox.deliveries.parcels
        head = await session.storage.head(config.tree_id)
        assert head is not None
        await parcels.room.take("another", ROOM)
        async with asyncio.TaskGroup() as group:

            async def sent() -> int:
                async with parcels.of(config, head, seq, "working") as parcel:
                    assert parcel is not None
                    assert parcels.room.held(config.owner) > COPIES * LARGE
                    return parcel.seq

            job = group.create_task(sent())
            await until(lambda: parcels.room._waiting)
            parcels.room.give("another", ROOM)
        assert job.result() == seq and parcels.room.taken == 0
        async with parcels.of(config, head, 1_000, "working") as parcel:
            assert parcel is None
        await post.outbox.close()


@pytest.mark.asyncio
async def test_events_are_read_ahead_in_small_pages(tmp_path: Any) -> None:
    """A large event is read by itself, when its turn has come: the small ones before it are not sent beside it."""

    async def mixed(inputs: dict[str, Any], context: Any) -> None:
        await context.artifact("small")
        await context.artifact("x" * (AHEAD + 1))
        await context.artifact("small")

    made = Bench()
    made.add("mixed", mixed)
    async with Session(SqlStorage(f"sqlite:///{tmp_path}/t.db"), registry=made.registry) as session:
        post = Post(session, Receiver())
        pages, events = list[list[str]](), session.storage.events

        async def seen(query: EventQuery) -> Any:
            page = await events(query)
            if query.max_bytes == AHEAD:
                pages.append([type(each.event).__name__ for each in page])
            return page

        session.storage.events = seen  # type: ignore[method-assign]
        await post.hook(await finish(session, "mixed"), events=("chunks",))
        await until(lambda: not post.outbox.readers)
        assert ["ArtifactAdded"] in pages
        assert all(page == ["ArtifactAdded"] or page[-1:] != ["ArtifactAdded"] for page in pages[1:]), pages
        await post.outbox.close()


def test_what_needs_no_room_is_little_for_as_many_deliveries_as_there_may_be() -> None:
    assert 50 * (SMALL + AHEAD) <= 8 * 1024 * 1024
    assert Parcels.__init__.__kwdefaults__["on_their_way"] == 128 * 1024 * 1024
