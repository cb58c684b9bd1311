"""The note of the last commit, beside the database (`core.storage.sqlite.commit_marker`)."""

import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from zlib import crc32

import pytest

from core.storage.sqlite.commit_marker import NUMBERS, CommitMarker, Note, marker_path, noted_commit


def test_the_last_number_noted_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    assert noted_commit(path) is None
    marker = CommitMarker(path)
    assert not marker_path(path).exists(), "nothing was noted yet"
    for note in (Note(1), Note(2, "a long name \xe4", 7), Note(NUMBERS - 1), Note(2, "t", 2**40), Note(7)):
        marker.note(note.number, note.tree_id, note.version)
        assert noted_commit(path) == note
    marker.close()
    marker.close()
    assert noted_commit(path) == Note(7)
    assert stat.S_IMODE(marker_path(path).stat().st_mode) == 0o600
    marker.note(8)
    marker.close()
    assert noted_commit(path) == Note(8)


def test_a_note_has_the_bytes_by_which_the_next_program_reads_it(tmp_path: Path) -> None:
    """A checksum of the rest, the number, the version, the length of the id, and the id."""
    path = tmp_path / "tasks.db"
    marker = CommitMarker(path)
    marker.note(5, "t", 3)
    marker.close()
    rest = b"\0\0\0\5" + b"\0\0\0\0\0\0\0\3" + b"\0\1" + b"t"
    assert (tmp_path / "tasks.db.commits").read_bytes() == crc32(rest).to_bytes(4, "big") + rest


def test_the_note_lies_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "data" / "tasks.db")
    assert marker_path(tmp_path / "link.db") == tmp_path.resolve() / "data" / "tasks.db.commits"


@pytest.mark.parametrize("harm", [lambda note: note[:-1], lambda note: note[:5], lambda note: b"\1" + note[1:]])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, harm: object) -> None:
    path = tmp_path / "tasks.db"
    marker = CommitMarker(path)
    marker.note(5, "t", 1)
    marker.close()
    note = marker_path(path)
    note.write_bytes(harm(note.read_bytes()))  # type: ignore[operator]
    assert noted_commit(path) is None


def test_a_note_that_cannot_be_written_hinders_nobody(tmp_path: Path) -> None:
    """The commit that it follows is durable already: to fail now would deny it. The next one is tried again."""
    path = tmp_path / "not yet there" / "tasks.db"
    marker = CommitMarker(path)
    marker.note(1)
    assert noted_commit(path) is None
    path.parent.mkdir()
    marker.note(2)
    marker.close()
    assert noted_commit(path) == Note(2)


@pytest.mark.parametrize(
    ("noted", "number", "is_missed"),
    [
        (5, 5, False),
        (8, 5, True),
        (5, 8, False),  # the note was not synced: it may be old
        (0, NUMBERS - 2, True),  # the numbers began again in between
        (NUMBERS - 2, 0, False),
        (NUMBERS // 2 - 1, 0, True),
        (NUMBERS // 2, 0, False),
    ],
)
def test_only_a_number_that_is_ahead_tells_of_lost_commits(noted: int, number: int, is_missed: bool) -> None:
    with database(number) as connection:
        assert Note(noted).is_missed_in(connection) is is_missed


@pytest.mark.parametrize(
    ("note", "is_missed"),
    [
        (Note(5, "t", 6), False),
        (Note(5, "t", 7), False),
        (Note(5, "t", 8), True),
        (Note(5, "gone", 1), True),
        (Note(4, "gone", 1), False),  # a later commit, which was not noted any more, may have removed it
        (Note(6, "t", 7), True),
    ],
)
def test_a_tree_that_is_older_than_noted_tells_of_lost_commits(note: Note, is_missed: bool) -> None:
    with database(5) as connection:
        assert note.is_missed_in(connection) is is_missed


@contextmanager
def database(number: int) -> Iterator[sqlite3.Connection]:
    """One with the tree `t` at version 7."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE trees (id, version)")
        connection.execute("INSERT INTO trees VALUES ('t', 7)")
        connection.execute(f"PRAGMA user_version = {number}")
        yield connection
