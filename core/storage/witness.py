"""How many commits a database has had, noted beside it: a log that lost its end is found out at the next start.

SQLite takes its log up to the first frame that does not match its checksum, and cannot tell damage there from a commit
that a power cut left unfinished: acknowledged commits would be gone without a word. Each commit is numbered in the
database (`user_version`), and the number is noted here before the commit is acknowledged. The note is never synced, so
after a power cut it may be older than the database, but never newer: only lost commits make it newer.
"""

import os
import struct
from contextlib import suppress
from pathlib import Path
from zlib import crc32

NUMBERS = 2**31  # of commits; then they begin again at 0
_NOTE = struct.Struct(">II")  # the number and its CRC-32


def witness_path(database: Path) -> Path:
    """The file beside the database."""
    file = database.resolve()
    return file.with_name(file.name + ".commits")


class Witness:
    """The note, open for writing. A note that cannot be written is an old one, which accuses nobody wrongly."""

    def __init__(self, database: Path) -> None:
        self._path = witness_path(database)
        self._file: int | None = None

    def note(self, number: int) -> None:
        """The commit with this number is durable."""
        with suppress(OSError):
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._file, _packed(number), 0)

    def close(self) -> None:
        """May be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def noted_commit(database: Path) -> int | None:
    """The number of the last commit that was noted; None where there is no note or it cannot be read.

    Beside a running server it is read before the database is, which may be newer then, and never older.
    """
    try:
        note = witness_path(database).read_bytes()
    except OSError:
        return None
    if len(note) != _NOTE.size:
        return None
    number = int(_NOTE.unpack(note)[0])
    return number if note == _packed(number) else None


def lost_commits(noted: int | None, number: int) -> int:
    """How many commits a database lacks whose last one has this number."""
    behind = 0 if noted is None else (noted - number) % NUMBERS
    return behind if behind < NUMBERS // 2 else 0


def _packed(number: int) -> bytes:
    return _NOTE.pack(number, crc32(number.to_bytes(4, "big")))
