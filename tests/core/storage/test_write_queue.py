"""The event loop's side of the writer (`core.storage.write_queue`), over a thread that only listens."""

import asyncio
from pathlib import Path

import pytest

from core.model.errors import StorageError, StorageUnavailable
from core.storage.sqlite.writer_thread import WriterThread
from core.storage.write_queue import WriteQueue
from core.storage.writes import Answers
from tests.core.storage.samples import created

CONTACT = {"start", "abandon", "inbox", "_inbox", "_loop", "_thread"}


class Listener(WriterThread):
    """Takes what it is given and writes nothing: a test answers in its place."""

    def start(self, answers: Answers) -> None:
        answers.started(None)


@pytest.mark.asyncio
async def test_neither_side_has_anything_of_the_other_but_the_inbox(tmp_path: Path) -> None:
    """Two threads must not share state by mistake: a wrong access is an AttributeError."""
    thread = WriterThread(tmp_path / "tasks.db")
    writer = WriteQueue(thread)
    await writer.start()
    await writer.submit(lambda connection: None)
    await writer.close()
    shared = {name for name in {*dir(writer)} & {*dir(thread)} if not name.startswith("__")}
    assert shared <= CONTACT


@pytest.mark.asyncio
async def test_what_an_owner_has_written_is_known_with_the_answer(tmp_path: Path) -> None:
    thread = Listener(tmp_path / "tasks.db")
    writer = WriteQueue(thread)
    await writer.start()
    first, second = writer.submit(created("a")), writer.submit(created("b"))
    writer._gathering.hand_over()
    handed = thread.inbox.get_nowait()
    assert handed is not None and [item.tree_id for item in handed] == ["a", "b"]
    assert writer.written["ann"] == 0

    outcomes = [(handed[0].future, None, None), (handed[1].future, None, StorageError("no"))]
    writer.settle(outcomes, 1, {"ann": 100})

    assert writer.written["ann"] == 100
    assert first.done() and await first is None
    with pytest.raises(StorageError, match="no"):
        await second
    later = writer.submit(created("c"))
    writer._gathering.hand_over()
    told = thread.inbox.get_nowait()
    assert told is not None and told[0].failures_known == 1
    writer.ended()
    await writer.close()
    with pytest.raises(StorageUnavailable, match="closed"):
        await writer.submit(created("d"))
    later.cancel()


@pytest.mark.asyncio
async def test_an_answer_to_a_caller_who_has_gone_is_no_error(tmp_path: Path) -> None:
    thread = Listener(tmp_path / "tasks.db")
    writer = WriteQueue(thread)
    await writer.start()
    gone = writer.submit(created("a"))
    gone.cancel()
    writer.settle([(gone, None, None)], 0, {})
    writer.ended()
    writer.ended()
    await asyncio.wait_for(writer.close(), 1)
    assert gone.cancelled()
