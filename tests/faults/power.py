"""A disk that forgets at a power cut what was not synced, under the real writer: an apsw VFS behind SQLAlchemy.

Every write of SQLite goes to a real file and into a record of what is durable: at a cut, each write since the file's
last sync is on the disk or not, as chance wants it, and in a torn cut each of its sectors.
A disk may also fail: see `Disk.fault`.
"""

import os
import random
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from core.storage.sqlite.commit_marker import marker_path
from core.storage.sqlite.writer_thread import WriterThread

SECTOR = 512
VFS = "power"


@dataclass(slots=True)
class File:
    """One file: what a power cut leaves for certain, and what it may leave."""

    durable: bytearray
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (size, None): truncated

    def sync(self) -> None:
        for offset, data in self.pending:
            _write(self.durable, offset, data)
        self.pending.clear()


def _write(image: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del image[offset:]
        return
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset : offset + len(data)] = data


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The disk at one moment, and the appends (tree, version) that had been acknowledged by then."""

    files: dict[str, File]
    acknowledged: tuple[tuple[str, int], ...]

    def restore(self, folder: Path, chance: random.Random, *, torn: bool) -> None:
        """Write into a new folder what the disk holds after the cut."""
        folder.mkdir()
        for name, file in self.files.items():
            image = bytearray(file.durable)
            for offset, data in file.pending:
                for piece_at, piece in _pieces(offset, data) if torn else [(offset, data)]:
                    if chance.random() < 0.5:
                        _write(image, piece_at, piece)
            (folder / name).write_bytes(image)


def _pieces(offset: int, data: bytes | None) -> Iterator[tuple[int, bytes | None]]:
    if data is None:
        yield offset, None
        return
    for start in range(0, len(data), SECTOR):
        yield offset + start, data[start : start + SECTOR]


class Disk:
    """Records what happens to the files; `cut_at` are the operations (by number) before which the power may go."""

    def __init__(self, cut_at: Iterable[int]) -> None:
        self.files: dict[str, File] = {}
        self.operations = 0
        self.syncs = 0
        self.note: Path | None = None
        self.acknowledged: list[tuple[str, int]] = []
        self.cuts: list[Cut] = []
        self._cut_at = set(cut_at)

    def fault(self, operation: str) -> int | None:
        """The error of SQLite with which this "read", "write" or "sync" ends; None when the disk does it."""
        return None

    def operate(self) -> None:
        """An operation is about to happen."""
        self.operations += 1
        if self.operations in self._cut_at:
            files = {name: File(bytearray(file.durable), list(file.pending)) for name, file in self.files.items()}
            if self.note is not None and self.note.exists():
                # Never synced, so it may be on the disk or not; when it is, it must not be ahead of the database.
                files[self.note.name] = File(bytearray(self.note.read_bytes()))
            self.cuts.append(Cut(files=files, acknowledged=tuple(self.acknowledged)))


class _PowerFile(apsw.VFSFile):
    def __init__(self, disk: Disk, filename: Any, flags: list[int]) -> None:
        super().__init__("", filename, flags)
        path = Path(filename.filename() if isinstance(filename, apsw.URIFilename) else filename)
        self._disk = disk
        self._file = disk.files.setdefault(path.name, File(bytearray(path.read_bytes() if path.exists() else b"")))

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.operate()
        fault = self._disk.fault("write")
        written = bytes(data) if fault is None else bytes(data)[: len(data) // 2]  # a failing write is a short one
        super().xWrite(written, offset)
        self._file.pending.append((offset, written))
        _fail(fault)

    def xRead(self, amount: int, offset: int) -> bytes:
        _fail(self._disk.fault("read"))
        return super().xRead(amount, offset)

    def xTruncate(self, newsize: int) -> None:
        self._disk.operate()
        super().xTruncate(newsize)
        self._file.pending.append((newsize, None))

    def xSync(self, flags: int) -> None:
        self._disk.operate()
        self._disk.syncs += 1
        _fail(self._disk.fault("sync"))
        self._file.sync()


def _fail(fault: int | None) -> None:
    if fault is not None:
        raise apsw.exception_for(fault)


class PowerVfs(apsw.VFS):
    """Keep it alive as long as its connections."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(VFS, "")

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        return _PowerFile(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self._disk.operate()
        super().xDelete(filename, syncdir)
        self._disk.files.pop(Path(filename).name, None)


class PoweredWriter(WriterThread):
    """The real writer over that disk. What it acknowledges is noted before anybody hears of it."""

    def __init__(self, path: Path, disk: Disk, exit_process: Callable[[int], None] = os._exit) -> None:
        super().__init__(path, exit_process=exit_process)
        self._disk = disk
        disk.note = marker_path(path)

    def _connect(self) -> Any:
        connection = apsw.Connection(str(self._path), vfs=VFS)
        # Without it WAL wants shared memory, which an apsw VFS does not have. It changes nothing of what is synced.
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        return _Connection(connection)

    def _write(self, items: Any) -> Any:
        outcomes = super()._write(items)
        for item, (_, _, error) in zip(items, outcomes, strict=True):
            if error is None:
                self._disk.acknowledged.append((item.work.head.id, item.work.head.version))
        return outcomes


# As much of DB-API 2.0 as SQLAlchemy's SQLite dialect and the writer ask for, over apsw.


def _translated(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except apsw.Error as error:
        kind = sqlite3.IntegrityError if isinstance(error, apsw.ConstraintError) else sqlite3.OperationalError
        translated = kind(str(error))
        translated.sqlite_errorcode = error.extendedresult
        translated.sqlite_errorname = type(error).__name__
        raise translated from error


class _Connection:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    @property
    def total_changes(self) -> int:
        return self._connection.total_changes()

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def create_function(self, name: str, narg: int, func: Any, *, deterministic: bool = False) -> None:
        self._connection.create_scalar_function(name, func, narg, deterministic=deterministic)

    def cursor(self) -> "_Cursor":
        return _Cursor(self._connection)

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> "_Cursor":
        return self.cursor().execute(sql, parameters)

    def commit(self) -> None:
        if self.in_transaction:
            _translated(lambda: self._connection.execute("COMMIT"))

    def rollback(self) -> None:
        if self.in_transaction:
            _translated(lambda: self._connection.execute("ROLLBACK"))

    def close(self) -> None:
        self._connection.close()


class _Cursor:
    arraysize = 1
    lastrowid = None

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self.description: Any = None
        self.rowcount = -1

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> "_Cursor":
        columns: list[Any] = []

        def begun(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
            # The only moment at which apsw tells the columns of a statement without rows.
            columns.extend((name, None, None, None, None, None, None) for name, _ in cursor.get_description())
            return True

        self._cursor.exec_trace = begun
        _translated(lambda: self._cursor.execute(sql, parameters))
        self.description = columns or None
        self.rowcount = self._connection.changes()
        return self

    def fetchone(self) -> Any:
        return _translated(self._cursor.fetchone)

    def fetchall(self) -> list[Any]:
        return list(_translated(self._cursor.fetchall))

    def fetchmany(self, size: int = 1) -> list[Any]:
        rows = (self.fetchone() for _ in range(size))
        return [row for row in rows if row is not None]

    def close(self) -> None:
        self._cursor.close()
