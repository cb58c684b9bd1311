"""Tests of a2a_server.views.frames: an event is encoded once for all its followers, and what is kept is bounded."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from a2a_server.views import frames
from a2a_server.views.frames import CACHE_BYTES, ENTRY, LARGEST_KEPT, EventFrames
from core.loop.beside import Beside
from core.model.events import Recorded, RunStarted
from core.model.task import TaskStatus
from core.storage.memory import MemoryStorage
from tests.a2a_server.conftest import Caller, Frame, until


def event(seq: int) -> Recorded:
    started = RunStarted("t", 1)
    return Recorded(tree_id="t", seq=seq, at=0.0, name="n", tree_status=TaskStatus.IN_PROGRESS, event=started)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The events that were encoded, each as 1000 bytes, or as many as its number if that is more."""
    encoded: list[int] = []

    def encode(told: Any) -> bytes:
        encoded.append(told)
        return b"x" * max(1000, told)

    monkeypatch.setattr(frames, "stream_event", lambda recorded, ended: recorded.seq)
    monkeypatch.setattr(frames, "encode", encode)
    yield encoded


@pytest.mark.asyncio
async def test_cache_drops_what_was_used_longest_ago(made: list[int]) -> None:
    kept = EventFrames(MemoryStorage(), Beside(), limit=3 * (1000 + ENTRY))
    for seq in (1, 2, 3, 1, 4):
        assert await kept.tasks(event(seq)) == (b"x" * 1000,)
    assert made == [1, 2, 3, 4]
    for seq in (1, 3, 4, 2):
        await kept.tasks(event(seq))
    assert made == [1, 2, 3, 4, 2]


@pytest.mark.parametrize(("size", "times"), [(LARGEST_KEPT, 1), (LARGEST_KEPT + 1, 2)])
@pytest.mark.asyncio
async def test_cache_leaves_large_frames_to_their_followers(made: list[int], size: int, times: int) -> None:
    kept = EventFrames(MemoryStorage(), Beside())
    for _ in range(2):
        assert await kept.tasks(event(size)) == (b"x" * size,)
    assert made == [size] * times
    assert LARGEST_KEPT < CACHE_BYTES


@pytest.mark.asyncio
async def test_event_is_encoded_once_for_all_its_followers(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    updates = frames.updates

    def counted(recorded: Any, *args: Any, **kwargs: Any) -> Any:
        encoded.append(recorded.seq)
        return updates(recorded, *args, **kwargs)

    monkeypatch.setattr(frames, "updates", counted)
    task_id = await call.begin("hold")

    async def follow() -> list[Frame]:
        return await call.frames("SubscribeToTask", {"id": task_id})

    followers = [asyncio.create_task(follow()) for _ in range(10)]
    await until(lambda: call.session.feed.followers == 10)
    call.lab.released["hold"].set()
    seen = await asyncio.gather(*followers)
    assert len(encoded) == len(set(encoded))
    assert all(each[1:] == seen[0][-len(each) + 1 :] for each in seen)
