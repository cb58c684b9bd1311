"""Who holds the event loop is told in the log, with its stack."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from a2a_server.process.watchdog import DEPTH, REPORT_EVERY, Watchdog
from core.executors.base import TaskContext
from core.executors.function import executor
from core.executors.registry import ExecutorRegistry
from core.session import Session
from core.storage.memory import MemoryStorage
from tests.core.cores import finish, item

LONGEST = 0.05  # seconds


class Heard(logging.Handler):
    """The watchdog's reports; `count` of them are waited for."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[tuple[int, str]] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.said.append((record.levelno, record.getMessage()))
            self._changed.notify_all()

    def wait_for(self, part: str) -> str:
        """Block until such a report has come; in place of a sleep, so that a test holds its loop as long as needed."""
        with self._changed:
            assert self._changed.wait_for(lambda: any(part in text for _, text in self.said), 30), self.said
            return next(text for _, text in self.said if part in text)


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, logger = Heard(), logging.getLogger("a2a_server.process.watchdog")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.mark.asyncio
async def test_an_executor_that_holds_the_loop_is_named_with_its_stack(heard: Heard) -> None:
    """Found from outside: a blocked event loop left no trace in the log."""
    registry = ExecutorRegistry()

    @executor("block", registry=registry)
    async def block(inputs: dict[str, Any], context: TaskContext) -> str:
        return heard.wait_for("has blocked the event loop")

    async with Session(MemoryStorage(), registry=registry) as session:
        with Watchdog(LONGEST):
            task = (await finish(session, item("a", "block")))["a"]
            assert task.result.startswith(
                f"attempt 1 of task {task.id} (executor block) has blocked the event loop and "
            )
            assert "wait_for (test_watchdog.py:" in task.result and "block (test_watchdog.py:" in task.result
            assert task.result.count(" < ") < DEPTH
            await asyncio.to_thread(heard.wait_for, "the event loop was blocked for")


@pytest.mark.asyncio
async def test_a_request_that_holds_the_loop_is_named(heard: Heard) -> None:
    async def app(scope: dict[str, Any]) -> None:
        heard.wait_for("has blocked the event loop")

    with Watchdog(LONGEST):
        await app({"type": "http", "method": "POST", "path": "/message:send"})
    assert heard.said[0][1].startswith("a request (POST /message:send) has blocked the event loop")


@pytest.mark.asyncio
async def test_the_server_s_own_work_is_named_as_such(heard: Heard) -> None:
    with Watchdog(LONGEST):
        heard.wait_for("has blocked the event loop")
    assert heard.said[0][1].startswith("the server has blocked the event loop")


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.mark.asyncio
async def test_reports_come_now_and_then_and_count_what_they_leave_out(heard: Heard) -> None:
    now = Now()
    watchdog = Watchdog(LONGEST, now)
    counts: list[int] = []
    watchdog._look()
    for later in (0.1, REPORT_EVERY - 1, REPORT_EVERY + 1):
        now.time = 100.0 + later
        watchdog._look()
        counts.append(len(heard.said))
    assert counts == [1, 1, 2]
    assert "so did 2 callbacks since the last report" in heard.said[1][1]


@pytest.mark.parametrize("longest", [0, LONGEST])
@pytest.mark.asyncio
async def test_what_takes_no_time_is_not_told_and_when_it_is_off_nothing_runs(longest: float, heard: Heard) -> None:
    before = threading.active_count()
    with Watchdog(longest):
        assert threading.active_count() == before + bool(longest)
        await asyncio.sleep(0)
    assert not [text for level, text in heard.said if level >= logging.INFO]


def test_a_loop_that_only_waits_is_not_held(heard: Heard) -> None:
    """Where no callback runs, another process has the processor, or the loop has nothing to do."""
    watchdog: list[Watchdog] = []

    async def make() -> None:
        watchdog.append(Watchdog(LONGEST))

    asyncio.run(make())
    assert not watchdog[0]._look()
    assert [level for level, _ in heard.said] == [logging.DEBUG]
