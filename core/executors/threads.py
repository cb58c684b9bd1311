"""Plain functions in threads: a pool of the executors' own, and the context as a thread sees it.

The event loop's default pool is left to the server's own work, and the threads are daemons: a function that never
returns cannot keep the process from ending.
"""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from queue import SimpleQueue
from typing import Any

from core.executors.base import TaskContext
from core.executors.process_worker import text_of
from core.executors.raised import ForeignError
from core.model.task import Task

LOOP_SIGNALS = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, CancelledError, asyncio.CancelledError)


class ExecutorExit(ForeignError):
    """An executor ended in a way that only a whole program may, such as by `sys.exit()`."""


def contained(error: BaseException) -> BaseException:
    """The error as it may pass into the event loop: a SystemExit would end it, a StopIteration hang it.

    A CancelledError would look like a cancellation that was not requested.
    """
    if isinstance(error, LOOP_SIGNALS):
        return ExecutorExit(exit_text(error), type(error).__name__)
    return error


def exit_text(error: BaseException) -> str:
    """What is said of an exception that may end a whole program only."""
    return f"the executor raised {text_of(error)}"


class ThreadPool:
    """Daemon threads, made when they are needed and used again. The runner says how many calls there may be."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew. In a forked child, which has none of its parent's threads, nor what waits for them."""
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._lock = threading.Lock()
        self._unclaimed = 0  # threads without a call, less the calls that wait for one

    def start(self, call: Callable[[], Any]) -> Future[Any]:
        """Run the call in a thread; its outcome. A call that has begun cannot be stopped.

        Raises RuntimeError when the system gives no more threads.
        """
        context = contextvars.copy_context()
        future: Future[Any] = Future()
        self._calls.put((future, lambda: context.run(call)))
        with self._lock:
            is_short = self._unclaimed <= 0
            self._unclaimed -= not is_short
        if is_short:
            try:
                threading.Thread(target=self._work, name="executor", daemon=True).start()
            except RuntimeError:  # the system has no more; whichever thread finds the call must leave it
                future.cancel()
                raise
        return future

    def _work(self) -> None:
        while True:
            future, call = self._calls.get()
            tell = _tell_of(future, call) if future.set_running_or_notify_cancel() else None
            with self._lock:  # before anybody hears of the end: a call that follows from it finds this thread free
                self._unclaimed += 1
            if tell is not None:
                tell()
            del future, call, tell  # an idle thread must keep nothing alive


def _tell_of(future: Future[Any], call: Callable[[], Any]) -> Callable[[], None]:
    """Make the call; what tells the future how it ended."""
    try:
        return partial(future.set_result, call())
    except BaseException as error:  # noqa: BLE001 - it is raised where the call is awaited
        return partial(future.set_exception, contained(error))


class ThreadContext:
    """A plain function's view of its task. Each method returns when what it says is stored.

    Where the function turns out to give a coroutine, that runs in the event loop, and awaits what the methods return.
    """

    def __init__(self, context: TaskContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()

    @property
    def task(self) -> Task:
        return self._context.task

    @property
    def task_id(self) -> str:
        return self._context.task_id

    @property
    def run(self) -> int:
        return self._context.run

    @property
    def attempt(self) -> int:
        return self._context.attempt

    @property
    def idempotency_key(self) -> str:
        return self._context.idempotency_key

    @property
    def dependencies(self) -> Mapping[str, Any]:
        return self._context.dependencies

    @property
    def absent(self) -> tuple[str, ...]:
        return self._context.absent

    @property
    def request(self) -> Mapping[str, Any]:
        return self._context.request

    @property
    def extensions(self) -> tuple[str, ...]:
        return self._context.extensions

    @property
    def answer_message(self) -> dict[str, Any] | None:
        return self._context.answer_message

    @property
    def context_id(self) -> str | None:
        return self._context.context_id

    @property
    def cancelled(self) -> bool:
        """Whether this attempt should stop. A thread cannot be stopped from outside: check this now and then."""
        return self._context.cancelled

    @property
    def cancel_metadata(self) -> Mapping[str, Any]:
        """What came with the cancel that is to stop it."""
        return self._context.cancel_metadata

    def progress(self, fraction: float, message: str | None = None) -> Any:
        """See TaskContext.progress."""
        return self._wait(self._context.progress(fraction, message))

    def message(self, content: Any, *, metadata: dict[str, Any] | None = None, extensions: Sequence[str] = ()) -> Any:
        """See TaskContext.message."""
        return self._wait(self._context.message(content, metadata=metadata, extensions=extensions))

    def reply(self, content: Any, *, metadata: dict[str, Any] | None = None, extensions: Sequence[str] = ()) -> Any:
        """See TaskContext.reply."""
        return self._wait(self._context.reply(content, metadata=metadata, extensions=extensions))

    def artifact(
        self,
        content: Any,
        *,
        append: bool | None = None,
        last_chunk: bool = False,
        artifact_id: str | None = None,
        name: str | None = None,
        description: str | None = None,
        metadata: dict[str, Any] | None = None,
        extensions: Sequence[str] = (),
    ) -> Any:
        """See TaskContext.artifact."""
        return self._wait(
            self._context.artifact(
                content,
                append=append,
                last_chunk=last_chunk,
                artifact_id=artifact_id,
                name=name,
                description=description,
                metadata=metadata,
                extensions=extensions,
            )
        )

    def read_file(self, part: Mapping[str, Any]) -> Any:
        """See TaskContext.read_file."""
        return self._wait(self._context.read_file(part))

    def ask(
        self,
        question: Any,
        *,
        auth: bool = False,
        metadata: dict[str, Any] | None = None,
        extensions: Sequence[str] = (),
    ) -> Any:
        """See TaskContext.ask."""
        return self._wait(self._ask(question, auth, metadata, extensions))

    async def _ask(self, question: Any, auth: bool, metadata: dict[str, Any] | None, extensions: Sequence[str]) -> Any:
        return self._context.ask_from(question, auth, metadata, extensions, in_order=True)

    def _wait(self, said: Coroutine[Any, Any, Any]) -> Any:
        """What comes of it. In the event loop's own thread, where nothing may wait, that is to be awaited."""
        if asyncio._get_running_loop() is self._loop:
            return said
        try:
            return asyncio.run_coroutine_threadsafe(said, self._loop).result()
        except RuntimeError:
            said.close()  # the loop is closed: the server has gone without this thread
            raise
