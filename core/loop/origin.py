"""Which attempt or caller something runs for: also the tasks, callbacks and threads that it starts."""

from asyncio import Handle
from collections.abc import Iterator
from contextvars import Context, ContextVar
from types import FrameType, TracebackType

from msgspec import Struct


class Origin(Struct, frozen=True):
    """One attempt, by name."""

    tree_id: str
    task_id: str
    attempt: int
    executor: str

    def __str__(self) -> str:
        return f"attempt {self.attempt} of task {self.task_id} (executor {self.executor})"


# Set in every attempt's job; whatever is started from there inherits it.
ORIGIN: ContextVar[Origin | None] = ContextVar("origin", default=None)
# Set in every request: the owner in whose name storage is read; empty for what the process reads for itself.
CALLER: ContextVar[str] = ContextVar("caller", default="")


def callers(frame: FrameType | None) -> Iterator[FrameType]:
    """The frame, what called it, and so on outwards."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def origin_of(frame: FrameType) -> Origin | None:
    """The attempt for which the event loop runs the callback that this is a frame of."""
    handle = callback_of(frame)
    if handle is None:
        return None
    context: Context = handle._context  # type: ignore[attr-defined]  # typeshed leaves it out
    return context.get(ORIGIN)


def callback_of(frame: FrameType) -> Handle | None:
    """The callback of the event loop that is running there; None where none is."""
    for each in callers(frame):
        if each.f_code is Handle._run.__code__:
            handle: Handle = each.f_locals["self"]
            return handle
    return None


def origin_of_traceback(traceback: TracebackType | None) -> Origin | None:
    """The attempt for which the code ran that raised an error, as its traceback tells."""
    while traceback is not None:
        if traceback.tb_frame.f_code is Handle._run.__code__:
            return origin_of(traceback.tb_frame)
        traceback = traceback.tb_next
    return None
