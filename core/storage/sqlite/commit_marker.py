"""What the last commit of a database brought, noted beside it: a log that lost its end is found out at the next start.

SQLite takes its log up to the first frame that does not match its checksum, and cannot tell damage there from a commit
that a power cut left unfinished: acknowledged commits would be gone without a word. So before a commit is acknowledged
it is noted here what it can be known by. Of one with appends that is a tree and its version, which is in the database
anyway; each other one has a number there (`user_version`), which costs it a page more (decision 0012). The note is
never synced, so after a power cut it may be older than the database, but never newer: only lost commits make it newer.
"""

import os
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path
from zlib import crc32

from msgspec import Struct

NUMBERS = 2**31  # of commits without appends; then they begin again at 0
_HEAD = struct.Struct(">IIQH")  # the CRC-32 of what follows it, and the fields of a Note, with the length of the id


class Note(Struct, frozen=True):
    """How the last commit can be told: the number of the last one without appends, and the last append after it."""

    number: int
    tree_id: str = ""  # empty: none since
    version: int = 0

    def is_missed_in(self, connection: sqlite3.Connection) -> bool:
        """Whether the database lacks the commit. A later one than was noted is none that it lacks."""
        (number,) = connection.execute("PRAGMA user_version").fetchone()
        behind = (self.number - number) % NUMBERS
        if behind or not self.tree_id:
            return bool(0 < behind < NUMBERS // 2)
        reached = "SELECT 1 FROM trees WHERE id = ? AND version >= ?"
        return connection.execute(reached, (self.tree_id, self.version)).fetchone() is None


def marker_path(database: Path) -> Path:
    """The file beside the database."""
    file = database.resolve()
    return file.with_name(file.name + ".commits")


class CommitMarker:
    """The note, open for writing. A note that cannot be written is an old one, which raises no false alarm."""

    def __init__(self, database: Path) -> None:
        self._path = marker_path(database)
        self._file: int | None = None

    def note(self, number: int, tree_id: str = "", version: int = 0) -> None:
        """The commit is durable that brought the tree to this version, or has the number."""
        with suppress(OSError):
            if self._file is None:
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.pwrite(self._file, _packed(number, tree_id, version), 0)

    def close(self) -> None:
        """May be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def noted_commit(database: Path) -> Note | None:
    """What was noted last; None where there is no note or it cannot be read.

    Beside a running server it is read before the database is, which may be newer then, and never older.
    """
    try:
        written = marker_path(database).read_bytes()
        _, number, version, length = _HEAD.unpack_from(written)
        tree_id = written[_HEAD.size : _HEAD.size + length].decode()
    except (OSError, struct.error, UnicodeDecodeError):
        return None
    # What follows is left of a longer one.
    return Note(number, tree_id, version) if written.startswith(_packed(number, tree_id, version)) else None


def _packed(number: int, tree_id: str, version: int) -> bytes:
    name = tree_id.encode()
    rest = _HEAD.pack(0, number, version, len(name))[4:] + name
    return crc32(rest).to_bytes(4, "big") + rest
