"""Loaded into a server process beside its executors: kills or breaks that process as SABOTAGE says.

The product knows nothing of it. SABOTAGE lists, separated by commas, points at which the process kills itself
(`after a commit:7`: when it passes there for the seventh time), bugs, with which a test shows that it can fail, and
leniencies: what the product means, and a test does not.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from alembic import command as alembic
from sqlalchemy import Engine, event

from a2a_server.edge.connection import Connection
from a2a_server.push.deliveries import Deliveries
from a2a_server.server import Server
from core.executors.function import executor
from core.model import decide as decide_module
from core.model import plan as plan_module
from core.model.commands import Cancel, CompleteTask
from core.model.timestamps import from_timestamp
from core.run.attempt import Attempt
from core.run.feed import Feed
from core.run.orchestrator import Orchestrator
from core.storage.base import Append
from core.storage.sqlite import migrate as migrate_module
from core.storage.sqlite import writer_thread as writer_module
from core.storage.sqlite.commit_marker import CommitMarker
from core.storage.sqlite.lock import DatabaseLock
from core.storage.sqlite.writer_thread import WriterThread

VARIABLE = "SABOTAGE"
SLOW_DISK = 0.3  # seconds: on a busy machine a client needs as long to hear what it is told
EFFECTS = ("effect", "effect_once")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Passages:
    """Counts how often a point is passed, and kills the process at the one that was asked for."""

    def __init__(self, fatal: int) -> None:
        self._fatal = fatal
        self._count = 0

    def __call__(self, kill: Callable[[], None] = die) -> None:
        self._count += 1
        if self._count == self._fatal:
            kill()


def wrap(owner: Any, name: str, before: Callable[..., None] | None, after: Callable[..., None] | None = None) -> None:
    """Let something happen before or after each call of a method, with its arguments."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **named: Any) -> Any:
        if before is not None:
            before(*args)
        result = original(*args, **named)
        if after is not None:
            after(*args)
        return result

    setattr(owner, name, wrapped)


# Points


def before_a_commit(passed: Passages) -> None:
    wrap(WriterThread, "_commit", lambda *_: passed())


def after_a_commit(passed: Passages) -> None:
    """Durable, and nobody has been told."""
    wrap(WriterThread, "_commit", None, lambda *_: passed())


def between_a_commit_and_its_note(passed: Passages) -> None:
    wrap(CommitMarker, "note", lambda *_: passed())


def in_a_checkpoint(passed: Passages) -> None:
    writer_module.CHECKPOINT_PAGES = 50
    wrap(WriterThread, "_checkpoint", lambda *_: passed(threading.Timer(0.0005, die).start))


def after_an_effect(passed: Passages) -> None:
    """The executor has done it, and its end is not stored."""

    def before(orchestrator: Orchestrator, tree_id: str, command: Any, *_: Any) -> None:
        tree = orchestrator.trees.by_id.get(tree_id)
        task = tree.tasks[command.task_id] if isinstance(command, CompleteTask) and tree is not None else None
        if task is not None and task.executor in EFFECTS:
            passed()

    wrap(Orchestrator, "handle", before)


def in_a_cancel(passed: Passages) -> None:
    """Odd passages: before it is decided; even ones: when it is durable, before it is answered."""
    original = Orchestrator.handle

    async def handle(self: Orchestrator, tree_id: str, command: Any, *args: Any) -> Any:
        if not isinstance(command, Cancel):
            return await original(self, tree_id, command, *args)
        passed()
        decision = await original(self, tree_id, command, *args)
        passed()
        return decision

    Orchestrator.handle = handle  # type: ignore[method-assign]


def in_a_migration(passed: Passages) -> None:
    def before(*_: Any) -> None:
        event.listen(Engine, "before_cursor_execute", lambda *_: passed())

    wrap(alembic, "upgrade", before)
    wrap(migrate_module, "_create", before)


def in_the_outbox(passed: Passages) -> None:
    """Delivered, and how far the receiver has come is not stored."""
    wrap(Deliveries, "_keep", lambda *_: passed())


# Bugs


def acknowledge_early() -> None:
    """Callers are told before the COMMIT, and the disk is slow."""
    original = WriterThread._write

    def write(self: WriterThread, items: list[Any]) -> list[Any]:
        if not all(isinstance(item.work, Append) for item in items):
            return original(self, items)
        self._answer([(item.future, None, None) for item in items])
        threading.Event().wait(SLOW_DISK)
        original(self, items)
        return []

    WriterThread._write = write  # type: ignore[method-assign]


def forget_deadlines() -> None:
    """Connections as uvicorn's own."""
    Connection.enforce = lambda self: None  # type: ignore[method-assign]


def skip_an_event() -> None:
    """Who resumes misses one."""
    original = Feed.follow
    Feed.follow = lambda self, tree_id, after=0: original(self, tree_id, after + 1)  # type: ignore[method-assign]


def go_on_after_a_cancel() -> None:
    """The task is told to be cancelled, and its executor is not."""
    Attempt.stop = lambda self: None  # type: ignore[method-assign]


def end_at_once() -> None:
    """No drain: whatever is under way is broken off."""

    def handle_exit(self: Server, sig: int, frame: FrameType | None) -> None:
        os._exit(0)

    Server.handle_exit = handle_exit  # type: ignore[method-assign]


def wait_for_no_lock() -> None:
    """A database that another process holds is an error at once."""
    writer_module.BUSY_TIMEOUT = "PRAGMA busy_timeout=0"
    writer_module.PRAGMAS = (writer_module.BUSY_TIMEOUT, *writer_module.PRAGMAS[1:])


def share_the_file() -> None:
    """Two servers may have the same database."""
    DatabaseLock.acquire = lambda self: None  # type: ignore[method-assign]


# Leniency


def find_no_poison() -> None:
    """A task that happens to be at work in five kills, of ten that are no fault of its, is not blamed."""
    decide_module.MAX_CRASHES = 1_000


def believe_deadlines() -> None:
    """A deadline that is no timestamp is nobody's business, until something raises."""
    plan_module.deadline_of = lambda text, path, problems: from_timestamp(text)


POINTS: dict[str, Callable[[Passages], None]] = {
    each.__name__.replace("_", " "): each
    for each in (
        before_a_commit, after_a_commit, between_a_commit_and_its_note, in_a_checkpoint, after_an_effect, in_a_cancel,
        in_a_migration, in_the_outbox,
    )
}  # fmt: skip
BUGS: dict[str, Callable[[], None]] = {
    each.__name__.replace("_", " "): each
    for each in (
        acknowledge_early,
        forget_deadlines,
        skip_an_event,
        go_on_after_a_cancel,
        end_at_once,
        believe_deadlines,
        wait_for_no_lock,
        share_the_file,
    )
}
LENIENCIES = {"find no poison": find_no_poison}


@executor(is_skill=False)
def sabotage() -> None:
    """A file that is given to `serve` registers something."""


for entry in filter(None, os.environ.get(VARIABLE, "").split(",")):
    point, _, passage = entry.partition(":")
    if passage:
        POINTS[point](Passages(int(passage)))
    else:
        (BUGS | LENIENCIES)[point]()
