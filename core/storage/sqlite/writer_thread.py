"""The single writer of a SQLite database: one thread with the only writing connection, and group commit.

The event loop (`write_queue`) touches nothing of it: writes come through the inbox, and answers go by
`call_soon_threadsafe`. Whatever waits goes into one transaction, and futures resolve after its COMMIT. Where that is
more than a transaction of about 50 ms takes, owners take turns (`backlog`). A batch in which something is refused is
rolled back and written again item by item, each in a savepoint: only the guilty fail.
"""

import asyncio
import logging
import os
import queue
import sqlite3
import threading
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, exc
from sqlalchemy.pool import NullPool

from core.model.errors import CoreError, DatabaseLost, StorageError, StorageUnavailable, VersionConflict
from core.model.task import TreeHead
from core.storage import codec, writes
from core.storage.backlog import Backlog
from core.storage.base import Append
from core.storage.batch import Batch, RowsMissed
from core.storage.sqlite.commit_marker import NUMBERS, CommitMarker
from core.storage.sqlite.guard import Guard
from core.storage.sqlite.statements import write as write_rows
from core.storage.writes import Answers, Job, Outcome, Rows, Write, is_one_batch, next_batch, refused

logger = logging.getLogger(__name__)

CHECKPOINT_PAGES = 4_000  # 16 MiB: its syncs and the pages that it writes are shared by some hundred commits
IDLE_SECONDS = 1.0
LONG_LOG = 2 * CHECKPOINT_PAGES  # a log of so many pages begins anew: while reads overlap, SQLite lets it grow instead
PATIENCE = 50  # milliseconds that it waits for readers then
ALARM_PAGES = 16_384  # 64 MiB of log that readers keep from being reused
EXIT_CODE = 70  # EX_SOFTWARE: what was synced is not known any more, so the process must not go on (PostgreSQL's rule)
# What is on the disk is not known after these: as for a COMMIT, the next process begins from what it finds there.
UNSYNCED = frozenset({sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC})

BUSY_TIMEOUT = "PRAGMA busy_timeout=5000"  # milliseconds
PRAGMAS = (
    BUSY_TIMEOUT,
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",  # NORMAL loses acknowledged commits when the power fails
    "PRAGMA foreign_keys=ON",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA wal_autocheckpoint=0",  # the writer checkpoints after it has answered
)


CONFLICTS = (sqlite3.IntegrityError, exc.IntegrityError)
# What a value that is no JSON, or no value of its column, makes of a write.
UNSTORABLE = (
    *writes.UNSTORABLE,
    sqlite3.DataError, sqlite3.InterfaceError, sqlite3.ProgrammingError,
    exc.DataError, exc.InterfaceError, exc.ProgrammingError,
)  # fmt: skip
REFUSALS = (CoreError, *CONFLICTS, *UNSTORABLE)
# Jobs go through SQLAlchemy; the writer's own statements, some six a commit, straight to the driver (decision 0010).
DATABASE_ERRORS = (sqlite3.Error, exc.DBAPIError)


class WriterThread:
    """Makes durable, in order, what comes through its inbox, as far as the guard lets it.

    `exit_process` ends the process after an I/O error of a COMMIT, and when the thread breaks off.
    """

    def __init__(
        self, path: Path, *, exit_process: Callable[[int], None] = os._exit, guard: Guard | None = None
    ) -> None:
        self._path = path
        self._exit = exit_process
        self._guard = guard or Guard(path)
        self.inbox: queue.SimpleQueue[list[Write] | None] = queue.SimpleQueue()
        self._is_abandoned = False  # the event loop is gone, and nobody is to be answered
        self._rows = Rows()  # of what waits, as far as they are made
        self._backlog: Backlog[Write] = Backlog(self._rows.weigh)
        self._failed: dict[str, int] = {}  # tree -> number of its latest failed append
        self._failures = 0
        self._sizes: defaultdict[str, int] = defaultdict(int)  # owner -> bytes of events and tasks not told yet
        self._stored: dict[str, TreeHead] = {}
        self._log_pages = 0
        self._number = 0  # of the last commit with a job
        self._has_job = False  # the open transaction
        self._last: TreeHead | None = None  # of the last append in it
        self._commit_marker = CommitMarker(path)

    # --- for its owner

    def start(self, answers: Answers) -> None:
        """Begin to write what comes through `inbox`, up to None. Called on the event loop that is to be answered."""
        self._answers = answers
        self._loop = asyncio.get_running_loop()
        # A daemon: a program that ends without close() must not hang; what was not acknowledged may be lost.
        self._thread = threading.Thread(target=self._run, name="storage-writer", daemon=True)
        self._thread.start()

    def abandon(self) -> None:
        """End it without the event loop, and wait for that."""
        self._is_abandoned = True
        self.inbox.put(None)
        self._thread.join()

    # --- in the thread

    def _call(self, callback: Callable[..., None], *args: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            if not self._is_abandoned:
                logger.warning("the event loop of %s was closed before its storage", self._path)

    def _answer(self, outcomes: list[Outcome]) -> None:
        sizes, self._sizes = self._sizes, defaultdict(int)
        self._call(self._answers.settle, outcomes, self._failures, sizes)

    def _run(self) -> None:
        try:
            connection = self._open()
        except DATABASE_ERRORS as error:
            message = f"The database {self._path} cannot be opened: {_original(error)}"
            self._call(self._answers.started, StorageError(message))
            self._call(self._answers.ended)
            return
        self._connection = connection
        self._call(self._answers.started, None)
        is_over = False
        try:
            while items := self._take():
                outcomes = self._write(items)
                if self._rows.making:
                    self._rows.forget(items)
                self._answer(outcomes)
                self._checkpoint_if_due()
            self._checkpoint("TRUNCATE")
            is_over = True
        finally:
            if not is_over:  # whatever it was: nobody would be answered any more
                logger.critical("the writer of %s has broken off; ending the process", self._path, exc_info=True)
                self._exit(EXIT_CODE)
            connection.close()
            self._commit_marker.close()
            self._call(self._answers.ended)

    def _open(self) -> Connection:
        connection = create_engine("sqlite://", creator=self._connect, poolclass=NullPool).connect()
        try:
            self._driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
            for pragma in PRAGMAS:
                self._driver.execute(pragma)
            (self._number,) = self._driver.execute("PRAGMA user_version").fetchone()
        except DATABASE_ERRORS:
            connection.close()  # here, in the thread that made it
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        # Transactions begin where this module says so; with None sqlite3 begins none by itself.
        return sqlite3.connect(self._path, isolation_level=None, cached_statements=256)

    def _take(self) -> list[Write]:
        """What waits, up to a batch; blocks until there is something. Empty at the end."""
        while (handed := self._handed()) is not None:
            if not self._backlog and is_one_batch(handed, self._rows):
                return handed
            for item in handed:
                self._backlog.add(item, *item.line)
            if batch := next_batch(self._backlog):
                return batch
        return []

    def _handed(self) -> list[Write] | None:
        """What has been handed over; blocks while nothing waits. None at the end."""
        handed: list[Write] | None = []
        while not handed and not self._backlog:
            try:
                is_awake = self._log_pages or self._guard.wants_looks
                handed = self.inbox.get(timeout=IDLE_SECONDS if is_awake else None)
            except queue.Empty:
                self._idle()
                continue
            if handed is None:
                return None
        items = list(handed or ())
        try:
            while (handed := self.inbox.get_nowait()) is not None:
                items += handed
            self.inbox.put(None)  # the end comes after what waits
        except queue.Empty:
            pass
        return items

    def _idle(self) -> None:
        """Nothing was written for a second: shorten the log, and see whether writes would succeed."""
        if self._guard.failure is not None:
            self._probe()
        self._guard.refusal()
        if self._log_pages:
            self._checkpoint("TRUNCATE")

    def _probe(self) -> None:
        """Write a page after a failure: nobody may come to try, since `readyz` tells them not to."""
        self._has_job, self._last = True, None
        try:
            self._driver.execute("BEGIN IMMEDIATE")
            self._commit()
        except DATABASE_ERRORS:
            self._failed_batch([], "")
        else:
            self._guard.failure = None

    def _write(self, items: list[Write]) -> list[Outcome]:
        """One transaction. Nothing of it is stored when the database cannot be written."""
        self._has_job = False
        self._last = None
        try:
            self._guard.require_file()
            self._driver.execute("BEGIN IMMEDIATE")
            try:
                outcomes = self._write_together(items)
            except REFUSALS:
                self._stored.clear()
                self._driver.execute("ROLLBACK")
                self._driver.execute("BEGIN IMMEDIATE")
                outcomes = self._write_apart(items)
            self._commit()
        except DatabaseLost as loss:
            if self._log_pages:  # the log's name may belong to another database now, to which it must not be applied
                self._checkpoint("TRUNCATE")
            return refused(items, loss)
        except DATABASE_ERRORS as error:
            logger.error("a batch of %d writes to %s failed: %s", len(items), self._path, _original(error))
            message = f"The database cannot be written at this moment ({_code_name(error)})"
            self._guard.failure = message
            return self._failed_batch(items, message)
        except Exception:  # the thread's boundary: whatever it is, callers must not wait for ever
            logger.exception("a batch of %d writes to %s failed", len(items), self._path)
            return self._failed_batch(items, "The database cannot be written at this moment")
        self._guard.failure = None
        return outcomes

    def _failed_batch(self, items: list[Write], message: str) -> list[Outcome]:
        self._stored.clear()
        if self._driver.in_transaction:  # SQLite ends it by itself after some errors
            self._driver.rollback()
        return refused(items, StorageUnavailable(message))

    def _commit(self) -> None:
        number = (self._number + self._has_job) % NUMBERS
        if self._has_job:
            self._driver.execute(f"PRAGMA user_version={number}")
        try:
            self._driver.execute("COMMIT")
        except sqlite3.Error as error:
            if _code(error) & 0xFF == sqlite3.SQLITE_IOERR:
                self._end_process("COMMIT", error)
            raise
        self._number = number
        if self._has_job or self._last is None:  # a job may have removed the tree
            self._commit_marker.note(number)
        else:
            self._commit_marker.note(number, self._last.id, self._last.version)

    def _end_process(self, step: str, error: Exception) -> None:
        logger.critical("%s on %s failed (%s); ending the process", step, self._path, _code_name(error))
        self._exit(EXIT_CODE)

    def _write_together(self, items: list[Write]) -> list[Outcome]:
        """All appends between two jobs as one set of rows; any refusal is raised."""
        if self._failed:
            self._compare_with_failures(items)
        outcomes: list[Outcome] = []
        appends: list[Append] = []
        for item in items:
            if isinstance(item.work, Append):
                appends.append(item.work)
                outcomes.append((item.future, None, None))
                continue
            if appends:
                self._write_batch(appends)
                appends = []
            outcomes.append((item.future, self._do(item.work), None))
            self._log_pages += 8
        if appends:
            self._write_batch(appends)
        return outcomes

    def _write_apart(self, items: list[Write]) -> list[Outcome]:
        """Each item in a savepoint of its own."""
        outcomes: list[Outcome] = []
        for item in items:
            self._driver.execute("SAVEPOINT item")
            try:
                result = self._write_one(item)
            except CONFLICTS:
                error: CoreError = VersionConflict(item.tree_id)
            except CoreError as refusal:
                error = VersionConflict(item.tree_id) if isinstance(refusal, RowsMissed) else refusal
            except UNSTORABLE as problem:
                logger.error("a write to %s cannot be stored: %s", self._path, problem)
                error = StorageError("A value cannot be stored: it is not JSON")
            else:
                self._driver.execute("RELEASE item")
                outcomes.append((item.future, result, None))
                continue
            self._driver.execute("ROLLBACK TO item")
            self._driver.execute("RELEASE item")
            outcomes.append((item.future, None, error))
            if isinstance(item.work, Append):
                self._failures += 1
                self._failed[item.work.head.id] = self._failures
        return outcomes

    def _compare_with_failures(self, items: list[Write]) -> None:
        """Rare. Raises RowsMissed where an item may have been decided on what is not so."""
        if not self._backlog and all(item.failures_known == self._failures for item in items):
            self._failed.clear()  # whatever comes from now on knows of all of them
        elif any(item.tree_id in self._failed for item in items):
            raise RowsMissed

    def _write_one(self, item: Write) -> Any:
        if not isinstance(item.work, Append):
            return self._do(item.work)
        tree_id = item.work.head.id
        # Made before its maker knew that an earlier append of the tree had failed: decided on what is not so.
        if item.failures_known < self._failed.get(tree_id, 0):
            raise VersionConflict(tree_id)
        self._write_batch([item.work])
        self._failed.pop(tree_id, None)  # what comes of this tree from now on knows of all failures
        return None

    def _do(self, job: Job) -> Any:
        self._has_job = True
        return job(self._connection)

    def _write_batch(self, appends: list[Append]) -> None:
        batch = Batch(appends, self._stored, self._rows if self._rows.making else codec)
        self._guard.require_room(batch.size, is_new=batch.is_new)
        rows = write_rows(batch.steps(), self._driver.execute, lambda: self._driver.total_changes)
        for owner, size in batch.sizes.items():
            self._sizes[owner] += size
        self._last = appends[-1].head
        # A guess, not a count: pages are shared by neighbouring rows. Only the rhythm of checkpoints hangs on it.
        self._log_pages += 8 + rows // 4
        # Of live trees, the bulk need not be written again.
        for tree_id, head in batch.heads.items():
            if head.is_live:
                self._stored[tree_id] = head
            else:
                self._stored.pop(tree_id, None)

    def _checkpoint_if_due(self) -> None:
        if self._log_pages >= CHECKPOINT_PAGES and self._checkpoint("PASSIVE") >= LONG_LOG:
            self._checkpoint("RESTART", patience=PATIENCE)

    def _checkpoint(self, mode: str, *, patience: int = 0) -> int:
        """Move the log into the database; the log's pages. It is no error when a reader is in the way for longer than
        `patience` (milliseconds), in which nothing is written: the next one goes on.
        """
        pages = moved = 0
        self._log_pages = 0
        try:
            self._driver.execute(f"PRAGMA busy_timeout={patience}")
            _, pages, moved = self._driver.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            if _code(error) in UNSYNCED:
                self._end_process("A checkpoint", error)
            logger.error("checkpoint of %s failed: %s", self._path, error)
        finally:
            self._driver.execute(BUSY_TIMEOUT)
        if pages - moved > ALARM_PAGES:
            logger.warning("%d pages of the log of %s wait for a reader to end", pages - moved, self._path)
        return int(pages)


def _original(error: Exception) -> BaseException:
    """The driver's own error, also of what SQLAlchemy raised because of it."""
    return (error.orig or error) if isinstance(error, exc.DBAPIError) else error


def _code(error: Exception) -> int:
    return getattr(_original(error), "sqlite_errorcode", 0)


def _code_name(error: Exception) -> str:
    return getattr(_original(error), "sqlite_errorname", "unknown")
