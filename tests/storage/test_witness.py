"""The note of the last commit, beside the database (`core.storage.witness`)."""

import stat
from pathlib import Path
from zlib import crc32

import pytest

from core.storage.witness import NUMBERS, Witness, lost_commits, noted_commit, witness_path


def test_the_last_number_noted_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    assert noted_commit(path) is None
    witness = Witness(path)
    assert not witness_path(path).exists(), "nothing was noted yet"
    for number in (1, 2, NUMBERS - 1, 7):
        witness.note(number)
        assert noted_commit(path) == number
    witness.close()
    witness.close()
    assert noted_commit(path) == 7
    assert stat.S_IMODE(witness_path(path).stat().st_mode) == 0o600
    witness.note(8)
    witness.close()
    assert noted_commit(path) == 8


def test_a_note_of_an_earlier_program_is_read(tmp_path: Path) -> None:
    """The number and its CRC-32, four bytes each."""
    path = tmp_path / "tasks.db"
    witness = Witness(path)
    witness.note(5)
    witness.close()
    note = b"\0\0\0\5" + crc32(b"\0\0\0\5").to_bytes(4, "big")
    assert (tmp_path / "tasks.db.commits").read_bytes() == note


def test_the_note_lies_beside_the_file_that_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "data" / "tasks.db")
    assert witness_path(tmp_path / "link.db") == tmp_path.resolve() / "data" / "tasks.db.commits"


@pytest.mark.parametrize("harm", [lambda note: note[:-1], lambda note: note + b"x", lambda note: b"\1" + note[1:]])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, harm: object) -> None:
    path = tmp_path / "tasks.db"
    witness = Witness(path)
    witness.note(5)
    witness.close()
    note = witness_path(path)
    note.write_bytes(harm(note.read_bytes()))  # type: ignore[operator]
    assert noted_commit(path) is None


def test_a_note_that_cannot_be_written_hinders_nobody(tmp_path: Path) -> None:
    witness = Witness(tmp_path / "no such folder" / "tasks.db")
    witness.note(1)
    witness.close()


@pytest.mark.parametrize(
    ("noted", "number", "lost"),
    [
        (None, 5, 0),
        (5, 5, 0),
        (8, 5, 3),
        (5, 8, 0),  # the note was not synced: it may be old
        (0, NUMBERS - 2, 2),  # the numbers began again in between
        (NUMBERS - 2, 0, 0),
        (NUMBERS // 2 - 1, 0, NUMBERS // 2 - 1),
        (NUMBERS // 2, 0, 0),
    ],
)
def test_only_a_note_that_is_ahead_tells_of_lost_commits(noted: int | None, number: int, lost: int) -> None:
    assert lost_commits(noted, number) == lost
