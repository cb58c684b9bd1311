"""What only a whole program may raise, wherever an executor's code raises it: its attempt fails, the server goes on."""

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from a2a_server.process.containment import Containment
from core.executors.base import TaskContext
from core.executors.function import executor
from core.executors.registry import ExecutorRegistry
from core.model.task import Task, TaskStatus
from core.session import Session, has_ended
from core.storage.memory import MemoryStorage
from tests.core.cores import begin, item, tasks_of


def leave(error: type[BaseException]) -> None:
    raise error("3")


async def _leave(error: type[BaseException]) -> None:
    leave(error)


async def _gathered(error: type[BaseException]) -> None:
    await asyncio.gather(_leave(error), asyncio.Event().wait())


async def _in_a_group(error: type[BaseException]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_leave(error))


async def _waited_for(error: type[BaseException]) -> None:
    await asyncio.wait_for(_leave(error), 30)


async def _beside(error: type[BaseException]) -> None:
    asyncio.create_task(_leave(error)).add_done_callback(lambda task: task.exception())  # seen
    await asyncio.Event().wait()


async def _called_back(error: type[BaseException]) -> None:
    asyncio.get_running_loop().call_soon(leave, error)
    await asyncio.Event().wait()


async def _called_later(error: type[BaseException]) -> None:
    asyncio.get_running_loop().call_later(0.001, leave, error)
    await asyncio.Event().wait()


async def _when_done(error: type[BaseException]) -> None:
    future = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: leave(error))
    future.set_result(None)
    await asyncio.Event().wait()


async def _from_a_thread(error: type[BaseException]) -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(loop.call_soon_threadsafe, leave, error)
    await asyncio.Event().wait()


async def _in_a_thread(error: type[BaseException]) -> None:
    await asyncio.to_thread(leave, error)


WAYS = (
    _leave,
    _gathered,
    _in_a_group,
    _waited_for,
    _beside,
    _called_back,
    _called_later,
    _when_done,
    _from_a_thread,
    _in_a_thread,
)


def contained(work: Callable[..., Any], **fields: Any) -> tuple[Task, Task]:
    """Run a task of this executor beside one that waits for its end; both as they ended."""
    registry = ExecutorRegistry()
    executor("leaves", registry=registry)(work)
    over = threading.Event()

    @executor("neighbour", registry=registry)
    def neighbour() -> str:
        assert over.wait(30)
        return "undisturbed"

    containment = Containment()

    async def main() -> tuple[Task, Task]:
        async with Session(MemoryStorage(), registry=registry) as session:
            containment.break_off = session.runner.attempts.break_off
            beside = await begin(session, item("b", "neighbour"))
            head = await begin(session, item("a", "leaves", **fields))
            await session.wait(head.id, has_ended)
            over.set()
            await session.wait(beside.id, has_ended)
            return (await tasks_of(session, head.id))["a"], (await tasks_of(session, beside.id))["b"]

    return containment.run(main())


# A GeneratorExit of what its executor does not wait for is asyncio's own affair: it logs it, and the attempt goes on.
CASES = [
    *((way, error) for way in WAYS for error in (SystemExit, KeyboardInterrupt)),
    *((way, GeneratorExit) for way in (_leave, _gathered, _in_a_group, _waited_for, _in_a_thread)),
]


@pytest.mark.parametrize(("way", "error"), CASES)
def test_it_ends_its_attempt_and_nothing_else(way: Callable[..., Any], error: type[BaseException]) -> None:
    """Found from outside: sys.exit() in a gathered coroutine or a callback ended the server."""

    async def work(inputs: dict[str, Any], context: TaskContext) -> None:
        await way(error)

    ended, beside = contained(work)
    assert ended.status is TaskStatus.FAILED and ended.error
    assert beside.result == "undisturbed"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_plain_function_ends_its_attempt(error: type[BaseException]) -> None:
    ended, beside = contained(lambda: leave(error))
    assert ended.error is not None
    assert ended.error.startswith(f"the executor raised {error.__name__}: 3 (test_containment.py:")
    assert beside.result == "undisturbed"


def test_it_is_tried_again_as_its_task_says_and_the_log_names_it(caplog: pytest.LogCaptureFixture) -> None:
    async def work(inputs: dict[str, Any], context: TaskContext) -> str:
        if context.attempt == 1:
            await _beside(SystemExit)
        return f"attempt {context.attempt}"

    ended, _ = contained(work, max_attempts=2, retry={"initial": 0.01})
    assert ended.result == "attempt 2"
    assert f"code of attempt 1 of task {ended.id} (executor leaves) raised SystemExit" in caplog.text


def test_a_cancel_method_that_exits_does_not_keep_its_attempt_from_ending() -> None:
    class Work:
        async def execute(self, inputs: dict[str, Any], context: TaskContext) -> None:
            await asyncio.Event().wait()

        def cancel(self) -> None:
            sys.exit(3)

    ended, beside = contained(Work, timeout=0.05)
    assert ended.error == "timed out after 0.05 s"
    assert beside.result == "undisturbed"


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_is_no_attempt_s_doing_is_raised(error: type[BaseException]) -> None:
    containment = Containment()
    containment.break_off = lambda origin, told: pytest.fail("there is no attempt")
    with pytest.raises(error):
        containment.run(_leave(error))


def test_without_attempts_it_runs_as_usual() -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        return 7

    assert Containment().run(main()) == 7
    with pytest.raises(ZeroDivisionError):
        Containment().run(_leave(ZeroDivisionError))
