"""Tests of what reads a row: a damaged one is an error of the storage, whatever its columns hold."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from core.model.errors import StorageError
from core.storage.base import Document
from core.storage.codec import (
    document_row,
    event_row,
    head_row,
    read_bare_head,
    read_document,
    read_event,
    read_head,
    read_node,
    read_task,
    task_row,
)
from core.storage.retire import Compaction, compaction_row, read_compaction, read_ended
from tests.core.storage.samples import created

APPEND = created("tree", 2)
HEAD = head_row(APPEND.head)
TASK = task_row(APPEND.tasks[0])
EVENT = event_row(APPEND.events[0])
COMPACTION = compaction_row(Compaction("tree", 3, 1, is_dropped=True))
READERS: dict[str, tuple[Callable[[Any], Any], Sequence[Any]]] = {
    "task": (read_task, (TASK[0], TASK[4], *TASK[9:13])),
    "head": (read_head, (*HEAD[:2], *HEAD[10:14])),
    "bare head": (read_bare_head, (*HEAD[:2], *HEAD[10:12])),
    "event": (read_event, (*EVENT[:2], *EVENT[-2:])),
    "document": (read_document, document_row(Document(kind="k", id="d", owner="o", tree_id="t", at=1.0, body=b"{}"))),
    "compaction": (read_compaction, COMPACTION),
    "ended": (read_ended, (*HEAD[:2], *HEAD[10:12], *COMPACTION)),
}
OTHERS = (None, "note0", "", b"\xff\x00", b"", 1.5, float("inf"), -1, 2**63 - 1)  # what SQLite may give instead


@pytest.mark.parametrize("kind", READERS)
def test_a_whole_row_is_read(kind: str) -> None:
    read, row = READERS[kind]
    assert read(row)


@pytest.mark.parametrize(("kind", "column"), [(kind, n) for kind, (_, row) in READERS.items() for n in range(len(row))])
def test_a_column_of_any_type_is_damage_that_is_told(kind: str, column: int) -> None:
    """Found by damage to pages: text where a flag was stopped the check of the file with a ValueError."""
    read, row = READERS[kind]
    for other in OTHERS:
        damaged = [*row[:column], other, *row[column + 1 :]]
        if kind == "ended" and column == 4 and other is None:  # a tree without a compaction
            continue
        with pytest.raises(StorageError, match="corrupt"):
            read(damaged)


@pytest.mark.parametrize("other", OTHERS)
def test_a_node_with_a_status_that_there_is_not_is_damage(other: object) -> None:
    with pytest.raises(StorageError, match="corrupt"):
        read_node(("t", "work", other, None))
